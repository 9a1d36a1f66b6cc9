//! The `weir` binary as a real process: started, killed, told to stop.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;

use crate::wait::until;

/// The binary, built from the sources as they are now, with OpenTelemetry; by this, unless `WEIR_BUILT` says that it is (`make test`, where
/// one `cargo test` builds everything).
///
/// # Panics
/// When it does not build.
pub fn weir_binary() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        if std::env::var_os("WEIR_BUILT").is_none() {
            let built = Command::new(env!("CARGO")).args(BUILD).status();
            assert!(built.is_ok_and(|status| status.success()), "cargo {} failed", BUILD.join(" "));
        }
        let test = std::env::current_exe().expect("the test's own path");
        // target/<profile>/deps/<test> stands beside target/<profile>/weir.
        let profile = test.parent().and_then(Path::parent).expect("a target folder");
        profile.join("weir")
    })
}

const BUILD: [&str; 6] = ["build", "--quiet", "--package", "weir", "--features", "otel"];

/// Runs a subcommand to its end.
///
/// # Panics
/// When the binary cannot be run.
pub fn weir(arguments: &[&str]) -> Output {
    Command::new(weir_binary()).args(arguments).output().expect("weir runs")
}

/// A running role; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a subcommand; what it logs goes to a file.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(arguments: &[&str], log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("a log file");
        let child = Command::new(weir_binary())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file)
            .spawn()
            .expect("weir starts");
        Self { child, log: log.to_owned() }
    }

    /// All it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it without warning, as a crash would.
    pub fn kill(&mut self) {
        // It may be gone already; either way it is not running afterwards.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to stop and waits until it has.
    ///
    /// # Panics
    /// When it does not stop.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait_stopped()
    }

    /// Presses Ctrl-C and waits until it has stopped.
    ///
    /// # Panics
    /// When it does not stop.
    pub fn interrupt(&mut self) -> ExitStatus {
        self.signal("INT");
        self.wait_stopped()
    }

    /// Waits until it has stopped by itself.
    ///
    /// # Panics
    /// When it does not stop.
    pub fn wait_stopped(&mut self) -> ExitStatus {
        until("the process to stop", || self.child.try_wait().ok().flatten())
    }

    /// Sends it a signal, such as `STOP`.
    ///
    /// # Panics
    /// When it cannot be sent.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let told = Command::new("kill").args(["-s", name, &id]).status();
        assert!(told.is_ok_and(|status| status.success()), "kill -s {name} {id} failed");
    }

    /// The most memory that it ever had in use.
    ///
    /// # Panics
    /// When it does not run.
    pub fn memory_peak_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        let kib: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number of KiB");
        kib * 1_024
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
