//! What came back for a request: an answer of one of the protocols, or none.
//!
//! Every answer has an HTTP status that says the same (`RESOURCE_EXHAUSTED` is a 429, and so is a 409 of 3scale's API for
//! limits), so that classes, expectations and the comparison with counters are decided here once for all protocols.

use std::borrow::Cow;
use std::fmt;

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Answer {
    /// An HTTP status.
    Http(u16),
    /// A gRPC status code.
    Grpc(u8),
    /// A listener's decision, by gRPC; or a refusal of 3scale's API that has a reason.
    Decision(Verdict),
}

/// A decision, as a place in the table of those that the contract knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Verdict(u8);

/// gRPC's codes and the statuses that say the same; `UNIMPLEMENTED` is what gateways say where no rule matches.
const GRPC: [(&str, u16); 17] = [
    ("OK", 200),
    ("CANCELLED", 499),
    ("UNKNOWN", 500),
    ("INVALID_ARGUMENT", 400),
    ("DEADLINE_EXCEEDED", 504),
    ("NOT_FOUND", 404),
    ("ALREADY_EXISTS", 409),
    ("PERMISSION_DENIED", 403),
    ("RESOURCE_EXHAUSTED", 429),
    ("FAILED_PRECONDITION", 400),
    ("ABORTED", 409),
    ("OUT_OF_RANGE", 400),
    ("UNIMPLEMENTED", 404),
    ("INTERNAL", 500),
    ("UNAVAILABLE", 503),
    ("DATA_LOSS", 500),
    ("UNAUTHENTICATED", 401),
];

/// Where an answer without a known gRPC code goes.
const GRPC_UNKNOWN: u8 = 2;

/// What a listener may decide. The contract: treat a code you do not know as a refusal of the credentials.
const VERDICTS: [(&str, u16); 15] = [
    ("allowed", 200),
    ("limits_exceeded", 429),
    ("credentials_missing", 401),
    ("service_id_invalid", 403),
    ("service_not_active", 403),
    ("application_not_found", 403),
    ("user_key_invalid", 403),
    ("application_key_invalid", 403),
    ("application_not_active", 403),
    ("referrer_not_allowed", 403),
    ("metric_invalid", 403),
    ("usage_value_invalid", 403),
    ("denied", 403),
    ("unavailable", 503),
    ("failure", 500),
];

impl Verdict {
    /// The call may go on.
    pub(crate) const ALLOWED: Self = Self(0);
    const DENIED: Self = Self(12);
    const UNAVAILABLE: Self = Self(13);
    const FAILURE: Self = Self(14);

    /// A refusal, by its code.
    pub(crate) fn denied(code: &str) -> Self {
        let at = (1..).zip(&VERDICTS[1..]).find(|(_, (known, _))| *known == code);
        at.map_or(Self::DENIED, |(at, _)| Self(at))
    }

    /// A failure, by its gRPC code.
    pub(crate) fn failed(code: i32) -> Self {
        // RESOURCE_EXHAUSTED of a listener says that too much waits, not that a limit is reached.
        if matches!(code, 8 | 14) { Self::UNAVAILABLE } else { Self::FAILURE }
    }
}

/// Kinds of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Below 400.
    Ok,
    /// 429: a limit is reached.
    Limited,
    /// Any other 4xx.
    Refused,
    /// 5xx.
    Failed,
}

impl Class {
    /// All, good before bad.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Limited, Self::Refused, Self::Failed];

    /// What reports call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Limited => "limited",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// Whether a request with this answer was admitted and so must have been counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    Admitted,
    Refused,
    /// The status alone does not say: the upstream may have answered it, or the gateway.
    Unclear,
}

impl Answer {
    /// A gRPC status code as it was sent.
    pub(crate) fn grpc(code: &[u8]) -> Self {
        let code = std::str::from_utf8(code).ok().and_then(|text| text.parse::<u8>().ok());
        Self::Grpc(code.filter(|code| usize::from(*code) < GRPC.len()).unwrap_or(GRPC_UNKNOWN))
    }

    /// A 409 of 3scale's API, by its reason.
    pub(crate) fn rejected(reason: &[u8]) -> Self {
        Self::Decision(std::str::from_utf8(reason).map_or(Verdict::DENIED, Verdict::denied))
    }

    /// The HTTP status that says the same.
    pub fn status(self) -> u16 {
        match self {
            Self::Http(status) => status,
            Self::Grpc(code) => GRPC[usize::from(code)].1,
            Self::Decision(Verdict(at)) => VERDICTS[usize::from(at)].1,
        }
    }

    /// As its protocol calls it: `200`, `UNAVAILABLE`, `limits_exceeded`.
    pub fn label(self) -> Cow<'static, str> {
        match self {
            Self::Http(status) => status.to_string().into(),
            Self::Grpc(code) => GRPC[usize::from(code)].0.into(),
            Self::Decision(Verdict(at)) => VERDICTS[usize::from(at)].0.into(),
        }
    }

    /// Its kind.
    pub fn class(self) -> Class {
        match self.status() {
            ..=399 => Class::Ok,
            429 => Class::Limited,
            400..=499 => Class::Refused,
            _ => Class::Failed,
        }
    }

    /// A decision is certain, and so is a status below 400. What gateways refuse with by default is not counted; any other
    /// status from 400 on may be the upstream's, and then it is.
    pub(crate) fn admission(self) -> Admission {
        match (self, self.status()) {
            (_, ..=399) => Admission::Admitted,
            (Self::Decision(_), _) => Admission::Refused,
            // A gateway that has no decision says UNAVAILABLE, one that has no upstream as well.
            (Self::Grpc(_), 503) => Admission::Unclear,
            (_, 401 | 403 | 404 | 429 | 503) => Admission::Refused,
            _ => Admission::Unclear,
        }
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No connection could be made.
    Connect,
    /// The connection broke, or what came back was not the protocol.
    Broken,
    /// It took longer than the time-out, from the time the request was due.
    Timeout,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Connect, Self::Broken, Self::Timeout];

    /// What reports call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Broken => "broken",
            Self::Timeout => "timeout",
        }
    }
}

/// Which answers a call may have; others are errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected(Vec<Range>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    from: u16,
    to: u16,
}

impl Default for Expected {
    /// Everything below 500: refusals are part of the service.
    fn default() -> Self {
        Self(vec![Range { from: 100, to: 499 }])
    }
}

/// Not a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is neither a status such as 429 nor a class such as 2xx")]
pub struct ExpectedError;

impl Expected {
    /// None yet.
    pub fn none() -> Self {
        Self(vec![])
    }

    /// Adds a status (`429`) or a class of them (`2xx`).
    ///
    /// # Errors
    /// When the text is neither.
    pub fn add(&mut self, text: &str) -> Result<(), ExpectedError> {
        let range = match text.strip_suffix("xx").and_then(|digit| digit.parse::<u16>().ok()) {
            Some(hundred @ 1..=5) => Range { from: hundred * 100, to: hundred * 100 + 99 },
            _ => {
                let status = text.parse().ok().filter(|status| (100..=599).contains(status));
                status.map(|status| Range { from: status, to: status }).ok_or(ExpectedError)?
            }
        };
        self.0.push(range);
        Ok(())
    }

    /// Whether an answer may come.
    pub(crate) fn covers(&self, answer: Answer) -> bool {
        let status = answer.status();
        self.0.iter().any(|range| (range.from..=range.to).contains(&status))
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(answer: Answer, label: &str, class: Class, admission: Admission) {
        assert_eq!((answer.label().as_ref(), answer.class(), answer.admission()), (label, class, admission));
    }

    #[test]
    fn all_protocols_have_the_same_classes() {
        use Admission::{Admitted, Refused as NotCounted, Unclear};
        check(Answer::Http(204), "204", Class::Ok, Admitted);
        check(Answer::Http(429), "429", Class::Limited, NotCounted);
        check(Answer::Http(403), "403", Class::Refused, NotCounted);
        check(Answer::Http(400), "400", Class::Refused, Unclear);
        check(Answer::Http(503), "503", Class::Failed, NotCounted);
        check(Answer::Http(502), "502", Class::Failed, Unclear);
        check(Answer::grpc(b"0"), "OK", Class::Ok, Admitted);
        check(Answer::grpc(b"8"), "RESOURCE_EXHAUSTED", Class::Limited, NotCounted);
        check(Answer::grpc(b"14"), "UNAVAILABLE", Class::Failed, Unclear);
        check(Answer::grpc(b"99"), "UNKNOWN", Class::Failed, Unclear);
        check(Answer::grpc(b"x"), "UNKNOWN", Class::Failed, Unclear);
        let decision = |verdict| Answer::Decision(verdict);
        check(decision(Verdict::ALLOWED), "allowed", Class::Ok, Admitted);
        check(decision(Verdict::denied("limits_exceeded")), "limits_exceeded", Class::Limited, NotCounted);
        check(decision(Verdict::denied("user_key_invalid")), "user_key_invalid", Class::Refused, NotCounted);
        check(decision(Verdict::denied("of tomorrow")), "denied", Class::Refused, NotCounted);
        check(Answer::rejected(b"limits_exceeded"), "limits_exceeded", Class::Limited, NotCounted);
        check(
            Answer::rejected(b"application_key_invalid"),
            "application_key_invalid",
            Class::Refused,
            NotCounted,
        );
        check(Answer::rejected(b"\xff"), "denied", Class::Refused, NotCounted);
        check(decision(Verdict::failed(14)), "unavailable", Class::Failed, NotCounted);
        check(decision(Verdict::failed(3)), "failure", Class::Failed, NotCounted);
    }

    #[test]
    fn expectations_are_statuses_and_classes() {
        let mut expected = Expected::none();
        for text in ["2xx", "429"] {
            expected.add(text).unwrap();
        }
        for (status, covered) in [(200, true), (299, true), (300, false), (429, true), (428, false)] {
            assert_eq!(expected.covers(Answer::Http(status)), covered, "{status}");
        }
        for bad in ["", "xx", "6xx", "99", "600", "ok", "20x"] {
            assert_eq!(expected.add(bad), Err(ExpectedError), "{bad}");
        }
        assert!(Expected::default().covers(Answer::Http(429)));
        assert!(!Expected::default().covers(Answer::Http(500)));
    }
}
