//! What policies make of one call.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::uri::PathAndQuery;
use weir_core::Credentials;
use weir_core::arguments::Arguments;
use weir_core::extract::same_header;
use weir_core::path::RequestPath;
use weir_core::policy::access_log::Lines;
use weir_core::policy::condition::{ClaimValues, Subject};
use weir_core::policy::edge_limits::Per;
use weir_core::policy::headers::{Change, HeaderChange, Headers};
use weir_core::policy::retry::Retry;
use weir_core::policy::template::Known;
use weir_core::policy::url_rewriting::{PATH_BYTES_MAX, QUERY_BYTES_MAX, UrlRewriting};
use weir_core::policy::{ChainStep, Policy};
use weir_core::proxy::UpstreamTimeouts;

use super::cors::{self, Page};
use super::edge::{EdgeTable, TooMuch};
use super::retry::{BODY_BYTES_MAX, Budget, is_idempotent};
use super::{Attempts, Held, Policies, Ready};
use crate::access::{Lasting, Logged};
use crate::body::{ClientBody, ReplyBody};
use crate::fields::{self, Fields};
use crate::form::declared_length;
use crate::message::{Reply, RequestHead};
use crate::reply::{PolicyRefusal, Refusal};
use crate::service::Service;
use crate::upstream::Upstream;

/// Stands in values for what is known only later; nothing else in them is a control character.
const APPLICATION: u8 = 0;
/// Most that is written into the headers of a request.
const HEADERS_BYTES_MAX: usize = 32 << 10;
/// Longest value of a header in the log.
const LOGGED_BYTES_MAX: usize = 256;

/// What policies make of one call.
pub(crate) struct Passing {
    service: Arc<Service>,
    /// Which steps apply, a bit for each.
    applies: u64,
    /// How many steps have been looked at.
    reached: usize,
    /// Whether the call is explained, not made: nothing is taken.
    is_asked: bool,
    address: IpAddr,
    page: Option<Page>,
    /// What its token says of what is asked.
    pub(crate) claims: Option<Arc<ClaimValues>>,
    /// Which route of which step it takes.
    routed: Option<(usize, usize)>,
    pub(crate) timeouts: UpstreamTimeouts,
    pub(crate) request_bytes_max: u64,
    pub(crate) response_bytes_max: Option<u64>,
    /// What its headers become, in order; [`APPLICATION`] stands for whose call it is.
    changes: Vec<(Change, String, Vec<u8>)>,
    /// The limits behind authorisation, with the caller's number in each.
    counted: Vec<(Arc<EdgeTable>, u64)>,
    /// What edge limits have taken.
    held: Vec<Held>,
    logged: Logged,
    /// Whether the upstream has answered.
    pub(crate) is_answered: bool,
}

/// A request as policies see it at some moment.
#[derive(Clone, Copy)]
pub(crate) struct Caller<'a> {
    pub(crate) head: &'a RequestHead,
    /// Percent-decoded.
    pub(crate) path: &'a [u8],
    pub(crate) query: Option<&'a str>,
    /// As the client wrote it.
    pub(crate) host: Option<&'a str>,
    /// As logs and the answer show it.
    pub(crate) request_id: &'a str,
}

impl Caller<'_> {
    fn with_subject<T>(&self, claims: Option<&ClaimValues>, look: impl FnOnce(&Subject<'_>) -> T) -> T {
        let arguments = Arguments { query: self.query.unwrap_or_default(), form: b"" };
        look(&Subject {
            method: self.head.method.as_str(),
            path: self.path,
            argument: &|name| arguments.last(name),
            header: &|name| self.head.fields.get(name),
            claims,
        })
    }
}

/// What comes of a request in front of authorisation.
pub(crate) enum Entered {
    /// It goes on, perhaps to another URL.
    Goes(Option<Box<Rewritten>>),
    /// It is answered.
    Answered(Box<Reply<ReplyBody>>),
}

/// A path and a query in the place of those that were sent.
pub(crate) struct Rewritten {
    path: String,
    query: Option<String>,
}

impl Rewritten {
    /// Reads them as a request's.
    ///
    /// # Errors
    /// When that is no path.
    pub(crate) fn read(&self) -> Result<(RequestPath<'_>, Option<&str>), Refusal> {
        // What follows a `?` would be a query that nobody has looked at.
        let is_short = self.query.as_ref().is_none_or(|query| query.len() <= QUERY_BYTES_MAX);
        let is_path = is_short && self.path.len() <= PATH_BYTES_MAX && !self.path.contains('?');
        let path = RequestPath::parse(&self.path).ok();
        let path = path.filter(|path| is_path && PathAndQuery::try_from(path.target.as_ref()).is_ok());
        let path = path.ok_or(Refusal::Policy(PolicyRefusal::Failed(UrlRewriting::NAME)))?;
        Ok((path, self.query.as_deref()))
    }
}

impl Passing {
    /// Of a call that comes from an address.
    pub(crate) fn new(
        service: &Arc<Service>,
        policies: &Policies,
        head: &RequestHead,
        address: IpAddr,
        is_asked: bool,
    ) -> Box<Self> {
        let cors = policies.chain.steps().iter().find_map(|step| match &step.policy {
            Policy::Cors(cors) => Some(cors),
            _ => None,
        });
        Box::new(Self {
            service: Arc::clone(service),
            applies: 0,
            reached: 0,
            is_asked,
            address,
            page: cors.and_then(|cors| Page::of(head, cors)),
            claims: None,
            routed: None,
            timeouts: service.proxy.timeouts,
            request_bytes_max: service.proxy.request_body_bytes_max,
            response_bytes_max: None,
            changes: vec![],
            counted: vec![],
            held: vec![],
            logged: Logged::default(),
            is_answered: false,
        })
    }

    /// The steps in front of authorisation.
    ///
    /// # Errors
    /// When one refuses the call.
    pub(crate) fn enter(
        &mut self,
        policies: &Policies,
        caller: Caller<'_>,
        target: &str,
    ) -> Result<Entered, Refusal> {
        let mut rewritten: Option<Box<Rewritten>> = None;
        for (at, step) in policies.chain.steps().iter().enumerate().take(policies.chain.front()) {
            let read = rewritten.as_ref().map(|url| url.read()).transpose()?;
            let (caller, target) = match &read {
                Some((path, query)) => {
                    (Caller { path: &path.decoded, query: *query, ..caller }, path.target.as_ref())
                }
                None => (caller, target),
            };
            if !self.reaches(at, step, caller) {
                continue;
            }
            match &step.policy {
                Policy::IpCheck(check) if !check.permits(self.address) => {
                    return Err(Refusal::Policy(PolicyRefusal::Address));
                }
                Policy::Maintenance(_) => {
                    let service = Arc::clone(&self.service);
                    return Err(Refusal::Policy(PolicyRefusal::Maintenance(service, at)));
                }
                Policy::Cors(_) => {
                    if let Some(reply) = self.page.as_ref().and_then(Page::preflight) {
                        return Ok(Entered::Answered(Box::new(reply)));
                    }
                }
                Policy::UrlRewriting(rewriting) => {
                    let url = self.rewrite(rewriting, caller, target)?;
                    drop(read);
                    rewritten = url.or(rewritten);
                }
                Policy::EdgeLimits(_) => {
                    for (table, number) in self.numbers(policies, at, caller, None) {
                        self.take(&table, number)?;
                    }
                }
                other => self.note(other, caller),
            }
        }
        Ok(Entered::Goes(rewritten))
    }

    /// The steps behind authorisation, as far as they need not wait for it. `credentials` are what is shown; `None`:
    /// nobody calls.
    ///
    /// # Errors
    /// When one refuses the call.
    pub(crate) fn behind(
        &mut self,
        policies: &Policies,
        caller: Caller<'_>,
        credentials: Option<&Credentials>,
    ) -> Result<(), Refusal> {
        for (at, step) in policies.chain.steps().iter().enumerate().skip(policies.chain.front()) {
            if !self.reaches(at, step, caller) {
                continue;
            }
            let claims = self.claims.as_deref();
            match &step.policy {
                Policy::ClaimCheck(check) => {
                    let judged = caller
                        .with_subject(claims, |subject| check.check(subject, claims).map_err(str::to_owned));
                    judged.map_err(|claim| {
                        Refusal::Policy(PolicyRefusal::Claim(Arc::clone(&self.service), claim))
                    })?;
                }
                Policy::Routing(routing) if self.routed.is_none() => {
                    let route = caller.with_subject(claims, |subject| routing.route(subject));
                    self.routed = route.map(|route| (at, route));
                }
                Policy::EdgeLimits(_) => {
                    // Only those who may call use anything up; but what would be refused is not even asked about.
                    for (table, number) in self.numbers(policies, at, caller, credentials) {
                        table.look(number).map_err(too_much)?;
                        self.counted.push((table, number));
                    }
                }
                Policy::Headers(headers) => self.render(headers, caller)?,
                other => self.note(other, caller),
            }
        }
        Ok(())
    }

    /// Whether a step is for the call.
    fn reaches(&mut self, at: usize, step: &ChainStep, caller: Caller<'_>) -> bool {
        self.reached = at + 1;
        let applies = step.has_no_condition()
            || caller.with_subject(self.claims.as_deref(), |subject| step.applies(subject));
        self.applies |= u64::from(applies) << at;
        applies
    }

    fn applies(&self, at: usize) -> bool {
        self.applies >> at & 1 == 1
    }

    /// What a policy that stands anywhere makes of the call.
    fn note(&mut self, policy: &Policy, caller: Caller<'_>) {
        match policy {
            Policy::PayloadLimits(limits) => {
                let request = limits.request_bytes_max.unwrap_or(u64::MAX);
                self.request_bytes_max = self.request_bytes_max.min(request);
                if let Some(max) = limits.response_bytes_max {
                    self.response_bytes_max = Some(self.response_bytes_max.unwrap_or(max).min(max));
                }
            }
            Policy::UpstreamTimeouts(timeouts) => self.timeouts = timeouts.over(self.timeouts),
            Policy::AccessLog(log) => self.logs(log.lines, &log.headers, &caller.head.fields),
            _ => {}
        }
    }

    /// What its headers become, but for whose call it is.
    fn render(&mut self, headers: &Headers, caller: Caller<'_>) -> Result<(), Refusal> {
        let rendered = caller.with_subject(self.claims.as_deref(), |subject| {
            let known = Known {
                subject,
                application: Some("\0"),
                client_address: self.address,
                request_id: caller.request_id,
                host: caller.host.unwrap_or_default(),
            };
            let render =
                |change: &HeaderChange| (change.change, change.name.clone(), change.value.render(&known));
            headers.request.iter().map(render).collect::<Vec<_>>()
        });
        self.changes.extend(rendered);
        let bytes: usize = self.changes.iter().map(|(_, _, value)| value.len()).sum();
        if bytes > HEADERS_BYTES_MAX {
            return Err(Refusal::Policy(PolicyRefusal::Failed(Headers::NAME)));
        }
        Ok(())
    }

    /// The tables of a step's limits, with the caller's number in each.
    fn numbers(
        &self,
        policies: &Policies,
        at: usize,
        caller: Caller<'_>,
        credentials: Option<&Credentials>,
    ) -> Vec<(Arc<EdgeTable>, u64)> {
        let Some(Ready::Edges(tables)) = policies.ready.get(at) else { return vec![] };
        let number = |table: &Arc<EdgeTable>| {
            let number = match (&table.limit().per, credentials) {
                (Per::Address, _) => table.caller(self.network()),
                (Per::Header(name), _) => table.caller(caller.head.fields.get(name)),
                (Per::Service, _) => table.caller(()),
                (Per::Client, credentials) => table.caller(shown(credentials?)),
                (Per::Application, credentials) => table.caller(shown(credentials?).0),
            };
            Some((Arc::clone(table), number))
        };
        tables.iter().filter_map(number).collect()
    }

    /// The address; of IPv6 what a customer of a provider usually has to himself.
    fn network(&self) -> u64 {
        match self.address {
            IpAddr::V4(address) => u32::from(address).into(),
            IpAddr::V6(address) => u64::try_from(u128::from(address) >> 64).unwrap_or_default(),
        }
    }

    fn take(&mut self, table: &Arc<EdgeTable>, caller: u64) -> Result<(), Refusal> {
        if self.is_asked {
            return table.look(caller).map_err(too_much);
        }
        match table.take(caller) {
            Ok(held) => {
                self.held.push(held);
                Ok(())
            }
            Err(why) => {
                // What other limits have counted of it did not happen.
                std::mem::take(&mut self.held).into_iter().for_each(Held::put_back);
                Err(too_much(why))
            }
        }
    }

    fn logs(&mut self, lines: Lines, headers: &[String], fields: &Fields) {
        let logged = &mut self.logged;
        if lines != Lines::Sampled {
            logged.lines = lines;
        }
        for name in headers {
            if let Some(value) = fields.get(name) {
                let value = String::from_utf8_lossy(&value[..value.len().min(LOGGED_BYTES_MAX)]).into_owned();
                logged.headers.push((name.clone(), value));
            }
        }
    }

    fn rewrite(
        &self,
        rewriting: &UrlRewriting,
        caller: Caller<'_>,
        target: &str,
    ) -> Result<Option<Box<Rewritten>>, Refusal> {
        let path = rewriting.path(caller.head.method.as_str(), target);
        let query = caller.with_subject(self.claims.as_deref(), |subject| {
            let known = Known {
                subject,
                application: None,
                client_address: self.address,
                request_id: caller.request_id,
                host: caller.host.unwrap_or_default(),
            };
            rewriting.query(caller.query, &known)
        });
        if path.is_none() && query.is_none() {
            return Ok(None);
        }
        let query = match query {
            Some(query) => Some(query).filter(|query| !query.is_empty()),
            None => caller.query.map(str::to_owned),
        };
        let url = Rewritten { path: path.unwrap_or_else(|| target.to_owned()), query };
        url.read()?;
        Ok(Some(Box::new(url)))
    }

    /// The path and query that the upstream gets, where they differ from those of the call. `target` is the path behind
    /// the mount of its backend.
    ///
    /// # Errors
    /// When what comes of it is no path.
    pub(crate) fn for_upstream(
        &self,
        policies: &Policies,
        caller: Caller<'_>,
        target: &str,
    ) -> Result<Option<Box<Rewritten>>, Refusal> {
        let mut rewritten: Option<Box<Rewritten>> = None;
        let behind = policies.chain.steps().iter().enumerate().skip(policies.chain.front());
        for (_, step) in behind.filter(|(at, _)| self.applies(*at)) {
            let Policy::UrlRewriting(rewriting) = &step.policy else { continue };
            let (target, query) = match &rewritten {
                Some(url) => (url.path.as_str(), url.query.as_deref()),
                None => (target, caller.query),
            };
            let url = self.rewrite(rewriting, Caller { query, ..caller }, target)?;
            rewritten = url.or(rewritten);
        }
        Ok(rewritten)
    }

    /// Whose call it is where it shows no credentials.
    pub(crate) fn anonymous<'p>(&self, policies: &'p Policies) -> Option<&'p Credentials> {
        policies.anonymous.as_ref().filter(|(at, _)| self.applies(*at)).map(|(_, credentials)| credentials)
    }

    /// Where the call goes, if that is elsewhere than it would go without policies.
    pub(crate) fn upstream<'p>(&self, policies: &'p Policies) -> Option<&'p Upstream> {
        let (step, route) = self.routed?;
        match policies.ready.get(step) {
            Some(Ready::Routes(routes)) => routes.get(route),
            _ => None,
        }
    }

    /// The call is counted: the limits behind authorisation hold, and it is known whose it is.
    ///
    /// # Errors
    /// When it is too much after all.
    pub(crate) fn admitted(&mut self, application: Option<&str>) -> Result<(), Refusal> {
        for (table, number) in std::mem::take(&mut self.counted) {
            self.take(&table, number)?;
        }
        for (_, _, value) in &mut self.changes {
            if value.contains(&APPLICATION) {
                let parts = value.split(|byte| *byte == APPLICATION);
                *value = parts.collect::<Vec<_>>().join(application.unwrap_or_default().as_bytes());
            }
        }
        Ok(())
    }

    /// Changes the headers that go upstream.
    pub(crate) fn change_headers(&self, fields: &mut Fields) {
        for (change, name, value) in &self.changes {
            change_header(fields, *change, name, value);
        }
    }

    /// How often it may be sent; `None`: once.
    pub(crate) fn attempts(&self, policies: &Policies, head: &RequestHead) -> Option<Box<Attempts>> {
        let (policy, budget) = self.retry(policies).filter(|_| is_idempotent(&head.method))?;
        Some(Box::new(Attempts::new(policy, budget)))
    }

    fn retry<'p>(&self, policies: &'p Policies) -> Option<(&'p Retry, &'p Arc<Budget>)> {
        let steps = policies.chain.steps().iter().zip(&policies.ready).enumerate();
        steps.filter(|(at, _)| self.applies(*at)).find_map(|(_, found)| match found {
            (ChainStep { policy: Policy::Retry(policy), .. }, Ready::Retry(budget)) => Some((policy, budget)),
            _ => None,
        })
    }

    /// Whether its body is to be read before it is sent, so that it can be sent again.
    pub(crate) fn wants_body(&self, policies: &Policies, head: &RequestHead, body: &ClientBody) -> bool {
        !http_body::Body::is_end_stream(body)
            && declared_length(&head.fields).is_some_and(|length| length <= BODY_BYTES_MAX)
            && is_idempotent(&head.method)
            && self.retry(policies).is_some()
    }

    /// Changes what the client is told; whatever it was that ended the call.
    pub(crate) fn answer(&self, reply: &mut Reply<ReplyBody>) {
        let Some(policies) = &self.service.policies else { return };
        for (at, step) in policies.chain.steps().iter().enumerate() {
            // What ended before it came to conditions is told what has none.
            let is_for_it = self.applies(at) || (at >= self.reached && step.has_no_condition());
            match &step.policy {
                Policy::Headers(headers) if is_for_it => {
                    for change in &headers.response {
                        let value = change.value.plain().unwrap_or_default();
                        change_header(&mut reply.fields, change.change, &change.name, value.as_bytes());
                    }
                }
                Policy::StatusOverwrite(overwrite) if is_for_it && self.is_answered => {
                    let told = overwrite.told(reply.status.as_u16());
                    let told = told.and_then(|status| StatusCode::from_u16(status).ok());
                    reply.status = told.filter(|_| !reply.status.is_informational()).unwrap_or(reply.status);
                }
                Policy::Cors(cors) => cors::write(self.page.as_ref(), cors, &mut reply.fields),
                _ => {}
            }
        }
    }

    /// What is to last as long as the answer, and what is logged.
    pub(crate) fn into_lasting(self) -> Lasting {
        Lasting { logged: self.logged, held: self.held }
    }

    /// The names of the policies that apply, in their order.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        let Some(policies) = &self.service.policies else { return vec![] };
        let steps = policies.chain.steps().iter().enumerate();
        steps.filter(|(at, _)| self.applies(*at)).map(|(_, step)| step.name).collect()
    }
}

/// What becomes of a call that is too much.
fn too_much(why: TooMuch) -> Refusal {
    Refusal::Policy(match why {
        TooMuch::Rate { wait_ns } => {
            PolicyRefusal::Rate { wait_s: Duration::from_nanos(wait_ns).as_secs_f64().ceil().max(1.0) }
        }
        TooMuch::Concurrency => PolicyRefusal::Concurrency,
    })
}

/// What a client shows, to be hashed; the first part is its application's alone.
fn shown(credentials: &Credentials) -> (&str, &str) {
    match credentials {
        Credentials::UserKey(key) => (key.expose(), ""),
        Credentials::AppIdAndKey { app_id, app_key } => {
            (app_id, app_key.as_ref().map_or("", |key| key.expose()))
        }
        Credentials::ClientId(id) | Credentials::Anonymous(id) => (id, ""),
    }
}

/// One change; what has nothing to write only takes out.
fn change_header(fields: &mut Fields, change: Change, name: &str, value: &[u8]) {
    // Also under the spelling that many backends read as the same.
    let is_it = |found: &[u8]| same_header(found, name.as_bytes());
    if matches!(change, Change::Set | Change::Remove) {
        fields.retain(|found| !is_it(found));
    }
    let adds = match change {
        Change::Set | Change::Add => true,
        Change::Default => !fields.iter().any(|(found, _)| is_it(found)),
        Change::Remove => false,
    };
    if adds && !fields::is_blank(value) {
        fields.push(name, value);
    }
}
