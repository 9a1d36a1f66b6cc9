//! A ceiling on one metric in one period.
//!
//! Plans hold them, counters are judged against them. A maximum of 0 disables the metric for the plan.

use crate::metric::MetricIndex;
use crate::period::Period;

/// At most `max` of a metric per window of a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsageLimit {
    /// What is limited, children's usage included.
    pub metric: MetricIndex,
    /// The window it is limited in.
    pub period: Period,
    /// Inclusive: usage may reach it. 0 disables the metric.
    pub max: u64,
}
