//! What a gateway is told when it starts; the binary reads it from TOML and environment.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use weir_core::route::Routing;
use weir_core::{Environment, Secret};

use crate::explain::RefusalLog;
use crate::oidc::OidcConfig;
use weir_core::network::Network;

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

/// A certificate chain and its key, PEM.
#[derive(Debug, Clone)]
pub struct CertificateFiles {
    /// The certificate first, then those that vouch for it.
    pub certificate_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
}

/// What some upstreams are shown, and whom they are believed by.
#[derive(Debug, Clone)]
pub struct UpstreamIdentity {
    /// What policies call it.
    pub name: String,
    /// What upstreams are shown; `None`: nothing.
    pub certificate: Option<CertificateFiles>,
    /// Certificates of the authorities, PEM, that such upstreams must be under; `None`: as other upstreams.
    pub ca_file: Option<PathBuf>,
}

/// TLS towards clients.
#[derive(Debug, Clone)]
pub struct TlsConfig {
    /// Where clients connect. Default `0.0.0.0:8443`.
    pub address: SocketAddr,
    /// Picked by their names; the first is for clients that name none of them. At least one.
    pub certificates: Vec<CertificateFiles>,
    /// Longest time a handshake may take. Default 10,000 ms.
    pub handshake_timeout_ms: u64,
}

/// What a client may do over one HTTP/2 connection.
#[derive(Debug, Clone)]
pub struct Http2Limits {
    /// Most requests at a time; further ones are refused. Default 128.
    pub streams_max: u32,
    /// Most requests that the client took back before they were looked at; then the connection ends. Default 20.
    pub resets_pending_max: usize,
    /// Most requests that were ended because the client broke the protocol; then the connection ends. Default 64.
    pub faults_max: usize,
    /// How much of one request's body may be under way unasked. Default 256 KiB.
    pub stream_window_bytes: u32,
    /// How much of all bodies together may be under way unasked. Default 1 MiB.
    pub connection_window_bytes: u32,
    /// How much of each answer may wait to be sent. Default 64 KiB.
    pub send_buffer_bytes_max: usize,
    /// How often a quiet connection is pinged. Default 30,000 ms.
    pub ping_interval_ms: u64,
    /// Longest wait for the answer to a ping; then the connection ends. Default 10,000 ms.
    pub ping_timeout_ms: u64,
}

impl Default for Http2Limits {
    fn default() -> Self {
        Self {
            streams_max: 128,
            resets_pending_max: 20,
            faults_max: 64,
            stream_window_bytes: 256 << 10,
            connection_window_bytes: 1 << 20,
            send_buffer_bytes_max: 64 << 10,
            ping_interval_ms: 30_000,
            ping_timeout_ms: 10_000,
        }
    }
}

/// A gateway's configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where clients connect. Default `0.0.0.0:8080`.
    pub address: SocketAddr,
    /// Whether another process may listen on the same addresses, as while a new binary takes over. Default no.
    pub reuse_port: bool,
    /// Load balancers that say by the PROXY protocol for whom they connect. Default nobody.
    pub proxy_protocol_from: Vec<Network>,
    /// Which deployment of the services it runs.
    pub environment: Environment,
    /// gRPC addresses of the listener cluster, `http://host:port` or `https://host:port`; at least one. Callers
    /// are spread over those that answer.
    pub listeners: Vec<String>,
    /// How `https://` listeners are verified; `None`: all are `http://`.
    pub listener_tls: Option<ListenerTls>,
    /// Proves this gateway to the listeners.
    pub token: Secret,
    /// How a request finds its service.
    pub routing: Routing,
    /// Where the last good configuration is kept, to start from when no listener answers. `None`: nowhere.
    pub state_dir: Option<PathBuf>,
    /// Most leases at a time, each a kilobyte of the journal; calls beyond them are decided by listeners.
    /// Default 16,384.
    pub leases_max: u32,
    /// How often the journal is forced to disk: a power cut loses at most what came since. Default 200 ms.
    pub journal_sync_interval_ms: u64,
    /// Threads that serve connections. Default: as many as there are cores.
    pub workers: usize,
    /// Most client connections at a time; further ones wait to be accepted. Default 10,000.
    pub connections_max: usize,
    /// Longest request head, request line included; longer ones get 431, or 414 where the request line alone is longer.
    /// Default 32 KiB.
    pub head_bytes_max: usize,
    /// Longest wait for a request head on an open connection, and how long an HTTP/2 connection may have no request.
    /// Default 60,000 ms.
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
    /// Certificates of authorities, PEM, that `https://` upstreams may be under besides the public ones.
    pub upstream_ca_file: Option<PathBuf>,
    /// Identities that the policy `upstream_tls` names.
    pub upstream_tls: Vec<UpstreamIdentity>,
    /// Proxies in front of the gateway whose `X-Forwarded-For` is believed. Default none.
    pub trusted_proxies: Vec<Network>,
    /// Most requests in flight to one upstream, tunnels included; further ones wait. Default 4,096.
    pub upstream_in_flight_max: usize,
    /// Most requests that wait for another one to the same upstream to end, as long as they would wait for a
    /// connection; further ones get 503. Default 1,024.
    pub upstream_waiting_max: usize,
    /// Idle connections kept per upstream. Default 256.
    pub upstream_idle_max: usize,
    /// How long requests in flight may take to end once the gateway is told to stop. Default 30,000 ms.
    pub drain_timeout_ms: u64,
    /// TLS beside the plain port; `None`: not offered.
    pub tls: Option<TlsConfig>,
    /// Bounds of HTTP/2 connections.
    pub http2: Http2Limits,
    /// How issuers of tokens are asked for their keys.
    pub oidc: OidcConfig,
    /// Where refusals are kept longer than in memory; `None`: nowhere.
    pub refusal_log: Option<RefusalLog>,
    /// The share, 0 to 1, of requests that went well or were refused by a rule which gets a line in the access log.
    /// Default 1: all of them.
    pub access_sample_ratio: f64,
    /// Whether requests become spans of the process's tracer. Default no.
    #[cfg(feature = "otel")]
    pub is_traced: bool,
}

impl Config {
    /// The defaults around what has none.
    pub fn new(address: SocketAddr, environment: Environment, listeners: Vec<String>, token: Secret) -> Self {
        Self {
            address,
            reuse_port: false,
            proxy_protocol_from: vec![],
            environment,
            listeners,
            listener_tls: None,
            token,
            routing: Routing::default(),
            state_dir: None,
            leases_max: 16_384,
            journal_sync_interval_ms: 200,
            workers: std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
            connections_max: 10_000,
            head_bytes_max: 32 << 10,
            head_timeout_ms: 60_000,
            write_timeout_ms: 60_000,
            authorise_timeout_ms: 1_000,
            authorisations_waiting_max: 16_384,
            cancels_waiting_max: 65_536,
            upstream_ca_file: None,
            upstream_tls: vec![],
            trusted_proxies: vec![],
            upstream_in_flight_max: 4096,
            upstream_waiting_max: 1024,
            upstream_idle_max: 256,
            drain_timeout_ms: 30_000,
            tls: None,
            http2: Http2Limits::default(),
            oidc: OidcConfig::default(),
            refusal_log: None,
            access_sample_ratio: 1.0,
            #[cfg(feature = "otel")]
            is_traced: false,
        }
    }
}
