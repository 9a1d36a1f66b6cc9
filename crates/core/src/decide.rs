//! The answer to a call, and where each limit stands.
//!
//! The listener builds it from the store's numbers; gRPC, the gateway's headers and every page show it.

use crate::counter::{Increment, ceilings};
use crate::denial::Denial;
use crate::id::MetricName;
use crate::period::{Timestamp, Window};

/// One limit of the plan and how much of it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitStatus {
    /// What is limited.
    pub metric: MetricName,
    /// The window that holds the moment of the decision.
    pub window: Window,
    /// The ceiling, inclusive.
    pub max: u64,
    /// What the counter holds: after the call when it was admitted, as it stands otherwise.
    pub used: u64,
    /// What gateways hold of it on lease.
    pub held: u64,
}

impl LimitStatus {
    /// What is left in this window.
    pub fn remaining(&self) -> u64 {
        self.max.saturating_sub(self.used).saturating_sub(self.held)
    }
}

/// The verdict on a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It may go on. Holds the limits its usage touches, in the order they were judged.
    Allow(Vec<LimitStatus>),
    /// It may not.
    Deny(Denial),
}

/// Where each limit of some increments stands, given what their counters hold, and what leases hold of them: nothing
/// where `held` ends.
pub fn limit_statuses(
    increments: &[Increment],
    used: &[u64],
    held: &[u64],
    now: Timestamp,
) -> Vec<LimitStatus> {
    let held = held.iter().copied().chain(std::iter::repeat(0));
    ceilings(increments)
        .zip(used)
        .zip(held)
        .map(|(((increment, ceiling), used), held)| LimitStatus {
            metric: increment.metric.clone(),
            window: ceiling.period.window(now),
            max: ceiling.max,
            used: *used,
            held,
        })
        .collect()
}
