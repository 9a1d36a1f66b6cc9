//! Judges what a client sends over HTTP/1 before hyper sees it.
//!
//! [`ClientStream`](super::ClientStream) asks it about every byte. It follows the client from head to body to head, by
//! the same rules as hyper but stricter (`framing.rs`), so that both always mean the same request. A head is held until
//! it is whole and judged; bodies pass through.
//!
//! A malformed head never reaches hyper: a request without content takes its place, and the pipeline, which learns by
//! [`Requests::begin`] which one that is, refuses it like any other. Requests are counted on both sides for that, so
//! nothing a client writes can be taken for it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::{Buf, BytesMut};
use tokio::io::ReadBuf;

use crate::framing::{self, Chunks, Framing, Malformed};
use crate::meters;

/// Longest method that is told of a malformed head.
const METHOD_BYTES_MAX: usize = 32;

/// The requests of a connection, as far as the two sides of hyper have to agree on them.
#[derive(Default)]
pub(crate) struct Requests {
    /// How many the pipeline was given.
    begun: AtomicU64,
    /// How many of them have an answer.
    decided: AtomicU64,
    is_upgraded: AtomicBool,
    is_head_begun: AtomicBool,
    /// The last request, and what is wrong with its head.
    refused: OnceLock<(u64, Malformed)>,
}

impl Requests {
    /// The pipeline is given its next request; what is wrong with the head that the client sent for it, if anything.
    pub(crate) fn begin(&self) -> Option<Malformed> {
        let number = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        self.refused.get().filter(|(refused, _)| *refused == number).map(|(_, malformed)| *malformed)
    }

    /// The request that is being answered gets another protocol; to be said before [`Requests::decide`].
    pub(crate) fn upgrade(&self) {
        self.is_upgraded.store(true, Ordering::Relaxed);
    }

    /// It is known what the request is answered.
    pub(crate) fn decide(&self) {
        self.decided.fetch_add(1, Ordering::Release);
    }

    /// Whether the client has sent a part of a head, and owes the rest.
    pub(crate) fn is_head_begun(&self) -> bool {
        self.is_head_begun.load(Ordering::Relaxed)
    }
}

/// What comes next from a client.
enum State {
    /// A head.
    Head,
    /// A body of which this much is still to come.
    Body(u64),
    /// A body in chunks.
    Chunked(Chunks),
    /// Nobody knows: the client wished for another protocol, and has no answer yet.
    Undecided,
    /// Another protocol.
    Open,
    /// Nothing that matters: a head was malformed.
    Refused,
    /// Nothing that matters: a body was malformed.
    Broken(Malformed),
}

/// What is to be done for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Read from the client.
    Read,
    /// Wait for the pipeline: what was read is not judged yet, or is not going to be.
    Wait,
    /// Tell hyper that its body is malformed.
    Fail(Malformed),
}

/// Follows one client.
pub(crate) struct Guard {
    state: State,
    /// What was read and not handed on.
    held: BytesMut,
    /// How much of it is judged and may be handed on.
    ready: usize,
    /// How much of the head behind that was searched for its end.
    searched: usize,
    heads: u64,
    wishes_upgrade: bool,
    head_bytes_max: usize,
    /// A head in place of a malformed one, until it is handed on.
    instead: Option<Vec<u8>>,
    requests: Arc<Requests>,
}

impl Guard {
    /// Begins in front of the first head; none may be longer than `head_bytes_max`.
    pub(crate) fn new(head_bytes_max: usize) -> Self {
        Self {
            state: State::Head,
            held: BytesMut::new(),
            ready: 0,
            searched: 0,
            heads: 0,
            wishes_upgrade: false,
            head_bytes_max,
            instead: None,
            requests: Arc::default(),
        }
    }

    /// What the pipeline knows of the requests.
    pub(crate) fn requests(&self) -> &Arc<Requests> {
        &self.requests
    }

    /// From now on everything passes: this is no HTTP/1.
    pub(crate) fn open(&mut self) {
        self.state = State::Open;
    }

    /// Whether nothing more that the client sends matters.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, State::Refused | State::Broken(_))
    }

    /// What is held, unjudged as long as nothing was asked for.
    pub(crate) fn held(&self) -> &[u8] {
        &self.held
    }

    /// Holds bytes that were read.
    pub(crate) fn hold(&mut self, bytes: &[u8]) {
        if !self.is_over() {
            self.held.extend_from_slice(bytes);
        }
    }

    /// Takes note of bytes that were read: how many of them may be handed on at once. The others are held.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> usize {
        // Nearly always nothing is held, and what comes is judged where it is.
        let count = if self.held.is_empty() { self.judge(bytes) } else { 0 };
        self.hold(&bytes[count..]);
        count
    }

    /// Hands on what is held and may go on; whether there was anything.
    pub(crate) fn give(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        if self.ready == 0 {
            self.judge_held();
        }
        let count = self.ready.min(buffer.remaining());
        buffer.put_slice(&self.held[..count]);
        self.held.advance(count);
        self.ready -= count;
        if self.held.is_empty() {
            // A connection that waits for its next request keeps no memory.
            self.held = BytesMut::new();
        }
        count > 0
    }

    /// What to do when nothing can be given.
    pub(crate) fn next(&self) -> Next {
        match self.state {
            State::Refused => Next::Wait,
            State::Broken(malformed) => Next::Fail(malformed),
            State::Undecided if self.held.len() >= self.head_bytes_max => Next::Wait,
            _ => Next::Read,
        }
    }

    /// Whether the end of what a client sends is not for hyper yet: it would take the client to have left, though its
    /// last words are still held.
    pub(crate) fn keeps_end(&self) -> bool {
        matches!(self.state, State::Undecided) && !self.held.is_empty()
    }

    fn judge_held(&mut self) {
        if !self.held.is_empty() {
            let held = std::mem::take(&mut self.held);
            self.ready = self.judge(&held);
            self.held = held;
        }
        if self.is_over() {
            self.held.truncate(self.ready);
            self.hold_instead();
        }
    }

    fn hold_instead(&mut self) {
        if let Some(head) = self.instead.take() {
            self.held.extend_from_slice(&head);
            self.ready += head.len();
        }
    }

    /// How many of these bytes may go on.
    fn judge(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            let Some(count) = self.step(&bytes[at..]) else { break };
            at += count;
        }
        at
    }

    /// How many of these bytes go on together, up to the end of a head or body; `None`: none of them.
    fn step(&mut self, bytes: &[u8]) -> Option<usize> {
        match &mut self.state {
            State::Head => self.pass_head(bytes),
            State::Body(left) => {
                let count = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= count as u64;
                if *left == 0 {
                    self.end_request();
                }
                Some(count)
            }
            State::Chunked(chunks) => match chunks.advance(bytes) {
                Ok(None) => Some(bytes.len()),
                Ok(Some(count)) => {
                    self.end_request();
                    Some(count)
                }
                Err(malformed) => {
                    meters::malformed(malformed.label());
                    self.state = State::Broken(malformed);
                    None
                }
            },
            State::Undecided => {
                if self.requests.decided.load(Ordering::Acquire) < self.heads {
                    return None;
                }
                let is_upgraded = self.requests.is_upgraded.load(Ordering::Relaxed);
                self.state = if is_upgraded { State::Open } else { State::Head };
                Some(0)
            }
            State::Open => Some(bytes.len()),
            State::Refused | State::Broken(_) => None,
        }
    }

    fn pass_head(&mut self, bytes: &[u8]) -> Option<usize> {
        let judged = self.measure(bytes).and_then(|length| {
            length.map(|length| framing::inspect(&bytes[..length]).map(|head| (length, head))).transpose()
        });
        let (length, head) = match judged {
            Ok(Some(found)) => found,
            Ok(None) => {
                self.searched = bytes.len();
                // What some clients send behind a body begins no head.
                self.requests.is_head_begun.store(!b"\r\n".starts_with(bytes), Ordering::Relaxed);
                return None;
            }
            Err(malformed) => {
                self.refuse(malformed, bytes);
                return None;
            }
        };
        self.end_search();
        self.heads += 1;
        self.wishes_upgrade = head.wishes_upgrade;
        match head.framing {
            Framing::Empty | Framing::Length(0) => self.end_request(),
            Framing::Length(length) => self.state = State::Body(length),
            Framing::Chunked => self.state = State::Chunked(Chunks::default()),
        }
        Some(length)
    }

    /// The length of the head, if all of it is there and it is not too long.
    fn measure(&self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let length = framing::head_length(bytes, self.searched)?;
        if length.unwrap_or(bytes.len()) <= self.head_bytes_max {
            return Ok(length);
        }
        // An empty line in front is none of the head's.
        let has_line = bytes.iter().take(self.head_bytes_max).skip(2).any(|byte| *byte == b'\n');
        Err(if has_line { Malformed::LongHead } else { Malformed::LongLine })
    }

    fn end_search(&mut self) {
        if self.searched > 0 {
            self.searched = 0;
            self.requests.is_head_begun.store(false, Ordering::Relaxed);
        }
    }

    fn end_request(&mut self) {
        self.state = if self.wishes_upgrade { State::Undecided } else { State::Head };
    }

    fn refuse(&mut self, malformed: Malformed, head: &[u8]) {
        meters::malformed(malformed.label());
        self.end_search();
        self.heads += 1;
        // Nothing comes behind a refused head, so there is no second.
        let _ = self.requests.refused.set((self.heads, malformed));
        self.instead = Some(without_content(head));
        self.state = State::Refused;
    }
}

/// A request that says nothing but the method of a malformed one, or `-` if that is not sane either: so much of it
/// matters for the form of the answer, and for the log.
fn without_content(head: &[u8]) -> Vec<u8> {
    let head = head.strip_prefix(b"\r\n").unwrap_or(head);
    let method = head.split(|byte| *byte == b' ').next().unwrap_or_default();
    let is_sane = (1..=METHOD_BYTES_MAX).contains(&method.len())
        && method.iter().all(u8::is_ascii_uppercase)
        // Its target would have to be another.
        && method != b"CONNECT";
    let method = if is_sane { method } else { b"-" };
    [method, b" / HTTP/1.1\r\nhost: -\r\nconnection: close\r\n\r\n"].concat()
}

#[cfg(test)]
mod tests;
