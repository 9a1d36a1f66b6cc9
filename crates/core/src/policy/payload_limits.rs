//! `payload_limits`: how long bodies may be, each way, whether they say their length or not.

use super::form::Form;
use super::{Kind, Place, Policy, Repeats};

/// How long bodies may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadLimits {
    /// Of requests; the proxy's own maximum holds, too.
    pub request_bytes_max: Option<u64>,
    /// Of answers.
    pub response_bytes_max: Option<u64>,
}

impl PayloadLimits {
    pub(super) const KIND: Kind = Kind {
        name: "payload_limits",
        meaning: "Bounds the bodies of requests and answers, chunked ones too.",
        place: Place::Either,
        repeats: Repeats::Freely,
        has_conditions: true,
        read: |form| Policy::PayloadLimits(Self::read(form)),
    };

    fn read(form: &Form<'_>) -> Self {
        const MOST: u64 = crate::COUNT_MAX;
        let limits = Self {
            request_bytes_max: form.whole(
                "request_bytes_max",
                "Longest body of a request, in bytes; a longer one gets 413. The proxy's `request_body_bytes_max` holds, too.",
                0..=MOST,
            ),
            response_bytes_max: form.whole(
                "response_bytes_max",
                "Longest body of an answer, in bytes. One that says that it is longer becomes 502; one that turns out to be is cut off.",
                0..=MOST,
            ),
        };
        if !form.gives("request_bytes_max") && !form.gives("response_bytes_max") {
            form.wrong("", "limits nothing: give request_bytes_max, response_bytes_max or both");
        }
        limits
    }
}
