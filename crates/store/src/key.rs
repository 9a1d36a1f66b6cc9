//! Names and places of things in a store: shards, windows and how long they are kept.
//!
//! Applications hash into shards. In Redis, which has fewer, the shard's number is the hash tag of all its keys, so that
//! an application, and a batch of many applications of one shard, lives in one slot of a cluster.

use weir_core::{ApplicationRef, Period, Timestamp};

/// Number of shards of the embedded store; part of the layout, so it never changes.
pub(crate) const SHARDS: usize = 1024;

/// How long a window is kept after its end, so that late reports and the roll-up find it. Minutes only serve limits.
const WINDOW_KEPT_MS: i64 = 73 * 3_600_000;
const MINUTE_KEPT_MS: i64 = 120_000;

/// How long an idempotency id is kept.
pub(crate) const IDEMPOTENCY_KEPT_MS: i64 = 600_000;
/// The same of a report that gives something back: a gateway may come back late to say it again.
pub(crate) const GIVEN_BACK_KEPT_MS: i64 = 3_600_000;

/// Counted requests can be looked up and taken back at least this long; twice as long at most.
pub(crate) const RECENT_KEPT_MS: i64 = 10_000;

/// The shard of an application.
pub(crate) fn shard_of(application: &ApplicationRef) -> usize {
    shard_of_text(&application.to_string())
}

/// The shard of a text.
pub(crate) fn shard_of_text(text: &str) -> usize {
    crc32fast::hash(text.as_bytes()) as usize % SHARDS
}

/// When a window that holds `at` may be forgotten; `None`: never.
pub(crate) fn window_expiry(period: Period, at: Timestamp) -> Option<Timestamp> {
    let kept_ms = if period == Period::Minute { MINUTE_KEPT_MS } else { WINDOW_KEPT_MS };
    period.window(at).end.map(|end| end.plus_ms(kept_ms))
}

/// The clock.
pub(crate) fn now() -> Timestamp {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let unix_ms = since_epoch.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX));
    Timestamp::from_unix_ms(unix_ms)
}
