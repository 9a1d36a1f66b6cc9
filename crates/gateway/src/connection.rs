//! A client's connection, with three things hyper does not do.
//!
//! It says whether the client begins with HTTP/2's preface, before hyper sees a byte. It ends when the client takes
//! nothing of an answer for too long. And it notices a raw `#` in an HTTP/1 request target: the HTTP types drop
//! what follows it without a word, so that matching would not see what the client sent. Such targets are noted
//! here, as text up to the `#`, and the pipeline asks for them by [`Fragments::take`].

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Uri;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

/// What bytes come over: as they are, or out of TLS.
pub(crate) type Transport = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// What an HTTP/2 client sends first; no HTTP/1 request begins so (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The connection.
pub(crate) struct ClientStream {
    transport: Transport,
    /// What was read to tell the protocol, and how much of it hyper has seen.
    ahead: Vec<u8>,
    ahead_read: usize,
    scanner: Scanner,
    write_max: Duration,
    write_timer: Pin<Box<Sleep>>,
    is_write_waiting: bool,
}

impl ClientStream {
    /// Wraps a connection whose client may take nothing for at most `write_max`.
    pub(crate) fn new(transport: Transport, write_max: Duration, head_bytes_max: usize) -> Self {
        Self {
            transport,
            ahead: Vec::new(),
            ahead_read: 0,
            scanner: Scanner::new(head_bytes_max),
            write_max,
            write_timer: Box::pin(tokio::time::sleep(write_max)),
            is_write_waiting: false,
        }
    }

    /// Whether the client begins with HTTP/2's preface; to be asked before anything is read. Can be dropped: what
    /// was read by then is kept.
    pub(crate) async fn begins_with_preface(&mut self) -> io::Result<bool> {
        while self.ahead.len() < PREFACE.len() {
            let mut buffer = [0; PREFACE.len()];
            let count = self.transport.read(&mut buffer[self.ahead.len()..]).await?;
            let start = self.ahead.len();
            self.ahead.extend_from_slice(&buffer[start..start + count]);
            if count == 0 || !PREFACE.starts_with(&self.ahead) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn poll_transport(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = &self.ahead[self.ahead_read..];
        if left.is_empty() {
            return Pin::new(&mut self.transport).poll_read(context, buffer);
        }
        let count = left.len().min(buffer.remaining());
        buffer.put_slice(&left[..count]);
        self.ahead_read += count;
        Poll::Ready(Ok(()))
    }

    /// Where targets with a `#` are noted.
    pub(crate) fn fragments(&self) -> Fragments {
        self.scanner.fragments.clone()
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
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(self.poll_transport(context, buffer))?;
        self.scanner.scan(&buffer.filled()[before..]);
        if self.scanner.fragments.is_full() {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
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
        Pin::new(&mut self.transport).poll_shutdown(context)
    }
}

/// Request lines of a connection that had a `#`, each up to it.
#[derive(Clone, Default)]
pub(crate) struct Fragments(Arc<Noted>);

#[derive(Default)]
struct Noted {
    lines: Mutex<Vec<Box<[u8]>>>,
    is_over: AtomicBool,
}

impl Fragments {
    /// More may not wait: a connection with so many ends.
    const MAX: usize = 64;

    /// Whether a request line of this method and target was cut at a `#`.
    pub(crate) fn take(&self, method: &str, target: &Uri) -> bool {
        let mut noted = self.0.lines.lock();
        if noted.is_empty() {
            return false;
        }
        let target = &target.to_string();
        // The HTTP types add the slash that an absolute form may lack.
        let line = |text: &str| format!("{method} {text}").into_bytes().into_boxed_slice();
        let (exact, bare) = (line(target), line(target.strip_suffix('/').unwrap_or(target)));
        let found = noted.iter().position(|text| *text == exact || *text == bare);
        found.map(|at| noted.swap_remove(at)).is_some()
    }

    /// What comes from now on is no HTTP/1.
    pub(crate) fn end(&self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }

    fn are_over(&self) -> bool {
        self.0.is_over.load(Ordering::Relaxed)
    }

    fn note(&self, line: &[u8]) {
        self.0.lines.lock().push(line.into());
    }

    fn is_full(&self) -> bool {
        self.0.lines.lock().len() >= Self::MAX
    }
}

/// Looks for `METHOD target#` at the start of lines. It does not know heads from bodies: a line of a body that
/// looks like this is noted too, which matters only if the same client then asks for just that target.
struct Scanner {
    fragments: Fragments,
    /// The start of a line whose end is not there yet, as long as it may be a request line.
    line: Vec<u8>,
    line_bytes_max: usize,
    /// The rest of this line is of no interest.
    is_skipping: bool,
}

impl Scanner {
    fn new(line_bytes_max: usize) -> Self {
        Self { fragments: Fragments::default(), line: Vec::new(), line_bytes_max, is_skipping: false }
    }

    fn scan(&mut self, bytes: &[u8]) {
        if self.fragments.are_over() {
            return;
        }
        // Nearly always there is no `#`; then only the last line may go on.
        if !bytes.contains(&b'#') {
            match bytes.iter().rposition(|b| *b == b'\n') {
                Some(end) => {
                    self.end_line();
                    self.extend(&bytes[end + 1..]);
                }
                None => self.extend(bytes),
            }
            return;
        }
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            self.extend(piece);
            if piece.ends_with(b"\n") {
                self.end_line();
            }
        }
    }

    fn extend(&mut self, piece: &[u8]) {
        if self.is_skipping || piece.is_empty() {
            return;
        }
        let cut = piece.iter().position(|b| *b == b'#');
        let part = &piece[..cut.unwrap_or(piece.len())];
        self.line.extend_from_slice(part);
        let may_be = self.line.len() <= self.line_bytes_max && begins_like_request(&self.line);
        if cut.is_some() && may_be && self.line.contains(&b' ') {
            self.fragments.note(&self.line);
        }
        if cut.is_some() || !may_be {
            self.line.clear();
            self.is_skipping = true;
        }
    }

    fn end_line(&mut self) {
        self.line.clear();
        self.is_skipping = false;
    }
}

/// `METHOD`, or `METHOD target` without another blank: what follows a target is of no interest.
fn begins_like_request(line: &[u8]) -> bool {
    let method = line.iter().take_while(|b| b.is_ascii_uppercase() || **b == b'-').count();
    match line.get(method) {
        None => method <= 32,
        Some(b' ') => method > 0 && !line[method + 1..].contains(&b' '),
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pieces: &[&str], method: &str, target: &str, expected: bool) {
        let mut scanner = Scanner::new(1024);
        for piece in pieces {
            scanner.scan(piece.as_bytes());
        }
        let target: Uri = target.parse().unwrap();
        assert_eq!(scanner.fragments.take(method, &target), expected, "{pieces:?}");
        assert!(!scanner.fragments.take(method, &target));
    }

    #[test]
    fn a_hash_in_a_target_is_noticed() {
        check(&["GET /foo#bar HTTP/1.1\r\nHost: a\r\n\r\n"], "GET", "/foo", true);
        check(&["GET /foo?a=1#bar HTTP/1.1\r\n"], "GET", "/foo?a=1", true);
        check(&["GET http://a.test#bar HTTP/1.1\r\n"], "GET", "http://a.test/", true);
        check(&["G", "ET /fo", "o", "#bar HTTP/1.1\r\n"], "GET", "/foo", true);
        check(&["GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b#c HTTP/1.1\r\n\r\n"], "GET", "/b", true);
    }

    #[test]
    fn a_hash_elsewhere_is_not() {
        check(&["GET /foo HTTP/1.1\r\nKey: a#b\r\n\r\n"], "GET", "/foo", false);
        check(&["GET /foo HTTP/1.1 #\r\n"], "GET", "/foo", false);
        check(&["GET /other#bar HTTP/1.1\r\n"], "POST", "/other", false);
        check(&["{\"a\": \"#1\"}"], "GET", "/", false);
    }

    #[test]
    fn long_lines_are_not_kept() {
        let mut scanner = Scanner::new(8);
        scanner.scan(b"GET /0123456789");
        assert!(scanner.line.is_empty());
    }
}
