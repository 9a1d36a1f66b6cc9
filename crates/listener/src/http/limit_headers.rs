//! The headers `3scale-limit-…`: how often a caller may ask the same again, and until when.
//!
//! Reference: Service Management API, section 2. Of all limits that a call touches, the one tells that lets through
//! the fewest further calls, and of several the one with the longest period.

use weir_core::{LimitStatus, MetricName, Period, Timestamp, UsageValue};

/// What a call adds to a metric and its limits, descendants included.
pub(super) struct Use<'a> {
    pub(super) metric: &'a MetricName,
    pub(super) value: UsageValue,
}

/// What the headers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LimitHeaders {
    /// Identical calls; `None`: as many as one likes.
    pub(super) remaining: Option<u64>,
    /// Seconds; `None`: never.
    pub(super) reset_s: Option<u64>,
    pub(super) max: Option<u64>,
}

impl LimitHeaders {
    /// Of these limits, for a call that uses that; without any use all limits count.
    pub(super) fn new(limits: &[LimitStatus], uses: &[Use<'_>], now: Timestamp) -> Self {
        let is_candidate =
            |limit: &&LimitStatus| uses.is_empty() || uses.iter().any(|used| *used.metric == limit.metric);
        let constrains = |limit| Some((remaining_calls(limit, uses)?, limit));
        let candidates = limits.iter().filter(is_candidate).filter_map(constrains);
        let tightest =
            candidates.min_by_key(|(remaining, limit)| (*remaining, 6 - limit.window.period.index()));
        match tightest {
            None => Self { remaining: None, reset_s: None, max: None },
            Some((remaining, limit)) => {
                let is_eternal = limit.window.period == Period::Eternity;
                let reset_s = if is_eternal { None } else { limit.window.seconds_left(now) };
                Self { remaining: Some(remaining), reset_s, max: Some(limit.max) }
            }
        }
    }
}

/// `None`: the limit does not bound calls like this one.
fn remaining_calls(limit: &LimitStatus, uses: &[Use<'_>]) -> Option<u64> {
    let of_metric = uses.iter().find(|used| *used.metric == limit.metric);
    let by = of_metric.map_or(0, |used| match used.value {
        UsageValue::Add(by) | UsageValue::Set(by) => by,
    });
    let left = limit.remaining();
    match (left, by) {
        // A metric that is not in the plan bounds nobody who does not use it.
        (0, 0) if limit.max == 0 => None,
        (0, _) => Some(0),
        (_, 0) => None,
        (left, by) => Some(left / by),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Limits as `"hits/day 3/10"`, uses as `"hits=2"`: remaining, reset and max.
    #[track_caller]
    fn check(limits: &[&str], uses: &str, expected: &str) {
        let now = Timestamp::from_unix_s(1_795_456_805);
        let limits: Vec<LimitStatus> = limits
            .iter()
            .map(|text| {
                let (counter, state) = text.split_once(' ').unwrap();
                let (metric, period) = counter.split_once('/').unwrap();
                let (used, max) = state.split_once('/').unwrap();
                LimitStatus {
                    metric: metric.parse().unwrap(),
                    window: period.parse::<Period>().unwrap().window(now),
                    max: max.parse().unwrap(),
                    used: used.parse().unwrap(),
                    held: 0,
                }
            })
            .collect();
        let uses: Vec<(MetricName, UsageValue)> = uses
            .split_whitespace()
            .map(|text| text.split_once('=').unwrap())
            .map(|(metric, value)| (metric.parse().unwrap(), value.parse().unwrap()))
            .collect();
        let uses: Vec<Use<'_>> = uses.iter().map(|(metric, value)| Use { metric, value: *value }).collect();
        let LimitHeaders { remaining, reset_s, max } = LimitHeaders::new(&limits, &uses, now);
        let show = |value: Option<u64>| value.map_or("-".into(), |value| value.to_string());
        assert_eq!([remaining, reset_s, max].map(show).join(" "), expected);
    }

    #[test]
    fn the_tightest_limit_tells() {
        check(&["hits/day 0/10"], "hits=2", "5 21595 10");
        check(&["hits/day 2/10"], "hits=3", "2 21595 10");
        check(&["hits/hour 0/3", "hits/day 0/100"], "hits=1", "3 3595 3");
        check(&["hits/hour 0/10", "hits/day 0/10"], "hits=1", "10 21595 10");
        check(&["hits/eternity 0/10", "hits/day 0/10"], "hits=1", "10 - 10");
        check(&["hits/hour 0/10", "mail/day 0/4"], "hits=1 mail=1", "4 21595 4");
        check(&["hits/day 4/10"], "hits=#2", "3 21595 10");
        check(&["hits/day 15/10"], "hits=1", "0 21595 10");
    }

    #[test]
    fn what_bounds_nothing_says_nothing() {
        check(&[], "hits=1", "- - -");
        check(&["hits/day 0/10"], "mail=1", "- - -");
        check(&["hits/day 0/10"], "hits=0", "- - -");
        check(&["hits/hour 0/10", "mail/day 0/4"], "hits=0 mail=1", "4 21595 4");
        check(&["hits/hour 0/10", "mail/day 0/4"], "hits=1 mail=0", "10 3595 10");
    }

    #[test]
    fn without_usage_only_what_is_exhausted_tells() {
        check(&["hits/hour 0/10", "mail/day 4/4"], "", "0 21595 4");
        check(&["hits/hour 9/10"], "", "- - -");
        check(&["hits/hour 0/0"], "", "- - -");
        check(&["hits/hour 0/0"], "hits=1", "0 3595 0");
    }
}
