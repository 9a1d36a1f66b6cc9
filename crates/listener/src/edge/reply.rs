//! How refusals of other proxies' calls read: status, headers and body, as our own gateway writes them.
//!
//! Envoy passes them on as they are; nginx has the texts in its configuration and gets the class and the headers.
//! A call without a decision has no reply here: what then happens is for each protocol to say.

use http::{HeaderValue, StatusCode};
use weir_core::proxy::RefusalReply;
use weir_core::ratelimit::Tightest;
use weir_core::refusal::{PROBLEM_TYPE, Problem, Refused, ReplyKind, retry_after_s};
use weir_core::target::{METHODS_SERVED, TargetError};
use weir_core::{LimitStatus, Timestamp};

use super::Refusal;

const PLAIN: &str = "text/plain; charset=utf-8";

/// What the client is to get.
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// The stable code.
    pub(crate) code: &'static str,
    /// Which of a provider's texts it is, or what else it is.
    pub(crate) class: Class,
    /// `retry-after`, `ratelimit`, `ratelimit-policy`, `allow`; as many of them as there are.
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) content_type: String,
    pub(crate) body: String,
    /// The problem document, if the client asked for one: it goes in the place of the body.
    pub(crate) problem: Option<String>,
}

/// The kinds of refusals that read differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    AuthMissing,
    AuthFailed,
    NoMatch,
    LimitsExceeded,
    /// No service there.
    NotFound,
    /// 400.
    Malformed,
    /// 417.
    Expectation,
    /// 405.
    Method,
    BodyTooLong,
}

impl Class {
    /// As headers say it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::AuthMissing => "auth_missing",
            Self::AuthFailed => "auth_failed",
            Self::NoMatch => "no_match",
            Self::LimitsExceeded => "limits_exceeded",
            Self::NotFound => "not_found",
            Self::Malformed => "malformed",
            Self::Expectation => "expectation",
            Self::Method => "method",
            Self::BodyTooLong => "body_too_long",
        }
    }

    /// Whether its words are Weir's, and not the provider's.
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::Malformed | Self::Expectation | Self::Method | Self::BodyTooLong)
    }
}

impl From<ReplyKind> for Class {
    fn from(kind: ReplyKind) -> Self {
        match kind {
            ReplyKind::AuthMissing => Self::AuthMissing,
            ReplyKind::AuthFailed => Self::AuthFailed,
            ReplyKind::NoMatch => Self::NoMatch,
            ReplyKind::LimitsExceeded => Self::LimitsExceeded,
        }
    }
}

/// What a reply says, before it is written.
struct Answer<'a> {
    status: u16,
    class: Class,
    detail: String,
    configured: Option<&'a RefusalReply>,
    limit: Option<(&'a LimitStatus, Timestamp)>,
}

/// The reply to a refused call; `id` names it in a problem document.
pub(crate) fn render(refusal: &Refusal, wants_problem: bool, id: &str) -> Reply {
    let answer = match refusal {
        Refusal::NoService => return not_found(),
        Refusal::Target(error) => {
            let class = match error {
                TargetError::Method => Class::Method,
                TargetError::Expectation => Class::Expectation,
                TargetError::Path(_) | TargetError::Malformed(_) => Class::Malformed,
            };
            plain(error.status(), class, error.sentence())
        }
        Refusal::BodyTooLong => {
            let sentence = "The request body is too long.".to_owned();
            plain(413, Class::BodyTooLong, sentence)
        }
        Refusal::Denied { service, denial, at } => {
            let Refused { kind, reply, limit } = Refused::of(denial, &service.proxy.refusals);
            Answer {
                status: reply.status,
                class: kind.into(),
                detail: denial.sentence(),
                configured: Some(reply),
                limit: limit.map(|limit| (limit, *at)),
            }
        }
    };
    write(&answer, refusal.code(), wants_problem.then_some(id))
}

fn plain(status: u16, class: Class, detail: String) -> Answer<'static> {
    Answer { status, class, detail, configured: None, limit: None }
}

/// Nobody is told anything of services that are not there.
fn not_found() -> Reply {
    Reply {
        status: 404,
        code: "service_not_found",
        class: Class::NotFound,
        headers: vec![],
        content_type: PLAIN.into(),
        body: String::new(),
        problem: None,
    }
}

/// With `id`, a problem document is wanted.
fn write(answer: &Answer<'_>, code: &'static str, id: Option<&str>) -> Reply {
    let status = StatusCode::from_u16(answer.status).ok();
    let problem = id.map(|request_id| Problem {
        status: answer.status,
        title: status.and_then(|status| status.canonical_reason()).unwrap_or("Refused"),
        code,
        detail: &answer.detail,
        request_id,
        limit: answer.limit,
    });
    let problem = problem.map(|problem| problem.to_json());
    let (content_type, body) = match (&problem, answer.configured) {
        (Some(document), _) => (PROBLEM_TYPE, document),
        // What is no value is never written.
        (None, Some(reply)) if HeaderValue::from_str(&reply.content_type).is_ok() => {
            (reply.content_type.as_str(), &reply.body)
        }
        (None, Some(reply)) => (PLAIN, &reply.body),
        (None, None) => (PLAIN, &answer.detail),
    };
    Reply {
        status: answer.status,
        code,
        class: answer.class,
        headers: headers(answer),
        content_type: content_type.to_owned(),
        body: body.clone(),
        problem,
    }
}

fn headers(answer: &Answer<'_>) -> Vec<(&'static str, String)> {
    let mut headers = Vec::new();
    if answer.class == Class::Method {
        headers.push(("allow", METHODS_SERVED.to_owned()));
    }
    let Some((limit, at)) = answer.limit else { return headers };
    if let Some(seconds) = retry_after_s(limit, at) {
        headers.push(("retry-after", seconds.to_string()));
    }
    headers.extend(limit_headers(&Tightest::of([limit.clone()]), at));
    headers
}

/// Where limits stand.
pub(crate) fn limit_headers(
    limits: &Tightest,
    at: Timestamp,
) -> impl Iterator<Item = (&'static str, String)> {
    let headers = limits.headers(at).into_iter().flatten();
    headers.map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned()))
}
