//! The life of one request, phase by phase.
//!
//! [`Pipeline::pass`] lists the phases in order; whichever refuses ends the request, and [`crate::reply`] says it
//! to the client. Nothing is counted before the question to the listener, and nothing is asked that would be
//! refused anyway. Between an admission and the upstream nothing waits, so what was counted is sent.
//!
//! A panic in here ends this request with 500 and no other.

use std::borrow::Cow;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::FutureExt;
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, REFERER};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method};
use tracing::error;
use weir_core::arguments::Arguments;
use weir_core::backend::BackendIndex;
use weir_core::mapping_rule::Matched;
use weir_core::network::Network;
use weir_core::path::RequestPath;
use weir_core::policy::condition::ClaimValues;
use weir_core::ratelimit::Tightest;
use weir_core::route::Routes;
use weir_core::target::TargetError;
use weir_core::{Credentials, Decision, Denial, RequestIds, StatusSet, Timestamp, Usage, extract, referrer};

use crate::access::{Call, Calls};
use crate::backend::{Authoriser, Question, Verdict};
use crate::body::{ClientBody, ReplyBody};
use crate::exchange::{Exchange, Limits, Outgoing, body_bytes_max, is_spent, no_target};
use crate::explain::{Kept, Ring};
use crate::fields;
use crate::form::{self, Ahead};
use crate::framing::Malformed;
use crate::headers::{self, Forwarding, REQUEST_ID};
use crate::leases::{Here, Ticket};
use crate::message::{Reply, RequestHead};
use crate::oidc::{Closed, Shown};
use crate::outcome;
use crate::policy::{self, Attempts, Caller, Entered, Passing, Policies};
use crate::reply::{self, Denied, Refusal};
use crate::service::Service;
use crate::snapshot::Snapshot;
use crate::status::Status;
use crate::target::Target;
use crate::upgrade;
use crate::upstream::Upstream;

/// What requests pass through.
pub(crate) struct Pipeline {
    pub(crate) snapshot: Snapshot,
    pub(crate) authoriser: Authoriser,
    pub(crate) ids: Arc<RequestIds>,
    pub(crate) status: Status,
    pub(crate) calls: Arc<Calls>,
    pub(crate) refusals: Arc<Ring>,
    /// Whose `X-Forwarded-For` is believed.
    pub(crate) trusted_proxies: Arc<[Network]>,
}

/// What is known of a request once its phases have gone by, whatever ended it.
#[derive(Default)]
pub(crate) struct Trail {
    /// Bare.
    pub(crate) host: Option<String>,
    pub(crate) service: Option<Arc<Service>>,
    pub(crate) backend: Option<BackendIndex>,
    /// Empty until its mapping rules are known.
    pub(crate) matched: Matched,
    /// What the service's policies make of it; `None`: there are none, or it did not come to them.
    pub(crate) passing: Option<Box<Passing>>,
}

/// Who sends requests over a connection.
pub(crate) struct Client {
    pub(crate) address: IpAddr,
    /// The same as text.
    pub(crate) peer: HeaderValue,
    /// `http` or `https`.
    pub(crate) scheme: &'static str,
}

impl Pipeline {
    /// Answers a request, whatever happens.
    pub(crate) async fn serve(
        &self,
        head: RequestHead,
        body: ClientBody,
        client: &Client,
    ) -> Reply<ReplyBody> {
        let mut call = Call::begin(&head, client.scheme, self.ids.next(), &self.calls);
        let mut trail = Trail::default();
        let passed = {
            // Pinned where it is made: it is large, and every move copies it.
            let passing = pin!(self.pass(&mut call, &mut trail, head, body, client));
            AssertUnwindSafe(passing).catch_unwind().await
        };
        let refusal = match passed {
            Ok(Ok(reply)) => return finish(call, trail.passing, reply),
            Ok(Err(refusal)) => refusal,
            Err(_panic) => {
                error!(request_id = call.shown_id(), "a request ended in a panic");
                Refusal::Broken
            }
        };
        self.refused(call, trail, &refusal)
    }

    fn refused(&self, mut call: Call, mut trail: Trail, refusal: &Refusal) -> Reply<ReplyBody> {
        let passing = trail.passing.take();
        let policies = passing.as_ref().map(|passing| passing.names()).unwrap_or_default();
        self.refusals.keep(Kept::new(call.shown_id(), call.line(), refusal, trail, policies));
        let reply = refuse(&mut call, refusal);
        finish(call, passing, reply)
    }

    /// Answers what is no request; `head` is what can be told of it.
    pub(crate) fn refuse(
        &self,
        head: &RequestHead,
        malformed: Malformed,
        client: &Client,
    ) -> Reply<ReplyBody> {
        let mut call = Call::begin(head, client.scheme, self.ids.next(), &self.calls);
        call.was_not_read();
        self.refused(call, Trail::default(), &Refusal::Malformed(malformed))
    }

    /// The phases.
    async fn pass(
        &self,
        call: &mut Call,
        trail: &mut Trail,
        head: RequestHead,
        mut body: ClientBody,
        client: &Client,
    ) -> Result<Reply<ReplyBody>, Refusal> {
        let target = Target::read(&head).map_err(Refusal::Target)?;
        trail.host = target.host();
        let (service, sent) =
            route(&self.snapshot.load(), &self.status, &head, &target, trail.host.as_deref())?;
        call.belongs_to(&service);
        trail.service = Some(Arc::clone(&service));
        let address = policy::client_address(client.address, &self.trusted_proxies, &head.fields);
        let (query, request_id) = (target.query, call.shown_id());
        let caller = Caller { head: &head, path: &sent.decoded, query, host: target.authority, request_id };
        let rewritten = match enter(trail, &service, caller, &sent.target, (address, false))? {
            Entered::Goes(rewritten) => rewritten,
            Entered::Answered(reply) => return Ok(*reply),
        };
        let read = rewritten.as_ref().map(|url| url.read()).transpose()?;
        let (path, query) = read.as_ref().map_or((&sent, target.query), |(path, query)| (path, *query));
        let mut ahead = read_ahead(call, &head, &mut body, &service).await?;
        let arguments = Arguments { query: query.unwrap_or_default(), form: ahead.form() };
        let (credentials, claims) = match credentials(&service, &head, arguments, trail)? {
            Found::Shown(shown) => shown,
            // Apart, so that what most calls wait for is not made larger.
            token => Box::pin(token.check(&service)).await?,
        };
        let backend = service.rules.backend_of(&path.decoded);
        trail.backend = backend;
        trail.matched = matched(&service, backend, &head, path, arguments)?;
        let caller = Caller { path: &path.decoded, query, ..caller };
        let upstream = choose_upstream(trail, &service, (Some(&credentials), claims), caller)?;
        check_length(trail, &service, &head, &ahead)?;
        if wants_body(trail, &service, &head, &body) {
            ahead = Box::pin(read_whole(call, &mut body, &service, ahead)).await?;
        }
        let onward = upstream_target(trail, &service, upstream, service.path_for(backend, path), caller)?;
        // What is not kept while others are waited for makes that cheaper.
        drop(read);
        drop((rewritten, sent));
        let admitted = self.authorise(call, &service, &head, &credentials, &trail.matched.usage).await?;
        let Admitted { limits, ticket, free_answers } = admitted;
        if let Err(refusal) = admit(trail, ticket.as_ref()) {
            self.take_back(call, &service, &credentials, &trail.matched.usage, ticket.as_ref());
            return Err(refusal);
        }
        let host = target.authority.map(str::to_owned);
        let forwarding = forwarding(call, trail, (&service, upstream), &head, (client, address, host));
        let attempts = attempts(trail, &service, &head, is_spent(&ahead, &body));
        let outgoing = Outgoing { head, target: onward, ahead, body };
        let exchange =
            Exchange { call, service: &service, upstream, forwarding: &forwarding, limits: &limits };
        let mut exchanged = match attempts {
            None => exchange.once(outgoing).await,
            // Apart, since what it holds is large and most calls are sent once.
            Some(attempts) => Box::pin(exchange.again(outgoing, attempts)).await,
        };
        if exchanged.as_ref().is_err_and(Refusal::takes_back) {
            self.take_back(call, &service, &credentials, &trail.matched.usage, ticket.as_ref());
            return exchanged;
        }
        self.settle(trail, &service, (ticket.as_ref(), free_answers.as_deref()), &mut exchanged);
        exchanged
    }

    /// A call is refused after all: then it must not stay counted.
    fn take_back(
        &self,
        call: &Call,
        service: &Arc<Service>,
        credentials: &Credentials,
        usage: &Usage,
        ticket: Option<&Ticket>,
    ) {
        let question = Question { id: call.id, service, credentials, usage, referrer: None, trace: None };
        self.authoriser.take_back(&question, ticket);
    }

    /// Books what the call cost by its answer.
    fn settle(
        &self,
        trail: &mut Trail,
        service: &Service,
        (ticket, free_answers): (Option<&Ticket>, Option<&StatusSet>),
        exchanged: &mut Result<Reply<ReplyBody>, Refusal>,
    ) {
        let status = exchanged.as_ref().map_or_else(Refusal::outcome, |reply| reply.status).as_u16();
        let given_back = outcome::given_back(service, trail.backend, &trail.matched, free_answers, status);
        let extra =
            exchanged.as_mut().map_or_else(|_| Usage::default(), |r| outcome::extra(service, &mut r.fields));
        self.authoriser.book(ticket, &trail.matched.usage, &given_back, &extra);
        if let (Some(passing), Ok(_)) = (&mut trail.passing, exchanged) {
            passing.is_answered = true;
        }
    }

    /// Asks whether the call may go on, and counts it if it may.
    async fn authorise(
        &self,
        call: &Call,
        service: &Arc<Service>,
        head: &RequestHead,
        credentials: &Credentials,
        usage: &Usage,
    ) -> Result<Admitted, Refusal> {
        let referrer = head.fields.get(REFERER).and_then(fields::text).and_then(referrer::of_client);
        let mut question = Question { id: call.id, service, credentials, usage, referrer, trace: None };
        let denied = |denial, at, application| {
            Err(Refusal::Denied(Denied { service: Arc::clone(service), denial, at, application }))
        };
        match self.authoriser.decide_here(&question) {
            Some(Ok(here)) => return Ok(Admitted::here(here)),
            Some(Err(denial)) => return denied(denial, now(), None),
            None => {}
        }
        let step = call.trace.authorise();
        question.trace = step.context();
        let begun = Instant::now();
        let verdict = self.authoriser.authorise(&question, begun).await;
        service.meters.authorised(call.waits.since(begun));
        step.decided(&verdict);
        match verdict {
            Verdict::Decided(Decision::Allow(limits), heard) => Ok(Admitted {
                limits: Limits { limits: Tightest::of(limits), at: heard.at },
                ticket: heard.application.map(|application| Ticket::Listener(application, heard.at)),
                free_answers: heard.free_answers,
            }),
            Verdict::Decided(Decision::Deny(denial), heard) => denied(denial, heard.at, heard.application),
            Verdict::Unclear => Err(Refusal::Undecided(Arc::clone(service))),
            Verdict::Unavailable => Err(Refusal::Unavailable),
            Verdict::Away => match self.authoriser.pass_undecided(&question) {
                Some(here) => Ok(Admitted::here(here)),
                None => Err(Refusal::Unavailable),
            },
        }
    }
}

/// Finds the service, and reads the path as it and its upstream will.
pub(crate) fn route<'a>(
    routes: &Routes<Arc<Service>>,
    status: &Status,
    head: &RequestHead,
    target: &Target<'a>,
    host: Option<&str>,
) -> Result<(Arc<Service>, RequestPath<'a>), Refusal> {
    // Without a configuration nobody knows which hosts there are.
    let nowhere = || if status.is_loaded() { Refusal::NoService } else { Refusal::Unavailable };
    let candidates = host.and_then(|host| routes.at_host(host)).ok_or_else(nowhere)?;
    let path = RequestPath::parse(target.path).map_err(|e| Refusal::Target(TargetError::Path(e)))?;
    let query = target.query.unwrap_or_default();
    let arguments = Arguments { query, form: b"" };
    let service = routes.find(candidates, |service| {
        let backend = service.rules.backend_of(&path.decoded);
        // A browser asks beforehand whether it may call so: a policy of the service that would be called answers that.
        let answers = service.policies.as_deref().filter(|_| head.method == Method::OPTIONS);
        let announced = answers.filter(|policies| policies.has_cors()).and_then(|_| announced(head));
        let method = announced.unwrap_or(head.method.as_str());
        let matched = service.rules.matches(backend, method, &path.decoded, &|name| arguments.last(name));
        !matched.rules.is_empty()
    });
    Ok((Arc::clone(service.ok_or(Refusal::NoService)?), path))
}

impl Trail {
    /// The service's policies, and what they make of the request.
    fn policies<'s>(&self, service: &'s Service) -> Option<(&'s Policies, &Passing)> {
        service.policies.as_deref().zip(self.passing.as_deref())
    }
}

/// The policies in front of authorisation, for a request from an address; or for one that is only asked about.
pub(crate) fn enter(
    trail: &mut Trail,
    service: &Arc<Service>,
    caller: Caller<'_>,
    target: &str,
    (address, is_asked): (IpAddr, bool),
) -> Result<Entered, Refusal> {
    let Some(policies) = &service.policies else { return Ok(Entered::Goes(None)) };
    let passing = trail.passing.insert(Passing::new(service, policies, caller.head, address, is_asked));
    passing.enter(policies, caller, target)
}

/// Where a request goes; the policies behind authorisation that need not wait for it are carried out.
pub(crate) fn choose_upstream<'s>(
    trail: &mut Trail,
    service: &'s Service,
    (credentials, claims): (Option<&Credentials>, Option<Arc<ClaimValues>>),
    caller: Caller<'_>,
) -> Result<&'s Upstream, Refusal> {
    let own = service.upstream(trail.backend);
    let Some((policies, passing)) = service.policies.as_deref().zip(trail.passing.as_deref_mut()) else {
        return own.ok_or(Refusal::NoUpstream);
    };
    passing.claims = claims;
    passing.behind(policies, caller, credentials)?;
    passing.upstream(policies).or(own).ok_or(Refusal::NoUpstream)
}

/// The policies that wait for authorisation, for a request that is counted.
fn admit(trail: &mut Trail, ticket: Option<&Ticket>) -> Result<(), Refusal> {
    let Some(passing) = &mut trail.passing else { return Ok(()) };
    let application = ticket.and_then(Ticket::application);
    let application = application.as_ref().map(|application| application.application.as_str());
    passing.admitted(application)
}

/// Whether a body is to be read before its request is sent.
fn wants_body(trail: &Trail, service: &Service, head: &RequestHead, body: &ClientBody) -> bool {
    trail.policies(service).is_some_and(|(policies, passing)| passing.wants_body(policies, head, body))
}

/// How often a request may be sent, whose body has been read, or has not; `None`: once.
fn attempts(trail: &Trail, service: &Service, head: &RequestHead, is_read: bool) -> Option<Box<Attempts>> {
    let (policies, passing) = trail.policies(service).filter(|_| is_read && upgrade::wish(head).is_none())?;
    passing.attempts(policies, head)
}

/// What the upstream should know of a request, whose client is at an address and named a host.
fn forwarding<'a>(
    call: &'a Call,
    trail: &'a Trail,
    (service, upstream): (&'a Service, &'a Upstream),
    head: &RequestHead,
    (client, address, host): (&'a Client, IpAddr, Option<String>),
) -> Forwarding<'a> {
    Forwarding {
        peer: &client.peer,
        real_ip: (address != client.address).then(|| address.to_string()),
        passing: trail.passing.as_deref(),
        host,
        upstream_host: &upstream.url.host,
        secret: &service.secret,
        request_id: call.clients_id(),
        scheme: client.scheme,
        upgrade: upgrade::wish(head),
        takes_trailers: headers::takes_trailers(head.version, &head.fields),
        is_http2: call.is_grpc,
    }
}

/// The method that a browser asks about.
fn announced(head: &RequestHead) -> Option<&str> {
    head.fields.get(ACCESS_CONTROL_REQUEST_METHOD).and_then(fields::text)
}

/// A call that may go on.
struct Admitted {
    limits: Limits,
    /// Where it is counted; `None`: nobody knows.
    ticket: Option<Ticket>,
    /// Answers with which the plan has it for nothing.
    free_answers: Option<Arc<StatusSet>>,
}

impl Admitted {
    fn here(Here { ticket, limits, free_answers }: Here) -> Self {
        Self { limits: Limits { limits, at: now() }, ticket: Some(ticket), free_answers }
    }
}

/// This machine's clock, which only says how long windows still last.
pub(crate) fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_ms(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

/// What every answer has in common.
fn finish(mut call: Call, passing: Option<Box<Passing>>, mut reply: Reply<ReplyBody>) -> Reply<ReplyBody> {
    if let Some(passing) = passing {
        passing.answer(&mut reply);
        call.keeps(passing.into_lasting());
    }
    reply.fields.set(REQUEST_ID, call.shown_id());
    call.answered(&reply);
    reply.map(|body| body.of(call))
}

fn refuse(call: &mut Call, refusal: &Refusal) -> Reply<ReplyBody> {
    call.refused(refusal);
    if call.is_grpc {
        return reply::grpc::render(refusal);
    }
    reply::render(refusal, call.wants_problem, call.shown_id())
}

async fn read_ahead(
    call: &Call,
    head: &RequestHead,
    body: &mut ClientBody,
    service: &Service,
) -> Result<Ahead, Refusal> {
    if !form::is_expected(head, body) {
        return Ok(Ahead::default());
    }
    let begun = Instant::now();
    let idle = Duration::from_millis(service.proxy.timeouts.idle_ms.into());
    let ahead = form::read_ahead(body, idle).await;
    call.waits.since(begun);
    ahead.map_err(Refusal::from)
}

/// All of a body that is short.
async fn read_whole(
    call: &Call,
    body: &mut ClientBody,
    service: &Service,
    ahead: Ahead,
) -> Result<Ahead, Refusal> {
    let begun = Instant::now();
    let idle = Duration::from_millis(service.proxy.timeouts.idle_ms.into());
    let rest = form::read_ahead(body, idle).await;
    call.waits.since(begun);
    let bytes = [&ahead.bytes[..], &rest?.bytes].concat().into();
    Ok(Ahead { bytes, is_form: false })
}

/// What a request shows.
pub(crate) enum Found<'a> {
    Shown(Shown),
    /// A token that nobody has checked lately.
    Token(Cow<'a, str>),
}

impl Found<'_> {
    /// The credentials; of a token, whose it is and what it says.
    pub(crate) async fn check(self, service: &Arc<Service>) -> Result<Shown, Refusal> {
        match (self, &service.door) {
            (Self::Shown(shown), _) => Ok(shown),
            (Self::Token(token), Some(door)) => {
                let denied = |denial| Refusal::denied(service, denial);
                let closed = |closed: Closed| closed.denial().map_or(Refusal::IssuerAway, denied);
                door.check(&token).await.map_err(closed)
            }
            (Self::Token(_), None) => Err(Refusal::denied(service, Denial::CredentialsMissing)),
        }
    }
}

/// The credentials that a request shows; of a token that is remembered, whose it is. A request that shows none may be
/// somebody's all the same, as a policy says.
pub(crate) fn credentials<'a>(
    service: &Arc<Service>,
    head: &'a RequestHead,
    arguments: Arguments<'_>,
    trail: &Trail,
) -> Result<Found<'a>, Refusal> {
    let shown = shown_credentials(service, head, arguments);
    shown.or_else(|denial| {
        let anonymous = trail.policies(service).and_then(|(policies, passing)| passing.anonymous(policies));
        // Half of what is needed is wrong, not missing.
        let shows_any =
            || extract::shows_any(service.credentials, &service.proxy, head.fields.iter(), arguments);
        match anonymous {
            Some(credentials) if denial == Denial::CredentialsMissing && !shows_any() => {
                Ok(Found::Shown((credentials.clone(), None)))
            }
            _ => Err(Refusal::denied(service, denial)),
        }
    })
}

fn shown_credentials<'a>(
    service: &Service,
    head: &'a RequestHead,
    arguments: Arguments<'_>,
) -> Result<Found<'a>, Denial> {
    let headers = head.fields.iter();
    if let Some(door) = &service.door {
        let token = extract::token(&service.proxy, headers, arguments)?;
        return Ok(door.remembered(&token).map_or(Found::Token(token), Found::Shown));
    }
    let found = extract::credentials(service.credentials, &service.proxy, headers, arguments)?;
    extract::check_length(&found)?;
    Ok(Found::Shown((found, None)))
}

/// The rules that a request matches.
pub(crate) fn matched(
    service: &Arc<Service>,
    backend: Option<BackendIndex>,
    head: &RequestHead,
    path: &RequestPath<'_>,
    arguments: Arguments<'_>,
) -> Result<Matched, Refusal> {
    let method = head.method.as_str();
    let matched = service.rules.matches(backend, method, &path.decoded, &|name| arguments.last(name));
    if matched.usage.is_empty() {
        return Err(Refusal::denied(service, Denial::NoMappingRule));
    }
    Ok(matched)
}

/// Whether a body is not too long, as far as its length is known.
pub(crate) fn check_length(
    trail: &Trail,
    service: &Service,
    head: &RequestHead,
    ahead: &Ahead,
) -> Result<(), Refusal> {
    let read = ahead.bytes.len() as u64;
    let length = form::declared_length(&head.fields).unwrap_or(0).max(read);
    if length > body_bytes_max(service, trail.passing.as_deref()) {
        return Err(Refusal::BodyTooLong);
    }
    Ok(())
}

/// What is asked of the upstream, at `path` unless policies say otherwise.
pub(crate) fn upstream_target(
    trail: &Trail,
    service: &Service,
    upstream: &Upstream,
    path: &str,
    caller: Caller<'_>,
) -> Result<PathAndQuery, Refusal> {
    let rewritten = match trail.policies(service) {
        Some((policies, passing)) => passing.for_upstream(policies, caller, path)?,
        None => None,
    };
    match &rewritten {
        Some(url) => {
            let (path, query) = url.read()?;
            target_below(service, upstream, &path.target, query)
        }
        None => target_below(service, upstream, path, caller.query),
    }
}

fn target_below(
    service: &Service,
    upstream: &Upstream,
    path: &str,
    query: Option<&str>,
) -> Result<PathAndQuery, Refusal> {
    let stripped = query.and_then(|query| extract::stripped(&service.proxy, query.as_bytes()));
    let stripped = stripped.as_deref().map(String::from_utf8_lossy);
    let query = match &stripped {
        Some(rest) if rest.is_empty() => None,
        Some(rest) => Some(rest.as_ref()),
        None => query,
    };
    upstream.url.target(path, query).map_err(|problem| no_target(service, &problem))
}
