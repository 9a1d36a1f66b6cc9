//! An application plan: the set of limits an application lives under.

use crate::id::PlanId;
use crate::limit::UsageLimit;
use crate::metric::{MetricIndex, MetricTree};
use crate::status_set::StatusSet;

/// A plan of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Unique in the service.
    pub id: PlanId,
    /// What people read.
    pub name: String,
    /// Answers with which a call counts nothing after all.
    pub free_answers: StatusSet,
    limits: Vec<UsageLimit>,
}

/// Why limits do not make a plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("plan {plan} limits {metric} per {period} twice")]
pub struct PlanError {
    plan: PlanId,
    metric: String,
    period: crate::period::Period,
}

impl Plan {
    /// A plan with these limits, in any order; all answers cost.
    ///
    /// # Errors
    /// When one metric has two limits in one period.
    pub fn new(
        id: PlanId,
        name: String,
        mut limits: Vec<UsageLimit>,
        metrics: &MetricTree,
    ) -> Result<Self, PlanError> {
        limits.sort_by_key(|limit| (limit.metric, limit.period));
        for pair in limits.windows(2) {
            if (pair[0].metric, pair[0].period) == (pair[1].metric, pair[1].period) {
                let metric = metrics.metric(pair[0].metric).name.to_string();
                return Err(PlanError { plan: id, metric, period: pair[0].period });
            }
        }
        Ok(Self { id, name, free_answers: StatusSet::default(), limits })
    }

    /// The same with answers that cost nothing.
    #[must_use]
    pub fn with_free_answers(self, free_answers: StatusSet) -> Self {
        Self { free_answers, ..self }
    }

    /// All limits: parents before children, short periods before long ones.
    pub fn limits(&self) -> &[UsageLimit] {
        &self.limits
    }

    /// The limits of one metric, short periods first.
    pub fn limits_of(&self, metric: MetricIndex) -> &[UsageLimit] {
        let start = self.limits.partition_point(|limit| limit.metric < metric);
        let end = self.limits.partition_point(|limit| limit.metric <= metric);
        &self.limits[start..end]
    }
}
