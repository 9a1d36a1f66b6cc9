//! Refusals as gRPC clients read them: a trailers-only answer with HTTP status 200.
//!
//! Which code a refusal gets is decided here and nowhere else; its text is that of the problem document.
//! `Retry-After` and the `RateLimit` fields are the same as for other clients.

use http::header;
use http::header::CONTENT_TYPE;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use weir_core::Denial;
use weir_core::target::TargetError;

use super::{PolicyRefusal, Refusal, answer, write_headers};
use crate::body::ReplyBody;
use crate::fields::{self, Fields};
use crate::grpc_status::GRPC_STATUS;
use crate::message::Reply;
use crate::upstream::UpstreamError;

const GRPC_MESSAGE: &str = "grpc-message";

/// What the protocol wants encoded beyond control characters and all that is not ASCII.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');

/// Codes of <https://grpc.io/docs/guides/status-codes/>.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    DeadlineExceeded = 4,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

/// Whether a request speaks gRPC; gRPC-Web is ordinary HTTP.
pub(crate) fn is_grpc(headers: &Fields) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(fields::text).unwrap_or_default();
    let rest = value.trim().strip_prefix("application/grpc");
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';']))
}

/// The reply to a refused call.
pub(crate) fn render(refusal: &Refusal) -> Reply<ReplyBody> {
    let mut reply = Reply::new(ReplyBody::text(""));
    let headers = &mut reply.fields;
    let detail = match answer(refusal) {
        Some(answer) => {
            write_headers(headers, refusal, &answer);
            headers.remove(header::ALLOW);
            answer.detail
        }
        None => "Nobody serves this.".to_owned(),
    };
    headers.set(CONTENT_TYPE, "application/grpc");
    headers.set(GRPC_STATUS, (code(refusal) as u16).to_string());
    headers.set(GRPC_MESSAGE, utf8_percent_encode(&detail, ENCODED).to_string());
    reply
}

fn code(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::Denied(denied) => match &denied.denial {
            Denial::CredentialsMissing => Code::Unauthenticated,
            Denial::NoMappingRule => Code::Unimplemented,
            // A ceiling of 0 is a metric that the plan does not have: waiting does not help.
            Denial::LimitsExceeded(limit) if limit.max > 0 => Code::ResourceExhausted,
            _ => Code::PermissionDenied,
        },
        Refusal::Undecided(_) => Code::PermissionDenied,
        Refusal::NoService | Refusal::NoUpstream | Refusal::Target(TargetError::Method) => {
            Code::Unimplemented
        }
        Refusal::BodyTooLong
        | Refusal::Policy(PolicyRefusal::Rate { .. } | PolicyRefusal::Concurrency)
        | Refusal::AnswerTooLong(_) => Code::ResourceExhausted,
        Refusal::Policy(PolicyRefusal::Address | PolicyRefusal::Claim(..)) => Code::PermissionDenied,
        Refusal::Policy(PolicyRefusal::Maintenance(..)) => Code::Unavailable,
        Refusal::Policy(PolicyRefusal::Failed(_)) => Code::Internal,
        Refusal::BodyStalled | Refusal::Upstream(UpstreamError::Timeout) => Code::DeadlineExceeded,
        Refusal::Unavailable | Refusal::IssuerAway | Refusal::Upstream(_) => Code::Unavailable,
        // What gRPC clients make of a 400.
        Refusal::Malformed(_) | Refusal::Target(_) | Refusal::BodyBroken | Refusal::Broken => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weir_core::{LimitStatus, MetricName, Period, Timestamp};

    use super::*;
    use crate::reply::Denied;
    use crate::service::Service;

    const NOW: i64 = 1_795_404_708_000; // 12 s before a full minute

    fn denied(denial: Denial) -> Refusal {
        let service = Arc::new(Service::for_tests("api", &["api.test"], &["/"]));
        Refusal::Denied(Denied { service, denial, at: Timestamp::from_unix_ms(NOW), application: None })
    }

    fn exceeded(max: u64) -> Denial {
        let window = Period::Minute.window(Timestamp::from_unix_ms(NOW));
        let metric = MetricName::parse("hits").unwrap();
        Denial::LimitsExceeded(LimitStatus { metric, window, max, used: max, held: 0 })
    }

    #[track_caller]
    fn check(refusal: &Refusal, status: &str, retry_after: Option<&str>) {
        let reply = render(refusal);
        assert_eq!(reply.status, 200);
        assert_eq!(reply.fields.text(CONTENT_TYPE), Some("application/grpc"));
        assert_eq!(reply.fields.text(GRPC_STATUS), Some(status));
        assert!(!reply.fields.text(GRPC_MESSAGE).unwrap().is_empty());
        assert_eq!(reply.fields.text(header::RETRY_AFTER), retry_after);
    }

    #[test]
    fn refusals_have_codes() {
        check(&denied(Denial::CredentialsMissing), "16", None);
        check(&denied(Denial::UserKeyInvalid), "7", None);
        check(&denied(exceeded(0)), "7", None);
        check(&denied(exceeded(60)), "8", Some("12"));
        check(&denied(Denial::NoMappingRule), "12", None);
        check(&Refusal::NoService, "12", None);
        check(&Refusal::Target(TargetError::Method), "12", None);
        check(&Refusal::Target(TargetError::Malformed("no")), "13", None);
        check(&Refusal::Unavailable, "14", Some("1"));
        check(&Refusal::Upstream(UpstreamError::NoConnection), "14", None);
        check(&Refusal::Upstream(UpstreamError::Timeout), "4", None);
    }

    #[test]
    fn limits_are_told() {
        let reply = render(&denied(exceeded(60)));
        assert_eq!(reply.fields.text("ratelimit"), Some("\"hits-minute\";r=0;t=12"));
    }

    #[test]
    fn grpc_is_told_by_its_type() {
        let is = |value: &str| is_grpc(&Fields::of(&[&format!("content-type: {value}")]));
        assert!(is("application/grpc") && is("application/grpc+proto") && is("application/grpc; charset=x"));
        assert!(!is("application/grpc-web") && !is("application/json") && !is_grpc(&Fields::new()));
    }
}
