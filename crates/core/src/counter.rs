//! Turns one request's usage into the counter increments that must all fit, or none.
//!
//! The listener calls it for authorize, authrep and report. Parents come before children and short periods
//! before long ones, so the limit that a refusal names is stable.
//!
//! Knows nothing of storage: whether the increments fit is the store's answer.

use std::collections::HashSet;

use crate::alert::AlertBins;
use crate::denial::Denial;
use crate::id::MetricName;
use crate::limit::UsageLimit;
use crate::metric::{MetricIndex, MetricTree};
use crate::period::Period;
use crate::plan::Plan;
use crate::usage::{USAGE_MAX, Usage, UsageValue};

/// Where counters saturate: 2^53 - 1.
pub const COUNT_MAX: u64 = USAGE_MAX;

/// A ceiling on one counter of an increment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ceiling {
    /// Which of the metric's windows.
    pub period: Period,
    /// Inclusive.
    pub max: u64,
}

/// One metric's counters to change, in all windows at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Increment {
    /// The counter's name.
    pub metric: MetricName,
    /// By how much, or to what.
    pub value: UsageValue,
    /// Short periods first.
    pub ceilings: Vec<Ceiling>,
    /// At which use of the ceilings counting it raises an alert.
    pub alert_bins: AlertBins,
}

impl Increment {
    fn new(
        metrics: &MetricTree,
        plan: &Plan,
        (index, value): (MetricIndex, UsageValue),
        alert_bins: AlertBins,
    ) -> Self {
        let ceiling = |limit: &UsageLimit| Ceiling { period: limit.period, max: limit.max };
        let ceilings = plan.limits_of(index).iter().map(ceiling).collect();
        Self { metric: metrics.metric(index).name.clone(), value, ceilings, alert_bins }
    }

    /// The periods it is counted in: hour to eternity always, the minute where a limit needs it.
    pub fn periods(&self) -> &'static [Period] {
        let by_minute = self.ceilings.first().is_some_and(|ceiling| ceiling.period == Period::Minute);
        if by_minute { &Period::ALL } else { &Period::ALL[1..] }
    }
}

/// The increments of a request's usage under a plan, rolled up into ancestors; counting them raises alerts at these steps
/// of its limits.
///
/// # Errors
/// [`Denial::MetricInvalid`] for a metric the service does not have.
pub fn increments(
    usage: &Usage,
    metrics: &MetricTree,
    plan: &Plan,
    alert_bins: AlertBins,
) -> Result<Vec<Increment>, Denial> {
    Ok(increments_of(usage.expand(metrics)?, metrics, plan, alert_bins))
}

/// The increments of what metrics gain under a plan.
pub fn increments_of(
    gains: impl IntoIterator<Item = (MetricIndex, UsageValue)>,
    metrics: &MetricTree,
    plan: &Plan,
    alert_bins: AlertBins,
) -> Vec<Increment> {
    gains.into_iter().map(|gain| Increment::new(metrics, plan, gain, alert_bins)).collect()
}

/// What an authorize without usage asks: that no limit of the plan is exceeded already.
pub fn all_limits(metrics: &MetricTree, plan: &Plan) -> Vec<Increment> {
    let mut limited: Vec<MetricIndex> = plan.limits().iter().map(|limit| limit.metric).collect();
    limited.dedup();
    let nothing = |index| Increment::new(metrics, plan, (index, UsageValue::Add(0)), AlertBins::NONE);
    limited.into_iter().map(nothing).collect()
}

/// Those of some increments that others do not touch.
pub fn untouched(increments: Vec<Increment>, touched: &[Increment]) -> Vec<Increment> {
    if increments.is_empty() {
        return increments;
    }
    let touched: HashSet<&MetricName> = touched.iter().map(|increment| &increment.metric).collect();
    increments.into_iter().filter(|increment| !touched.contains(&increment.metric)).collect()
}

/// Looks at the counters of some increments: nothing is added, and nothing refuses.
pub fn looks(increments: &[Increment]) -> impl Iterator<Item = Increment> {
    increments.iter().map(|increment| {
        let ceilings = increment.ceilings.iter().map(|c| Ceiling { max: COUNT_MAX, ..*c }).collect();
        Increment {
            metric: increment.metric.clone(),
            value: UsageValue::Add(0),
            ceilings,
            alert_bins: AlertBins::NONE,
        }
    })
}

/// Every ceiling of a list of increments, in the order in which they are judged and reported.
pub fn ceilings(increments: &[Increment]) -> impl Iterator<Item = (&Increment, Ceiling)> {
    increments.iter().flat_map(|increment| increment.ceilings.iter().map(move |c| (increment, *c)))
}

/// The first ceiling, in the order of [`ceilings`], that would be exceeded; `None` when all increments fit.
///
/// `used[n]` is what the n-th counter holds, `held[n]` what is out on lease of it: nothing where `held` ends. An
/// increment fits when `used + held + by <= max`, a set value when `held` and itself do, whatever was used before.
/// Nothing added asks whether the limit is exceeded already, which leases never do.
pub fn first_exceeded(increments: &[Increment], used: &[u64], held: &[u64]) -> Option<usize> {
    let held = held.iter().copied().chain(std::iter::repeat(0));
    let mut all = ceilings(increments).zip(used).zip(held);
    all.position(|(((increment, ceiling), used), held)| match increment.value {
        UsageValue::Add(0) => *used > ceiling.max,
        UsageValue::Add(by) => used.saturating_add(held).saturating_add(by) > ceiling.max,
        UsageValue::Set(to) => to.saturating_add(held) > ceiling.max,
    })
}

/// How much of what was just counted, whatever the limits, lies beyond them: by the limit that it passes furthest.
/// `used[n]` is what the n-th counter of [`ceilings`] holds with it.
pub fn beyond(increments: &[Increment], used: &[u64]) -> u64 {
    let over = |((increment, ceiling), used): ((&Increment, Ceiling), &u64)| {
        let (UsageValue::Add(by) | UsageValue::Set(by)) = increment.value;
        used.saturating_sub(ceiling.max).min(by)
    };
    ceilings(increments).zip(used).map(over).max().unwrap_or(0)
}

/// What a counter holds after a change.
pub fn changed(used: u64, value: UsageValue) -> u64 {
    match value {
        UsageValue::Add(by) => used.saturating_add(by).min(COUNT_MAX),
        UsageValue::Set(to) => to.min(COUNT_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::tests::tree;
    use crate::usage::tests::usage;
    use proptest::prelude::*;

    /// `"hits/minute<=10 mail/day<=0"`.
    fn plan(text: &str, metrics: &MetricTree) -> Plan {
        let limit = |word: &str| {
            let (metric, rest) = word.split_once('/').unwrap();
            let (period, max) = rest.split_once("<=").unwrap();
            UsageLimit {
                metric: metrics.find(metric).unwrap(),
                period: period.parse().unwrap(),
                max: max.parse().unwrap(),
            }
        };
        let limits = text.split_whitespace().map(limit).collect();
        Plan::new("p".parse().unwrap(), String::new(), limits, metrics).unwrap()
    }

    /// Counters hold `counts` in every window: `"hits=9"`.
    #[track_caller]
    fn check(limits: &str, counts: &str, named: &str, expected: &str) {
        let metrics = tree("hits search<hits mail").unwrap();
        let increments =
            increments(&usage(named), &metrics, &plan(limits, &metrics), AlertBins::ALL).unwrap();
        let counts: Vec<_> = usage(counts).iter().map(|(m, v)| (m.clone(), changed(0, v))).collect();
        let used_of =
            |metric: &MetricName| counts.iter().find(|(name, _)| name == metric).map_or(0, |(_, n)| *n);
        let used: Vec<u64> = ceilings(&increments).map(|(i, _)| used_of(&i.metric)).collect();
        let found = match first_exceeded(&increments, &used, &[]) {
            None => "fits".to_owned(),
            Some(at) => {
                let (increment, ceiling) = ceilings(&increments).nth(at).unwrap();
                format!("over {}/{}", increment.metric, ceiling.period)
            }
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn usage_may_reach_a_limit_but_not_pass_it() {
        check("hits/minute<=10", "hits=9", "hits=1", "fits");
        check("hits/minute<=10", "hits=10", "hits=1", "over hits/minute");
        check("hits/minute<=10", "hits=9", "hits=2", "over hits/minute");
        check("hits/minute<=10", "hits=10", "hits=0", "fits");
        check("hits/minute<=10", "hits=11", "hits=0", "over hits/minute");
    }

    #[test]
    fn methods_count_for_their_parent() {
        check("hits/day<=5", "hits=5", "search=1", "over hits/day");
        check("search/day<=5", "hits=9", "search=1", "fits");
    }

    #[test]
    fn limits_of_other_metrics_are_not_asked() {
        check("mail/day<=0", "", "hits=1", "fits");
        check("mail/day<=0", "", "mail=1", "over mail/day");
        check("mail/day<=0", "", "mail=0", "fits");
    }

    #[test]
    fn parents_and_short_periods_are_named_first() {
        check("search/minute<=0 hits/year<=0 hits/hour<=0", "", "search=1", "over hits/hour");
    }

    #[test]
    fn a_set_value_is_judged_by_itself() {
        check("hits/day<=5", "hits=9", "hits=#5", "fits");
        check("hits/day<=5", "", "hits=#6", "over hits/day");
    }

    #[test]
    fn minutes_are_counted_where_a_limit_needs_them() {
        let metrics = tree("hits").unwrap();
        let with = increments(&usage("hits=1"), &metrics, &plan("hits/minute<=1", &metrics), AlertBins::ALL)
            .unwrap();
        let without =
            increments(&usage("hits=1"), &metrics, &plan("hits/day<=1", &metrics), AlertBins::ALL).unwrap();
        assert_eq!(with[0].periods().len(), 7);
        assert_eq!(without[0].periods(), &Period::ALL[1..]);
    }

    #[test]
    fn an_authorize_without_usage_asks_about_every_limit_once() {
        let metrics = tree("hits mail").unwrap();
        let all = all_limits(&metrics, &plan("hits/day<=1 hits/minute<=1 mail/day<=0", &metrics));
        let found: Vec<_> = ceilings(&all).map(|(i, c)| format!("{}/{}", i.metric, c.period)).collect();
        assert_eq!(found, ["hits/minute", "hits/day", "mail/day"]);
        assert_eq!(first_exceeded(&all, &[1, 1, 0], &[]), None);
        assert_eq!(first_exceeded(&all, &[1, 2, 0], &[]), Some(1));
    }

    proptest! {
        #[test]
        fn counters_saturate_and_never_wrap(used in 0..=COUNT_MAX, by in 0..=COUNT_MAX) {
            let after = changed(used, UsageValue::Add(by));
            prop_assert!(after <= COUNT_MAX && after >= used);
        }
    }

    #[test]
    fn what_is_counted_beyond_a_limit_is_told_by_the_one_that_it_passes_furthest() {
        let metrics = tree("hits search<hits mail").unwrap();
        let plan = plan("hits/day<=10 search/day<=4 mail/day<=9", &metrics);
        let beyond = |named: &str, used: [u64; 2]| {
            beyond(&increments(&usage(named), &metrics, &plan, AlertBins::ALL).unwrap(), &used)
        };
        assert_eq!(beyond("search=5", [10, 4]), 0);
        assert_eq!(beyond("search=5", [12, 5]), 2);
        assert_eq!(beyond("search=5", [12, 7]), 3);
        assert_eq!(beyond("search=5", [99, 4]), 5, "no more than was counted now");
        assert_eq!(beyond("search=0", [99, 99]), 0);
    }
}
