//! HTTP/1 towards clients: one connection, request by request.
//!
//! A request is read strictly (`framing.rs`), so that nobody in front of the gateway or behind it can be made to see
//! another one; what is malformed is refused like anything else, and ends the connection. While a request is served the
//! connection reads its body as it is asked for, and otherwise watches whether the client leaves: then whatever serves
//! the request is dropped. Nothing of what comes behind a request is looked at before its answer is sent.
//!
//! A connection that waits for a request keeps no buffer.

mod answer;
mod body_reader;
pub(crate) mod decoder;
mod head;
mod head_reader;
pub(crate) mod transfer;

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use http::header::EXPECT;
use http::{StatusCode, Version};
use tokio::io::AsyncWrite;
use tokio::time::{Instant, Sleep};
use tokio_util::io::poll_read_buf;
use tracing::{debug, info};

use crate::body::{ClientBody, ReplyBody};
use crate::connection::ClientStream;
use crate::framing;
use crate::message::{Reply, RequestHead};
use crate::meters;
use crate::proxy::{Client, Pipeline};
use crate::signal::{self, Signal};
use crate::socket::READ_BYTES;
use crate::upgrade;
use answer::{Sending, Terms};
pub(crate) use body_reader::{Body, BodyReader};
pub(crate) use head_reader::{Found, HeadReader};

/// What is read at a time of a long body.
const BODY_READ_BYTES_MAX: usize = 64 << 10;
/// Most that is read of what a client still sends when it was answered, and for how long.
const LINGER_BYTES_MAX: usize = 256 << 10;
const LINGER: Duration = Duration::from_secs(2);

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The bounds of a head.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadBounds {
    /// Longest, in bytes.
    pub(crate) bytes_max: usize,
    /// From the moment in which the connection is ready for it to its end.
    pub(crate) time_max: Duration,
}

/// Serves a connection until its client leaves, it is malformed, or `drain` is given and what has begun is answered.
pub(crate) async fn serve(
    mut stream: ClientStream,
    bounds: HeadBounds,
    pipeline: &Pipeline,
    client: &Client,
    drain: &Signal,
) {
    let connection = Connection {
        head: HeadReader::new(stream.take_held(), bounds.bytes_max),
        stream,
        head_timer: HeadTimer::new(bounds.time_max),
        drain,
        draining: signal::Waiter::new(drain),
        body: None,
        continue_owed: 0,
    };
    if let Err(problem) = connection.run(pipeline, client).await {
        debug!(%problem, "a connection broke");
    }
}

struct Connection<'a> {
    stream: ClientStream,
    head: HeadReader,
    head_timer: HeadTimer,
    drain: &'a Signal,
    draining: signal::Waiter<'a>,
    /// The body of the request in progress.
    body: Option<BodyReader>,
    /// How much of `100 Continue` is still to be sent before the body comes.
    continue_owed: usize,
}

impl Connection<'_> {
    async fn run(mut self, pipeline: &Pipeline, client: &Client) -> io::Result<()> {
        loop {
            match self.next().await? {
                Some(Found::Request(request, head)) => {
                    if !self.serve(request, head, pipeline, client).await? {
                        return Ok(());
                    }
                }
                Some(Found::Malformed(malformed, request)) => {
                    let terms = Terms::of(&request, false);
                    let reply = pipeline.refuse(&request, malformed, client);
                    self.send(Sending::new(reply, terms)).await?;
                    self.close(true).await;
                    return Ok(());
                }
                None => {
                    self.close(false).await;
                    return Ok(());
                }
            }
        }
    }

    /// Serves one request; whether another one may follow.
    async fn serve(
        &mut self,
        request: RequestHead,
        head: framing::Head,
        pipeline: &Pipeline,
        client: &Client,
    ) -> io::Result<bool> {
        let mut terms = Terms::of(&request, true);
        let body = match BodyReader::begin(head.framing) {
            Some((reader, body)) => {
                let expects = request.version == Version::HTTP_11 && request.fields.has(EXPECT);
                self.continue_owed = if expects { CONTINUE.len() } else { 0 };
                self.body = Some(reader);
                ClientBody::Http1(body)
            }
            None => ClientBody::Empty,
        };
        let reply = {
            let mut serving = pin!(pipeline.serve(request, body, client));
            poll_fn(|context| self.poll_beside(context, |_, context| serving.as_mut().poll(context).map(Ok)))
                .await?
        };
        // Whoever was not told to go on may send the body, or the next request: nobody knows.
        terms.keeps &= !self.drain.is_given() && self.continue_owed == 0 && !self.is_broken();
        if reply.status == StatusCode::SWITCHING_PROTOCOLS {
            return self.tunnel(reply, terms).await.map(|()| false);
        }
        let sending = Sending::new(reply, terms);
        let keeps = sending.keeps();
        self.send(sending).await?;
        if keeps && self.skip_body().await? {
            return Ok(true);
        }
        let is_sending = !self.is_read() || !self.head.held.is_empty();
        self.close(is_sending).await;
        Ok(false)
    }

    async fn send(&mut self, mut sending: Sending) -> io::Result<()> {
        poll_fn(|context| self.poll_beside(context, |this, context| sending.poll(context, &mut this.stream)))
            .await
    }

    async fn tunnel(&mut self, reply: Reply<ReplyBody>, terms: Terms) -> io::Result<()> {
        let Reply { status, fields, body } = reply;
        let tunnel = body.into_tunnel();
        let reply = Reply { status, fields, body: ReplyBody::text("") };
        self.send(Sending::new(reply, terms)).await?;
        let Some(tunnel) = tunnel else { return Ok(()) };
        upgrade::join(&mut self.stream, std::mem::take(&mut self.head.held), tunnel).await
    }

    /// What the client sends next; `None`: nothing.
    async fn next(&mut self) -> io::Result<Option<Found>> {
        self.body = None;
        if self.head.held.is_empty() {
            self.head.held = BytesMut::new();
        }
        self.head_timer.restart();
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<Found>>> {
        loop {
            if let Some(found) = self.head.take_head() {
                return Poll::Ready(Ok(Some(found)));
            }
            let has_begun = self.head.has_begun();
            if !has_begun && self.draining.poll(context).is_ready() {
                return Poll::Ready(Ok(None));
            }
            if let Poll::Ready(read) = self.poll_read_some(context) {
                if read? == 0 {
                    return Poll::Ready(Ok(None));
                }
                continue;
            }
            ready!(self.head_timer.poll(context));
            if has_begun {
                tell_of_slow_head();
            }
            return Poll::Ready(Ok(None));
        }
    }

    /// Whether all of the request in progress was read.
    fn is_read(&self) -> bool {
        self.body.as_ref().is_none_or(BodyReader::is_over)
    }

    fn is_broken(&self) -> bool {
        self.body.as_ref().is_some_and(BodyReader::is_broken)
    }

    /// Does some work for a request, and beside it what its client is due.
    fn poll_beside<T>(
        &mut self,
        context: &mut Context<'_>,
        mut work: impl FnMut(&mut Self, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        loop {
            if let Poll::Ready(done) = work(self, context) {
                return Poll::Ready(done);
            }
            ready!(self.poll_client(context))?;
        }
    }

    /// Reads the body if it is asked for, or watches whether the client leaves, which is an error. Ready when the work
    /// may go on.
    fn poll_client(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.body {
            Some(body) if body.is_wanted() => {
                ready!(self.poll_feed(context));
                Poll::Ready(Ok(()))
            }
            // No faster than it is taken.
            Some(body) if !body.is_over() && !body.is_broken() => Poll::Pending,
            // What comes behind the request has to wait, and whether the client leaves shows behind it.
            _ if !self.head.held.is_empty() => Poll::Pending,
            _ => match ready!(self.poll_read_some(context)) {
                Ok(0) => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
                Ok(_) => Poll::Pending,
                Err(problem) => Poll::Ready(Err(problem)),
            },
        }
    }

    /// Reads more of the body that is asked for.
    fn poll_feed(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut has_more = ready!(self.poll_continue(context)).is_ok();
        loop {
            let Some(body) = &mut self.body else { return Poll::Ready(()) };
            if !has_more {
                body.break_off();
                return Poll::Ready(());
            }
            if body.feed(&mut self.head.held) {
                return Poll::Ready(());
            }
            let left = body.left();
            has_more = ready!(self.poll_read_body(context, left)).is_ok_and(|count| count > 0);
        }
    }

    /// Tells the client to send its body, where it waits for that.
    fn poll_continue(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.continue_owed == 0 {
            return Poll::Ready(Ok(()));
        }
        while self.continue_owed > 0 {
            let rest = &CONTINUE[CONTINUE.len() - self.continue_owed..];
            let count = ready!(Pin::new(&mut self.stream).poll_write(context, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.continue_owed -= count;
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_read_body(&mut self, context: &mut Context<'_>, left: u64) -> Poll<io::Result<usize>> {
        let wanted = usize::try_from(left).unwrap_or(usize::MAX);
        self.head.held.reserve(wanted.clamp(READ_BYTES, BODY_READ_BYTES_MAX));
        poll_read_buf(Pin::new(&mut self.stream), context, &mut self.head.held)
    }

    /// Reads a little; 0: the client sends no more.
    fn poll_read_some(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.stream.poll_read_some(context, &mut self.head.held)
    }

    /// Reads what is left of the body of a request that is answered, up to a bound; whether that was all.
    async fn skip_body(&mut self) -> io::Result<bool> {
        if self.is_read() {
            return Ok(true);
        }
        let skip = async {
            let mut read = 0;
            while let Some(body) = &mut self.body {
                if body.skip(&mut self.head.held) {
                    if body.is_over() || body.is_broken() {
                        return Ok(body.is_over());
                    }
                    continue;
                }
                let left = body.left();
                let count = poll_fn(|context| self.poll_read_body(context, left)).await?;
                read += count;
                if count == 0 || read > LINGER_BYTES_MAX {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        tokio::time::timeout(LINGER, skip).await.unwrap_or(Ok(false))
    }

    /// Ends the connection. A client that may still be sending is read for a moment: otherwise it would find its
    /// connection reset before it has read the answer.
    async fn close(&mut self, is_sending: bool) {
        let close = async {
            poll_fn(|context| Pin::new(&mut self.stream).poll_shutdown(context)).await?;
            let mut read = 0;
            while is_sending && read <= LINGER_BYTES_MAX {
                self.head.held = BytesMut::new();
                match poll_fn(|context| self.poll_read_some(context)).await? {
                    0 => break,
                    count => read += count,
                }
            }
            io::Result::Ok(())
        };
        if !matches!(tokio::time::timeout(LINGER, close).await, Ok(Ok(()))) {
            debug!("a client did not take the end of its connection");
        }
    }
}

/// Counts a head that was not whole in time.
pub(crate) fn tell_of_slow_head() {
    meters::malformed("timeout");
    info!(reason = "timeout", "a client sent what is no request");
}

/// How long a head may still take. To start it again costs nothing: the timer itself is only moved when it ends.
struct HeadTimer {
    max: Duration,
    due: Instant,
    sleep: Pin<Box<Sleep>>,
    is_running: bool,
}

impl HeadTimer {
    fn new(max: Duration) -> Self {
        let due = Instant::now() + max;
        Self { max, due, sleep: Box::pin(tokio::time::sleep_until(due)), is_running: false }
    }

    fn restart(&mut self) {
        self.due = Instant::now() + self.max;
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            // It wakes this task, whatever else the task is polled for.
            if self.is_running && !self.sleep.is_elapsed() {
                return Poll::Pending;
            }
            if self.is_running && self.due <= Instant::now() {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(self.due);
            self.is_running = true;
            ready!(self.sleep.as_mut().poll(context));
        }
    }
}
