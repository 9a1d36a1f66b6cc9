//! How much of a metric an application uses, and how much a lease should have of it.

use crate::id::MetricName;
use crate::lease::LIFETIME_MS;

/// How often demand is measured.
pub(super) const SAMPLE_MS: u64 = 200;
/// A lease that nobody spent from for so long is given back.
const IDLE_MS: u64 = 300;
/// How long leases under [`Terms::Outage`] live, and are kept.
const OUTAGE_MS: u64 = 120_000;
/// At least so many requests pass in an outage, where there is as much.
const OUTAGE_REQUESTS: u64 = 20;

/// What an application's leases are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Terms {
    /// To decide without asking, while the ledger can be asked.
    #[default]
    Ordinary,
    /// Also to go on while it cannot: leases live for two minutes, hold as much for an outage as for ordinary use, and are
    /// kept as long after the last request.
    Outage,
}

impl Terms {
    pub(super) fn lasts_ms(self) -> u64 {
        match self {
            Self::Ordinary => LIFETIME_MS,
            Self::Outage => OUTAGE_MS,
        }
    }

    pub(super) fn idle_ms(self) -> u64 {
        match self {
            Self::Ordinary => IDLE_MS,
            Self::Outage => OUTAGE_MS,
        }
    }

    /// Requests, of which these were the latest two, come so often that a lease is worth its while.
    pub(super) fn is_busy(self, used_before: u64, used_at: u64, now: u64) -> bool {
        match self {
            Self::Ordinary => now < used_before + IDLE_MS && now < used_at + IDLE_MS,
            // Whoever was seen once is known.
            Self::Outage => used_at > 0 && now < used_at + OUTAGE_MS,
        }
    }
}

/// How much of a metric is used.
#[derive(Debug)]
pub(super) struct Demand {
    pub(super) metric: MetricName,
    /// What one request needs.
    pub(super) least: u64,
    since_sample: u64,
    per_second: u64,
}

impl Demand {
    /// None yet.
    pub(super) fn of(metric: MetricName) -> Self {
        Self { metric, least: 1, since_sample: 0, per_second: 0 }
    }

    /// So much is used.
    pub(super) fn add(&mut self, by: u64) {
        self.since_sample = self.since_sample.saturating_add(by);
    }

    /// Measures what is used since it was measured before, so many milliseconds ago.
    pub(super) fn sample(&mut self, elapsed: u64) {
        let rate = std::mem::take(&mut self.since_sample).saturating_mul(1_000) / elapsed;
        self.per_second = rate.max(self.per_second.midpoint(rate));
    }

    /// Half as much again as what is used in a lease's time; for an outage, as much as is used in it.
    pub(super) fn want(&self, lately: u64, terms: Terms) -> u64 {
        let just_now = self.since_sample.saturating_mul(1_000) / SAMPLE_MS;
        let rate = self.per_second.max(lately).max(just_now);
        let used = rate.saturating_mul(terms.lasts_ms()) / 1_000;
        match (terms, rate) {
            (Terms::Ordinary, 0) => 0,
            (Terms::Ordinary, _) => used.saturating_mul(3) / 2 + self.least,
            (Terms::Outage, _) => used.max(self.least.saturating_mul(OUTAGE_REQUESTS)),
        }
    }
}
