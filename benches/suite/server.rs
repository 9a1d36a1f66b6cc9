//! A process under test: started on its core, waited for, ended.
//!
//! The case files start all of theirs at once and measure them in turns. Whatever happens to the suite, no server
//! outlives it: util-linux' `setpriv` has the kernel end them with it.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::cpu;
use crate::machine::{Cores, has};

/// Longest wait for a server to end by itself.
const END_WAIT: Duration = Duration::from_secs(5);
/// How often one looks whether something has come about.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// Ports below those that the kernel hands to clients, where no connection of the generator can be in the way.
const PORTS: std::ops::Range<u16> = 21_000..32_000;

/// Longest wait for one answer.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// What tells that a server is ready.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Probe<'a> {
    /// It takes connections.
    Listens(SocketAddr),
    /// It answers a GET with 200.
    Answers {
        /// Where.
        address: SocketAddr,
        /// The Host that is asked.
        host: &'a str,
        /// Path and query.
        target: &'a str,
    },
}

impl Probe<'_> {
    async fn is_ready(self) -> bool {
        let tried = match self {
            Self::Listens(address) => {
                timeout(ANSWER_WAIT, TcpStream::connect(address)).await.map(|opened| opened.is_ok())
            }
            Self::Answers { address, host, target } => {
                timeout(ANSWER_WAIT, is_answered_well(address, host, target))
                    .await
                    .map(Result::unwrap_or_default)
            }
        };
        tried.unwrap_or_default()
    }
}

async fn is_answered_well(address: SocketAddr, host: &str, target: &str) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut first = [0; 12];
    stream.read_exact(&mut first).await?;
    Ok(&first == b"HTTP/1.1 200")
}

/// A running process; ended when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts a program; all it prints goes to a file.
    ///
    /// # Errors
    /// When it is not there.
    pub(crate) fn start(
        cores: Cores,
        program: &Path,
        arguments: &[&str],
        log: &Path,
    ) -> anyhow::Result<Self> {
        let file = File::options().create(true).append(true).open(log)?;
        let mut words: Vec<String> = vec![];
        if has("setpriv") {
            words.extend(["setpriv", "--pdeathsig", "TERM"].map(str::to_owned));
        }
        if let Cores::Apart { server, .. } = cores {
            words.extend(["taskset".into(), "-c".into(), server.to_string()]);
        }
        words.push(program.display().to_string());
        words.extend(arguments.iter().map(|&argument| argument.to_owned()));
        let child = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Waits until it is ready; returns how long that took.
    ///
    /// # Errors
    /// When the process ends before, or the time is over; with the end of its log.
    pub(crate) async fn wait(&mut self, longest: Duration, probe: Probe<'_>) -> anyhow::Result<Duration> {
        let started = Instant::now();
        while !probe.is_ready().await {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}: {}", self.log.display(), self.log_end());
            }
            ensure!(started.elapsed() < longest, "{} is not ready: {}", self.log.display(), self.log_end());
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Ok(started.elapsed())
    }

    fn log_end(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Its process and those it has started.
    pub(crate) fn processes(&self) -> Vec<u32> {
        cpu::family(self.child.id())
    }

    /// Its process alone.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let id = self.child.id().to_string();
        // It may be gone already; either way it is not running afterwards.
        let _ = Command::new("kill").args(["-TERM", &id]).output();
        let started = Instant::now();
        while started.elapsed() < END_WAIT {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address of loopback that nobody listens on.
///
/// # Errors
/// When none is left.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    // Two suites at a time begin at different ports, most probably.
    let first = PORTS.start + u16::try_from(std::process::id() % 100)? * 100;
    loop {
        let port = first + TAKEN.fetch_add(1, Ordering::Relaxed);
        ensure!(PORTS.contains(&port), "no port is free");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
}
