//! How a refusal reads: which of the provider's four replies it gets, when to come back, its problem document.
//!
//! Gateway and listener render it, each in its own protocol. A limit of 0 reads as "not part of the plan": waiting
//! does not help, so nobody is told to. Problem documents follow RFC 9457; they are written by hand, since core
//! needs no more of JSON than to quote text.

use crate::decide::LimitStatus;
use crate::denial::Denial;
use crate::period::Timestamp;
use crate::proxy::{RefusalReply, Refusals};

/// The media type of problem documents.
pub const PROBLEM_TYPE: &str = "application/problem+json";

/// Which of a provider's replies it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyKind {
    /// No credentials.
    AuthMissing,
    /// Anything else that is refused.
    AuthFailed,
    /// No mapping rule.
    NoMatch,
    /// A limit above 0 is reached.
    LimitsExceeded,
}

/// A refusal as its provider wants it to read.
#[derive(Debug, Clone, Copy)]
pub struct Refused<'a> {
    /// Which reply.
    pub kind: ReplyKind,
    /// Status, text and type.
    pub reply: &'a RefusalReply,
    /// The limit that is reached, where it is one that will be free again or could be.
    pub limit: Option<&'a LimitStatus>,
}

impl<'a> Refused<'a> {
    /// The reply to a denial.
    pub fn of(denial: &'a Denial, replies: &'a Refusals) -> Self {
        match denial {
            Denial::CredentialsMissing => {
                Self { kind: ReplyKind::AuthMissing, reply: &replies.auth_missing, limit: None }
            }
            Denial::NoMappingRule => Self { kind: ReplyKind::NoMatch, reply: &replies.no_match, limit: None },
            Denial::LimitsExceeded(limit) => Self::by_limit(limit, replies),
            _ => Self::failed(replies),
        }
    }

    /// The reply where a limit is reached.
    pub fn by_limit(limit: &'a LimitStatus, replies: &'a Refusals) -> Self {
        if limit.max == 0 {
            return Self::failed(replies);
        }
        Self { kind: ReplyKind::LimitsExceeded, reply: &replies.limits_exceeded, limit: Some(limit) }
    }

    fn failed(replies: &'a Refusals) -> Self {
        Self { kind: ReplyKind::AuthFailed, reply: &replies.auth_failed, limit: None }
    }
}

/// After how many seconds a limit may admit calls again, at least 1; `None`: never.
pub fn retry_after_s(limit: &LimitStatus, decided_at: Timestamp) -> Option<u64> {
    Some(limit.window.seconds_left(decided_at)?.max(1))
}

/// Whether a client asks for problem documents by name, given its `Accept` lines; a wildcard is not enough.
pub fn wants_problem<'a>(accept: impl Iterator<Item = &'a str>) -> bool {
    accept.flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_problem = parts.next().is_some_and(|text| text.eq_ignore_ascii_case(PROBLEM_TYPE));
        is_problem && !parts.any(|parameter| matches!(parameter, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}

/// What a problem document says.
#[derive(Debug, Clone, Copy)]
pub struct Problem<'a> {
    /// HTTP status.
    pub status: u16,
    /// What the status is called.
    pub title: &'a str,
    /// The stable code.
    pub code: &'a str,
    /// A sentence for people.
    pub detail: &'a str,
    /// Names the request.
    pub request_id: &'a str,
    /// The limit that is reached, and when it was.
    pub limit: Option<(&'a LimitStatus, Timestamp)>,
}

impl Problem<'_> {
    /// As JSON.
    pub fn to_json(&self) -> String {
        let Self { status, title, code, detail, request_id, limit } = self;
        let [title, quoted_code, detail] = [title, code, detail].map(|text| quote(text));
        let kind = quote(&format!("urn:weir:problem:{code}"));
        let instance = quote(&format!("urn:weir:request:{request_id}"));
        let limit = limit.map_or_else(String::new, |(limit, at)| limit_member(limit, at));
        format!(
            r#"{{"type":{kind},"title":{title},"status":{status},"detail":{detail},"code":{quoted_code},"instance":{instance}{limit}}}"#
        )
    }
}

fn limit_member(limit: &LimitStatus, at: Timestamp) -> String {
    let [metric, period] = [limit.metric.as_str(), limit.window.period.as_str()].map(quote);
    // `null`: never.
    let reset = limit.window.seconds_left(at).map_or_else(|| "null".to_owned(), |s| s.to_string());
    let LimitStatus { max, used, .. } = limit;
    format!(
        r#","limit":{{"metric":{metric},"period":{period},"max":{max},"used":{used},"reset_seconds":{reset}}}"#
    )
}

/// A JSON string, in visible ASCII alone: documents also travel in headers.
fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            ' '..='~' => quoted.push(character),
            _ => {
                let mut units = [0; 2];
                for unit in character.encode_utf16(&mut units) {
                    quoted.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::MetricName;
    use crate::period::Period;

    const NOW: i64 = 1_795_404_708_000; // 12 s before a full minute

    fn limit(period: Period, max: u64) -> LimitStatus {
        let window = period.window(Timestamp::from_unix_ms(NOW));
        LimitStatus { metric: MetricName::parse("hits").unwrap(), window, max, used: max, held: 0 }
    }

    #[test]
    fn each_denial_has_its_reply() {
        #[track_caller]
        fn check(denial: &Denial, status: u16, retry_after: Option<u64>) {
            let replies = Refusals::default();
            let refused = Refused::of(denial, &replies);
            let at = Timestamp::from_unix_ms(NOW);
            let found = refused.limit.and_then(|limit| retry_after_s(limit, at));
            assert_eq!((refused.reply.status, found), (status, retry_after), "{denial:?}");
        }
        check(&Denial::CredentialsMissing, 401, None);
        check(&Denial::UserKeyInvalid, 403, None);
        check(&Denial::NoMappingRule, 404, None);
        check(&Denial::LimitsExceeded(limit(Period::Minute, 60)), 429, Some(12));
        check(&Denial::LimitsExceeded(limit(Period::Eternity, 60)), 429, None);
        check(&Denial::LimitsExceeded(limit(Period::Minute, 0)), 403, None);
    }

    #[test]
    fn problems_are_asked_for_by_name() {
        for (accept, expected) in [
            ("application/problem+json", true),
            ("text/html, Application/Problem+JSON;q=0.5", true),
            ("*/*", false),
            ("application/json", false),
            ("application/problem+json;q=0", false),
        ] {
            assert_eq!(wants_problem([accept].into_iter()), expected, "{accept}");
        }
    }

    #[test]
    fn problems_are_json() {
        let hour = limit(Period::Eternity, 5);
        let problem = Problem {
            status: 429,
            title: "Too Many Requests",
            code: "limits_exceeded",
            detail: "say \"nö\"\\\n",
            request_id: "abc",
            limit: Some((&hour, Timestamp::from_unix_ms(NOW))),
        };
        assert_eq!(
            problem.to_json(),
            r#"{"type":"urn:weir:problem:limits_exceeded","title":"Too Many Requests","status":429,"detail":"say \"n\u00f6\"\\\u000a","code":"limits_exceeded","instance":"urn:weir:request:abc","limit":{"metric":"hits","period":"eternity","max":5,"used":5,"reset_seconds":null}}"#
        );
    }
}
