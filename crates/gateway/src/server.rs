//! Takes connections and speaks HTTP/1 on them.
//!
//! Every bound towards clients is set here: how many connections, how long a head may be and take, how long an
//! answer may wait to be read. Told to stop, the server closes its socket, lets requests in flight end and closes
//! what is still open at the deadline. TLS and HTTP/2 will come in between accepting and [`serve`].

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::config::Config;
use crate::connection::ClientStream;
use crate::meters;
use crate::proxy::{Client, Pipeline};

/// Most headers of a request.
const HEADERS_MAX: usize = 256;
/// The smallest read buffer that hyper takes.
const BUFFER_BYTES_MIN: usize = 8 << 10;
/// Pause after a connection could not be accepted, as when no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What all connections share.
struct Shared {
    http: http1::Builder,
    pipeline: Arc<Pipeline>,
    head_bytes_max: usize,
    write_max: Duration,
    /// Ends what is still open when draining has taken too long.
    kill: CancellationToken,
}

/// Serves until `stop`, then drains for as long as `config` allows.
pub(crate) async fn run(
    listener: TcpListener,
    config: &Config,
    pipeline: Arc<Pipeline>,
    stop: &CancellationToken,
) {
    let shared = Arc::new(Shared {
        http: http_builder(config),
        pipeline,
        head_bytes_max: config.head_bytes_max,
        write_max: Duration::from_millis(config.write_timeout_ms),
        kill: CancellationToken::new(),
    });
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(config.connections_max.min(Semaphore::MAX_PERMITS)));
    tokio::select! {
        () = accept(&listener, &shared, &graceful, &places) => {}
        () = stop.cancelled() => {}
    }
    drop(listener);
    info!("draining");
    let deadline = tokio::time::Instant::now() + Duration::from_millis(config.drain_timeout_ms);
    if timeout_at(deadline, graceful.shutdown()).await.is_err() {
        warn!("closing connections that did not end in time");
    }
    shared.kill.cancel();
}

fn http_builder(config: &Config) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(config.head_timeout_ms))
        .max_buf_size(config.head_bytes_max.max(BUFFER_BYTES_MIN))
        .max_header_size(config.head_bytes_max)
        .max_headers(HEADERS_MAX);
    http
}

async fn accept(
    listener: &TcpListener,
    shared: &Arc<Shared>,
    graceful: &GracefulShutdown,
    places: &Arc<Semaphore>,
) {
    // The semaphore is never closed; if it were, nobody could be served.
    while let Ok(place) = Arc::clone(places).acquire_owned().await {
        match listener.accept().await {
            Ok((tcp, peer)) => {
                tokio::spawn(serve(tcp, peer, Arc::clone(shared), graceful.watcher(), place));
            }
            Err(problem) => {
                error!(%problem, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(
    tcp: TcpStream,
    peer: SocketAddr,
    shared: Arc<Shared>,
    watcher: Watcher,
    _place: OwnedSemaphorePermit,
) {
    let _open = Open::new();
    if let Err(problem) = tcp.set_nodelay(true) {
        debug!(%problem, "a connection was gone at once");
        return;
    }
    let stream = ClientStream::new(tcp, shared.write_max, shared.head_bytes_max);
    let client = Client { peer: plain_address(peer.ip()), fragments: stream.fragments() };
    let answer = service_fn(|request| {
        let answered = Box::pin(shared.pipeline.serve(request, &client));
        async { Ok::<_, Infallible>(answered.await) }
    });
    let connection = watcher.watch(shared.http.serve_connection(TokioIo::new(stream), answer));
    tokio::select! {
        ended = connection => if let Err(problem) = ended {
            debug!(%problem, "a connection broke");
        },
        () = shared.kill.cancelled() => {}
    }
}

/// IPv4 clients of a socket for both look like IPv4 clients.
fn plain_address(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Counts a connection for as long as it is open.
struct Open;

impl Open {
    fn new() -> Self {
        meters::connections().increment(1);
        Self
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        meters::connections().decrement(1);
    }
}
