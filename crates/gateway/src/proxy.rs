//! The life of one request, phase by phase.
//!
//! [`Pipeline::pass`] lists the phases in order; whichever refuses ends the request, and [`crate::reply`] says it
//! to the client. Nothing is counted before the question to the listener, and nothing is asked that would be
//! refused anyway. Between an admission and the upstream nothing waits, so what was counted is sent.
//!
//! A panic in here ends this request with 500 and no other.

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::FutureExt;
use http::header::{HOST, REFERER, TRAILER};
use http::uri::PathAndQuery;
use http::{HeaderValue, Version};
use http_body::Body;
use tracing::error;
use weir_core::arguments::Arguments;
use weir_core::backend::BackendIndex;
use weir_core::mapping_rule::Matched;
use weir_core::path::RequestPath;
use weir_core::ratelimit::Tightest;
use weir_core::route::Routes;
use weir_core::target::TargetError;
use weir_core::{Credentials, Decision, Denial, RequestIds, StatusSet, Timestamp, Usage, extract, referrer};

use crate::access::{Call, Calls};
use crate::backend::{Authoriser, Question, Verdict};
use crate::body::{ClientBody, Progress, ReplyBody, RequestBody};
use crate::explain::{Kept, Ring};
use crate::fields;
use crate::form::{self, Ahead};
use crate::framing::Malformed;
use crate::headers::{self, Forwarding, REQUEST_ID};
use crate::leases::{Here, Ticket};
use crate::message::{Reply, RequestHead};
use crate::oidc::Closed;
use crate::outcome;
use crate::reply::{self, Denied, Refusal};
use crate::service::Service;
use crate::snapshot::Snapshot;
use crate::status::Status;
use crate::target::Target;
use crate::upgrade;
use crate::upstream::{self, Onward, Over, Upstream, UpstreamError};

/// What requests pass through.
pub(crate) struct Pipeline {
    pub(crate) snapshot: Snapshot,
    pub(crate) authoriser: Authoriser,
    pub(crate) ids: Arc<RequestIds>,
    pub(crate) status: Status,
    pub(crate) calls: Arc<Calls>,
    pub(crate) refusals: Arc<Ring>,
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
}

/// Who sends requests over a connection.
pub(crate) struct Client {
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
            Ok(Ok(reply)) => return finish(call, reply),
            Ok(Err(refusal)) => refusal,
            Err(_panic) => {
                error!(request_id = call.shown_id(), "a request ended in a panic");
                Refusal::Broken
            }
        };
        self.refused(call, trail, &refusal)
    }

    fn refused(&self, mut call: Call, trail: Trail, refusal: &Refusal) -> Reply<ReplyBody> {
        self.refusals.keep(Kept::new(call.shown_id(), call.line(), refusal, trail));
        let reply = refuse(&mut call, refusal);
        finish(call, reply)
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
        let (service, path) =
            route(&self.snapshot.load(), &self.status, &head, &target, trail.host.as_deref())?;
        call.belongs_to(&service);
        trail.service = Some(Arc::clone(&service));
        let ahead = read_ahead(call, &head, &mut body, &service).await?;
        let arguments = Arguments { query: target.query.unwrap_or_default(), form: ahead.form() };
        let credentials = match credentials(&service, &head, arguments)? {
            Found::Credentials(credentials) => credentials,
            // Apart, so that what most calls wait for is not made larger.
            token => Box::pin(token.check(&service)).await?,
        };
        let backend = service.rules.backend_of(&path.decoded);
        trail.backend = backend;
        trail.matched = matched(&service, backend, &head, &path, arguments)?;
        let usage = &trail.matched.usage;
        let upstream = service.upstream(backend).ok_or(Refusal::NoUpstream)?;
        check_length(&service, &head, &ahead)?;
        let onward = upstream_target(&service, upstream, service.path_for(backend, &path), target.query)?;
        let admitted = self.authorise(call, &service, &head, &credentials, usage).await?;
        let Admitted { limits, ticket, free_answers } = admitted;
        let forwarding = Forwarding {
            peer: &client.peer,
            host: target.authority.map(str::to_owned),
            upstream_host: &upstream.url.host,
            secret: &service.secret,
            request_id: call.clients_id(),
            scheme: client.scheme,
            upgrade: upgrade::wish(&head),
            takes_trailers: headers::takes_trailers(head.version, &head.fields),
            is_http2: call.is_grpc,
        };
        let outgoing = Outgoing { head, target: onward, ahead, body };
        let mut exchanged = exchange(call, &service, upstream, outgoing, &forwarding, limits).await;
        if exchanged.as_ref().is_err_and(Refusal::takes_back) {
            // Refused after all: then it must not stay counted.
            let (service, credentials) = (&service, &credentials);
            let question = Question { id: call.id, service, credentials, usage, referrer: None, trace: None };
            self.authoriser.take_back(&question, ticket.as_ref());
            return exchanged;
        }
        let status = exchanged.as_ref().map_or_else(Refusal::status, |reply| reply.status).as_u16();
        let given_back =
            outcome::given_back(&service, backend, &trail.matched, free_answers.as_deref(), status);
        let extra =
            exchanged.as_mut().map_or_else(|_| Usage::default(), |r| outcome::extra(&service, &mut r.fields));
        self.authoriser.book(ticket.as_ref(), usage, &given_back, &extra);
        exchanged
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
        let method = head.method.as_str();
        let matched = service.rules.matches(backend, method, &path.decoded, &|name| arguments.last(name));
        !matched.rules.is_empty()
    });
    Ok((Arc::clone(service.ok_or(Refusal::NoService)?), path))
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

/// Where an admitted call's limits stand, and when.
struct Limits {
    limits: Tightest,
    at: Timestamp,
}

/// This machine's clock, which only says how long windows still last.
pub(crate) fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_ms(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

/// What goes upstream.
struct Outgoing {
    head: RequestHead,
    target: PathAndQuery,
    ahead: Ahead,
    body: ClientBody,
}

/// What every answer has in common.
fn finish(mut call: Call, mut reply: Reply<ReplyBody>) -> Reply<ReplyBody> {
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

/// What a request shows.
pub(crate) enum Found<'a> {
    Credentials(Credentials),
    /// A token that nobody has checked lately.
    Token(Cow<'a, str>),
}

impl Found<'_> {
    /// The credentials; of a token, whose it is.
    pub(crate) async fn check(self, service: &Arc<Service>) -> Result<Credentials, Refusal> {
        match (self, &service.door) {
            (Self::Credentials(credentials), _) => Ok(credentials),
            (Self::Token(token), Some(door)) => {
                let denied = |denial| Refusal::denied(service, denial);
                let closed = |closed: Closed| closed.denial().map_or(Refusal::IssuerAway, denied);
                door.check(&token).await.map_err(closed)
            }
            (Self::Token(_), None) => Err(Refusal::denied(service, Denial::CredentialsMissing)),
        }
    }
}

/// The credentials that a request shows; of a token that is remembered, whose it is.
pub(crate) fn credentials<'a>(
    service: &Arc<Service>,
    head: &'a RequestHead,
    arguments: Arguments<'_>,
) -> Result<Found<'a>, Refusal> {
    let headers = head.fields.iter();
    let denied = |denial| Refusal::denied(service, denial);
    if let Some(door) = &service.door {
        let token = extract::token(&service.proxy, headers, arguments).map_err(denied)?;
        return Ok(door.remembered(&token).map_or(Found::Token(token), Found::Credentials));
    }
    let found = extract::credentials(service.credentials, &service.proxy, headers, arguments);
    let judged = found.and_then(|found| extract::check_length(&found).map(|()| found));
    judged.map(Found::Credentials).map_err(denied)
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
pub(crate) fn check_length(service: &Service, head: &RequestHead, ahead: &Ahead) -> Result<(), Refusal> {
    let read = ahead.bytes.len() as u64;
    let length = form::declared_length(&head.fields).unwrap_or(0).max(read);
    if length > service.proxy.request_body_bytes_max {
        return Err(Refusal::BodyTooLong);
    }
    Ok(())
}

/// What is asked of the upstream.
pub(crate) fn upstream_target(
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

fn no_target(service: &Service, problem: &dyn std::fmt::Display) -> Refusal {
    error!(service.id = service.id.as_str(), %problem, "the upstream's URL cannot be put together");
    Refusal::Upstream(UpstreamError::BadAnswer)
}

/// Sends the request, and turns the head of the answer into the client's.
async fn exchange(
    call: &Call,
    service: &Service,
    upstream: &Upstream,
    outgoing: Outgoing,
    forwarding: &Forwarding<'_>,
    limits: Limits,
) -> Result<Reply<ReplyBody>, Refusal> {
    let timeouts = service.proxy.timeouts;
    let idle = Duration::from_millis(timeouts.idle_ms.into());
    let begun = Instant::now();
    let progress = Progress::new(begun.into());
    let (mut request, over) = upstream_request(service, upstream, outgoing, forwarding, &progress)?;
    let step = call.trace.exchange(&request.method, &mut request.fields, &upstream.url.origin);
    let answer = upstream::send(&upstream.pool, request, over, &progress, timeouts).await;
    let waited = call.waits.since(begun);
    step.answered(&answer);
    let answer = answer?;
    service.meters.upstream_answered(waited);
    if answer.status.is_informational() {
        let wish = forwarding.upgrade.as_ref().ok_or(Refusal::Upstream(UpstreamError::BadAnswer))?;
        return upgrade::grant(wish, answer, idle);
    }
    let mut reply = answer.map(|body| ReplyBody::stream(body, idle));
    headers::to_client(&mut reply.fields);
    reply::write_limits(&mut reply.fields, &limits.limits, limits.at);
    Ok(reply)
}

fn upstream_request(
    service: &Service,
    upstream: &Upstream,
    outgoing: Outgoing,
    forwarding: &Forwarding<'_>,
    progress: &Arc<Progress>,
) -> Result<(Onward, Over), Refusal> {
    let Outgoing { mut head, target, ahead, body, .. } = outgoing;
    // A form that was read has nothing behind it.
    let rest = (!ahead.is_form).then_some(body);
    let ahead = match ahead.is_form.then(|| extract::stripped(&service.proxy, &ahead.bytes)).flatten() {
        Some(form) => form.into(),
        None => ahead.bytes,
    };
    let idle = Duration::from_millis(service.proxy.timeouts.idle_ms.into());
    let max = service.proxy.request_body_bytes_max;
    let body = RequestBody::new(ahead, rest, max, idle, Arc::clone(progress));
    let body = body.without_trailer(&service.secret.0);
    if service.proxy.strip_credentials {
        headers::strip_credentials(&mut head.fields, &service.proxy);
    }
    headers::to_upstream(&mut head.fields, forwarding);
    let over = if forwarding.is_http2 {
        // `:authority` says the same.
        head.fields.remove(HOST);
        let url = upstream.url.absolute(target.clone());
        Over::Http2(url.map_err(|problem| no_target(service, &problem))?)
    } else {
        if head.version == Version::HTTP_2 {
            headers::join_cookies(&mut head.fields);
        }
        let length = body.size_hint().exact();
        // What HTTP/2 sends behind a body of known length, HTTP/1 can only send behind chunks.
        let length = length.filter(|_| head.version < Version::HTTP_2 || !head.fields.has(TRAILER));
        let framing = headers::frame_body(&mut head.fields, length, body.is_end_stream());
        Over::Http1(framing)
    };
    Ok((Onward { method: head.method, target, fields: head.fields, body }, over))
}
