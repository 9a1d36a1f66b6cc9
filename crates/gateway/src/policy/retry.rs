//! Retries: a call is sent again within its policy's number and the service's budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use parking_lot::Mutex;
use weir_core::policy::retry::Retry;

use crate::body::ReplyBody;
use crate::message::Reply;
use crate::meters;
use crate::reply::Refusal;
use crate::upstream::UpstreamError;

/// What a budget is reckoned over.
const WINDOW: Duration = Duration::from_secs(10);
/// Longest body that is kept to be sent again.
pub(super) const BODY_BYTES_MAX: u64 = 16 << 10;

/// How many calls a service had lately, and how many were sent again.
#[derive(Default)]
pub(super) struct Budget {
    calls: AtomicU64,
    retries: AtomicU64,
    /// When the window began, and the calls of the one before.
    window: Mutex<Option<(Instant, u64)>>,
}

impl Budget {
    /// A call begins.
    fn called(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether one more may be sent again; then it is counted.
    fn takes(&self, policy: &Retry, now: Instant) -> bool {
        let mut window = self.window.lock();
        let (begun, before) = window.get_or_insert((now, 0));
        let windows = now.saturating_duration_since(*begun).as_millis() / WINDOW.as_millis();
        if windows > 0 {
            let calls = self.calls.swap(0, Ordering::Relaxed);
            *before = if windows == 1 { calls } else { 0 };
            *begun = now;
            self.retries.store(0, Ordering::Relaxed);
        }
        let calls = self.calls.load(Ordering::Relaxed).max(*before);
        let most = policy.budget_min.max(calls.saturating_mul(policy.budget_percent) / 100);
        if self.retries.load(Ordering::Relaxed) >= most {
            return false;
        }
        self.retries.fetch_add(1, Ordering::Relaxed);
        true
    }
}

/// Whether a request may be sent twice without doing twice what it does (RFC 9110, section 9.2.2).
pub(super) fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
}

/// How often a call may still be sent.
pub(crate) struct Attempts {
    policy: Retry,
    budget: Arc<Budget>,
    retries: u64,
}

impl Attempts {
    pub(super) fn new(policy: &Retry, budget: &Arc<Budget>) -> Self {
        budget.called();
        Self { policy: policy.clone(), budget: Arc::clone(budget), retries: 0 }
    }

    /// Whether this one is not the last.
    pub(crate) fn are_left(&self) -> bool {
        self.retries < self.policy.retries_max
    }

    /// How long to wait before it is sent again; `None`: what came of it is good enough, or must do.
    pub(crate) fn again(&mut self, exchanged: &Result<Reply<ReplyBody>, Refusal>) -> Option<Duration> {
        let is_wanted = match exchanged {
            Ok(reply) => self.policy.statuses.contains(reply.status.as_u16()),
            Err(Refusal::Upstream(error)) => !matches!(error, UpstreamError::Busy | UpstreamError::Unhealthy),
            Err(_) => false,
        };
        if !is_wanted || !self.budget.takes(&self.policy, Instant::now()) {
            return None;
        }
        meters::retried();
        self.retries += 1;
        Some(Duration::from_millis(self.policy.pause_ms << (self.retries - 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_core::StatusSet;

    #[test]
    fn budgets_are_of_ten_seconds() {
        let policy = |budget_percent, budget_min| Retry {
            retries_max: 1,
            statuses: StatusSet::default(),
            budget_percent,
            budget_min,
            pause_ms: 0,
        };
        let (budget, now) = (Budget::default(), Instant::now());
        let taken = |policy: &Retry, now| (0..100).filter(|_| budget.takes(policy, now)).count();
        assert_eq!(taken(&policy(0, 0), now), 0);
        assert_eq!(taken(&policy(20, 3), now), 3, "a few may be, however few calls there are");
        (0..100).for_each(|_| budget.called());
        assert_eq!(taken(&policy(20, 3), now), 17);
        let later = now + WINDOW;
        assert_eq!(taken(&policy(20, 3), later), 20, "by the calls of the window before");
        assert_eq!(taken(&policy(20, 3), later + 2 * WINDOW), 3);
    }
}
