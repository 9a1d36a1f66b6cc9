//! Other people's servers, as they are shipped: nginx, HAProxy, Envoy, what Node runs.
//!
//! Each test starts its own, on free ports of loopback and in a folder of its own, and ends it when it is over. A
//! missing one fails with the line that installs it.

use std::fs::File;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::wait::until;

/// The Envoy that `scripts/envoy.sh` puts there.
const ENVOY: &str = "envoy-1.40.0";

/// A running server; killed when dropped.
pub struct Foreign {
    child: Child,
    dir: tempfile::TempDir,
    /// Where it listens.
    pub addresses: Vec<SocketAddr>,
}

impl Foreign {
    /// Starts nginx with a configuration made for its folder; it must say `daemon off` and `master_process off`, so
    /// that ending it by its id ends all of it.
    ///
    /// # Panics
    /// When it is not installed, or does not start.
    pub fn nginx(addresses: Vec<SocketAddr>, config: impl FnOnce(&Path) -> String) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("nginx.conf");
        std::fs::write(&path, config(dir.path())).expect("a file of its own");
        let command = nginx(dir.path(), &path);
        Self::start(command, "nginx", "apt-get install nginx", dir, addresses)
    }

    /// Starts HAProxy.
    ///
    /// # Panics
    /// When it is not installed, or does not start.
    pub fn haproxy(addresses: Vec<SocketAddr>, config: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("haproxy.cfg");
        std::fs::write(&path, config).expect("a file of its own");
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(path);
        Self::start(command, "haproxy", "apt-get install haproxy", dir, addresses)
    }

    /// Starts Envoy with the token of a gateway in its environment.
    ///
    /// # Panics
    /// When it is not there, or does not start.
    pub fn envoy(address: SocketAddr, config: &str, token: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("envoy.yaml");
        std::fs::write(&path, config).expect("a file of its own");
        let mut command = Command::new(envoy_binary());
        command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning", "-c"]);
        command.arg(path).env("WEIR_GATEWAY_TOKEN", token);
        Self::start(command, "Envoy", "scripts/envoy.sh", dir, vec![address])
    }

    /// Runs a script of Node's that listens on a port, told beside the folder with its packages.
    ///
    /// # Panics
    /// When Node is not installed, or the script does not start.
    pub fn node(script: &Path, packages: &Path, address: SocketAddr) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new("node");
        command.arg(script).arg(address.port().to_string()).arg(packages);
        Self::start(command, "Node", "apt-get install nodejs npm", dir, vec![address])
    }

    fn start(
        mut command: Command,
        name: &str,
        install: &str,
        dir: tempfile::TempDir,
        addresses: Vec<SocketAddr>,
    ) -> Self {
        let log = File::create(dir.path().join("output.log")).expect("a file of its own");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| match error.kind() {
            ErrorKind::NotFound => panic!("{name} is not there: {install}"),
            _ => panic!("{name} does not start: {error}"),
        });
        let mut server = Self { child, dir, addresses };
        until("a server to listen", || {
            let ended = server.child.try_wait().expect("a child");
            assert!(ended.is_none(), "{name} ended: {ended:?}\n{}", server.logs());
            server.addresses.iter().all(|address| TcpStream::connect(address).is_ok()).then_some(())
        });
        server
    }

    /// What it has written so far.
    pub fn logs(&self) -> String {
        ["output.log", "error.log"].map(|name| self.read(name)).join("\n")
    }

    /// A file in its folder; empty where there is none.
    pub fn read(&self, name: &str) -> String {
        let bytes = std::fs::read(self.dir.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        // It may be gone already; either way it is not running afterwards.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// nginx with a folder and a configuration.
pub fn nginx(dir: &Path, config: &Path) -> Command {
    let mut command = Command::new("nginx");
    // Where Debian puts it is not on everybody's path.
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/usr/local/sbin"));
    // Without it nginx opens the system's log before it reads a line of its configuration.
    command.arg("-e").arg(dir.join("error.log")).arg("-p").arg(dir).arg("-c").arg(config);
    command
}

fn envoy_binary() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    // target/<profile>/deps/<test>
    let target = test.ancestors().nth(3).expect("a target folder");
    target.join("tools").join(ENVOY)
}

/// Different ports, free a moment ago.
///
/// # Panics
/// When there are none.
pub fn free_addresses(count: usize) -> Vec<SocketAddr> {
    let listener = |_| TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let listeners: Vec<_> = (0..count).map(listener).collect();
    listeners.iter().map(|listener| listener.local_addr().expect("a bound address")).collect()
}
