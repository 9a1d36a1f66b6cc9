//! Connections over which several requests go at a time: HTTP/2, which gRPC needs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::Mutex;
use tokio::time::timeout;
use tracing::debug;

use super::Onward;
use super::connect::Protocol;
use super::pool::{Place, Pool};
use super::{SendError, UpstreamError};
use crate::body::RequestBody;
use crate::message::Reply;

/// Most requests over one connection: what servers allow at least (RFC 9113, section 6.5.2).
const STREAMS_MAX: usize = 100;
/// Longest head of an answer.
const HEAD_BYTES_MAX: u32 = 64 << 10;
/// How much of one answer, and of all of a connection, may be under way unasked.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// How much of each request may wait to be sent.
const SEND_BUFFER_BYTES_MAX: usize = 64 << 10;
/// How often an upstream with calls in flight is pinged, and how long it may take to answer.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The shared connections of a pool, bounded by its requests in flight.
#[derive(Default)]
pub(super) struct Shared(Mutex<Vec<Connection>>);

struct Connection {
    sender: SendRequest<RequestBody>,
    streams: Arc<AtomicUsize>,
}

/// A request's part of a connection.
pub(crate) struct Stream {
    streams: Arc<AtomicUsize>,
    _place: Place,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Sends a request and waits for the head of its answer; the connection counts it until the stream is dropped.
pub(super) async fn exchange(
    pool: &Pool,
    place: Place,
    request: Onward,
    url: Uri,
    connect_within: Duration,
) -> Result<(Reply<Incoming>, Stream), SendError> {
    let mut onward = Request::new(request.body);
    *onward.method_mut() = request.method;
    *onward.version_mut() = Version::HTTP_2;
    *onward.uri_mut() = url;
    *onward.headers_mut() = request.fields.to_map();
    let (mut sender, stream) = timeout(connect_within, take(pool, place, connect_within))
        .await
        .unwrap_or(Err(UpstreamError::Timeout))
        .map_err(SendError::Upstream)?;
    match sender.send_request(onward).await {
        Ok(answer) => Ok((answer.into(), stream)),
        Err(problem) => {
            debug!(%problem, "an upstream failed over HTTP/2");
            Err(SendError::Upstream(UpstreamError::BadAnswer))
        }
    }
}

/// A connection with room, perhaps a new one; who needs a new one waits for who is opening one.
async fn take(
    pool: &Pool,
    place: Place,
    connect_within: Duration,
) -> Result<(SendRequest<RequestBody>, Stream), UpstreamError> {
    let mut connections = pool.shared().0.lock().await;
    connections.retain(|connection| !connection.sender.is_closed());
    let free = connections.iter().position(|open| open.streams.load(Ordering::Relaxed) < STREAMS_MAX);
    let at = match free {
        Some(at) => at,
        None => {
            let connection = open(pool, connect_within).await?;
            connections.push(connection);
            connections.len() - 1
        }
    };
    let connection = &connections[at];
    connection.streams.fetch_add(1, Ordering::Relaxed);
    let stream = Stream { streams: Arc::clone(&connection.streams), _place: place };
    Ok((connection.sender.clone(), stream))
}

async fn open(pool: &Pool, connect_within: Duration) -> Result<Connection, UpstreamError> {
    let stream = pool.connect(Protocol::Http2, connect_within).await?;
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_header_list_size(HEAD_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| UpstreamError::BadAnswer)?;
    tokio::spawn(async move {
        if let Err(problem) = connection.await {
            debug!(%problem, "a connection to an upstream broke");
        }
    });
    Ok(Connection { sender, streams: Arc::default() })
}
