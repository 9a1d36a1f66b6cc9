//! A client's connection, with three things hyper does not do.
//!
//! It says whether the client begins with HTTP/2's preface, before hyper sees a byte. It ends when the client takes
//! nothing of an answer for too long. And it judges what comes over HTTP/1 strictly, before hyper reads it: the rules
//! are in `framing.rs`, `connection/guard.rs` follows the client by them. A client whose request was malformed is read
//! for a moment after the answer, so that it is not reset before it has read why.

pub(crate) mod guard;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use guard::{Guard, Next};

use crate::meters::{self, Bound};
pub(crate) use guard::Requests;

/// What bytes come over: as they are, or out of TLS.
pub(crate) type Transport = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// What an HTTP/2 client sends first; no HTTP/1 request begins so (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The connection.
pub(crate) struct ClientStream {
    transport: Transport,
    guard: Guard,
    write_max: Duration,
    write_timer: Pin<Box<Sleep>>,
    is_write_waiting: bool,
    /// Once all is written to a client whose request was malformed: how much more is read of it.
    linger_bytes: Option<usize>,
}

/// Most that is read from a client that was refused, and for how long: one that is still sending would otherwise find
/// its connection reset before it has read why.
pub(crate) const LINGER_BYTES_MAX: usize = 256 << 10;
pub(crate) const LINGER: Duration = Duration::from_secs(2);

/// What is read at a time just to be thrown away.
const DISCARD_BYTES: usize = 4 << 10;

impl ClientStream {
    /// Wraps a connection whose client may take nothing for at most `write_max`.
    pub(crate) fn new(transport: Transport, write_max: Duration, head_bytes_max: usize) -> Self {
        Self {
            transport,
            guard: Guard::new(head_bytes_max),
            write_max,
            write_timer: Box::pin(tokio::time::sleep(write_max)),
            is_write_waiting: false,
            linger_bytes: None,
        }
    }

    /// Whether the client begins with HTTP/2's preface; to be asked before anything is read. Can be dropped: what
    /// was read by then is kept.
    pub(crate) async fn begins_with_preface(&mut self) -> io::Result<bool> {
        while self.guard.held().len() < PREFACE.len() {
            let mut buffer = [0; PREFACE.len()];
            let missing = PREFACE.len() - self.guard.held().len();
            let count = self.transport.read(&mut buffer[..missing]).await?;
            self.guard.hold(&buffer[..count]);
            if count == 0 || !PREFACE.starts_with(self.guard.held()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the client sent anything that nobody has read yet.
    pub(crate) fn has_begun(&self) -> bool {
        !self.guard.held().is_empty()
    }

    /// The client speaks no HTTP/1: nothing is judged.
    pub(crate) fn pass_all(&mut self) {
        self.guard.open();
    }

    /// What is known of its requests over HTTP/1.
    pub(crate) fn requests(&self) -> &Arc<Requests> {
        self.guard.requests()
    }

    /// Throws away what still comes.
    fn poll_linger(&mut self, context: &mut Context<'_>, mut left: usize) -> Poll<()> {
        let mut bytes = [0; DISCARD_BYTES];
        while left > 0 {
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.transport).poll_read(context, &mut buffer) {
                Poll::Pending => {
                    self.linger_bytes = Some(left);
                    return self.write_timer.as_mut().poll(context);
                }
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    left = left.saturating_sub(buffer.filled().len());
                }
                Poll::Ready(_) => return Poll::Ready(()),
            }
        }
        Poll::Ready(())
    }

    fn timed<T>(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.is_write_waiting = false;
            return polled;
        }
        if !self.is_write_waiting {
            self.write_timer.as_mut().reset(Instant::now() + self.write_max);
            self.is_write_waiting = true;
        }
        ready!(self.write_timer.as_mut().poll(context));
        meters::bound_hit(Bound::WriteTimeout);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while buffer.remaining() > 0 && !this.guard.give(buffer) {
            match this.guard.next() {
                Next::Read => {}
                // hyper reads again when it has written an answer: nobody needs to be woken for that.
                Next::Wait => return Poll::Pending,
                Next::Fail(malformed) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, malformed)));
                }
            }
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.transport).poll_read(context, buffer))?;
            let read = &buffer.filled()[before..];
            if read.is_empty() {
                return if this.guard.keeps_end() { Poll::Pending } else { Poll::Ready(Ok(())) };
            }
            let count = this.guard.take(read);
            buffer.set_filled(before + count);
            if count > 0 {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.transport).poll_write(context, bytes);
        self.timed(context, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.transport).poll_write_vectored(context, slices);
        self.timed(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let left = match this.linger_bytes {
            Some(left) => left,
            None => {
                ready!(Pin::new(&mut this.transport).poll_shutdown(context))?;
                if !this.guard.is_over() {
                    return Poll::Ready(Ok(()));
                }
                this.write_timer.as_mut().reset(Instant::now() + LINGER);
                LINGER_BYTES_MAX
            }
        };
        this.poll_linger(context, left).map(Ok)
    }
}
