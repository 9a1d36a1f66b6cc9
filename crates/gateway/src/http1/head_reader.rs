//! What a client has sent and nobody has looked at yet, up to the next head.

use bytes::{Bytes, BytesMut};

use super::head;
use crate::framing::{self, Malformed};
use crate::message::RequestHead;
use crate::meters;

/// Reads heads off what was read.
pub(crate) struct HeadReader {
    pub(crate) held: BytesMut,
    /// How much of it was searched for the end of a head.
    searched: usize,
    head_bytes_max: usize,
}

/// What a client sends.
pub(crate) enum Found {
    Request(RequestHead, framing::Head),
    /// What is wrong, and as much of the request as matters.
    Malformed(Malformed, RequestHead),
}

impl HeadReader {
    pub(crate) fn new(held: BytesMut, head_bytes_max: usize) -> Self {
        Self { held, searched: 0, head_bytes_max }
    }

    /// Whether a part of a head is there. What some clients send behind a body begins none.
    pub(crate) fn has_begun(&self) -> bool {
        !b"\r\n".starts_with(&self.held)
    }

    /// Takes the next head, once all of it is there.
    pub(crate) fn take_head(&mut self) -> Option<Found> {
        if self.held.is_empty() {
            return None;
        }
        let bytes = match self.measure() {
            Ok(None) => {
                self.searched = self.held.len();
                return None;
            }
            // Then nothing is kept.
            Ok(Some(length)) if length == self.held.len() => std::mem::take(&mut self.held),
            Ok(Some(length)) => self.held.split_to(length),
            Err(malformed) => return Some(self.refuse(malformed, &Bytes::new())),
        };
        self.searched = 0;
        let bytes = bytes.freeze();
        Some(match head::read(&bytes) {
            Ok((request, head)) => Found::Request(request, head),
            Err(malformed) => self.refuse(malformed, &bytes),
        })
    }

    /// Nothing more that the client sends matters. `head` is what was taken already.
    fn refuse(&mut self, malformed: Malformed, head: &[u8]) -> Found {
        meters::malformed(malformed.label());
        let request = head::without_content(if head.is_empty() { &self.held } else { head });
        self.held = BytesMut::new();
        Found::Malformed(malformed, request)
    }

    /// The length of the head, if all of it is there and it is not too long.
    fn measure(&self) -> Result<Option<usize>, Malformed> {
        let bytes = &self.held[..];
        let length = framing::head_length(bytes, self.searched)?;
        if length.unwrap_or(bytes.len()) <= self.head_bytes_max {
            return Ok(length);
        }
        // An empty line in front is none of the head's.
        let has_line = bytes.iter().take(self.head_bytes_max).skip(2).any(|byte| *byte == b'\n');
        Err(if has_line { Malformed::LongHead } else { Malformed::LongLine })
    }
}
