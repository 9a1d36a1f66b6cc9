//! Takes connections and speaks HTTP on them.
//!
//! Bounds towards clients are kept here, in `http1.rs` and in `http2.rs`: how many connections, how long a head may be
//! and take, how long an answer may wait to be read. A connection that begins with HTTP/2's preface is served as such,
//! any other as HTTP/1; over TLS the two sides agree on it. Told to stop, the server closes its socket, lets requests
//! in flight end and closes what is still open at the deadline.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::HeaderValue;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{debug, error, info, warn};

use crate::body::{ClientBody, ReplyBody};
use crate::config::Config;
use crate::connection::{ClientStream, Transport};
use crate::http1::{self, HeadBounds};
use crate::http2::{self, Streams};
use crate::message::RequestHead;
use crate::meters::{self, Bound};
use crate::proxy::{Client, Pipeline};
use crate::proxy_protocol;
use crate::signal::{Signal, Waiter};
use crate::socket::Socket;
use crate::tls;
use crate::workers::Workers;

/// Pause after a connection could not be accepted, as when no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long connections are still accepted when the gateway is to stop.
const ACCEPT_LAST: Duration = Duration::from_millis(10);

/// Where TLS is spoken.
pub(crate) struct TlsDoor {
    pub(crate) socket: TcpListener,
    pub(crate) hand_shake: HandShake,
}

/// How TLS begins.
#[derive(Clone)]
pub(crate) struct HandShake {
    pub(crate) acceptor: TlsAcceptor,
    /// Longest time it may take.
    pub(crate) max: Duration,
}

/// What all connections share.
struct Shared {
    config: Config,
    places: Arc<Semaphore>,
    /// Asks connections to end what is in flight and no more.
    drain: Signal,
    /// Ends what is still open when draining has taken too long.
    kill: Signal,
    /// What is open.
    open: TaskTracker,
}

/// Serves until `stop`, then drains for as long as `config` allows.
pub(crate) async fn run(
    listener: TcpListener,
    tls: Option<TlsDoor>,
    config: &Config,
    workers: &Workers<Pipeline>,
    stop: &CancellationToken,
) {
    let shared = Arc::new(Shared {
        config: config.clone(),
        places: Arc::new(Semaphore::new(config.connections_max.min(Semaphore::MAX_PERMITS))),
        drain: Signal::default(),
        kill: Signal::default(),
        open: TaskTracker::new(),
    });
    tokio::select! {
        () = accept(&listener, tls.as_ref(), &shared, workers) => {}
        () = stop.cancelled() => {}
    }
    // Who is connected as far as the system knows is served, not reset.
    let _ = timeout(ACCEPT_LAST, accept(&listener, tls.as_ref(), &shared, workers)).await;
    drop((listener, tls));
    info!("draining");
    let deadline = tokio::time::Instant::now() + Duration::from_millis(config.drain_timeout_ms);
    shared.drain.give();
    shared.open.close();
    if timeout_at(deadline, shared.open.wait()).await.is_err() {
        meters::bound_hit(Bound::DrainTimeout);
        warn!("closing connections that did not end in time");
    }
    shared.kill.give();
}

async fn accept(
    listener: &TcpListener,
    tls: Option<&TlsDoor>,
    shared: &Arc<Shared>,
    workers: &Workers<Pipeline>,
) {
    // The semaphore is never closed; if it were, nobody could be served.
    while let Ok(place) = place(&shared.places).await {
        let (accepted, tls) = tokio::select! {
            accepted = listener.accept() => (accepted, None),
            (accepted, acceptor) = accept_tls(tls) => (accepted, Some(acceptor)),
        };
        // The worker waits for what comes over it, not this thread.
        match accepted.and_then(|(tcp, peer)| Ok((tcp.into_std()?, peer.ip()))) {
            Ok((tcp, peer)) => {
                let (shared, open) = (Arc::clone(shared), Open::new(place, shared));
                workers.spawn(move |pipeline| serve(tcp, tls, peer, shared, pipeline, open));
            }
            Err(problem) => {
                error!(%problem, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A place for a connection, as soon as there is one.
async fn place(places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, AcquireError> {
    if let Ok(place) = Arc::clone(places).try_acquire_owned() {
        return Ok(place);
    }
    meters::bound_hit(Bound::Connections);
    Arc::clone(places).acquire_owned().await
}

async fn accept_tls(door: Option<&TlsDoor>) -> (std::io::Result<(TcpStream, SocketAddr)>, HandShake) {
    match door {
        Some(door) => (door.socket.accept().await, door.hand_shake.clone()),
        None => std::future::pending().await,
    }
}

/// Serves a connection until it ends, or draining has.
async fn serve(
    tcp: std::net::TcpStream,
    tls: Option<HandShake>,
    peer: IpAddr,
    shared: Arc<Shared>,
    pipeline: Arc<Pipeline>,
    open: Open,
) {
    let tcp = match tcp.set_nodelay(true).and_then(|()| TcpStream::from_std(tcp)) {
        Ok(tcp) => tcp,
        Err(problem) => {
            debug!(%problem, "a connection was gone at once");
            return;
        }
    };
    let served = async {
        let Some((transport, peer)) = begin(tcp, tls, plain_address(peer), &shared).await else { return };
        speak(transport, peer, &shared, &pipeline).await;
    };
    let (mut served, mut kill) = (pin!(served), Waiter::new(&shared.kill));
    poll_fn(|context| match kill.poll(context) {
        Poll::Ready(()) => Poll::Ready(()),
        Poll::Pending => served.as_mut().poll(context),
    })
    .await;
    drop(open);
}

/// What comes before HTTP: who is connected, and TLS. `None`: it failed, or the gateway is to stop.
async fn begin(
    mut tcp: TcpStream,
    tls: Option<HandShake>,
    peer: IpAddr,
    shared: &Shared,
) -> Option<(Transport, IpAddr)> {
    let config = &shared.config;
    let head_max = Duration::from_millis(config.head_timeout_ms);
    let begun = async {
        let peer = if config.proxy_protocol_from.iter().any(|network| network.contains(peer)) {
            timeout(head_max, proxy_protocol::read(&mut tcp)).await??.map_or(peer, plain_address)
        } else {
            peer
        };
        let transport = match tls {
            None => Socket::Plain(tcp),
            Some(HandShake { acceptor, max }) => {
                let begun = timeout(max, acceptor.accept(tcp)).await;
                let begun = begun.inspect_err(|_| meters::bound_hit(Bound::HandshakeTimeout));
                Socket::Tls(Box::new(begun??))
            }
        };
        Ok::<_, std::io::Error>((transport, peer))
    };
    tokio::select! {
        biased;
        begun = begun => begun.inspect_err(|problem| debug!(%problem, "a connection did not begin")).ok(),
        () = shared.drain.given() => None,
    }
}

/// Finds out which HTTP the client speaks, and speaks it.
async fn speak(transport: Transport, peer: IpAddr, shared: &Shared, pipeline: &Arc<Pipeline>) {
    let config = &shared.config;
    let write_max = Duration::from_millis(config.write_timeout_ms);
    let agreed = match &transport {
        Socket::Plain(_) => None,
        // Without a word on it, HTTP/1 is spoken.
        Socket::Tls(tls) => Some(tls.get_ref().1.alpn_protocol() == Some(tls::HTTP2)),
    };
    let mut stream = ClientStream::new(transport, write_max);
    let is_http2 = match agreed {
        Some(is_http2) => is_http2,
        None => {
            let Some(is_http2) = begins_http2(&mut stream, shared).await else { return };
            is_http2
        }
    };
    let client = Client {
        address: peer,
        peer: HeaderValue::from_str(&peer.to_string()).unwrap_or(HeaderValue::from_static("unknown")),
        scheme: if agreed.is_some() { "https" } else { "http" },
    };
    if is_http2 {
        // Large, and not what most clients speak to a gateway.
        Box::pin(speak_http2(stream, client, shared, pipeline)).await;
    } else {
        let bounds = HeadBounds {
            bytes_max: config.head_bytes_max,
            time_max: Duration::from_millis(config.head_timeout_ms),
        };
        http1::serve(stream, bounds, pipeline, &client, &shared.drain).await;
    }
}

async fn speak_http2(stream: ClientStream, client: Client, shared: &Shared, pipeline: &Arc<Pipeline>) {
    let answer = answers(Arc::clone(pipeline), Arc::new(client));
    if let Err(problem) = serve_http2(stream, answer, shared).await {
        if http2::is_bound(&problem) {
            meters::bound_hit(Bound::Http2);
        }
        debug!(%problem, "a connection broke");
    }
}

/// Whether the client begins with HTTP/2's preface; `None`: it left, or says too little for too long.
async fn begins_http2(stream: &mut ClientStream, shared: &Shared) -> Option<bool> {
    let head_max = Duration::from_millis(shared.config.head_timeout_ms);
    tokio::select! {
        biased;
        told = timeout(head_max, stream.begins_with_preface()) => match told {
            Ok(told) => told.ok(),
            Err(_) => {
                if stream.has_begun() {
                    http1::tell_of_slow_head();
                }
                None
            }
        },
        // It is ended there, unless a request has begun.
        () = shared.drain.given() => Some(false),
    }
}

/// As HTTP/1, and until there was no request for as long as a head may take.
async fn serve_http2<S>(stream: ClientStream, answer: S, shared: &Shared) -> hyper::Result<()>
where
    S: Service<Request<Incoming>, Response = Response<ReplyBody>, Error = Infallible>,
    S::Future: Send + 'static,
{
    let streams = Streams::new();
    let mut connection =
        pin!(http2::builder(&shared.config, &streams).serve_connection(TokioIo::new(stream), answer));
    let quiet = async {
        tokio::select! {
            () = streams.quiet_for(Duration::from_millis(shared.config.head_timeout_ms)) => {}
            () = shared.drain.given() => {}
        }
    };
    let ended = until_end(connection.as_mut(), |connection| connection.graceful_shutdown(), quiet);
    let gone = async {
        // Answers that are sent but not taken do not keep a connection.
        let max_ms = shared.config.head_timeout_ms.saturating_add(shared.config.write_timeout_ms);
        streams.quiet_for(Duration::from_millis(max_ms)).await;
    };
    tokio::select! {
        ended = ended => ended,
        () = gone => Ok(()),
    }
}

/// Serves a connection to its end; once `enough` is over it takes no further requests.
async fn until_end<C: Future>(
    mut connection: Pin<&mut C>,
    end_gracefully: impl FnOnce(Pin<&mut C>),
    enough: impl Future<Output = ()>,
) -> C::Output {
    tokio::select! {
        // What has come is read first.
        biased;
        ended = connection.as_mut() => return ended,
        () = enough => {}
    }
    end_gracefully(connection.as_mut());
    connection.await
}

/// The pipeline, for one client over HTTP/2.
fn answers(
    pipeline: Arc<Pipeline>,
    client: Arc<Client>,
) -> impl Service<
    Request<Incoming>,
    Response = Response<ReplyBody>,
    Error = Infallible,
    Future = impl Future<Output = Result<Response<ReplyBody>, Infallible>> + Send + 'static,
> + Send
+ 'static {
    service_fn(move |request: Request<Incoming>| {
        let (pipeline, client) = (Arc::clone(&pipeline), Arc::clone(&client));
        async move {
            let (head, body) = request.into_parts();
            let reply = pipeline.serve(RequestHead::from(&head), ClientBody::Http2(body), &client).await;
            http2::offered();
            Ok(reply.into())
        }
    })
}

/// IPv4 clients of a socket for both look like IPv4 clients.
fn plain_address(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// A connection for as long as it is open: it has its place, is counted, and draining waits for it.
pub(crate) struct Open {
    _place: OwnedSemaphorePermit,
    _drained: TaskTrackerToken,
}

impl Open {
    fn new(place: OwnedSemaphorePermit, shared: &Shared) -> Self {
        meters::connections().increment(1);
        Self { _place: place, _drained: shared.open.token() }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        meters::connections().decrement(1);
    }
}
