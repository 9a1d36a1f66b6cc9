//! Binding, serving and stopping.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use weir_core::RequestIds;
use weir_store::Store;

use crate::catalog::CatalogHandle;
use crate::config::Config;
use crate::edge::Directory;
use crate::engine::Engine;
use crate::watch::{Seen, follow};
use crate::{grpc, http};

/// How long what is in flight may take to end once the listener is told to stop.
const DRAIN: Duration = Duration::from_secs(5);

/// Most recalls in one message.
const RECALLS_AT_ONCE: usize = 512;
/// How often leases are looked for that were not settled in time.
const PRESUME_PAUSE: Duration = Duration::from_millis(250);

/// The listener could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The gRPC server ended.
    #[error("the gRPC server ended")]
    Serve(#[source] tonic::transport::Error),
    /// Certificate or key of the gRPC port cannot be used.
    #[error("cannot serve TLS on the gRPC port")]
    GrpcTls(#[source] tonic::transport::Error),
    /// Certificate or key of the HTTP port cannot be used.
    #[error("cannot serve TLS on the HTTP port")]
    HttpTls(#[source] tokio_rustls::rustls::Error),
    /// The system has no random numbers.
    #[error("cannot make ids for requests")]
    RequestIds(#[source] getrandom::Error),
    /// The descriptors for reflection cannot be read.
    #[error("cannot serve gRPC reflection")]
    Reflection(#[source] tonic_reflection::server::Error),
}

/// A bound listener that does not serve yet.
pub struct Listener {
    shared: Arc<Shared>,
    grpc: TcpListener,
    http: TcpListener,
    http_tls: Option<http::Tls>,
    grpc_address: SocketAddr,
    http_address: SocketAddr,
}

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) engine: Engine,
    pub(crate) catalog: CatalogHandle,
    /// For calls that other proxies ask about.
    pub(crate) directory: Directory,
    pub(crate) request_ids: RequestIds,
    pub(crate) bodies: http::Bodies,
    /// Ends long streams.
    pub(crate) stop: CancellationToken,
}

/// Whether a listener can decide; cheap to copy.
#[derive(Clone)]
pub struct Status {
    seen: Arc<watch::Sender<Seen>>,
    stop: CancellationToken,
}

impl Status {
    /// Whether it has a catalog and its store answers.
    ///
    /// # Errors
    /// Why it cannot decide.
    pub fn ready(&self) -> Result<(), String> {
        if self.stop.is_cancelled() {
            return Err("stopping".into());
        }
        let seen = self.seen.borrow();
        match (&seen.trouble, &seen.snapshot) {
            (Some(trouble), _) => Err(trouble.clone()),
            (None, None) => Err("no catalog yet".into()),
            (None, Some(_)) => Ok(()),
        }
    }
}

impl Listener {
    /// Binds both ports.
    ///
    /// # Errors
    /// When one of them is taken, or the system has no random numbers.
    pub async fn bind(config: Config, store: Store) -> Result<Self, StartError> {
        crate::meters::describe();
        let (grpc, grpc_address) = bind(config.grpc_address).await?;
        let (http, http_address) = bind(config.http_address).await?;
        let seen = Arc::new(watch::Sender::new(Seen::default()));
        let engine = Engine::new(store.clone(), &config, Arc::clone(&seen));
        let catalog = CatalogHandle { store, seen };
        let stop = CancellationToken::new();
        let http_tls =
            config.http_tls.as_ref().map(http::Tls::new).transpose().map_err(StartError::HttpTls)?;
        let mut prefix = [0; 8];
        getrandom::fill(&mut prefix).map_err(StartError::RequestIds)?;
        let request_ids = RequestIds::new(prefix);
        let (directory, bodies) = (Directory::default(), http::Bodies::default());
        let shared = Arc::new(Shared { config, engine, catalog, directory, request_ids, bodies, stop });
        Ok(Self { shared, grpc, http, http_tls, grpc_address, http_address })
    }

    /// Where gateways connect.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc_address
    }

    /// Where HTTP clients connect.
    pub fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// For readiness probes.
    pub fn status(&self) -> Status {
        Status { seen: Arc::clone(&self.shared.catalog.seen), stop: self.shared.stop.clone() }
    }

    /// For loading a catalog from a file.
    pub fn catalog(&self) -> CatalogHandle {
        self.shared.catalog.clone()
    }

    /// Serves until told to stop, then lets what is in flight end.
    ///
    /// # Errors
    /// When a server cannot go on.
    pub async fn run(self, stop: CancellationToken) -> Result<(), StartError> {
        let ended = self.shared.stop.clone();
        tokio::spawn({
            let ended = ended.clone();
            async move {
                stop.cancelled().await;
                ended.cancel();
            }
        });
        let router = grpc::router(&self.shared, self.status())?;
        let poll = Duration::from_millis(self.shared.config.catalog_poll_ms);
        let CatalogHandle { store, seen } = self.shared.catalog.clone();
        tokio::spawn(follow(store, seen, poll, ended.clone()));
        let http = tokio::spawn(http::serve(self.http, self.http_tls, Arc::clone(&self.shared)));
        tokio::spawn(presume(self.shared.catalog.store.clone(), ended.clone()));
        tokio::spawn(pass_recalls_on(Arc::clone(&self.shared), ended.clone()));

        let incoming = TcpListenerStream::new(self.grpc).map(|accepted| {
            // Answers that come in two pieces would wait for the caller's acknowledgement of the first, 40 ms long.
            accepted.inspect(|stream| drop(stream.set_nodelay(true)))
        });
        let serving = async {
            router.serve_with_incoming_shutdown(incoming, ended.cancelled()).await?;
            // It ends by the same stop.
            let _ = http.await;
            Ok(())
        };
        let drained = async {
            ended.cancelled().await;
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            served = serving => served.map_err(StartError::Serve),
            () = drained => {
                tracing::warn!("connections were still open after the drain time");
                Ok(())
            }
        }
    }
}

/// Counts leases that were not settled in time, until stopped.
async fn presume(store: Store, stop: CancellationToken) {
    while tokio::time::timeout(PRESUME_PAUSE, stop.cancelled()).await.is_err() {
        if let Err(error) = store.presume_due().await {
            tracing::debug!(error = %error, "leases that are over cannot be counted now");
        }
    }
}

/// Tells gateways what any listener of the store asks back or has published, until stopped.
async fn pass_recalls_on(shared: Arc<Shared>, stop: CancellationToken) {
    let mut recalls = shared.catalog.store.recalls();
    let mut some = Vec::with_capacity(RECALLS_AT_ONCE);
    while let Some(1..) = stop.run_until_cancelled(recalls.recv_many(&mut some, RECALLS_AT_ONCE)).await {
        shared.engine.recalls.tell(&some);
        some.clear();
    }
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Bind { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}
