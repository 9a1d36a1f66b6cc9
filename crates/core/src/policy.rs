//! What a provider adds to how gateways serve an API: an ordered list of policies.
//!
//! Each kind is a type of its own in a file of its own, with its keys, bounds and defaults; [`KINDS`] lists them. A list
//! has one step that is no policy: `authorise`, where the gateway finds out who calls, what that costs, and whether it
//! may. What stands in front of it sees the call as the client sent it; what stands behind sees only calls that show
//! credentials. Nothing takes that step out. Where it is not written, it stands behind the policies that have to be in
//! front.
//!
//! Here is what policies decide, not what is done about it: that is the gateway's.

pub mod access_log;
pub mod anonymous;
pub mod claim_check;
pub mod condition;
pub mod cors;
pub mod edge_limits;
pub mod form;
pub mod headers;
pub mod ip_check;
pub mod maintenance;
pub mod payload_limits;
pub mod regex;
pub mod retry;
pub mod routing;
pub mod status_overwrite;
pub mod template;
pub mod upstream_pool;
pub mod upstream_timeouts;
pub mod upstream_tls;
mod upstream_url;
pub mod url_rewriting;

use std::cell::RefCell;
use std::collections::BTreeMap;

use self::access_log::AccessLog;
use self::anonymous::Anonymous;
use self::claim_check::ClaimCheck;
use self::condition::{Condition, Subject};
use self::cors::Cors;
use self::edge_limits::EdgeLimits;
use self::form::{Form, Problem, Problems, Shape, Step, Value};
use self::headers::{HeaderChange, Headers};
use self::ip_check::IpCheck;
use self::maintenance::Maintenance;
use self::payload_limits::PayloadLimits;
use self::retry::Retry;
use self::routing::Routing;
use self::status_overwrite::StatusOverwrite;
use self::upstream_pool::UpstreamPool;
use self::upstream_timeouts::Timeouts;
use self::upstream_tls::UpstreamTls;
use self::url_rewriting::UrlRewriting;
use crate::credentials::CredentialKind;
use crate::extract::same_header;
use crate::id::ApplicationId;
use crate::proxy::Proxy;

/// Most steps of one list.
pub const STEPS_MAX: usize = 64;

/// The step that is no policy.
pub const AUTHORISE: &str = "authorise";

/// A policy with its settings.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each type says what it is")]
pub enum Policy {
    AccessLog(AccessLog),
    Anonymous(Anonymous),
    ClaimCheck(ClaimCheck),
    Cors(Cors),
    EdgeLimits(EdgeLimits),
    Headers(Headers),
    IpCheck(IpCheck),
    Maintenance(Maintenance),
    PayloadLimits(PayloadLimits),
    Retry(Retry),
    Routing(Routing),
    StatusOverwrite(StatusOverwrite),
    UpstreamPool(UpstreamPool),
    UpstreamTimeouts(Timeouts),
    UpstreamTls(UpstreamTls),
    UrlRewriting(UrlRewriting),
}

/// A kind of policy.
#[derive(Debug)]
pub struct Kind {
    /// As lists name it.
    pub name: &'static str,
    /// What it does, in a sentence or two.
    pub meaning: &'static str,
    /// Where it has to stand.
    pub place: Place,
    /// Whether one list may have several.
    pub repeats: Repeats,
    /// Whether it may be for some calls only.
    pub has_conditions: bool,
    read: fn(&Form<'_>) -> Policy,
}

/// Where a policy has to stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In front of `authorise`.
    Front,
    /// Behind it.
    Behind,
    /// Where the provider likes.
    Either,
}

/// Whether one list may have several of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeats {
    /// As many as steps.
    Freely,
    /// One.
    Never,
}

/// All kinds, by name.
pub const KINDS: [Kind; 16] = [
    AccessLog::KIND,
    Anonymous::KIND,
    ClaimCheck::KIND,
    Cors::KIND,
    EdgeLimits::KIND,
    Headers::KIND,
    IpCheck::KIND,
    Maintenance::KIND,
    PayloadLimits::KIND,
    Retry::KIND,
    Routing::KIND,
    StatusOverwrite::KIND,
    UpstreamPool::KIND,
    Timeouts::KIND,
    UpstreamTls::KIND,
    UrlRewriting::KIND,
];

impl Kind {
    /// The kind of a name.
    pub fn find(name: &str) -> Option<&'static Self> {
        static ALL: [Kind; 16] = KINDS;
        ALL.iter().find(|kind| kind.name == name)
    }

    /// All keys of its settings, those that every policy has among them.
    pub fn shape(&self) -> Shape {
        let form = Form::blank();
        read_common(&form, self);
        (self.read)(&form);
        form.into_shape()
    }
}

/// A policy in its place in the list.
#[derive(Debug, Clone)]
pub struct ChainStep {
    /// What it does.
    pub policy: Policy,
    /// Its kind's name.
    pub name: &'static str,
    /// Its place in the list as written.
    pub written_at: usize,
    when: Option<Condition>,
    unless: Option<Condition>,
}

impl ChainStep {
    /// Whether it is for a call.
    pub fn applies(&self, subject: &Subject<'_>) -> bool {
        self.when.as_ref().is_none_or(|when| when.holds(subject))
            && !self.unless.as_ref().is_some_and(|unless| unless.holds(subject))
    }

    /// Whether it is for all calls.
    pub fn has_no_condition(&self) -> bool {
        self.when.is_none() && self.unless.is_none()
    }

    /// The claims that it asks for.
    fn claims(&self) -> Vec<&str> {
        let conditions = self.when.iter().chain(&self.unless);
        let mut claims: Vec<&str> =
            conditions.flat_map(|when| &when.claims).map(|test| test.name.as_str()).collect();
        match &self.policy {
            Policy::ClaimCheck(check) => claims.extend(check.claims()),
            Policy::Routing(routing) => {
                let tests = routing.routes.iter().flat_map(|route| &route.when.claims);
                claims.extend(tests.map(|test| test.name.as_str()));
            }
            Policy::Headers(headers) => {
                claims.extend(headers.request.iter().flat_map(|change| change.value.claims()));
            }
            Policy::UrlRewriting(rewriting) => {
                claims.extend(rewriting.query.iter().flat_map(|change| change.value.claims()));
            }
            _ => {}
        }
        claims
    }
}

/// An ordered list of policies that can be carried out.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    written: Vec<Value>,
    steps: Vec<ChainStep>,
    /// How many of them stand in front of `authorise`.
    front: usize,
}

/// What a list is checked against: the service that it is for.
pub struct ServiceOf<'a> {
    /// How its applications prove themselves.
    pub credentials: CredentialKind,
    /// The names that carry credentials and the secret token.
    pub secret_names: Vec<&'a str>,
    /// Whether it has a backend of its own.
    pub has_api_backend: bool,
}

impl<'a> ServiceOf<'a> {
    /// What is said of a service's policies by how it is served.
    pub fn new(credentials: CredentialKind, proxy: &'a Proxy) -> Self {
        let names = &proxy.credential_names;
        let mut secret_names: Vec<&str> =
            [&names.user_key, &names.app_id, &names.app_key, &names.access_token]
                .map(String::as_str)
                .to_vec();
        secret_names.extend(["authorization", proxy.secret_token_header.as_str()]);
        Self { credentials, secret_names, has_api_backend: proxy.api_backend.is_some() }
    }
}

impl Chain {
    /// Reads a list: tables of settings with the name of their `policy`.
    ///
    /// # Errors
    /// Everything that is wrong; paths begin with the place in the list.
    pub fn read(entries: &[Value]) -> Result<Self, Vec<Problem>> {
        let problems: Problems = RefCell::default();
        let mut steps = Vec::with_capacity(entries.len());
        let mut authorise_at = None;
        for (at, entry) in entries.iter().enumerate() {
            match read_entry(entry, at, &problems) {
                Some(Entry::Step(step)) => steps.push(*step),
                Some(Entry::Authorise) if authorise_at.is_none() => authorise_at = Some(steps.len()),
                Some(Entry::Authorise) => {
                    tell(&problems, at, "authorise stands here a second time: take it out")
                }
                None => {}
            }
        }
        if entries.len() > STEPS_MAX {
            tell(&problems, STEPS_MAX, &format!("policies holds more than {STEPS_MAX}"));
        }
        let front = match authorise_at {
            Some(at) => at,
            None => {
                steps.sort_by_key(|step: &ChainStep| kind_of(step).place != Place::Front);
                steps.iter().filter(|step| kind_of(step).place == Place::Front).count()
            }
        };
        check_order(&steps, front, &problems);
        let problems = problems.into_inner();
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self { written: entries.to_vec(), steps, front })
    }

    /// The list as it was written.
    pub fn written(&self) -> &[Value] {
        &self.written
    }

    /// All policies in the order in which they are carried out.
    pub fn steps(&self) -> &[ChainStep] {
        &self.steps
    }

    /// How many of them stand in front of `authorise`.
    pub fn front(&self) -> usize {
        self.front
    }

    /// The application whose calls those without credentials are.
    pub fn anonymous(&self) -> Option<&ApplicationId> {
        self.steps.iter().find_map(|step| match &step.policy {
            Policy::Anonymous(anonymous) => anonymous.application.as_ref(),
            _ => None,
        })
    }

    /// The claims that policies ask for.
    pub fn claims(&self) -> Vec<String> {
        let mut claims: Vec<String> =
            self.steps.iter().flat_map(ChainStep::claims).map(str::to_owned).collect();
        claims.sort_unstable();
        claims.dedup();
        claims
    }

    /// What of it cannot be, for the service that it is for; paths begin with the place in the list.
    pub fn problems_for(&self, service: &ServiceOf<'_>) -> Vec<Problem> {
        let problems: Problems = RefCell::default();
        let is_secret = |name: &str| {
            service.secret_names.iter().any(|known| same_header(name.as_bytes(), known.as_bytes()))
        };
        let wrong = |step: &ChainStep, message: String| tell(&problems, step.written_at, &message);
        for step in &self.steps {
            if let Some(claim) =
                step.claims().first().filter(|_| service.credentials != CredentialKind::ClientId)
            {
                wrong(
                    step,
                    format!(
                        "asks for the claim {claim:?}: only calls of services with credentials = \"client_id\" have a token"
                    ),
                );
            }
            let named: Vec<&str> = match &step.policy {
                Policy::Headers(headers) => headers.request.iter().flat_map(names_of).collect(),
                Policy::UrlRewriting(rewriting) => rewriting
                    .query
                    .iter()
                    .flat_map(|change| std::iter::once(change.name.as_str()).chain(change.value.arguments()))
                    .collect(),
                Policy::AccessLog(log) => log.headers.iter().map(String::as_str).collect(),
                _ => vec![],
            };
            if matches!(step.policy, Policy::UpstreamPool(_)) && !service.has_api_backend {
                wrong(
                    step,
                    "upstream_pool has no api_backend to spread: give the proxy one, for path and Host"
                        .to_owned(),
                );
            }
            if let Some(name) = named.into_iter().find(|name| is_secret(name)) {
                wrong(
                    step,
                    format!(
                        "names {name:?}, which carries credentials or the secret token: policies leave those alone (strip_credentials takes them out, anonymous does without)"
                    ),
                );
            }
        }
        problems.into_inner()
    }
}

fn names_of(change: &HeaderChange) -> impl Iterator<Item = &str> {
    std::iter::once(change.name.as_str()).chain(change.value.headers()).chain(change.value.arguments())
}

enum Entry {
    Step(Box<ChainStep>),
    Authorise,
}

fn tell(problems: &Problems, at: usize, message: &str) {
    let path = vec![Step::At(at)];
    problems.borrow_mut().push(Problem { path, message: message.to_owned(), unknown: None });
}

fn read_entry(entry: &Value, at: usize, problems: &Problems) -> Option<Entry> {
    let name = match entry {
        Value::Table(table) => table.get("policy"),
        _ => {
            tell(problems, at, "policies must be a list of tables");
            return None;
        }
    };
    let Value::Table(table) = entry else { return None };
    let unusable = |message: String, unknown: Option<(String, Vec<String>)>| {
        let path = vec![Step::At(at), Step::Key("policy".to_owned())];
        problems.borrow_mut().push(Problem { path, message, unknown });
    };
    match name {
        None => tell(problems, at, "policy is missing: the name of one"),
        Some(Value::Text(name)) if name == AUTHORISE => {
            if table.len() > 1 {
                tell(problems, at, "authorise has no settings: they belong to the proxy");
            }
            return Some(Entry::Authorise);
        }
        Some(Value::Text(name)) => match Kind::find(name) {
            Some(kind) => return Some(Entry::Step(Box::new(read_step(table, kind, at, problems)))),
            None => {
                let known = KINDS.iter().map(|kind| kind.name.to_owned()).chain([AUTHORISE.to_owned()]);
                unusable(format!("there is no policy {name:?}"), Some((name.clone(), known.collect())));
            }
        },
        Some(_) => unusable("policy must be text".to_owned(), None),
    }
    None
}

fn read_step(
    table: &BTreeMap<String, Value>,
    kind: &'static Kind,
    at: usize,
    problems: &Problems,
) -> ChainStep {
    let form = Form::new(table, vec![Step::At(at)], problems);
    let (when, unless) = read_common(&form, kind);
    let policy = (kind.read)(&form);
    form.finish();
    ChainStep { policy, name: kind.name, written_at: at, when, unless }
}

/// What every policy has.
fn read_common(form: &Form<'_>, kind: &Kind) -> (Option<Condition>, Option<Condition>) {
    form.text("policy", "Its name.", "word");
    form.require(&["policy"]);
    if !kind.has_conditions {
        return (None, None);
    }
    let when = form.table("when", "Which calls it is for; without, all.", Condition::read);
    let unless = form.table("unless", "Which calls it is not for.", Condition::read);
    (when, unless)
}

fn kind_of(step: &ChainStep) -> &'static Kind {
    Kind::find(step.name).expect("steps have the name of a kind")
}

fn check_order(steps: &[ChainStep], front: usize, problems: &Problems) {
    for (place, step) in steps.iter().enumerate() {
        let (kind, is_front) = (kind_of(step), place < front);
        let wrong = |message: String| tell(problems, step.written_at, &message);
        match kind.place {
            Place::Front if !is_front => wrong(format!(
                "{} stands behind authorise, where it comes too late: move it in front",
                step.name
            )),
            Place::Behind if is_front => wrong(format!(
                "{} stands in front of authorise, where nobody knows yet who calls: move it behind",
                step.name
            )),
            _ => {}
        }
        if is_front && let Some(claim) = step.claims().first() {
            wrong(format!(
                "{} asks for the claim {claim:?} in front of authorise, where no token has been checked: move it behind",
                step.name
            ));
        }
        if is_front
            && let Policy::EdgeLimits(edge) = &step.policy
            && edge.limits.iter().any(|limit| !limit.per.is_known_before())
        {
            wrong("edge_limits per application or client stands in front of authorise, where nobody knows yet who calls: move it behind".to_owned());
        }
        let is_second = steps[..place].iter().any(|other| other.name == step.name);
        if is_second && kind.repeats == Repeats::Never {
            wrong(format!("{} stands here a second time: a list may have one", step.name));
        }
    }
}

#[cfg(test)]
mod tests;
