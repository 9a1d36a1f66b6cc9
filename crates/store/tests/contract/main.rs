//! One suite for every store: the same cases, called for the embedded store and for a real Redis.
#![allow(clippy::unwrap_used, reason = "a test fails by it, with the place")]

mod cases;
mod differential;
mod embedded;
mod errors;
mod events;
mod leases;
mod redis;
mod words;

use weir_store::{Config, EmbeddedConfig, RedisConfig, Store};
use weir_tests::redis::RedisServer;

/// A store and what it stands on.
struct Home {
    store: Store,
    _dir: tempfile::TempDir,
    _redis: Option<RedisServer>,
}

impl Home {
    async fn embedded() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::Embedded(EmbeddedConfig::new(dir.path().to_owned()));
        Self { store: Store::open(config).await.unwrap(), _dir: dir, _redis: None }
    }

    async fn redis() -> Self {
        let server = RedisServer::start();
        let config = Config::Redis(RedisConfig::new(weir_core::Secret::new(&server.url())));
        let store = Store::open(config).await.unwrap();
        Self { store, _dir: tempfile::tempdir().unwrap(), _redis: Some(server) }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_store_keeps_the_contract() {
    let home = Home::embedded().await;
    errors::all(&home.store).await;
    cases::all(&home.store).await;
    leases::all(&home.store).await;
    events::all(&home.store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_keeps_the_contract() {
    let home = Home::redis().await;
    errors::all(&home.store).await;
    cases::all(&home.store).await;
    leases::all(&home.store).await;
    events::all(&home.store).await;
}
