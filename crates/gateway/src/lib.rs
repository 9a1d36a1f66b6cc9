//! The streaming reverse proxy that authenticates, counts and limits API traffic.
//!
//! The binary binds a [`Gateway`] from a [`Config`] and runs it until it is told to stop. A request is routed to
//! a service, its credentials are extracted, mapping rules say what it uses, a listener decides and counts, and
//! what was admitted is streamed to the service's upstream and back (`proxy.rs` lists the phases). Services come
//! from the listeners' `Watch` stream, or from disk while none answers.
//!
//! It talks to listeners and upstreams, never to the store or a database, and decides nothing by itself: without
//! a listener's decision no request goes on.

mod access;
mod backend;
mod body;
pub mod config;
mod connection;
mod exchange;
mod explain;
mod fields;
mod form;
pub mod framing;
#[cfg(fuzzing)]
pub mod fuzzing;
mod grpc_status;
mod headers;
mod http1;
mod http2;
mod leases;
mod listener;
#[cfg(feature = "measuring")]
pub mod measuring;
mod message;
mod meters;
mod oidc;
mod outcome;
mod policy;
mod proxy;
mod proxy_protocol;
mod reply;
mod server;
mod service;
mod signal;
mod snapshot;
mod socket;
mod state;
mod status;
mod target;
mod tls;
mod trace;
mod upgrade;
mod upstream;
mod watch;
mod workers;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::info;
use weir_core::RequestIds;

pub use config::{CertificateFiles, Config, Http2Limits, ListenerTls, TlsConfig, UpstreamIdentity};
pub use explain::{ExplainError, Explainer, Explanation, RefusalLog};
pub use oidc::OidcConfig;
pub use status::Status;
pub use tls::{AcceptorError, CertificateError};
pub use upstream::TlsError;
pub use weir_core::network::{Network, NetworkError};

use crate::access::Calls;
use crate::backend::Authoriser;
use crate::explain::Ring;
use crate::leases::Leases;
use crate::listener::Listener;
use crate::proxy::Pipeline;
use crate::server::HandShake;
use crate::service::Neighbours;
use crate::snapshot::{Loader, Snapshot};
use crate::tls::Followed;
use crate::upstream::{Connector, PoolLimits};
use crate::watch::Watch;
use crate::workers::Workers;

/// Why a gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its address cannot be bound.
    #[error("cannot listen on {address}")]
    Bind {
        /// As configured.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// No listener is configured.
    #[error("no listener is configured")]
    NoListener,
    /// A listener's address is neither `http://host:port` nor, with TLS configured, `https://host:port`.
    #[error("{0:?} is not the address of a listener: use http://host:port, or https:// with listener_tls")]
    ListenerAddress(String),
    /// The certificates for listeners cannot be used.
    #[error("TLS towards the listeners cannot be set up")]
    ListenerTls(#[source] tonic::transport::Error),
    /// The gateway's token has characters that cannot be sent.
    #[error("the token has characters that cannot be sent")]
    Token,
    /// TLS cannot be offered to clients.
    #[error("TLS cannot be offered to clients")]
    Certificates(#[from] AcceptorError),
    /// TLS towards upstreams cannot be set up.
    #[error("TLS towards upstreams cannot be set up")]
    UpstreamTls(#[from] TlsError),
    /// The folder for what has to outlive the process cannot be made.
    #[error("cannot use the folder {dir:?} (state_dir)")]
    StateDir {
        /// As configured.
        dir: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The system gives no thread.
    #[error("the system gives no thread")]
    Thread(#[from] std::io::Error),
    /// What is spent cannot be written down.
    #[error("the journal cannot be used")]
    Journal(#[from] weir_journal::OpenError),
    /// Refusals cannot be written down.
    #[error("the file for refusals cannot be written")]
    RefusalLog(#[source] std::io::Error),
    /// The system has no random numbers.
    #[error("the system gives no random numbers")]
    Random(#[from] getrandom::Error),
}

/// A gateway that has its socket but does not serve yet.
pub struct Gateway {
    socket: TcpListener,
    tls: Option<TlsSocket>,
    address: SocketAddr,
    config: Config,
    listeners: Vec<Listener>,
    neighbours: Arc<Neighbours>,
    ids: Arc<RequestIds>,
    status: Status,
    refusals: Arc<Ring>,
    explainer: Explainer,
}

impl Gateway {
    /// Checks the configuration and binds the socket. Nothing is asked of a listener yet.
    ///
    /// # Errors
    /// When the configuration cannot work, or the address is taken.
    pub async fn bind(config: Config) -> Result<Self, StartError> {
        meters::describe();
        let listeners = listeners(&config)?;
        if listeners.is_empty() {
            return Err(StartError::NoListener);
        }
        let connector = Connector::new(config.upstream_ca_file.as_ref())?;
        let identity = |files: &UpstreamIdentity| {
            let connector = Connector::of_identity(files, config.upstream_ca_file.as_ref())?;
            Ok::<_, TlsError>((files.name.clone(), Arc::new(connector)))
        };
        let identities = config.upstream_tls.iter().map(identity).collect::<Result<_, _>>()?;
        let limits = PoolLimits {
            in_flight_max: config.upstream_in_flight_max,
            waiting_max: config.upstream_waiting_max,
            idle_max: config.upstream_idle_max,
            workers: config.workers,
        };
        let neighbours = Arc::new(Neighbours::new(connector, identities, limits, config.oidc.clone()));
        let (socket, address) = bind(config.address, config.reuse_port)?;
        let mut prefix = [0; 8];
        getrandom::fill(&mut prefix)?;
        let tls = match &config.tls {
            Some(tls) => Some(TlsSocket::bind(tls, config.reuse_port)?),
            None => None,
        };
        Ok(Self {
            socket,
            tls,
            address,
            listeners,
            neighbours,
            ids: Arc::new(RequestIds::new(prefix)),
            status: Status::default(),
            refusals: Arc::new(Ring::new(config.refusal_log.as_ref()).map_err(StartError::RefusalLog)?),
            explainer: Explainer::default(),
            config,
        })
    }

    /// The bound address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Tells whether the gateway can serve, now and later.
    pub fn status(&self) -> Status {
        self.status.clone()
    }

    /// Explains its calls, once it runs.
    pub fn explainer(&self) -> Explainer {
        self.explainer.clone()
    }

    /// Serves until told to stop; then readiness goes, and requests in flight may end within the configured time.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub async fn run(self, stop: CancellationToken) -> Result<(), StartError> {
        // Streams to listeners outlive `stop`: requests in flight still need decisions.
        let end = CancellationToken::new();
        let _end_with_this = end.clone().drop_guard();
        let follow_end = end.clone();
        let snapshot = Snapshot::default();
        let leases = Leases::start(&self.config, &self.listeners, &end)?;
        self.explainer.begin(explain::Running {
            snapshot: Arc::clone(&snapshot),
            status: self.status.clone(),
            leases: Arc::clone(&leases),
            listeners: self.listeners.clone(),
            head_bytes_max: self.config.head_bytes_max,
            refusals: Arc::clone(&self.refusals),
        });
        let workers = self.start_workers(&snapshot, &leases, &end).await?;
        let told = self.listeners.clone();
        let watch = Watch {
            listeners: self.listeners,
            environment: self.config.environment,
            loader: Mutex::new(Loader::new(snapshot, self.config.routing, Arc::clone(&self.neighbours))),
            state_dir: self.config.state_dir.clone(),
            status: self.status.clone(),
            changed: Arc::default(),
        };
        let sweep_end = end.clone();
        tokio::spawn(async move { self.neighbours.pools.sweep(sweep_end).await });
        tokio::spawn(async move {
            tokio::select! {
                () = watch.follow() => {}
                () = end.cancelled() => {}
            }
        });
        let unready = async {
            stop.cancelled().await;
            self.status.draining();
            Instant::now() + Duration::from_millis(self.config.drain_timeout_ms)
        };
        let tls = self.tls.map(|tls| tls.follow(&follow_end));
        let serve = server::run(self.socket, tls, &self.config, &workers, &stop);
        let ((), deadline) = tokio::join!(serve, unready);
        // Requests that were refused without a decision must not stay counted.
        for pipeline in workers.own() {
            let _ = timeout_at(deadline, pipeline.authoriser.drained()).await;
        }
        leases.drained(deadline.min(Instant::now() + LEASES_DRAIN)).await;
        leases.told(&told, deadline.min(Instant::now() + LEASES_DRAIN)).await;
        workers.stop().await;
        Ok(())
    }

    async fn start_workers(
        &self,
        snapshot: &Snapshot,
        leases: &Arc<Leases>,
        end: &CancellationToken,
    ) -> Result<Workers<Pipeline>, StartError> {
        let (config, snapshot, end) = (self.config.clone(), Arc::clone(snapshot), end.clone());
        let (leases, refusals) = (Arc::clone(leases), Arc::clone(&self.refusals));
        let (ids, status, calls) =
            (Arc::clone(&self.ids), self.status.clone(), Arc::new(Calls::new(&self.config)));
        let trusted_proxies: Arc<[Network]> = self.config.trusted_proxies.clone().into();
        let make = move |index: usize| {
            Ok(Pipeline {
                snapshot: Arc::clone(&snapshot),
                // Connections to listeners belong to the worker that opens them.
                authoriser: Authoriser::start(
                    &config,
                    &listeners(&config)?,
                    index,
                    Arc::clone(&leases),
                    &end,
                ),
                ids: Arc::clone(&ids),
                status: status.clone(),
                calls: Arc::clone(&calls),
                refusals: Arc::clone(&refusals),
                trusted_proxies: Arc::clone(&trusted_proxies),
            })
        };
        Workers::start(self.config.workers, make).await
    }
}

fn listeners(config: &Config) -> Result<Vec<Listener>, StartError> {
    let new = |address: &String| Listener::new(address, &config.token, config.listener_tls.as_ref());
    config.listeners.iter().map(new).collect()
}

/// A port for TLS.
struct TlsSocket {
    door: server::TlsDoor,
    followed: Followed,
}

impl TlsSocket {
    fn bind(config: &TlsConfig, reuse_port: bool) -> Result<Self, StartError> {
        let (acceptor, followed) = tls::acceptor(config)?;
        let (socket, address) = bind(config.address, reuse_port)?;
        info!("TLS on {address}");
        let hand_shake = HandShake { acceptor, max: Duration::from_millis(config.handshake_timeout_ms) };
        Ok(Self { door: server::TlsDoor { socket, hand_shake }, followed })
    }

    /// Takes new certificates from now on, until `end`.
    fn follow(self, end: &CancellationToken) -> server::TlsDoor {
        tokio::spawn(self.followed.follow(end.clone()));
        self.door
    }
}

/// Longest wait for listeners to hear of all leases at the end.
const LEASES_DRAIN: Duration = Duration::from_secs(2);

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

fn bind(address: SocketAddr, reuse_port: bool) -> Result<(TcpListener, SocketAddr), StartError> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // As after a restart, when old connections still linger.
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(reuse_port)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    listen().map_err(|source| StartError::Bind { address, source })
}
