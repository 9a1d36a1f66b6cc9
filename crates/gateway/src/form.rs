//! Reads a form body ahead, so that its arguments count like those of the URL.
//!
//! Only bodies of POST, PUT and PATCH that say they are forms, and only up to a bound: a longer one is not
//! searched. Whatever was read goes upstream all the same, in front of the rest.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http_body::Body;
use http_body_util::BodyExt;
use weir_core::arguments::{FORM_BYTES_MAX, may_carry_form};

use crate::body::BodyError;
use crate::fields::{self, Fields};
use crate::message::RequestHead;

/// What was read of a body before the request went anywhere.
#[derive(Debug, Default, Clone)]
pub(crate) struct Ahead {
    /// The bytes, still to be sent upstream.
    pub(crate) bytes: Bytes,
    /// Whether they are a whole form.
    pub(crate) is_form: bool,
}

impl Ahead {
    /// The form, empty when there is none.
    pub(crate) fn form(&self) -> &[u8] {
        if self.is_form { &self.bytes } else { b"" }
    }
}

/// Whether the request may carry a form.
pub(crate) fn is_expected(head: &RequestHead, body: &impl Body) -> bool {
    !body.is_end_stream() && may_be_searched(head)
}

/// Reads a body that may be a form.
///
/// # Errors
/// When the body pauses longer than `idle` or breaks off.
pub(crate) async fn read_ahead<B>(body: &mut B, idle: Duration) -> Result<Ahead, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut read = BytesMut::new();
    while read.len() <= FORM_BYTES_MAX {
        let frame = tokio::time::timeout(idle, body.frame()).await.map_err(|_| BodyError::Stalled)?;
        match frame {
            None => return Ok(Ahead { bytes: read.freeze(), is_form: true }),
            Some(frame) => {
                // Trailers of a form mean nothing to anyone.
                if let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() {
                    read.extend_from_slice(&data);
                }
            }
        }
    }
    Ok(Ahead { bytes: read.freeze(), is_form: false })
}

/// Whether a request's body is a form that would be read, should it have one.
pub(crate) fn may_be_searched(head: &RequestHead) -> bool {
    let content_types = head.fields.all(CONTENT_TYPE.as_str().as_bytes()).filter_map(fields::text);
    may_carry_form(head.method.as_str(), content_types)
        && declared_length(&head.fields).is_none_or(|length| length <= FORM_BYTES_MAX as u64)
}

/// The length that the client declares.
pub(crate) fn declared_length(headers: &Fields) -> Option<u64> {
    fields::text(headers.get(CONTENT_LENGTH)?)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Full;

    #[track_caller]
    fn check(method: &str, content_type: &str, body: &str, expected: (usize, bool)) {
        let head = http::Request::builder()
            .method(method)
            .header(CONTENT_TYPE, content_type)
            .body(())
            .unwrap()
            .into_parts()
            .0;
        let head = RequestHead::from(&head);
        let mut body = Full::new(Bytes::from(body.to_owned()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let read = if is_expected(&head, &body) {
            runtime.block_on(read_ahead(&mut body, Duration::from_secs(1))).unwrap()
        } else {
            Ahead::default()
        };
        assert_eq!((read.bytes.len(), read.is_form), expected);
    }

    #[test]
    fn only_forms_are_read() {
        let form = "application/x-www-form-urlencoded";
        check("POST", form, "v=1", (3, true));
        check("PATCH", "Application/X-WWW-Form-Urlencoded; charset=UTF-8", "v=1", (3, true));
        check("DELETE", form, "v=1", (0, false));
        check("POST", "application/json", "v=1", (0, false));
        check("POST", form, "", (0, false));
    }

    #[test]
    fn long_forms_are_not_searched() {
        let form = "application/x-www-form-urlencoded";
        check("POST", form, &"x".repeat(FORM_BYTES_MAX), (FORM_BYTES_MAX, true));
        check("POST", form, &"x".repeat(FORM_BYTES_MAX + 1), (FORM_BYTES_MAX + 1, false));
    }
}
