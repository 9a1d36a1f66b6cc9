//! `retry`: sends a call again where that cannot do harm, and only so often that it does not make things worse.

use super::form::Form;
use super::{Kind, Place, Policy, Repeats};
use crate::status_set::StatusSet;

/// When calls are sent again.
#[derive(Debug, Clone)]
pub struct Retry {
    /// How often at most, beside the first time.
    pub retries_max: u64,
    /// Which answers are tried again.
    pub statuses: StatusSet,
    /// The share of calls that may be sent again, in per cent of those of the last ten seconds.
    pub budget_percent: u64,
    /// How many may be sent again in ten seconds whatever the share.
    pub budget_min: u64,
    /// How long it waits before, in milliseconds; each time twice as long.
    pub pause_ms: u64,
}

impl Retry {
    pub(super) const KIND: Kind = Kind {
        name: "retry",
        meaning: "Sends a call again whose upstream failed: of GET, HEAD, OPTIONS, PUT and DELETE, without a body or with a short one, within a budget.",
        place: Place::Either,
        repeats: Repeats::Never,
        has_conditions: true,
        read: |form| Policy::Retry(Self::read(form)),
    };

    fn read(form: &Form<'_>) -> Self {
        let retries_max = form.whole_or("retries_max", "How often at most, beside the first time.", 1..=5, 1);
        let statuses = form.failures(
            "statuses",
            "Answers that are tried again, beside connections that fail and answers that do not come; without, 502, 503 and 504.",
        );
        Self {
            retries_max,
            statuses,
            budget_percent: form.whole_or(
                "budget_percent",
                "How many calls may be sent again, in per cent of the service's calls of the last ten seconds.",
                0..=100,
                20,
            ),
            budget_min: form.whole_or(
                "budget_min",
                "How many may be sent again in ten seconds, whatever the share.",
                0..=1_000_000,
                10,
            ),
            pause_ms: form.whole_or(
                "pause_ms",
                "How long it waits before, in milliseconds; each time twice as long.",
                0..=10_000,
                25,
            ),
        }
    }
}
