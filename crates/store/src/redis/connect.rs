//! Connecting: the pool, the multiplexed connections, the function library, and what Redis must be set to.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use sha2::{Digest, Sha256};

use super::FUNCTIONS;
use super::queue::wait_for_replicas;
use crate::OpenError;
use crate::config::RedisConfig;

/// Connections of the pool: catalog work only.
const POOL_CONNECTIONS: usize = 4;
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const RECONNECT_DELAY_MIN: Duration = Duration::from_millis(10);
const RECONNECT_DELAY_MAX: Duration = Duration::from_millis(200);

pub(super) struct Opened {
    pub(super) client: redis::Client,
    pub(super) pool: deadpool_redis::Pool,
    /// For decisions only.
    pub(super) decider: ConnectionManager,
    /// For reading records.
    pub(super) reader: ConnectionManager,
    pub(super) functions: Functions,
}

/// Names of the functions, which end in a hash of their text, and the text itself.
#[derive(Clone, Debug)]
pub(super) struct Functions {
    pub(super) step: Arc<str>,
    pub(super) publish: Arc<str>,
    library: Arc<str>,
}

impl Functions {
    fn new() -> Self {
        let digest = Sha256::digest(FUNCTIONS);
        let suffix = format!("{:02x}{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2], digest[3]);
        let text = FUNCTIONS.replace("@SUFFIX@", &suffix);
        Self {
            step: format!("weir_step_{suffix}").into(),
            publish: format!("weir_publish_{suffix}").into(),
            library: format!("#!lua name=weir_{suffix}\n{text}").into(),
        }
    }

    /// Loads the library where it is not loaded yet.
    pub(super) async fn load(
        &self,
        connection: &mut impl redis::aio::ConnectionLike,
    ) -> redis::RedisResult<()> {
        let loaded: redis::RedisResult<String> =
            redis::cmd("FUNCTION").arg("LOAD").arg(&*self.library).query_async(connection).await;
        match loaded {
            Err(error) if error.detail().is_some_and(|text| text.contains("already exists")) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Whether an error says that Redis has lost the library.
    pub(super) fn missing(error: &redis::RedisError) -> bool {
        error.detail().is_some_and(|text| text.contains("Function not found"))
    }
}

pub(super) async fn open(config: &RedisConfig) -> Result<Opened, OpenError> {
    let client = client(config).map_err(OpenError::Redis)?;
    let mut first = tokio::time::timeout(CONNECT_TIMEOUT, client.get_multiplexed_async_connection())
        .await
        .unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
        .map_err(OpenError::Redis)?;
    check_server(&mut first, config.allow_volatile).await?;
    let functions = Functions::new();
    functions.load(&mut first).await.map_err(OpenError::Redis)?;
    if config.replicas > 0 {
        // A user without the right to wait is told so now, and not by calls that are never answered.
        let wait = wait_for_replicas(0, Duration::ZERO).query_async::<u32>(&mut first).await;
        wait.map_err(OpenError::Redis)?;
    }

    let managed = ConnectionManagerConfig::new()
        .set_min_delay(RECONNECT_DELAY_MIN)
        .set_max_delay(RECONNECT_DELAY_MAX)
        .set_number_of_retries(usize::MAX)
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(Duration::from_millis(config.response_timeout_ms)));
    let connect = || ConnectionManager::new_with_config(client.clone(), managed.clone());
    let decider = connect().await.map_err(OpenError::Redis)?;
    let reader = connect().await.map_err(OpenError::Redis)?;
    let info = client.get_connection_info().clone();
    let manager = deadpool_redis::Manager::new(info).map_err(OpenError::Redis)?;
    let pool = deadpool_redis::Pool::builder(manager)
        .max_size(POOL_CONNECTIONS)
        .runtime(deadpool_redis::Runtime::Tokio1)
        .wait_timeout(Some(CONNECT_TIMEOUT))
        .create_timeout(Some(CONNECT_TIMEOUT))
        .recycle_timeout(Some(CONNECT_TIMEOUT))
        .build()
        .map_err(|error| OpenError::Pool(error.to_string()))?;
    Ok(Opened { client, pool, decider, reader, functions })
}

fn client(config: &RedisConfig) -> redis::RedisResult<redis::Client> {
    let url = config.url.expose();
    match &config.tls_ca_pem {
        None => redis::Client::open(url),
        Some(pem) => {
            let trust = redis::TlsCertificates { client_tls: None, root_cert: Some(pem.clone()) };
            redis::Client::build_with_tls(url, trust)
        }
    }
}

/// Read from INFO, which every ACL that lets us in can allow, unlike CONFIG.
async fn check_server(
    connection: &mut redis::aio::MultiplexedConnection,
    allow_volatile: bool,
) -> Result<(), OpenError> {
    let facts: redis::InfoDict =
        redis::cmd("INFO").query_async(connection).await.map_err(OpenError::Redis)?;
    let version: String = facts.get("redis_version").unwrap_or_default();
    let major: u32 = version.split('.').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    if major < 7 {
        return Err(OpenError::Version(version));
    }
    let mut lines = Vec::new();
    if facts.get::<u8>("aof_enabled") != Some(1) {
        lines.push("  appendonly yes");
    }
    if facts.get::<String>("maxmemory_policy").as_deref() != Some("noeviction") {
        lines.push("  maxmemory-policy noeviction");
    }
    if lines.is_empty() || allow_volatile { Ok(()) } else { Err(OpenError::Volatile(lines.join("\n"))) }
}
