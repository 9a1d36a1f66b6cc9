//! Weir's roles as processes under test, configured as an operator would: through their files.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::catalog::{KEY_HASH_SECRET, PUBLISH_TOKEN};
use crate::lab::{Lab, START_WAIT};
use crate::question::TOKEN;
use crate::server::{Probe, Server, free_address};
use crate::turns::Part;

/// Longest wait for a decision: a disk that stalls for a moment must not fail a turn, since time waited is no CPU time.
const PATIENCE_MS: u64 = 10_000;

/// Where a listener takes its catalog from.
pub(crate) enum Catalog<'a> {
    /// A file with this text.
    File(&'a str),
    /// Whoever publishes.
    Published,
}

/// Where a listener counts.
pub(crate) enum Store {
    /// In a folder of its own.
    Embedded,
    /// In a Redis.
    Redis(SocketAddr),
}

impl Store {
    fn lines(&self, name: &str) -> String {
        match self {
            Self::Embedded => format!("kind = \"embedded\"\n[store.embedded]\ndir = \"{name}-store\""),
            Self::Redis(address) => format!(
                "kind = \"redis\"\n[store.redis]\nurl = \"redis://{address}\"\nresponse_timeout_ms = {PATIENCE_MS}"
            ),
        }
    }
}

/// A listener.
pub(crate) struct Listener {
    server: Option<Server>,
    name: String,
    config: PathBuf,
    telemetry: SocketAddr,
    /// Its gRPC port.
    pub(crate) grpc: SocketAddr,
    /// Its HTTP port.
    pub(crate) http: SocketAddr,
}

impl Listener {
    /// Starts one that takes questions under [`TOKEN`], and under further tokens for some services each; waits until
    /// it is ready, or, without a catalog, live.
    ///
    /// # Errors
    /// When it does not become so.
    pub(crate) async fn start(
        lab: &Lab,
        name: &str,
        store: &Store,
        catalog: &Catalog<'_>,
        tokens: &[(String, Vec<String>)],
    ) -> anyhow::Result<Self> {
        let (grpc, http, telemetry) = (free_address()?, free_address()?, free_address()?);
        let (id, secret) = KEY_HASH_SECRET;
        lab.write("secrets.txt", &format!("{id} {secret}\n"))?;
        let source = match catalog {
            Catalog::Published => format!("publish_token = \"{PUBLISH_TOKEN}\""),
            Catalog::File(text) => {
                lab.write(&format!("{name}-catalog.toml"), text)?;
                format!("catalog = \"{name}-catalog.toml\"")
            }
        };
        let mut text = format!(
            "grpc_address = \"{grpc}\"\nhttp_address = \"{http}\"\ntelemetry_address = \"{telemetry}\"\n{source}\n\
             key_hash_secret_file = \"secrets.txt\"\n[limits]\ndecision_timeout_ms = {PATIENCE_MS}\n[store]\n{}\n\
             [[gateways]]\nid = \"bench\"\nenvironment = \"production\"\ntoken = \"{TOKEN}\"\n",
            store.lines(name)
        );
        for (token, services) in tokens {
            text += &format!(
                "[[gateways]]\nid = \"{token}\"\nenvironment = \"production\"\ntoken = \"{token}\"\nservices = {services:?}\n"
            );
        }
        let config = lab.write(&format!("{name}.toml"), &text)?;
        let mut listener = Self { server: None, name: name.into(), config, telemetry, grpc, http };
        match catalog {
            Catalog::File(_) => listener.launch(lab, START_WAIT).await?,
            Catalog::Published => {
                let mut server = listener.process(lab)?;
                server.wait(START_WAIT, Probe::Listens(grpc)).await?;
                listener.server = Some(server);
                Duration::ZERO
            }
        };
        Ok(listener)
    }

    /// Starts its process, again if need be; returns how long it took to become ready.
    ///
    /// # Errors
    /// When it does not within the time.
    pub(crate) async fn launch(&mut self, lab: &Lab, longest: Duration) -> anyhow::Result<Duration> {
        // The old one ends first: they share a folder.
        self.server = None;
        let mut server = self.process(lab)?;
        let took = server.wait(longest, is_ready(self.telemetry)).await?;
        self.server = Some(server);
        Ok(took)
    }

    fn process(&self, lab: &Lab) -> anyhow::Result<Server> {
        role(lab, "listener", &self.name, &self.config)
    }

    /// For summing its CPU time.
    pub(crate) fn part(&self) -> Part {
        Part { name: "listener", processes: self.server.iter().flat_map(Server::processes).collect() }
    }

    /// What it measures of itself.
    ///
    /// # Errors
    /// When it does not tell.
    pub(crate) async fn metrics(&self) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(self.telemetry).await?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: telemetry\r\nConnection: close\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text)
    }

    /// Memory in use, in bytes.
    ///
    /// # Errors
    /// When it does not run.
    pub(crate) fn memory_bytes(&self) -> anyhow::Result<u64> {
        let server = self.server.as_ref().ok_or_else(|| anyhow::anyhow!("{} does not run", self.name))?;
        crate::cpu::memory_bytes(server.process())
    }
}

/// A role is ready when its telemetry says so.
fn is_ready(telemetry: SocketAddr) -> Probe<'static> {
    Probe::Answers { address: telemetry, host: "telemetry", target: "/readyz" }
}

fn role(lab: &Lab, role: &str, name: &str, config: &std::path::Path) -> anyhow::Result<Server> {
    let config = config.display().to_string();
    lab.start(name, &lab.weir, &[role, "--config", &config])
}

/// Whether a gateway logs each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AccessLog {
    /// Into a file, as it does unless told otherwise.
    On,
    /// Not at all.
    Off,
}

/// A gateway.
pub(crate) struct Gateway {
    server: Server,
    /// Where clients connect.
    pub(crate) address: SocketAddr,
}

impl Gateway {
    /// Starts one and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become so.
    pub(crate) async fn start(
        lab: &Lab,
        name: &str,
        listener: &Listener,
        token: &str,
        log: AccessLog,
    ) -> anyhow::Result<Self> {
        Self::start_to(lab, name, listener.grpc, token, log).await
    }

    /// The same where a listener is reached by another address than its own.
    ///
    /// # Errors
    /// When it does not become ready.
    pub(crate) async fn start_to(
        lab: &Lab,
        name: &str,
        listener: SocketAddr,
        token: &str,
        log: AccessLog,
    ) -> anyhow::Result<Self> {
        let (address, telemetry) = (free_address()?, free_address()?);
        let level = if log == AccessLog::On { "info" } else { "info,weir::access=off" };
        let text = format!(
            "environment = \"production\"\naddress = \"{address}\"\ntelemetry_address = \"{telemetry}\"\n\
             listeners = [\"http://{listener}\"]\ntoken = \"{token}\"\nstate_dir = \"{name}-state\"\n[limits]\n\
             authorise_timeout_ms = {PATIENCE_MS}\nconnections_max = 20_000\n[oidc]\n\
             private_networks = [\"127.0.0.0/8\"]\n[log]\nlevel = \"{level}\"\n"
        );
        let config = lab.write(&format!("{name}.toml"), &text)?;
        let mut server = role(lab, "gateway", name, &config)?;
        server.wait(START_WAIT, is_ready(telemetry)).await?;
        Ok(Self { server, address })
    }

    /// Waits until a request comes through, so that no turn meets a stream that is not open yet.
    ///
    /// # Errors
    /// When none does.
    pub(crate) async fn wait_for(&mut self, host: &str, target: &str) -> anyhow::Result<()> {
        let probe = Probe::Answers { address: self.address, host, target };
        self.server.wait(START_WAIT, probe).await.map(|_| ())
    }

    /// Memory in use, in bytes.
    ///
    /// # Errors
    /// When it does not run.
    pub(crate) fn memory_bytes(&self) -> anyhow::Result<u64> {
        crate::cpu::memory_bytes(self.server.process())
    }

    /// For summing its CPU time.
    pub(crate) fn part(&self) -> Part {
        Part { name: "gateway", processes: self.server.processes() }
    }
}
