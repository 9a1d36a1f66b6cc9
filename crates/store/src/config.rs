//! Which store, and how it is to be kept.

use std::path::PathBuf;

use weir_core::Secret;

/// Where the ledger and the catalog records live.
#[derive(Debug, Clone)]
pub enum Config {
    /// In this process, in a folder of its own.
    Embedded(EmbeddedConfig),
    /// In Redis, shared by all listeners.
    Redis(RedisConfig),
}

/// The embedded store.
#[derive(Debug, Clone)]
pub struct EmbeddedConfig {
    /// Its folder; made when missing, locked while in use.
    pub dir: PathBuf,
    /// How often what was written is forced to disk: what a power cut can cost. 0: before each answer. Default 200 ms.
    pub sync_interval_ms: u64,
    /// The log is folded into the checkpoint when it is longer than this and than the checkpoint. Default 64 MiB.
    pub log_bytes_max: u64,
}

impl EmbeddedConfig {
    /// The defaults around a folder.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, sync_interval_ms: 200, log_bytes_max: 64 << 20 }
    }
}

/// A Redis of version 7 or later.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    /// `redis://[user:password@]host:port[/db]`, or `rediss://` for TLS. A secret, since it may hold a password.
    pub url: Secret,
    /// The certificate authority to trust with `rediss://`, in PEM. `None`: those that browsers trust.
    pub tls_ca_pem: Option<Vec<u8>>,
    /// Longest wait for an answer. Default 200 ms.
    pub response_timeout_ms: u64,
    /// Accept a Redis that may lose or evict counters (no AOF, or another policy than noeviction). Default false.
    pub allow_volatile: bool,
    /// So many replicas have to have a batch before it is answered, so that a fail-over to one of them forgets nothing
    /// that was answered. Default 0: what the primary has is answered.
    pub replicas: u32,
}

impl RedisConfig {
    /// The defaults around an address.
    pub fn new(url: Secret) -> Self {
        Self { url, tls_ca_pem: None, response_timeout_ms: 200, allow_volatile: false, replicas: 0 }
    }
}
