//! HTTP/2 towards clients: the bounds of a connection and of its streams.
//!
//! `server.rs` serves a connection with [`builder`] once the preface was seen. hyper bounds what it is told to;
//! this file adds what it does not bound: a connection without requests ends ([`Streams::quiet_for`]), and so does
//! a stream whose client takes nothing of its answer for too long, with the connection's other streams none the
//! worse. For that each stream runs in [`StreamExecutor`], and [`offered`] and [`wanted`], called where answers'
//! bodies are polled, tell it who waits for whom.

use std::cell::Cell;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper_util::rt::TokioTimer;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, sleep_until};

use crate::body::BodyError;
use crate::config::Config;
use crate::meters::{self, Bound};

/// Largest frame that is read or written: the smallest that the protocol allows.
const FRAME_BYTES_MAX: u32 = 16 << 10;
/// Size of the table that compresses headers.
const HEADER_TABLE_BYTES: u32 = 4 << 10;

/// What serves one connection; `streams` are its requests.
pub(crate) fn builder(config: &Config, streams: &Arc<Streams>) -> http2::Builder<StreamExecutor> {
    let limits = &config.http2;
    let executor = StreamExecutor {
        streams: Arc::clone(streams),
        write_max: Duration::from_millis(config.write_timeout_ms),
    };
    let mut builder = http2::Builder::new(executor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(u32::try_from(config.head_bytes_max).unwrap_or(u32::MAX))
        .header_table_size(HEADER_TABLE_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_pending_accept_reset_streams(limits.resets_pending_max)
        .max_local_error_reset_streams(limits.faults_max)
        .initial_stream_window_size(limits.stream_window_bytes)
        .initial_connection_window_size(limits.connection_window_bytes)
        .max_send_buf_size(limits.send_buffer_bytes_max)
        .keep_alive_interval(Duration::from_millis(limits.ping_interval_ms))
        .keep_alive_timeout(Duration::from_millis(limits.ping_timeout_ms));
    builder
}

/// The requests of one connection.
pub(crate) struct Streams(Mutex<Count>);

struct Count {
    open: usize,
    /// When the last one ended, or the connection began.
    quiet_since: Instant,
}

impl Streams {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Count { open: 0, quiet_since: Instant::now() })))
    }

    /// Ends once the connection had no request for this long.
    pub(crate) async fn quiet_for(&self, max: Duration) {
        loop {
            let due = {
                let count = self.0.lock();
                if count.open > 0 { Instant::now() + max } else { count.quiet_since + max }
            };
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }

    fn begin(self: &Arc<Self>) -> OpenStream {
        self.0.lock().open += 1;
        OpenStream(Arc::clone(self))
    }
}

struct OpenStream(Arc<Streams>);

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut count = self.0.0.lock();
        count.open -= 1;
        count.quiet_since = Instant::now();
    }
}

/// Runs the streams of one connection.
#[derive(Clone)]
pub(crate) struct StreamExecutor {
    streams: Arc<Streams>,
    write_max: Duration,
}

impl<F> Executor<F> for StreamExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let open = self.streams.begin();
        let write_max = self.write_max;
        tokio::spawn(async move {
            let _open = open;
            OFFERED.scope(Cell::new(None), while_read(stream, write_max)).await;
        });
    }
}

tokio::task_local! {
    /// Since when a piece of the stream's answer waits for its client.
    static OFFERED: Cell<Option<Instant>>;
}

/// A piece of an answer was handed out: now it is the client's turn.
pub(crate) fn offered() {
    // Outside of a stream there is nothing to tell.
    let _ = OFFERED.try_with(|offered| offered.set(Some(Instant::now())));
}

/// The next piece of an answer is asked for: the client has taken the last one.
pub(crate) fn wanted() {
    let _ = OFFERED.try_with(|offered| offered.set(None));
}

/// Runs a stream, but not on when its client takes nothing for too long; dropping it resets it.
async fn while_read(stream: impl Future<Output = ()>, write_max: Duration) {
    let mut stream = pin!(stream);
    let mut timer = pin!(sleep(write_max));
    let mut timed = None;
    poll_fn(|context| {
        if stream.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        let Some(since) = OFFERED.with(Cell::get) else { return Poll::Pending };
        if timed != Some(since) {
            timer.as_mut().reset(since + write_max);
            timed = Some(since);
        }
        ready!(timer.as_mut().poll(context));
        meters::bound_hit(Bound::WriteTimeout);
        Poll::Ready(())
    })
    .await;
}

/// The next frame of a body over HTTP/2.
pub(crate) fn poll_frame(
    body: &mut Incoming,
    context: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
    let polled = Pin::new(body).poll_frame(context);
    polled.map(|frame| frame.map(|frame| frame.map_err(|_| BodyError::Broken)))
}

/// Whether a connection ended since its client passed a bound: h2 then asks for calm.
pub(crate) fn is_bound(problem: &hyper::Error) -> bool {
    let cause = problem.source().and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| cause.is_library() && cause.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_when_nobody_reads_it() {
        let begun = Instant::now();
        let max = Duration::from_secs(5);
        let unread = async {
            sleep(Duration::from_secs(60)).await; // waiting for the upstream is not the client's fault
            wanted();
            offered();
            std::future::pending::<()>().await;
        };
        OFFERED.scope(Cell::new(None), while_read(unread, max)).await;
        assert_eq!(begun.elapsed().as_secs(), 65);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_quiet_without_streams() {
        let begun = Instant::now();
        let max = Duration::from_secs(10);
        let streams = Streams::new();
        let open = streams.begin();
        tokio::spawn(async move {
            sleep(Duration::from_secs(25)).await;
            drop(open);
        });
        streams.quiet_for(max).await;
        assert_eq!(begun.elapsed().as_secs(), 35);
    }
}
