//! `maintenance`: answers in the API's place.

use super::form::Form;
use super::{Kind, Place, Policy, Repeats};
use crate::proxy::RefusalReply;

/// Longest text.
const BODY_BYTES_MAX: usize = 16 << 10;

/// What is answered.
#[derive(Debug, Clone)]
pub struct Maintenance {
    /// Status and text.
    pub reply: RefusalReply,
    /// What `Retry-After` says, in seconds; `None`: nothing.
    pub retry_after_s: Option<u64>,
}

impl Maintenance {
    pub(super) const KIND: Kind = Kind {
        name: "maintenance",
        meaning: "Answers in the API's place, before anything is asked or counted.",
        place: Place::Front,
        repeats: Repeats::Freely,
        has_conditions: true,
        read: |form| Policy::Maintenance(Self::read(form)),
    };

    fn read(form: &Form<'_>) -> Self {
        let status = form.whole_or("status", "The status.", 200..=599, 503);
        let body =
            form.text_or("body", "The text, up to 16 KiB.", "text", "Service Unavailable - Maintenance");
        let content_type =
            form.text_or("content_type", "Its media type.", "media type", "text/plain; charset=utf-8");
        let retry_after_s =
            form.whole("retry_after_s", "What `Retry-After` says, in seconds.", 1..=31_536_000);
        if matches!(status, 204 | 205 | 304) {
            form.wrong("status", format!("status cannot be {status}: such answers have no body"));
        }
        if body.len() > BODY_BYTES_MAX {
            form.wrong("body", format!("body is longer than {BODY_BYTES_MAX} bytes"));
        }
        if !content_type.contains('/') || content_type.bytes().any(|b| !matches!(b, b' '..=b'~')) {
            form.wrong(
                "content_type",
                format!("content_type {content_type:?} is not a media type such as text/plain"),
            );
        }
        let status = u16::try_from(status).unwrap_or(503);
        Self { reply: RefusalReply { status, body, content_type }, retry_after_s }
    }
}
