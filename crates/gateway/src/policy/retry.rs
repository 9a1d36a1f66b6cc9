//! Retries: a call is sent again within its policy's number and the service's budget.

use std::sync::Arc;
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
pub(super) struct Budget(Mutex<Window>);

struct Window {
    begun: Instant,
    calls: u64,
    retries: u64,
    /// Of the window before.
    calls_before: u64,
}

impl Window {
    /// The window of now.
    fn turn(&mut self, now: Instant) {
        let windows = now.saturating_duration_since(self.begun).as_millis() / WINDOW.as_millis();
        if windows > 0 {
            let calls_before = if windows == 1 { self.calls } else { 0 };
            *self = Self { begun: now, calls: 0, retries: 0, calls_before };
        }
    }
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self(Mutex::new(Window { begun: now, calls: 0, retries: 0, calls_before: 0 }))
    }

    /// A call begins.
    fn called(&self, now: Instant) {
        let mut window = self.0.lock();
        window.turn(now);
        window.calls += 1;
    }

    /// Whether one more may be sent again; then it is counted.
    fn takes(&self, policy: &Retry, now: Instant) -> bool {
        let mut window = self.0.lock();
        window.turn(now);
        let calls = window.calls.max(window.calls_before);
        let most = policy.budget_min.max(calls.saturating_mul(policy.budget_percent) / 100);
        let takes = window.retries < most;
        window.retries += u64::from(takes);
        takes
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
        budget.called(Instant::now());
        Self { policy: policy.clone(), budget: Arc::clone(budget), retries: 0 }
    }

    /// Whether it has been sent before.
    pub(crate) fn has_begun(&self) -> bool {
        self.retries > 0
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
        let now = Instant::now();
        let budget = Budget::new(now);
        let taken = |policy: &Retry, now| (0..100).filter(|_| budget.takes(policy, now)).count();
        assert_eq!(taken(&policy(0, 0), now), 0);
        assert_eq!(taken(&policy(20, 3), now), 3, "a few may be, however few calls there are");
        (0..100).for_each(|_| budget.called(now));
        assert_eq!(taken(&policy(20, 3), now), 17);
        let later = now + WINDOW;
        assert_eq!(taken(&policy(20, 3), later), 20, "by the calls of the window before");
        assert_eq!(taken(&policy(20, 3), later + 2 * WINDOW), 3);
        let much_later = later + 10 * WINDOW;
        (0..1_000).for_each(|at| budget.called(much_later + WINDOW * at));
        assert_eq!(taken(&policy(20, 3), much_later + 1_000 * WINDOW), 3, "what was long ago is no reason");
    }
}
