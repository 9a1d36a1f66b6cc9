//! A request on its way into a connection: head, body, trailers.
//!
//! At most one piece of the body is held at a time; the next is asked for once that one is with the kernel. The
//! head and the first piece leave together when the piece is there already.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http::request::Parts;
use http_body::{Body, Frame};
use tokio::io::AsyncWrite;

use crate::body::{BodyError, RequestBody};

/// How the upstream knows where the body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// So much of it is to come.
    Length(u64),
    /// In chunks.
    Chunked,
}

/// Why an upload ended early.
#[derive(Debug)]
pub(super) enum UploadError {
    /// The body failed.
    Body(BodyError),
    /// The upstream takes no more.
    Closed,
}

/// The upload.
pub(super) struct Upload {
    /// Of the request, of a chunk, or trailers.
    head: BytesMut,
    data: Bytes,
    tail: &'static [u8],
    /// `None`: all of it was taken.
    body: Option<RequestBody>,
    framing: Framing,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Going,
    Sent,
    Failed,
}

impl Upload {
    /// Begins with a request, whose headers say how the body is framed, in a buffer that may have been used before.
    pub(super) fn new(head: &Parts, body: RequestBody, framing: Framing, mut buffer: BytesMut) -> Self {
        let body = (!body.is_end_stream()).then_some(body);
        buffer.clear();
        write_head(head, &mut buffer);
        Self { head: buffer, data: Bytes::new(), tail: b"", body, framing, state: State::Going }
    }

    /// The buffer, once all is sent.
    pub(super) fn take_buffer(&mut self) -> BytesMut {
        std::mem::take(&mut self.head)
    }

    /// Whether nothing more will be sent.
    pub(super) fn is_over(&self) -> bool {
        self.state != State::Going
    }

    /// Whether the upstream was sent everything.
    pub(super) fn is_sent(&self) -> bool {
        self.state == State::Sent
    }

    /// Sends what can be sent; ready when nothing is left.
    pub(super) fn poll<S: AsyncWrite + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<Result<(), UploadError>> {
        let ended = ready!(self.poll_rest(context, stream));
        self.state = if ended.is_ok() { State::Sent } else { State::Failed };
        self.body = None;
        Poll::Ready(ended)
    }

    fn poll_rest<S: AsyncWrite + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<Result<(), UploadError>> {
        loop {
            let mut is_waiting = false;
            if self.data.is_empty() && self.tail.is_empty() {
                is_waiting = self.poll_body(context)?.is_pending();
            }
            ready!(self.poll_write(context, stream)).map_err(|_| UploadError::Closed)?;
            if is_waiting {
                return Poll::Pending;
            }
            if self.body.is_none() {
                return Pin::new(stream).poll_flush(context).map_err(|_| UploadError::Closed);
            }
        }
    }

    /// Takes the next piece of the body, if there is one.
    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Result<(), UploadError>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Ok(())) };
        let frame = ready!(Pin::new(&mut *body).poll_frame(context));
        let is_last = body.is_end_stream();
        Poll::Ready(match frame {
            Some(Ok(frame)) => self.take(frame, is_last),
            Some(Err(error)) => Err(UploadError::Body(error)),
            None => self.end(None),
        })
    }

    fn take(&mut self, frame: Frame<Bytes>, is_last: bool) -> Result<(), UploadError> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => return self.end(frame.into_trailers().ok().as_ref()),
        };
        match &mut self.framing {
            Framing::Length(left) => {
                let length = data.len() as u64;
                *left = left.checked_sub(length).ok_or(UploadError::Body(BodyError::Broken))?;
                self.data = data;
            }
            // An empty chunk would be the last one.
            Framing::Chunked if data.is_empty() => {}
            Framing::Chunked => {
                self.head.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
                self.data = data;
                self.tail = b"\r\n";
            }
        }
        if is_last { self.end(None) } else { Ok(()) }
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), UploadError> {
        self.body = None;
        match (self.framing, trailers) {
            (Framing::Length(0), _) => {}
            // The client promised more.
            (Framing::Length(_), _) => return Err(UploadError::Body(BodyError::Broken)),
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
            let pieces = [IoSlice::new(&self.head), IoSlice::new(&self.data), IoSlice::new(self.tail)];
            let first = pieces.iter().position(|piece| !piece.is_empty()).unwrap_or(0);
            let written = ready!(Pin::new(&mut *stream).poll_write_vectored(context, &pieces[first..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.head.advance(written.min(head));
            self.data.advance(written.saturating_sub(head).min(data));
            self.tail = &self.tail[written.saturating_sub(head + data)..];
        }
    }
}

/// About as long as a head is.
const HEAD_BYTES: usize = 1024;

fn write_head(head: &Parts, out: &mut BytesMut) {
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    out.reserve(HEAD_BYTES);
    for part in [head.method.as_str(), " ", target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    write_fields(&head.headers, out);
}

/// Header lines or trailers, and the empty line behind them.
fn write_fields(fields: &HeaderMap, out: &mut BytesMut) {
    for (name, value) in fields {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use http::{Request, Uri};

    use crate::body::Progress;

    /// What is sent for a request, or why it ended.
    fn sent(body: &'static str, framing: Framing) -> Result<String, String> {
        let idle = Duration::from_secs(1);
        let body =
            RequestBody::new(Bytes::from_static(body.as_bytes()), None, u64::MAX, idle, Progress::new());
        let target = Uri::from_static("/a?b");
        let head = Request::post(target).header("host", "up.test").body(()).unwrap().into_parts().0;
        let mut upload = Upload::new(&head, body, framing, BytesMut::new());
        let mut stream = Vec::new();
        let mut context = Context::from_waker(std::task::Waker::noop());
        match upload.poll(&mut context, &mut stream) {
            Poll::Ready(Ok(())) if upload.is_sent() => Ok(String::from_utf8(stream).unwrap()),
            other => Err(format!("{other:?}")),
        }
    }

    #[track_caller]
    fn check(body: &'static str, framing: Framing, expected: &str) {
        assert_eq!(
            sent(body, framing).unwrap(),
            format!("POST /a?b HTTP/1.1\r\nhost: up.test\r\n\r\n{expected}")
        );
    }

    #[test]
    fn bodies_are_framed() {
        check("", Framing::Length(0), "");
        check("abc", Framing::Length(3), "abc");
        check("abc", Framing::Chunked, "3\r\nabc\r\n0\r\n\r\n");
    }

    #[test]
    fn bodies_are_as_long_as_was_said() {
        assert!(sent("abc", Framing::Length(2)).is_err());
        assert!(sent("abc", Framing::Length(4)).is_err());
    }
}
