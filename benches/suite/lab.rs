//! Where a run takes place: its folder, its cores, how much is measured, and how servers are started there.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::machine::Cores;
use crate::serve::Kind;
use crate::server::{Probe, Server, free_address};

/// Longest wait for a server that has nothing to load.
pub(crate) const START_WAIT: Duration = Duration::from_secs(15);

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// Turns of each case.
    pub(crate) rounds: usize,
    /// Turns are this many times shorter.
    divisor: u64,
    /// Only for a look: the largest sizes are left out.
    pub(crate) quick: bool,
}

impl Scale {
    /// Five rounds and all sizes, or one short round of most.
    pub(crate) fn new(quick: bool) -> Self {
        if quick { Self { rounds: 1, divisor: 8, quick } } else { Self { rounds: 5, divisor: 1, quick } }
    }

    /// The same with other turns, unless it is for a look only.
    pub(crate) fn with_rounds(self, rounds: usize) -> Self {
        if self.quick { self } else { Self { rounds, ..self } }
    }

    /// Operations of a turn.
    pub(crate) fn operations(self, full: u64) -> u64 {
        full / self.divisor
    }
}

/// A run.
pub(crate) struct Lab {
    /// Who runs where.
    pub(crate) cores: Cores,
    /// How much is measured.
    pub(crate) scale: Scale,
    /// How many files a process may open.
    pub(crate) open_files: u64,
    /// The binary under test.
    pub(crate) weir: PathBuf,
    /// An older one to compare it with.
    pub(crate) before: Option<PathBuf>,
    out: PathBuf,
    dir: tempfile::TempDir,
}

impl Lab {
    /// In a temporary folder below the one for results, so that servers write to a disk.
    ///
    /// # Errors
    /// When the folder cannot be made, or the binary under test is not there.
    pub(crate) fn new(
        out: &Path,
        cores: Cores,
        scale: Scale,
        open_files: u64,
        before: Option<PathBuf>,
    ) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("run-").tempdir_in(out)?;
        let suite = std::env::current_exe()?;
        let weir = suite.parent().context("the suite is in no folder")?.join("weir");
        ensure!(weir.is_file(), "{} is not there: build it first, as make bench does", weir.display());
        Ok(Self { cores, scale, open_files, weir, before, out: out.to_owned(), dir })
    }

    /// The same at another scale or with another binary, in a folder of its own.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub(crate) fn again(&self, scale: Scale, weir: &Path) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("run-").tempdir_in(&self.out)?;
        let (weir, before, out) = (weir.to_owned(), self.before.clone(), self.out.clone());
        Ok(Self { cores: self.cores, scale, open_files: self.open_files, weir, before, out, dir })
    }

    /// A path in the run's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Puts a file into the run's folder.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.path(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Starts a program; its log is named after it.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) fn start(&self, name: &str, program: &Path, arguments: &[&str]) -> anyhow::Result<Server> {
        Server::start(self.cores, program, arguments, &self.path(&format!("{name}.log")))
    }

    /// Starts one of the suite's own servers.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) async fn own(
        &self,
        kind: Kind,
        origin: Option<SocketAddr>,
    ) -> anyhow::Result<(Server, SocketAddr)> {
        let address = free_address()?;
        let text = address.to_string();
        let origin = origin.map(|origin| origin.to_string());
        let mut arguments = vec!["serve", kind.as_str(), "--address", &text];
        arguments.extend(origin.iter().flat_map(|origin| ["--origin", origin]));
        let mut server = self.start(kind.as_str(), &std::env::current_exe()?, &arguments)?;
        server.wait(START_WAIT, Probe::Listens(address)).await?;
        Ok((server, address))
    }
}
