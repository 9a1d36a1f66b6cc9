//! `upstream_timeouts`: deadlines towards the upstream, for some calls others than the proxy's.

use super::form::Form;
use super::{Kind, Place, Policy, Repeats};
use crate::proxy::UpstreamTimeouts;

/// Deadlines that differ from the proxy's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    connect_ms: Option<u64>,
    response_ms: Option<u64>,
    idle_ms: Option<u64>,
}

impl Timeouts {
    pub(super) const KIND: Kind = Kind {
        name: "upstream_timeouts",
        meaning: "Gives some calls other deadlines towards the upstream than the proxy's `timeouts`.",
        place: Place::Either,
        repeats: Repeats::Freely,
        has_conditions: true,
        read: |form| Policy::UpstreamTimeouts(Self::read(form)),
    };

    fn read(form: &Form<'_>) -> Self {
        const MOST: u64 = u32::MAX as u64;
        let timeouts = Self {
            connect_ms: form.whole("connect_ms", "To open a connection, in milliseconds.", 1..=MOST),
            response_ms: form.whole(
                "response_ms",
                "From the request's end to the head of the response, in milliseconds.",
                1..=MOST,
            ),
            idle_ms: form.whole(
                "idle_ms",
                "Longest pause within a body, either way, in milliseconds.",
                1..=MOST,
            ),
        };
        if !["connect_ms", "response_ms", "idle_ms"].iter().any(|key| form.gives(key)) {
            form.wrong("", "changes nothing: give connect_ms, response_ms or idle_ms");
        }
        timeouts
    }

    /// The proxy's with these in their place.
    #[must_use]
    pub fn over(&self, timeouts: UpstreamTimeouts) -> UpstreamTimeouts {
        let ms =
            |given: Option<u64>, else_ms: u32| given.and_then(|ms| u32::try_from(ms).ok()).unwrap_or(else_ms);
        UpstreamTimeouts {
            connect_ms: ms(self.connect_ms, timeouts.connect_ms),
            response_ms: ms(self.response_ms, timeouts.response_ms),
            idle_ms: ms(self.idle_ms, timeouts.idle_ms),
        }
    }
}
