//! What a gateway is told when it starts; the binary reads it from TOML and environment.

use std::net::SocketAddr;
use std::path::PathBuf;

use weir_core::{Environment, Secret};

/// How a request finds its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Routing {
    /// By host alone.
    #[default]
    Host,
    /// Services may share a host: the first with a matching mapping rule, else the first of the host.
    Path,
    /// As `Path`, but without a matching rule nothing is found (404).
    PathOnly,
}

/// TLS towards listeners at `https://` addresses.
#[derive(Debug, Clone)]
pub struct ListenerTls {
    /// The authority that their certificates are under, PEM.
    pub ca_pem: Vec<u8>,
    /// This gateway's own certificate chain and key, PEM, for listeners that want one.
    pub identity: Option<(Vec<u8>, Secret)>,
    /// The name in the listeners' certificates; `None`: the host of each address.
    pub server_name: Option<String>,
}

/// A gateway's configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where clients connect. Default `0.0.0.0:8080`.
    pub address: SocketAddr,
    /// Which deployment of the services it runs.
    pub environment: Environment,
    /// gRPC addresses of the listener cluster, `http://host:port` or `https://host:port`; at least one. The first
    /// that answers is used.
    pub listeners: Vec<String>,
    /// How `https://` listeners are verified; `None`: all are `http://`.
    pub listener_tls: Option<ListenerTls>,
    /// Proves this gateway to the listeners.
    pub token: Secret,
    /// How a request finds its service.
    pub routing: Routing,
    /// Where the last good configuration is kept, to start from when no listener answers. `None`: nowhere.
    pub state_dir: Option<PathBuf>,
    /// Most client connections at a time; further ones wait to be accepted. Default 10,000.
    pub connections_max: usize,
    /// Longest request head, request line included; longer ones get 431. Default 32 KiB.
    pub head_bytes_max: usize,
    /// Longest wait for a request head on an open connection. Default 60,000 ms.
    pub head_timeout_ms: u64,
    /// Longest time a client may take nothing of an answer that waits for it; then its connection ends.
    /// Default 60,000 ms.
    pub write_timeout_ms: u64,
    /// Longest wait for the listener's decision, a second try included; then 503. Default 1,000 ms.
    pub authorise_timeout_ms: u64,
    /// Most requests waiting for a decision; further ones get 503. Default 16,384.
    pub authorisations_waiting_max: usize,
    /// Most takings-back of requests whose decision never arrived that wait for a listener; further ones are
    /// dropped and counted in a metric. Default 65,536.
    pub cancels_waiting_max: usize,
    /// Idle upstream connections kept per service host. Default 256.
    pub upstream_idle_max: usize,
    /// How long requests in flight may take to end once the gateway is told to stop. Default 30,000 ms.
    pub drain_timeout_ms: u64,
}

impl Config {
    /// The defaults around what has none.
    pub fn new(address: SocketAddr, environment: Environment, listeners: Vec<String>, token: Secret) -> Self {
        Self {
            address,
            environment,
            listeners,
            listener_tls: None,
            token,
            routing: Routing::default(),
            state_dir: None,
            connections_max: 10_000,
            head_bytes_max: 32 << 10,
            head_timeout_ms: 60_000,
            write_timeout_ms: 60_000,
            authorise_timeout_ms: 1_000,
            authorisations_waiting_max: 16_384,
            cancels_waiting_max: 65_536,
            upstream_idle_max: 256,
            drain_timeout_ms: 30_000,
        }
    }
}
