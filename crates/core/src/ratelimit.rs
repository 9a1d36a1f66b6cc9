//! Where limits stand, in response headers.
//!
//! `RateLimit-Policy` and `RateLimit` as structured fields of the IETF draft "RateLimit header fields for HTTP"
//! (draft-ietf-httpapi-ratelimit-headers, from its revision 08 on): one item per limit, named
//! `"<metric>-<period>"`, `q` the ceiling, `w` the window's length and `t` its remaining seconds, `r` what is
//! left. Windows of all time have neither `w` nor `t`. The older `RateLimit-Limit` and its kin are not sent.

use crate::decide::LimitStatus;
use crate::period::Timestamp;

/// Most limits that one answer tells; those with the least left come first.
const LIMITS_MAX: usize = 4;

/// The header of ceilings and windows.
pub const POLICY: &str = "ratelimit-policy";
/// The header of what is left.
pub const STATE: &str = "ratelimit";

/// The limits with the least left, the least first.
#[derive(Debug, Default)]
pub struct Tightest([Option<LimitStatus>; LIMITS_MAX]);

impl Tightest {
    /// Those of some limits.
    pub fn of(limits: impl IntoIterator<Item = LimitStatus>) -> Self {
        let mut tightest = Self::default();
        for limit in limits {
            tightest.put(limit);
        }
        tightest
    }

    fn put(&mut self, limit: LimitStatus) {
        let mut carried = Some(limit);
        for place in &mut self.0 {
            let is_tighter = match (&carried, &*place) {
                (Some(limit), Some(known)) => limit.remaining() < known.remaining(),
                (Some(_), None) => true,
                (None, _) => return,
            };
            if is_tighter {
                std::mem::swap(&mut carried, place);
            }
        }
    }

    /// The least first.
    pub fn iter(&self) -> impl Iterator<Item = &LimitStatus> {
        self.0.iter().flatten()
    }

    /// Both headers of a decision made at `decided_at`, the policy first; `None` without limits.
    pub fn headers(&self, decided_at: Timestamp) -> Option<[(&'static str, Vec<u8>); 2]> {
        let count = self.iter().count();
        if count == 0 {
            return None;
        }
        let mut policy = Vec::with_capacity(ITEM_BYTES * count);
        let mut state = Vec::with_capacity(ITEM_BYTES * count);
        for limit in self.iter() {
            let length_s = limit.window.seconds_left(limit.window.start);
            write_item(&mut policy, limit, ("q", limit.max), ("w", length_s));
            let left_s = limit.window.seconds_left(decided_at);
            write_item(&mut state, limit, ("r", limit.remaining()), ("t", left_s));
        }
        Some([(POLICY, policy), (STATE, state)])
    }
}

/// About as long as an item gets.
const ITEM_BYTES: usize = 48;

/// Metric names have no quote and no backslash, so nothing needs escaping.
fn write_item(
    list: &mut Vec<u8>,
    limit: &LimitStatus,
    (amount_key, amount): (&str, u64),
    (seconds_key, seconds): (&str, Option<u64>),
) {
    let separator = if list.is_empty() { "\"" } else { ", \"" };
    let (metric, period) = (limit.metric.as_str(), limit.window.period.as_str());
    for part in [separator, metric, "-", period, "\";", amount_key, "="] {
        list.extend_from_slice(part.as_bytes());
    }
    write_number(list, amount);
    if let Some(seconds) = seconds {
        for part in [";", seconds_key, "="] {
            list.extend_from_slice(part.as_bytes());
        }
        write_number(list, seconds);
    }
}

/// Every answer has up to sixteen of them: that is worth more than the general way of writing numbers.
fn write_number(list: &mut Vec<u8>, mut number: u64) {
    let mut digits = [b'0'; 20];
    let mut at = digits.len() - 1;
    while number > 9 {
        digits[at] = b'0' + (number % 10).to_le_bytes()[0];
        number /= 10;
        at -= 1;
    }
    digits[at] = b'0' + number.to_le_bytes()[0];
    list.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::MetricName;
    use crate::period::Period;

    const NOW: i64 = 1_795_404_708_000; // 12 s before a full minute

    fn limit(metric: &str, period: Period, max: u64, used: u64) -> LimitStatus {
        let window = period.window(Timestamp::from_unix_ms(NOW));
        LimitStatus { metric: MetricName::parse(metric).unwrap(), window, max, used, held: 0 }
    }

    #[test]
    fn numbers_are_written_in_full() {
        for number in [0, 9, 10, 60, 4096, u64::MAX] {
            let mut list = Vec::new();
            write_number(&mut list, number);
            assert_eq!(list, number.to_string().as_bytes());
        }
    }

    #[track_caller]
    fn check(limits: &[LimitStatus], policy: Option<&str>, state: Option<&str>) {
        let headers = Tightest::of(limits.iter().cloned()).headers(Timestamp::from_unix_ms(NOW));
        let text = headers.map(|headers| headers.map(|(_, value)| String::from_utf8(value).unwrap()));
        let [found_policy, found_state] = text.map_or([None, None], |headers| headers.map(Some));
        assert_eq!((found_policy.as_deref(), found_state.as_deref()), (policy, state));
    }

    #[test]
    fn limits_are_structured_fields() {
        check(&[], None, None);
        check(
            &[limit("hits", Period::Minute, 60, 60)],
            Some("\"hits-minute\";q=60;w=60"),
            Some("\"hits-minute\";r=0;t=12"),
        );
        check(
            &[limit("hits", Period::Eternity, 5, 1)],
            Some("\"hits-eternity\";q=5"),
            Some("\"hits-eternity\";r=4"),
        );
    }

    #[test]
    fn the_tightest_four_are_told() {
        let limits: Vec<_> = (1..=6).map(|n| limit(&format!("m{n}"), Period::Eternity, 10, n)).collect();
        check(
            &limits,
            Some("\"m6-eternity\";q=10, \"m5-eternity\";q=10, \"m4-eternity\";q=10, \"m3-eternity\";q=10"),
            Some("\"m6-eternity\";r=4, \"m5-eternity\";r=5, \"m4-eternity\";r=6, \"m3-eternity\";r=7"),
        );
    }
}
