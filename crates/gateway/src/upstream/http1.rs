//! One request and its answer over an HTTP/1 connection.
//!
//! The connection belongs to the exchange, without a task of its own: whoever waits for the answer, or takes its
//! body, also moves what is still to be sent. It goes back to its pool once the request is sent and the answer read
//! to its end; dropped before, it is closed.

mod download;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::io::poll_read_buf;

use self::download::Head;
#[cfg(fuzzing)]
pub use self::download::answers;
use super::connect::Stream;
use super::pool::{Lease, Place};
use super::{AnswerBody, Onward, SendError, UpstreamError};
use crate::body::{BodyError, RequestBody};
use crate::http1::decoder::{Decoder, Piece};
use crate::http1::transfer::{Framing, Transfer, TransferError};
use crate::message::Reply;
use crate::socket::READ_BYTES;

/// How much of a long body is read at a time.
const READ_BYTES_MAX: usize = 64 << 10;
/// Most answers that announce another one.
const INTERIM_MAX: usize = 32;

/// A connection, and what was read of it that nobody has taken.
pub(super) struct Connection {
    stream: Stream,
    read: BytesMut,
    /// What requests are written into.
    write: BytesMut,
    alarm: Alarm,
}

impl Connection {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, read: BytesMut::new(), write: BytesMut::new(), alarm: Alarm::default() }
    }

    /// Whether the other side has neither closed it nor said anything unasked.
    pub(super) fn is_usable(&mut self) -> bool {
        self.read.is_empty() && self.stream.is_silent()
    }

    /// Reads more, about `wanted` bytes; 0: it has ended.
    fn poll_read(&mut self, context: &mut Context<'_>, wanted: u64) -> Poll<std::io::Result<usize>> {
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        if wanted <= READ_BYTES {
            return self.stream.poll_read_some(context, &mut self.read);
        }
        self.read.reserve(wanted.min(READ_BYTES_MAX));
        poll_read_buf(Pin::new(&mut self.stream), context, &mut self.read)
    }
}

/// Wakes whoever polled it last. To move it to a later time costs nothing: that is done when it rings.
#[derive(Default)]
struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready when this time has come.
    fn poll(&mut self, context: &mut Context<'_>, due: Instant) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if sleep.deadline() > due {
            sleep.as_mut().reset(due);
        }
        while sleep.as_mut().poll(context).is_ready() {
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(due);
        }
        Poll::Pending
    }
}

/// About as long as a head is.
const HEAD_BYTES: usize = 1024;

fn write_head(request: &Onward, out: &mut BytesMut) {
    out.reserve(HEAD_BYTES);
    for part in [request.method.as_str(), " ", request.target.as_str(), " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    request.fields.write(out, |_| true);
    out.extend_from_slice(b"\r\n");
}

/// A request under way, until the head of its answer is there.
pub(super) struct Exchange {
    lease: Lease,
    upload: Transfer<RequestBody>,
    method: Method,
    interim: usize,
}

impl Exchange {
    /// Begins one; nothing is sent yet.
    pub(super) fn new(mut lease: Lease, request: Onward, framing: Framing) -> Self {
        let mut buffer = std::mem::take(&mut lease.connection.write);
        buffer.clear();
        write_head(&request, &mut buffer);
        let upload = Transfer::new(buffer, Some(request.body), framing, true);
        Self { lease, upload, method: request.method, interim: 0 }
    }

    /// Sends the request and waits for the head of its answer, until it is `due`, which changes as the body is sent.
    pub(super) async fn head(&mut self, due: impl Fn() -> Instant) -> Result<Head, SendError> {
        poll_fn(|context| {
            if let Poll::Ready(head) = self.poll_head(context) {
                return Poll::Ready(head);
            }
            ready!(self.lease.connection.alarm.poll(context, due()));
            Poll::Ready(Err(UpstreamError::Timeout.into()))
        })
        .await
    }

    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<Result<Head, SendError>> {
        let connection = &mut self.lease.connection;
        if !self.upload.is_over()
            && let Poll::Ready(Err(TransferError::Body(error))) =
                self.upload.poll(context, &mut connection.stream)
        {
            return Poll::Ready(Err(SendError::Body(error)));
        }
        // An upstream that takes no more may still say why.
        loop {
            let bad = |_| SendError::Upstream(UpstreamError::BadAnswer);
            while let Some(head) = download::take_head(&mut connection.read).map_err(bad)? {
                let is_final =
                    !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS;
                if is_final {
                    return Poll::Ready(Ok(head));
                }
                self.interim += 1;
                if self.interim > INTERIM_MAX {
                    return Poll::Ready(Err(SendError::Upstream(UpstreamError::BadAnswer)));
                }
            }
            match ready!(connection.poll_read(context, 0)) {
                Ok(1..) => {}
                _ => return Poll::Ready(Err(SendError::Upstream(UpstreamError::BadAnswer))),
            }
        }
    }

    /// The answer whose head this is.
    pub(super) fn into_answer(self, head: Head) -> Result<Reply<AnswerBody>, SendError> {
        let decoder =
            head.decoder(&self.method).map_err(|_| SendError::Upstream(UpstreamError::BadAnswer))?;
        let is_tunnel = head.status == StatusCode::SWITCHING_PROTOCOLS;
        let is_kept = head.keeps_connection() && !is_tunnel;
        let mut answer =
            Answer { lease: Some(self.lease), upload: self.upload, decoder, is_kept, is_broken: false };
        if !is_tunnel {
            answer.end_if_over();
        }
        Ok(Reply { status: head.status, fields: head.fields, body: AnswerBody::Http1(Box::new(answer)) })
    }
}

/// The body of an answer.
pub(crate) struct Answer {
    /// `None`: the body is over.
    lease: Option<Lease>,
    upload: Transfer<RequestBody>,
    decoder: Decoder,
    /// Whether the upstream keeps the connection.
    is_kept: bool,
    is_broken: bool,
}

impl Answer {
    /// As of [`http_body::Body`].
    pub(super) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.is_broken {
            return self.poll_failure(context);
        }
        let Some(lease) = &mut self.lease else { return Poll::Ready(None) };
        let connection = &mut lease.connection;
        if !self.upload.is_over() {
            // If it fails, the connection is not used again; the answer may still come.
            let _ = self.upload.poll(context, &mut connection.stream);
        }
        loop {
            let frame = match self.decoder.take(&mut connection.read) {
                Ok(Piece::Data(data)) => Frame::data(data),
                Ok(Piece::Trailers(trailers)) => Frame::trailers(trailers),
                Ok(Piece::End) => {
                    self.end_if_over();
                    return Poll::Ready(None);
                }
                Ok(Piece::Nothing) => {
                    let wanted = self.decoder.left().unwrap_or(0);
                    let is_broken = match ready!(connection.poll_read(context, wanted)) {
                        Ok(0) => self.decoder.close().is_err(),
                        Ok(_) => false,
                        Err(_) => true,
                    };
                    if is_broken {
                        return self.poll_failure(context);
                    }
                    continue;
                }
                Err(_) => return self.poll_failure(context),
            };
            self.end_if_over();
            return Poll::Ready(Some(Ok(frame)));
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.lease.is_none()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self.decoder.left() {
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }

    /// The connection that left HTTP, if this is the answer with which it did.
    pub(super) fn into_tunnel(self) -> Option<Tunnel> {
        let lease = self.lease?;
        let (Connection { stream, read, .. }, place) = lease.keep();
        Some(Tunnel { stream, ahead: read.freeze(), _place: place })
    }

    fn end_if_over(&mut self) {
        if !self.decoder.is_over() {
            return;
        }
        let Some(mut lease) = self.lease.take() else { return };
        if self.is_kept && self.upload.is_sent() && lease.connection.read.is_empty() {
            lease.connection.write = self.upload.take_buffer();
            lease.give_back();
        }
    }

    /// What came before is to reach the client, and an error would overtake it: whoever takes the body gets a
    /// moment to send it on.
    fn poll_failure(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if !self.is_broken {
            self.is_broken = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.lease = None;
        Poll::Ready(Some(Err(BodyError::Broken)))
    }
}

/// A connection that left HTTP.
pub(crate) struct Tunnel {
    pub(crate) stream: Stream,
    /// What was read behind the head.
    pub(crate) ahead: Bytes,
    /// Kept in its pool for as long as the tunnel is open.
    pub(crate) _place: Place,
}
