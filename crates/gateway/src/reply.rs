//! The one place that turns refusals and failures into HTTP replies.
//!
//! A [`Refusal`] says what happened; its status, text and headers are decided here and nowhere else. The four
//! refusals of a service read as its provider configured them; clients that ask for `application/problem+json`
//! get a problem document instead, with a stable code. Outside text says what the caller can act on, never a
//! credential and nothing of what is behind the gateway.

pub(crate) mod grpc;

use std::sync::Arc;

use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use weir_core::policy::maintenance::Maintenance;
use weir_core::proxy::RefusalReply;
use weir_core::ratelimit::Tightest;
use weir_core::refusal::{PROBLEM_TYPE, Problem, Refused, retry_after_s};
use weir_core::target::{METHODS_SERVED, TargetError};
use weir_core::{ApplicationRef, Denial, LimitStatus, Timestamp};

use crate::body::{BodyError, ReplyBody};
use crate::fields::Fields;
use crate::framing::Malformed;
use crate::message::Reply;
use crate::service::Service;
use crate::upstream::UpstreamError;

/// Why a request gets no answer from its upstream.
pub(crate) enum Refusal {
    /// What the client sent is no request.
    Malformed(Malformed),
    /// The request itself cannot be served.
    Target(TargetError),
    /// No service answers to its host (or, with routing by path alone, to its path).
    NoService,
    /// The service refuses it.
    Denied(Denied),
    /// The listener's answer could not be understood; whatever it was, the call does not go on.
    Undecided(Arc<Service>),
    /// No listener decided in time.
    Unavailable,
    /// Nobody knows the keys of the issuer whose token was shown.
    IssuerAway,
    /// The service has no upstream.
    NoUpstream,
    /// The body is longer than the service takes.
    BodyTooLong,
    /// The client stopped sending its body.
    BodyStalled,
    /// The client's body is malformed, or its connection broke.
    BodyBroken,
    /// The exchange with the upstream failed.
    Upstream(UpstreamError),
    /// The upstream's answer, of this status, is longer than a policy lets through.
    AnswerTooLong(StatusCode),
    /// A policy of the service refuses it.
    Policy(PolicyRefusal),
    /// Something here broke.
    Broken,
}

/// How a policy refuses a call.
pub(crate) enum PolicyRefusal {
    /// By the address that it comes from.
    Address,
    /// It comes too soon; when it may come, in seconds.
    Rate { wait_s: f64 },
    /// Too many are under way.
    Concurrency,
    /// Its token lacks a claim.
    Claim(Arc<Service>, String),
    /// The API is under maintenance, as a step of the service's policies says.
    Maintenance(Arc<Service>, usize),
    /// The policy of this name could not be carried out.
    Failed(&'static str),
}

impl PolicyRefusal {
    fn code(&self) -> &'static str {
        match self {
            Self::Address => "address_denied",
            Self::Rate { .. } => "edge_rate_exceeded",
            Self::Concurrency => "edge_concurrency_exceeded",
            Self::Claim(..) => "claim_denied",
            Self::Maintenance(..) => "maintenance",
            Self::Failed(_) => "policy_failed",
        }
    }

    fn maintenance(&self) -> Option<&Maintenance> {
        match self {
            Self::Maintenance(service, at) => service.policies.as_deref()?.maintenance(*at),
            _ => None,
        }
    }

    fn answer(&self) -> Answer<'_> {
        let (status, detail, configured) = match self {
            Self::Address => (StatusCode::FORBIDDEN, "Calls from this address are not allowed.".into(), None),
            Self::Rate { .. } => (StatusCode::TOO_MANY_REQUESTS, "Calls come too fast.".into(), None),
            Self::Concurrency => {
                (StatusCode::TOO_MANY_REQUESTS, "Too many calls are under way.".into(), None)
            }
            Self::Claim(service, claim) => {
                let reply = &service.proxy.refusals.auth_failed;
                (status_of(reply), format!("The token does not say what it must of {claim}."), Some(reply))
            }
            Self::Maintenance(..) => {
                let reply = self.maintenance().map(|maintenance| &maintenance.reply);
                let status = reply.map_or(StatusCode::SERVICE_UNAVAILABLE, status_of);
                (status, "The API is under maintenance.".into(), reply)
            }
            Self::Failed(name) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("The policy {name} cannot be carried out for this call."),
                None,
            ),
        };
        Answer { status, code: self.code(), detail, configured, limit: None }
    }

    fn retry_after_s(&self) -> Option<u64> {
        match self {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some seconds")]
            Self::Rate { wait_s } => Some(*wait_s as u64),
            Self::Concurrency => Some(1),
            Self::Maintenance(..) => self.maintenance()?.retry_after_s,
            _ => None,
        }
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLong => Self::BodyTooLong,
            BodyError::Stalled => Self::BodyStalled,
            BodyError::Broken => Self::BodyBroken,
        }
    }
}

/// A service's refusal.
pub(crate) struct Denied {
    /// Whose texts are used.
    pub(crate) service: Arc<Service>,
    pub(crate) denial: Denial,
    /// What limits' seconds count from.
    pub(crate) at: Timestamp,
    /// Whose call it is, where a listener said so.
    pub(crate) application: Option<ApplicationRef>,
}

impl Refusal {
    /// Whether a call that was counted must not stay so: refused for the client's body, or with no place for it
    /// at the upstream.
    pub(crate) fn takes_back(&self) -> bool {
        self.is_for_the_body()
            || matches!(
                self,
                Self::Upstream(UpstreamError::Busy | UpstreamError::Unhealthy) | Self::Policy(_)
            )
    }

    fn is_for_the_body(&self) -> bool {
        matches!(self, Self::BodyTooLong | Self::BodyStalled | Self::BodyBroken)
    }

    /// Whether the client wrote or sent something that nobody could serve.
    pub(crate) fn is_for_the_request(&self) -> bool {
        self.is_for_the_body() || matches!(self, Self::Target(_) | Self::Malformed(_))
    }

    /// The HTTP status of its reply.
    pub(crate) fn status(&self) -> StatusCode {
        answer(self).map_or(StatusCode::NOT_FOUND, |answer| answer.status)
    }

    /// The status that its call is judged by, as far as that costs otherwise.
    pub(crate) fn outcome(&self) -> StatusCode {
        match self {
            // The upstream has done its work.
            Self::AnswerTooLong(status) => *status,
            _ => self.status(),
        }
    }

    /// The stable code, as in problem documents; those of them that have none have one for log and metrics.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Target(error) => error.code(),
            Self::BodyBroken => "request_malformed",
            Self::Malformed(why) => match why.status() {
                StatusCode::URI_TOO_LONG => "target_too_long",
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => "headers_too_long",
                StatusCode::NOT_IMPLEMENTED => "coding_not_served",
                StatusCode::HTTP_VERSION_NOT_SUPPORTED => "version_not_served",
                _ => "request_malformed",
            },
            Self::NoService => "service_not_found",
            Self::NoUpstream => "upstream_missing",
            Self::Denied(denied) => denied.denial.code(),
            Self::Undecided(_) => "authentication_failed",
            Self::Unavailable => "authorisation_unavailable",
            Self::IssuerAway => "issuer_unavailable",
            Self::BodyTooLong => "body_too_long",
            Self::BodyStalled => "body_stalled",
            Self::Upstream(UpstreamError::Busy) => "upstream_busy",
            Self::Upstream(UpstreamError::NoAddress) => "upstream_not_found",
            Self::Upstream(UpstreamError::NoConnection) => "upstream_unreachable",
            Self::Upstream(UpstreamError::BadAnswer) => "upstream_failed",
            Self::Upstream(UpstreamError::Timeout) => "upstream_timeout",
            Self::Upstream(UpstreamError::Unhealthy) => "upstream_unhealthy",
            Self::AnswerTooLong(_) => "answer_too_long",
            Self::Policy(refusal) => refusal.code(),
            Self::Broken => "internal_error",
        }
    }

    /// Whose call it is, where a listener said so.
    pub(crate) fn application(&self) -> Option<&ApplicationRef> {
        match self {
            Self::Denied(denied) => denied.application.as_ref(),
            _ => None,
        }
    }

    /// A refusal that needs no listener.
    pub(crate) fn denied(service: &Arc<Service>, denial: Denial) -> Self {
        Self::Denied(Denied {
            service: Arc::clone(service),
            denial,
            at: Timestamp::default(),
            application: None,
        })
    }
}

/// What happened, in a sentence.
pub(crate) fn detail(refusal: &Refusal) -> String {
    match refusal {
        Refusal::NoService => "No service answers to this host.".into(),
        Refusal::NoUpstream => "The service has no upstream for this path.".into(),
        _ => answer(refusal).map(|answer| answer.detail).unwrap_or_default(),
    }
}

/// After how many seconds the same call may be answered otherwise, as `Retry-After` says.
pub(crate) fn retry_after(refusal: &Refusal) -> Option<u64> {
    match refusal {
        Refusal::Unavailable
        | Refusal::IssuerAway
        | Refusal::Upstream(UpstreamError::Busy | UpstreamError::Unhealthy) => Some(1),
        Refusal::Policy(refusal) => refusal.retry_after_s(),
        _ => answer(refusal)?.limit.and_then(|(limit, at)| retry_after_s(limit, at)),
    }
}

/// What a reply says, before it is written as text or as a problem document.
struct Answer<'a> {
    status: StatusCode,
    code: &'static str,
    detail: String,
    /// The provider's text and its type; `None`: the detail in plain text.
    configured: Option<&'a RefusalReply>,
    limit: Option<(&'a LimitStatus, Timestamp)>,
}

/// The reply to a refused request; `id` names it in a problem document.
pub(crate) fn render(refusal: &Refusal, wants_problem: bool, id: &str) -> Reply<ReplyBody> {
    let Some(answer) = answer(refusal) else {
        return Reply { status: StatusCode::NOT_FOUND, ..Reply::new(ReplyBody::text("")) };
    };
    let mut reply = match answer.configured {
        _ if wants_problem => typed(ReplyBody::text(problem(&answer, id)), PROBLEM_TYPE),
        Some(configured) => typed(
            ReplyBody::text(configured.body.clone()),
            // What is no value is never written.
            Some(&configured.content_type)
                .filter(|text| HeaderValue::from_str(text).is_ok())
                .map_or(PLAIN, |text| text),
        ),
        None => typed(ReplyBody::text(answer.detail.clone()), PLAIN),
    };
    reply.status = answer.status;
    write_headers(&mut reply.fields, refusal, &answer);
    reply
}

const PLAIN: &str = "text/plain; charset=utf-8";

fn typed(body: ReplyBody, content_type: &str) -> Reply<ReplyBody> {
    let mut reply = Reply::new(body);
    reply.fields.push(CONTENT_TYPE, content_type);
    reply
}

fn write_headers(headers: &mut Fields, refusal: &Refusal, answer: &Answer<'_>) {
    if let Refusal::Target(TargetError::Method) = refusal {
        headers.set(ALLOW, METHODS_SERVED);
    }
    if let Some(seconds) = retry_after(refusal) {
        headers.set(RETRY_AFTER, seconds.to_string());
    }
    if let Some((limit, at)) = answer.limit {
        write_limits(headers, &Tightest::of([limit.clone()]), at);
    }
}

/// Writes where limits stand; without limits nothing is written.
pub(crate) fn write_limits(headers: &mut Fields, limits: &Tightest, decided_at: Timestamp) {
    for (name, value) in limits.headers(decided_at).into_iter().flatten() {
        headers.set(name, value);
    }
}

/// What to say; `None`: 404 and not a word, as for a host that nobody serves.
fn answer(refusal: &Refusal) -> Option<Answer<'_>> {
    let plain = |status, detail: &str| {
        let code = refusal.code();
        Some(Answer { status, code, detail: detail.to_owned(), configured: None, limit: None })
    };
    match refusal {
        Refusal::NoService | Refusal::NoUpstream => None,
        Refusal::Malformed(why) => plain(why.status(), &format!("The request is malformed: {why}.")),
        Refusal::Target(error) => {
            plain(StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST), &error.sentence())
        }
        Refusal::Denied(denied) => Some(denied_answer(denied)),
        Refusal::Undecided(service) => Some(Answer {
            status: status_of(&service.proxy.refusals.auth_failed),
            code: refusal.code(),
            detail: "The call could not be authorised.".into(),
            configured: Some(&service.proxy.refusals.auth_failed),
            limit: None,
        }),
        Refusal::Unavailable => plain(StatusCode::SERVICE_UNAVAILABLE, "Please try again shortly."),
        Refusal::IssuerAway => plain(
            StatusCode::SERVICE_UNAVAILABLE,
            "The token cannot be checked now. Please try again shortly.",
        ),
        Refusal::BodyTooLong => plain(StatusCode::PAYLOAD_TOO_LARGE, "The request body is too long."),
        Refusal::BodyStalled => {
            plain(StatusCode::REQUEST_TIMEOUT, "The request body did not arrive in time.")
        }
        Refusal::BodyBroken => {
            plain(StatusCode::BAD_REQUEST, "The request is malformed: its body cannot be read.")
        }
        Refusal::Upstream(error) => {
            let (status, detail) = upstream_answer(*error);
            plain(status, detail)
        }
        Refusal::AnswerTooLong(_) => plain(StatusCode::BAD_GATEWAY, "The API's answer is too long."),
        Refusal::Policy(refusal) => Some(refusal.answer()),
        Refusal::Broken => plain(StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong here."),
    }
}

fn upstream_answer(error: UpstreamError) -> (StatusCode, &'static str) {
    match error {
        UpstreamError::Busy => (StatusCode::SERVICE_UNAVAILABLE, "Please try again shortly."),
        UpstreamError::NoAddress => (StatusCode::SERVICE_UNAVAILABLE, "The API has no address."),
        UpstreamError::NoConnection => (StatusCode::BAD_GATEWAY, "The API cannot be reached."),
        UpstreamError::BadAnswer => (StatusCode::BAD_GATEWAY, "The API gave no valid answer."),
        UpstreamError::Unhealthy => {
            (StatusCode::SERVICE_UNAVAILABLE, "The API is not well. Please try again shortly.")
        }
        UpstreamError::Timeout => (StatusCode::GATEWAY_TIMEOUT, "The API did not answer in time."),
    }
}

fn denied_answer(denied: &Denied) -> Answer<'_> {
    let Refused { reply, limit, .. } = Refused::of(&denied.denial, &denied.service.proxy.refusals);
    Answer {
        status: status_of(reply),
        code: denied.denial.code(),
        detail: denied.denial.sentence(),
        configured: Some(reply),
        limit: limit.map(|limit| (limit, denied.at)),
    }
}

fn status_of(configured: &RefusalReply) -> StatusCode {
    StatusCode::from_u16(configured.status).unwrap_or(StatusCode::FORBIDDEN)
}

fn problem(answer: &Answer<'_>, id: &str) -> String {
    let problem = Problem {
        status: answer.status.as_u16(),
        title: answer.status.canonical_reason().unwrap_or("Refused"),
        code: answer.code,
        detail: &answer.detail,
        request_id: id,
        limit: answer.limit,
    };
    problem.to_json()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use serde_json::json;
    use weir_core::{MetricName, Period};

    const NOW: i64 = 1_795_404_708_000; // 12 s before a full minute

    fn exceeded(period: Period, max: u64) -> Denial {
        let window = period.window(Timestamp::from_unix_ms(NOW));
        Denial::LimitsExceeded(LimitStatus {
            metric: MetricName::parse("hits").unwrap(),
            window,
            max,
            used: max,
            held: 0,
        })
    }

    fn denied(denial: Denial) -> Refusal {
        let service = Arc::new(Service::for_tests("api", &["api.test"], &["/"]));
        Refusal::Denied(Denied { service, denial, at: Timestamp::from_unix_ms(NOW), application: None })
    }

    fn read(reply: Reply<ReplyBody>) -> (StatusCode, Fields, String) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let bytes = runtime.block_on(reply.body.collect()).unwrap().to_bytes();
        (reply.status, reply.fields, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[track_caller]
    fn check(refusal: &Refusal, status: u16, body: &str, retry_after: Option<&str>) {
        let (found, fields, text) = read(render(refusal, false, "id"));
        assert_eq!((found.as_u16(), text.as_str()), (status, body));
        assert_eq!(fields.text(RETRY_AFTER), retry_after);
    }

    #[test]
    fn the_four_refusals_read_as_configured() {
        check(&denied(Denial::CredentialsMissing), 401, "Authentication parameters missing", None);
        check(&denied(Denial::UserKeyInvalid), 403, "Authentication failed", None);
        check(&denied(Denial::NoMappingRule), 404, "No Mapping Rule matched", None);
        check(&denied(exceeded(Period::Minute, 60)), 429, "Limits exceeded", Some("12"));
    }

    #[test]
    fn waiting_is_only_advised_where_it_helps() {
        check(&denied(exceeded(Period::Eternity, 60)), 429, "Limits exceeded", None);
        check(&denied(exceeded(Period::Minute, 0)), 403, "Authentication failed", None);
        check(&Refusal::Unavailable, 503, "Please try again shortly.", Some("1"));
    }

    #[test]
    fn failures_say_whose_fault_it_is() {
        check(&Refusal::NoService, 404, "", None);
        check(&Refusal::NoUpstream, 404, "", None);
        check(&Refusal::Target(TargetError::Malformed("no")), 400, "The request is malformed: no.", None);
        check(
            &Refusal::Malformed(Malformed::Coding),
            501,
            "The request is malformed: the transfer coding is not served.",
            None,
        );
        check(&Refusal::Upstream(UpstreamError::NoConnection), 502, "The API cannot be reached.", None);
        check(&Refusal::Upstream(UpstreamError::Timeout), 504, "The API did not answer in time.", None);
        check(&Refusal::Upstream(UpstreamError::NoAddress), 503, "The API has no address.", None);
        check(&Refusal::BodyTooLong, 413, "The request body is too long.", None);
    }

    #[test]
    fn problems_name_the_limit() {
        let (_, fields, body) = read(render(&denied(exceeded(Period::Minute, 60)), true, "abc"));
        assert_eq!(fields.text(CONTENT_TYPE), Some("application/problem+json"));
        assert_eq!(fields.text("ratelimit"), Some("\"hits-minute\";r=0;t=12"));
        let document: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            document,
            json!({
                "type": "urn:weir:problem:limits_exceeded",
                "title": "Too Many Requests",
                "status": 429,
                "detail": "The limit of 60 hits per minute is reached.",
                "code": "limits_exceeded",
                "instance": "urn:weir:request:abc",
                "limit":
                    {"metric": "hits", "period": "minute", "max": 60, "used": 60, "reset_seconds": 12},
            })
        );
    }
}
