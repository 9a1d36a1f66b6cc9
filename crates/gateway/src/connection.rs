//! A client's connection, with two things that HTTP libraries do not do.
//!
//! It says whether the client begins with HTTP/2's preface, before anybody else sees a byte. And it ends when the client
//! takes nothing of an answer for too long.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_rustls::server::TlsStream;

use crate::meters::{self, Bound};
use crate::socket::Socket;

/// What bytes come over: as they are, or out of TLS.
pub(crate) type Transport = Socket<TlsStream<TcpStream>>;

/// What an HTTP/2 client sends first; no HTTP/1 request begins so (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The connection.
pub(crate) struct ClientStream {
    transport: Transport,
    /// What was read to find out about the preface.
    held: BytesMut,
    write_max: Duration,
    write_timer: Pin<Box<Sleep>>,
    is_write_waiting: bool,
}

impl ClientStream {
    /// Wraps a connection whose client may take nothing for at most `write_max`.
    pub(crate) fn new(transport: Transport, write_max: Duration) -> Self {
        Self {
            transport,
            held: BytesMut::new(),
            write_max,
            write_timer: Box::pin(tokio::time::sleep(write_max)),
            is_write_waiting: false,
        }
    }

    /// Whether the client begins with HTTP/2's preface; to be asked before anything is read. Can be dropped: what
    /// was read by then is kept.
    pub(crate) async fn begins_with_preface(&mut self) -> io::Result<bool> {
        while self.held.len() < PREFACE.len() {
            let mut buffer = [0; PREFACE.len()];
            let missing = PREFACE.len() - self.held.len();
            let count = self.transport.read(&mut buffer[..missing]).await?;
            self.held.extend_from_slice(&buffer[..count]);
            if count == 0 || !PREFACE.starts_with(&self.held) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the client sent anything that nobody has read yet.
    pub(crate) fn has_begun(&self) -> bool {
        !self.held.is_empty()
    }

    /// What was read by then: it comes before whatever is read.
    pub(crate) fn take_held(&mut self) -> BytesMut {
        std::mem::take(&mut self.held)
    }

    /// Reads a little behind what was `read`; 0: the client sends no more.
    pub(crate) fn poll_read_some(
        &mut self,
        context: &mut Context<'_>,
        read: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        if self.held.is_empty() {
            return self.transport.poll_read_some(context, read);
        }
        let held = self.take_held();
        read.extend_from_slice(&held);
        Poll::Ready(Ok(held.len()))
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
        if self.held.is_empty() {
            return Pin::new(&mut self.transport).poll_read(context, buffer);
        }
        let count = self.held.len().min(buffer.remaining());
        buffer.put_slice(&self.held[..count]);
        self.held.advance(count);
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
        Pin::new(&mut self.transport).poll_shutdown(context)
    }
}
