//! The clock that leases live by: it never goes back, and counts while the machine sleeps.

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds since the machine started.
pub(super) fn now_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}
