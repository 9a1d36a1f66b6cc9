//! The demo's installation: the files of a small real one, in a folder.
//!
//! The catalog is `deploy/example/catalog.toml` with the addresses of this demo. Its revision is the time, so that it
//! is always newer than what a store may hold from an earlier demo.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// The example as it stands in the repository.
const EXAMPLE: &str = include_str!("../../../../deploy/example/catalog.toml");

/// The example's service.
pub(super) const SERVICE: &str = "mail_api";

/// The host of the example's API.
pub(super) const HOST: &str = "api.postbote.example";

/// Backends know by it that a call came through the gateway.
pub(super) const SECRET_TOKEN: &str = "postbote-demo-secret-token";

/// The file with what proves the operator to the gateways.
pub(super) const OPERATOR_TOKEN_FILE: &str = "operator.token";

/// Where everything listens, on loopback.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    pub(super) production: u16,
    pub(super) staging: u16,
    pub(super) grpc: u16,
    pub(super) http: u16,
    pub(super) upstream: u16,
    pub(super) telemetry_production: u16,
    pub(super) telemetry_staging: u16,
    pub(super) telemetry_listener: u16,
}

impl Ports {
    fn offset(by: u16) -> Self {
        Self {
            production: 8080 + by,
            staging: 8081 + by,
            grpc: 8090 + by,
            http: 8091 + by,
            upstream: 8110 + by,
            telemetry_production: 9080 + by,
            telemetry_staging: 9081 + by,
            telemetry_listener: 9090 + by,
        }
    }
}

/// The installation.
pub(super) struct Setup {
    dir: PathBuf,
    pub(super) ports: Ports,
    /// What the gateways prove themselves with.
    pub(super) token: String,
    staging_token: String,
    /// The store in words.
    pub(super) store: String,
}

impl Setup {
    /// Writes all files.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub(super) fn write(dir: &Path, port_offset: u16, redis: Option<&str>) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        // One of an earlier start would mislead whoever waits for it; there need not be one.
        let _ = std::fs::remove_file(dir.join("demo.json"));
        let setup = Self {
            dir: std::path::absolute(dir)?,
            ports: Ports::offset(port_offset),
            token: random_hex()?,
            staging_token: random_hex()?,
            store: if redis.is_some() { "redis".into() } else { "embedded".into() },
        };
        if !setup.file("key-hash-secrets.txt").exists() {
            // Kept from start to start: hashes in a store that outlives the demo are under it.
            setup.put("key-hash-secrets.txt", &format!("demo {}\n", random_hex()?))?;
        }
        setup.put(OPERATOR_TOKEN_FILE, &format!("{}\n", random_hex()?))?;
        setup.put_catalog(|catalog| catalog)?;
        setup.put("listener.toml", &setup.listener(redis))?;
        let Ports { production, staging, telemetry_production, telemetry_staging, .. } = setup.ports;
        let gateways = [
            ("production", production, telemetry_production, &setup.token),
            ("staging", staging, telemetry_staging, &setup.staging_token),
        ];
        for (environment, port, telemetry, token) in gateways {
            let text = setup.gateway(environment, port, telemetry, token);
            setup.put(&format!("gateway-{environment}.toml"), &text)?;
        }
        Ok(setup)
    }

    /// A file of the installation.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes a file at once: whoever reads it sees the old or the new one, and only its owner may.
    pub(super) fn put(&self, name: &str, text: &str) -> anyhow::Result<()> {
        use std::io::Write;
        let failed = || format!("cannot write {}", self.file(name).display());
        let mut file = tempfile::NamedTempFile::new_in(&self.dir).with_context(failed)?;
        file.write_all(text.as_bytes()).with_context(failed)?;
        file.persist(self.file(name)).with_context(failed)?;
        Ok(())
    }

    /// Writes the catalog, changed as the provider would edit it, under a new revision.
    pub(super) fn put_catalog(&self, change: impl FnOnce(String) -> String) -> anyhow::Result<()> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        let replaced = EXAMPLE
            .replace("revision = 1\n", &format!("revision = {}\n", now.as_millis()))
            .replace("http://127.0.0.1:8110", &self.upstream())
            .replace(&format!("hosts = [\"{HOST}\"]"), &format!("hosts = [\"{HOST}\", \"localhost\"]"));
        self.put("catalog.toml", &change(replaced))
    }

    fn listener(&self, redis: Option<&str>) -> String {
        let Ports { grpc, http, telemetry_listener, .. } = self.ports;
        let store = match redis {
            // TOML takes JSON's strings.
            Some(url) => format!(
                "kind = \"redis\"\n[store.redis]\nurl = {}\nallow_volatile = true # a demo may lose its counters",
                serde_json::Value::from(url)
            ),
            None => "kind = \"embedded\"\n[store.embedded]\ndir = \"store\"".to_owned(),
        };
        format!(
            "grpc_address = \"127.0.0.1:{grpc}\"\nhttp_address = \"127.0.0.1:{http}\"\n\
             telemetry_address = \"127.0.0.1:{telemetry_listener}\"\n\
             catalog = \"catalog.toml\"\nkey_hash_secret_file = \"key-hash-secrets.txt\"\n\n\
             [store]\n{store}\n\n\
             [[gateways]]\nid = \"production-1\"\nenvironment = \"production\"\ntoken = \"{}\"\n\n\
             [[gateways]]\nid = \"staging-1\"\nenvironment = \"staging\"\ntoken = \"{}\"\n",
            self.token, self.staging_token
        )
    }

    fn gateway(&self, environment: &str, port: u16, telemetry: u16, token: &str) -> String {
        format!(
            "environment = \"{environment}\"\naddress = \"127.0.0.1:{port}\"\n\
             telemetry_address = \"127.0.0.1:{telemetry}\"\n\
             listeners = [\"http://127.0.0.1:{}\"]\ntoken = \"{token}\"\n\
             operator_token_file = \"{OPERATOR_TOKEN_FILE}\"\nstate_dir = \"gateway-{environment}\"\n",
            self.ports.grpc
        )
    }

    /// Base URL of the production gateway.
    pub(super) fn production(&self) -> String {
        loopback(self.ports.production)
    }

    /// Base URL of the listener's gRPC port.
    pub(super) fn grpc(&self) -> String {
        loopback(self.ports.grpc)
    }

    /// Base URL of the sample API.
    pub(super) fn upstream(&self) -> String {
        loopback(self.ports.upstream)
    }

    /// Base URLs of all telemetry ports.
    pub(super) fn telemetry(&self) -> [String; 3] {
        let Ports { telemetry_production, telemetry_staging, telemetry_listener, .. } = self.ports;
        [telemetry_listener, telemetry_production, telemetry_staging].map(loopback)
    }
}

/// The base URL of a port.
pub(super) fn loopback(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// 32 random bytes as text.
fn random_hex() -> anyhow::Result<String> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).context("the system gives no random bytes")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
