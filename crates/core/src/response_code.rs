//! How the upstream answered, as callers of 3scale's API tell it (`log[code]`), and what is counted for that.
//!
//! The counters are metrics of no service: their names begin with a dot, which those of a catalog cannot. (Reference:
//! Service Management API, section 3.7.)

use crate::alert::AlertBins;
use crate::counter::Increment;
use crate::id::MetricName;
use crate::usage::UsageValue;

/// What the names of these counters begin with.
pub const RESPONSES_PREFIX: &str = ".responses/";

/// The codes that are counted by themselves.
const COUNTED: [&str; 5] = ["200", "403", "404", "500", "503"];
/// What they are counted together in.
const GROUPS: [&str; 3] = ["2XX", "4XX", "5XX"];

/// A status code of HTTP: three digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseCode([u8; 3]);

impl ResponseCode {
    /// A code as sent; `None`: it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: [u8; 3] = text.as_bytes().try_into().ok()?;
        digits.iter().all(u8::is_ascii_digit).then_some(Self(digits))
    }

    /// What is counted for one call that was answered so: nothing for most of the rarer codes.
    pub fn increments(self) -> impl Iterator<Item = Increment> {
        let own = COUNTED.into_iter().filter(move |code| code.as_bytes() == self.0);
        let group = GROUPS.into_iter().filter(move |group| group.as_bytes()[0] == self.0[0]);
        own.chain(group).filter_map(|name| {
            let metric = MetricName::parse(&format!("{RESPONSES_PREFIX}{name}")).ok()?;
            Some(Increment {
                metric,
                value: UsageValue::Add(1),
                ceilings: vec![],
                alert_bins: AlertBins::NONE,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(code: &str, expected: &[&str]) {
        let code = ResponseCode::parse(code);
        let found: Vec<_> =
            code.into_iter().flat_map(ResponseCode::increments).map(|i| i.metric.to_string()).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn codes_are_counted_alone_and_together() {
        check("200", &[".responses/200", ".responses/2XX"]);
        check("209", &[".responses/2XX"]);
        check("503", &[".responses/503", ".responses/5XX"]);
        check("302", &[]);
        for no_code in ["", "20", "2000", "2xx", "-20", "２００"] {
            check(no_code, &[]);
        }
    }
}
