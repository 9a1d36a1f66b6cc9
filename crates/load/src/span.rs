//! Lengths of time as people write them: `30s`, `1.5ms`, `2m`.
//!
//! The command line, mix files and thresholds all read them here, and reports print them back.

use std::fmt;
use std::time::Duration;

/// A length of time; more than nothing, at most a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// Longest span.
const SPAN_MAX: Duration = Duration::from_secs(86_400);

/// Not a length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a length of time such as 30s, 500ms, 250us, 2m or 1h, up to a day")]
pub struct SpanError;

impl std::str::FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(SpanError)?;
        let (number, unit) = text.split_at(digits);
        let seconds = match unit {
            "us" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            _ => return Err(SpanError),
        };
        let number: f64 = number.parse().map_err(|_| SpanError)?;
        let span = Duration::try_from_secs_f64(number * seconds).map_err(|_| SpanError)?;
        if span.is_zero() || span > SPAN_MAX { Err(SpanError) } else { Ok(Self(span)) }
    }
}

impl fmt::Display for Span {
    /// In the largest unit that leaves a whole number; below a second in milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.0.as_nanos();
        let units =
            [(3_600_000_000_000, "h"), (60_000_000_000, "m"), (1_000_000_000, "s"), (1_000_000, "ms")];
        match units.into_iter().find(|(unit, _)| ns >= *unit && ns.is_multiple_of(*unit)) {
            Some((unit, name)) => write!(f, "{}{name}", ns / unit),
            None => write!(f, "{}us", ns / 1_000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<(u64, &str)>) {
        let read = text.parse::<Span>().ok();
        let expected_ns = expected.map(|(us, _)| Span(Duration::from_micros(us)));
        assert_eq!(read, expected_ns, "{text}");
        assert_eq!(read.map(|span| span.to_string()).as_deref(), expected.map(|(_, printed)| printed));
    }

    #[test]
    fn spans_are_read_and_printed() {
        check("30s", Some((30_000_000, "30s")));
        check("1.5s", Some((1_500_000, "1500ms")));
        check("250us", Some((250, "250us")));
        check("120s", Some((120_000_000, "2m")));
        check("24h", Some((86_400_000_000, "24h")));
        for bad in ["", "30", "s", "0s", "25h", "-1s", "1d", "1e3s", "1.2.3s", "1 s"] {
            check(bad, None);
        }
    }
}
