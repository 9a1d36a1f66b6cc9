//! How far a limit is used, in the steps at which a provider wants to hear of it.
//!
//! The steps are those of 3scale ("utilization bins"; reference: Service Management API, section 4). The store finds
//! the crossing in the step that counts: here by [`crossed`], in Redis by the same rule in `events.lua`. Unlike 3scale's,
//! which only looks at the highest step that was reached, every step that was crossed is told.
//!
//! How often an application's alert is told is the store's business.

use std::fmt;

use crate::counter::{COUNT_MAX, Ceiling, Increment, ceilings, changed};
use crate::id::MetricName;
use crate::period::Period;
use crate::usage::UsageValue;

/// All steps, in per cent of a limit.
pub const ALERT_BINS: [u16; 8] = [50, 80, 90, 100, 120, 150, 200, 300];

/// Which steps a provider wants to hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AlertBins(u8);

impl AlertBins {
    /// All of them.
    pub const ALL: Self = Self(u8::MAX);
    /// None of them.
    pub const NONE: Self = Self(0);

    /// These steps; `None` where one is not of [`ALERT_BINS`].
    pub fn of(percents: impl IntoIterator<Item = u64>) -> Option<Self> {
        let mut bins = Self::NONE;
        for percent in percents {
            bins.0 |= 1 << ALERT_BINS.iter().position(|bin| u64::from(*bin) == percent)?;
        }
        Some(bins)
    }

    /// The steps in per cent, ascending.
    pub fn percents(self) -> impl Iterator<Item = u16> {
        ALERT_BINS
            .into_iter()
            .enumerate()
            .filter(move |(place, _)| self.0 & (1 << place) != 0)
            .map(|(_, bin)| bin)
    }

    /// The steps of these bits, one for each of [`ALERT_BINS`], the lowest for the first.
    pub fn of_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// One bit for each of [`ALERT_BINS`], the lowest for the first.
    pub fn bits(self) -> u8 {
        self.0
    }
}

/// 3scale's backend has none at first, its admin portal switches on all: who moves over expects these.
impl Default for AlertBins {
    fn default() -> Self {
        Self::ALL
    }
}

/// A limit whose use came to a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// The step, one of [`ALERT_BINS`].
    pub bin: u16,
    /// What is limited.
    pub metric: MetricName,
    /// In which windows.
    pub period: Period,
    /// What the counter held with the usage that crossed the step.
    pub current: u64,
    /// The limit; never 0.
    pub max: u64,
}

impl Alert {
    /// The use of the limit: 1 where all of it is used.
    #[allow(clippy::cast_precision_loss, reason = "both are below 2^53")]
    pub fn utilization(&self) -> f64 {
        self.current as f64 / self.max as f64
    }
}

impl fmt::Display for Alert {
    /// As 3scale words it: `hits per day: 80/100`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { metric, period, current, max, .. } = self;
        write!(f, "{metric} per {period}: {current}/{max}")
    }
}

/// The steps that counting these increments so many times crosses, in the order in which one time after the other comes
/// to them; several limits may come to the same step. `used[n]` is what the n-th counter of [`ceilings`] holds before.
///
/// A step is crossed where less than so many per cent of the limit was used before, and no less is with it. A limit of 0
/// has no steps.
pub fn crossed(increments: &[Increment], used: &[u64], times: u64) -> Vec<Alert> {
    let mut found: Vec<(u64, Alert)> = vec![];
    for ((increment, ceiling), before) in ceilings(increments).zip(used) {
        let after = match increment.value {
            UsageValue::Add(by) => changed(*before, UsageValue::Add(by.saturating_mul(times))),
            set @ UsageValue::Set(_) => changed(*before, set),
        };
        // Mostly that is all there is to it: no step is below half of a limit.
        if after.saturating_mul(2) >= ceiling.max && after > *before && ceiling.max > 0 {
            found.extend(crossed_of(increment, ceiling, *before, after));
        }
    }
    // What is crossed at once stays in the order of the limits.
    found.sort_by_key(|(time, _)| *time);
    found.into_iter().map(|(_, alert)| alert).collect()
}

/// The steps of one limit, each with the time that comes to it, from 1.
fn crossed_of(
    increment: &Increment,
    ceiling: Ceiling,
    before: u64,
    after: u64,
) -> impl Iterator<Item = (u64, Alert)> + '_ {
    let steps = increment.alert_bins.percents().map(move |bin| (bin, step(bin, ceiling.max)));
    steps.filter(move |(_, step)| before < *step && *step <= after).map(move |(bin, step)| {
        let (time, current) = match increment.value {
            UsageValue::Add(by) => {
                let time = (step - before).div_ceil(by);
                (time, before.saturating_add(by.saturating_mul(time)).min(COUNT_MAX))
            }
            UsageValue::Set(_) => (1, after),
        };
        let metric = increment.metric.clone();
        (time, Alert { bin, metric, period: ceiling.period, current, max: ceiling.max })
    })
}

/// The least that is no less than so many per cent of a limit above 0; in two parts, since the product may be too large.
fn step(bin: u16, max: u64) -> u64 {
    let bin = u64::from(bin);
    (max / 100).saturating_mul(bin).saturating_add((max % 100 * bin).div_ceil(100))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bins(text: &str) -> AlertBins {
        AlertBins::of(text.split_whitespace().map(|bin| bin.parse().unwrap())).unwrap()
    }

    /// `"hits=2<=10/minute<=100/day"`.
    fn increments(text: &str, alert_bins: AlertBins) -> Vec<Increment> {
        let increment = |word: &str| {
            let mut parts = word.split("<=");
            let (metric, value) = parts.next().unwrap().split_once('=').unwrap();
            let ceiling = |part: &str| {
                let (max, period) = part.split_once('/').unwrap();
                Ceiling { period: period.parse().unwrap(), max: max.parse().unwrap() }
            };
            let (metric, value) = (metric.parse().unwrap(), value.parse().unwrap());
            Increment { metric, value, ceilings: parts.map(ceiling).collect(), alert_bins }
        };
        text.split_whitespace().map(increment).collect()
    }

    #[track_caller]
    fn check_with(enabled: AlertBins, usage: &str, used: &[u64], times: u64, expected: &[&str]) {
        let found = crossed(&increments(usage, enabled), used, times);
        let found: Vec<String> = found.iter().map(|alert| format!("{} % {alert}", alert.bin)).collect();
        assert_eq!(found, expected, "{usage} {used:?} {times} times");
    }

    #[track_caller]
    fn check(usage: &str, used: u64, expected: &[&str]) {
        check_with(AlertBins::ALL, usage, &[used], 1, expected);
    }

    #[test]
    fn a_step_is_crossed_when_it_is_reached() {
        check("hits=1<=10/day", 3, &[]);
        check("hits=1<=10/day", 4, &["50 % hits per day: 5/10"]);
        check("hits=1<=10/day", 5, &[]);
        check("hits=1<=10/day", 7, &["80 % hits per day: 8/10"]);
        check("hits=1<=10/day", 9, &["100 % hits per day: 10/10"]);
        check("hits=0<=10/day", 5, &[]);
        check("hits=1<=10/eternity", 29, &["300 % hits per eternity: 30/10"]);
        check("hits=9<=10/eternity", 30, &[]);
    }

    #[test]
    fn shares_of_a_limit_are_not_rounded_down() {
        check("hits=1<=3/day", 0, &[]);
        check("hits=1<=3/day", 1, &["50 % hits per day: 2/3"]);
        check("hits=1<=7/day", 4, &[]);
        check("hits=1<=7/day", 5, &["80 % hits per day: 6/7"]);
        check(
            "hits=1<=1/day",
            0,
            &[
                "50 % hits per day: 1/1",
                "80 % hits per day: 1/1",
                "90 % hits per day: 1/1",
                "100 % hits per day: 1/1",
            ],
        );
        check("hits=1<=101/day", 120, &[]);
        check("hits=1<=101/day", 121, &["120 % hits per day: 122/101"]);
    }

    #[test]
    fn every_enabled_step_between_is_crossed() {
        let two = ["50 % hits per day: 15/10", "100 % hits per day: 15/10"];
        check_with(bins("50 100 200"), "hits=15<=10/day", &[0], 1, &two);
        check_with(bins("100"), "hits=9<=10/day", &[0], 1, &[]);
        check_with(AlertBins::NONE, "hits=15<=10/day", &[0], 1, &[]);
        let all: Vec<String> = ALERT_BINS.map(|bin| format!("{bin} % hits per day: 99/10")).into();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        check("hits=99<=10/day", 0, &all);
    }

    #[test]
    fn a_limit_of_nothing_and_usage_of_nothing_have_no_steps() {
        check("hits=5<=0/day", 0, &[]);
        check("hits=0<=1/day", 5, &[]);
        check_with(AlertBins::ALL, "hits=5", &[], 1, &[]);
    }

    #[test]
    fn a_set_value_crosses_what_lies_between() {
        check_with(bins("50 80"), "hits=#9<=10/day", &[6], 1, &["80 % hits per day: 9/10"]);
        check("hits=#4<=10/day", 6, &[]);
        check("hits=#6<=10/day", 6, &[]);
    }

    #[test]
    fn several_times_are_told_as_one_after_the_other() {
        let expected = ["50 % hits per day: 6/10", "80 % hits per day: 9/10"];
        check_with(bins("50 80"), "hits=3<=10/day", &[0], 3, &expected);
        let expected =
            ["50 % b per day: 3/5", "50 % a per day: 5/10", "100 % b per day: 5/5", "100 % a per day: 10/10"];
        check_with(bins("50 100"), "a=1<=10/day b=1<=5/day", &[0, 0], 10, &expected);
    }

    #[test]
    fn large_limits_are_exact() {
        let half = COUNT_MAX.div_ceil(2);
        check(&format!("hits=1<={COUNT_MAX}/day"), half - 2, &[]);
        let expected = format!("50 % hits per day: {half}/{COUNT_MAX}");
        check(&format!("hits=1<={COUNT_MAX}/day"), half - 1, &[&expected]);
        check(&format!("hits=5<={COUNT_MAX}/day"), COUNT_MAX, &[]);
        check("hits=1<=18446744073709551615/day", COUNT_MAX - 1, &[]);
    }

    #[test]
    fn utilization_is_a_share_of_the_limit() {
        let alert = &crossed(&increments("hits=15<=10/day", AlertBins::ALL), &[0], 1)[0];
        assert!((alert.utilization() - 1.5).abs() < 1e-12);
    }

    #[test]
    fn steps_are_those_of_the_field() {
        let percents =
            |bins: &[u64]| AlertBins::of(bins.iter().copied()).map(|b| b.percents().collect::<Vec<_>>());
        assert_eq!(percents(&[]), Some(vec![]));
        assert_eq!(percents(&[300, 50, 50]), Some(vec![50, 300]));
        assert_eq!(percents(&[50, 51]), None);
        assert_eq!(AlertBins::of(ALERT_BINS.map(u64::from)), Some(AlertBins::ALL));
    }
}
