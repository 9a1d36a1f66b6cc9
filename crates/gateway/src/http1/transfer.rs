//! A message on its way into a connection: head, body, trailers. Both directions are written by it.
//!
//! At most one piece of the body is held at a time; the next is asked for once that one is with the kernel. The
//! head and the first piece leave together when the piece is there already.

use std::fmt::Write as _;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame};
use tokio::io::AsyncWrite;

use crate::body::BodyError;

/// Up to this size, data is copied behind what is in front of it: that costs less than a write in pieces.
const COPIED_BYTES_MAX: usize = 2 << 10;

/// How the other side knows where the body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// So much of it is to come.
    Length(u64),
    /// In chunks.
    Chunked,
    /// With the connection; only of answers.
    UntilClose,
}

/// Why a transfer ended early.
#[derive(Debug)]
pub(crate) enum TransferError {
    /// The body failed.
    Body(BodyError),
    /// The other side takes no more.
    Closed(io::Error),
}

/// The transfer.
pub(crate) struct Transfer<B> {
    /// Of the message, of a chunk, or trailers.
    head: BytesMut,
    data: Bytes,
    tail: &'static [u8],
    /// `None`: all of it was taken.
    body: Option<B>,
    framing: Framing,
    takes_trailers: bool,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Going,
    Sent,
    Failed,
}

impl<B: Body<Data = Bytes, Error = BodyError> + Unpin> Transfer<B> {
    /// Begins with a head that says how the body is framed, if one follows. Trailers only go to who takes them.
    pub(crate) fn new(head: BytesMut, body: Option<B>, framing: Framing, takes_trailers: bool) -> Self {
        let body = body.filter(|body| !body.is_end_stream() || framing == Framing::Chunked);
        Self { head, data: Bytes::new(), tail: b"", body, framing, takes_trailers, state: State::Going }
    }

    /// The buffer of the head, once all is sent.
    pub(crate) fn take_buffer(&mut self) -> BytesMut {
        std::mem::take(&mut self.head)
    }

    /// Whether nothing more will be sent.
    pub(crate) fn is_over(&self) -> bool {
        self.state != State::Going
    }

    /// Whether the other side was sent everything.
    pub(crate) fn is_sent(&self) -> bool {
        self.state == State::Sent
    }

    /// Sends what can be sent; ready when nothing is left.
    pub(crate) fn poll<S: AsyncWrite + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<Result<(), TransferError>> {
        let ended = ready!(self.poll_rest(context, stream));
        self.state = if ended.is_ok() { State::Sent } else { State::Failed };
        self.body = None;
        Poll::Ready(ended)
    }

    fn poll_rest<S: AsyncWrite + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<Result<(), TransferError>> {
        loop {
            let mut is_waiting = false;
            if self.data.is_empty() && self.tail.is_empty() {
                is_waiting = self.poll_body(context)?.is_pending();
            }
            ready!(self.poll_write(context, stream)).map_err(TransferError::Closed)?;
            if is_waiting {
                return Poll::Pending;
            }
            if self.body.is_none() {
                return Pin::new(stream).poll_flush(context).map_err(TransferError::Closed);
            }
        }
    }

    /// Takes the next piece of the body, if there is one.
    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Result<(), TransferError>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Ok(())) };
        let frame = ready!(Pin::new(&mut *body).poll_frame(context));
        let is_last = body.is_end_stream();
        Poll::Ready(match frame {
            Some(Ok(frame)) => self.take(frame, is_last),
            Some(Err(error)) => Err(TransferError::Body(error)),
            None => self.end(None),
        })
    }

    fn take(&mut self, frame: Frame<Bytes>, is_last: bool) -> Result<(), TransferError> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => return self.end(frame.into_trailers().ok().as_ref()),
        };
        match &mut self.framing {
            Framing::Length(left) => {
                let length = data.len() as u64;
                *left = left.checked_sub(length).ok_or(TransferError::Body(BodyError::Broken))?;
                self.hold(data);
            }
            Framing::UntilClose => self.hold(data),
            // An empty chunk would be the last one.
            Framing::Chunked if data.is_empty() => {}
            Framing::Chunked => {
                // A buffer takes whatever is written.
                let _ = write!(self.head, "{:x}\r\n", data.len());
                self.data = data;
                self.tail = b"\r\n";
            }
        }
        if is_last { self.end(None) } else { Ok(()) }
    }

    fn hold(&mut self, data: Bytes) {
        if !self.head.is_empty() && data.len() <= COPIED_BYTES_MAX {
            self.head.extend_from_slice(&data);
        } else {
            self.data = data;
        }
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), TransferError> {
        self.body = None;
        match (self.framing, trailers.filter(|_| self.takes_trailers)) {
            (Framing::Length(0) | Framing::UntilClose, _) => {}
            // More was promised.
            (Framing::Length(_), _) => return Err(TransferError::Body(BodyError::Broken)),
            (Framing::Chunked, None) if self.data.is_empty() => self.head.extend_from_slice(b"0\r\n\r\n"),
            (Framing::Chunked, None) => self.tail = b"\r\n0\r\n\r\n",
            (Framing::Chunked, Some(trailers)) => {
                self.head.extend_from_slice(b"0\r\n");
                write_fields(trailers, &mut self.head);
            }
        }
        Ok(())
    }

    fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<io::Result<()>> {
        loop {
            let (head, data) = (self.head.len(), self.data.len());
            if head + data + self.tail.len() == 0 {
                return Poll::Ready(Ok(()));
            }
            let written = if head > 0 && data + self.tail.len() == 0 {
                ready!(Pin::new(&mut *stream).poll_write(context, &self.head))?
            } else {
                let pieces = [IoSlice::new(&self.head), IoSlice::new(&self.data), IoSlice::new(self.tail)];
                let first = pieces.iter().position(|piece| !piece.is_empty()).unwrap_or(0);
                ready!(Pin::new(&mut *stream).poll_write_vectored(context, &pieces[first..]))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.head.advance(written.min(head));
            self.data.advance(written.saturating_sub(head).min(data));
            self.tail = &self.tail[written.saturating_sub(head + data)..];
        }
    }
}

/// Header lines or trailers, and the empty line behind them.
pub(crate) fn write_fields(fields: &HeaderMap, out: &mut BytesMut) {
    for (name, value) in fields {
        write_field(name.as_str(), value.as_bytes(), out);
    }
    out.extend_from_slice(b"\r\n");
}

/// One header line.
pub(crate) fn write_field(name: &str, value: &[u8], out: &mut BytesMut) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use tokio::time::Instant;

    use crate::body::{Progress, RequestBody};

    /// What is sent for a request, or why it ended.
    fn sent(body: &'static str, framing: Framing) -> Result<String, String> {
        let idle = Duration::from_secs(1);
        let ahead = Bytes::from_static(body.as_bytes());
        let body: RequestBody = RequestBody::new(ahead, None, u64::MAX, idle, Progress::new(Instant::now()));
        let mut transfer = Transfer::new(BytesMut::from("head|"), Some(body), framing, true);
        let mut stream = Vec::new();
        let mut context = Context::from_waker(std::task::Waker::noop());
        match transfer.poll(&mut context, &mut stream) {
            Poll::Ready(Ok(())) if transfer.is_sent() => Ok(String::from_utf8(stream).unwrap()),
            other => Err(format!("{other:?}")),
        }
    }

    #[track_caller]
    fn check(body: &'static str, framing: Framing, expected: &str) {
        assert_eq!(sent(body, framing).unwrap(), format!("head|{expected}"));
    }

    #[test]
    fn bodies_are_framed() {
        check("", Framing::Length(0), "");
        check("abc", Framing::Length(3), "abc");
        check("abc", Framing::Chunked, "3\r\nabc\r\n0\r\n\r\n");
        check("", Framing::Chunked, "0\r\n\r\n");
        check("abc", Framing::UntilClose, "abc");
    }

    #[test]
    fn bodies_are_as_long_as_was_said() {
        assert!(sent("abc", Framing::Length(2)).is_err());
        assert!(sent("abc", Framing::Length(4)).is_err());
    }
}
