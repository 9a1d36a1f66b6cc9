//! What a listener is told when it starts; the binary reads it from TOML and environment.

use std::net::SocketAddr;

use weir_core::{Environment, KeyHasher, Secret, ServiceId};

/// A gateway that may ask this listener.
#[derive(Debug, Clone)]
pub struct GatewayToken {
    /// Names the gateway in logs.
    pub id: String,
    /// What it proves itself with.
    pub token: Secret,
    /// Which deployment it may watch.
    pub environment: Environment,
    /// Which services it may ask about; `None`: all.
    pub services: Option<Vec<ServiceId>>,
}

/// TLS on a port.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// The certificate chain, PEM.
    pub certificate_pem: Vec<u8>,
    /// Its key, PEM.
    pub key_pem: Secret,
    /// Callers need a certificate under this authority (PEM), beside what they prove themselves with. `None`: that is enough.
    pub client_ca_pem: Option<Vec<u8>>,
}

/// A listener's configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where gateways connect. Default `0.0.0.0:8090`.
    pub grpc_address: SocketAddr,
    /// Where HTTP clients connect. Default `0.0.0.0:8091`.
    pub http_address: SocketAddr,
    /// TLS on the gRPC port; `None`: in the clear.
    pub grpc_tls: Option<ServerTls>,
    /// TLS on the HTTP port; `None`: in the clear.
    pub http_tls: Option<ServerTls>,
    /// Who may ask.
    pub gateways: Vec<GatewayToken>,
    /// Proves the control plane when it publishes; `None`: the catalog comes from a file.
    pub publish_token: Option<Secret>,
    /// Proves an operator who reads errors and events; the publisher may as well. `None`: only the publisher may.
    pub operator_token: Option<Secret>,
    /// The server secrets under which keys are hashed.
    pub key_hasher: KeyHasher,
    /// Longest wait for the store; then UNAVAILABLE. Default 250 ms.
    pub decision_timeout_ms: u64,
    /// Most application records kept in memory. Default 1,000,000.
    pub applications_cached_max: usize,
    /// Most requests of one stream in work at a time; a faster caller waits. Default 4,096.
    pub stream_requests_max: usize,
    /// How often the store is asked whether another listener changed the catalog. Default 250 ms.
    pub catalog_poll_ms: u64,
}

impl Config {
    /// The defaults around what has none.
    pub fn new(grpc_address: SocketAddr, http_address: SocketAddr, key_hasher: KeyHasher) -> Self {
        Self {
            grpc_address,
            http_address,
            grpc_tls: None,
            http_tls: None,
            gateways: vec![],
            publish_token: None,
            operator_token: None,
            key_hasher,
            decision_timeout_ms: 250,
            applications_cached_max: 1_000_000,
            stream_requests_max: 4_096,
            catalog_poll_ms: 250,
        }
    }
}
