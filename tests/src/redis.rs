//! A private Redis: real, on a free port, with its own folder, kept as production would keep it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::certificates::Authority;
use crate::wait::{free_port, until};

/// A running Redis server; ended when dropped.
pub struct RedisServer {
    port: u16,
    dir: tempfile::TempDir,
    options: Vec<String>,
    process: Option<Child>,
    /// Read again at each start.
    certificates: Option<tempfile::TempDir>,
}

impl RedisServer {
    /// Starts one that keeps what it acknowledged even when killed.
    ///
    /// # Panics
    /// When Redis is not installed or does not start.
    pub fn start() -> Self {
        Self::start_with(&[
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--maxmemory-policy",
            "noeviction",
            "--repl-diskless-sync-delay",
            "0",
        ])
    }

    /// Starts one with these settings alone.
    ///
    /// # Panics
    /// When Redis is not installed or does not start.
    pub fn start_with(options: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let mut server = Self { port: free_port(), dir, options, process: None, certificates: None };
        server.run();
        server
    }

    /// Starts one that follows another, and waits until it has all that the other has.
    ///
    /// # Panics
    /// When Redis does not start, or does not get there.
    pub fn start_replica_of(primary: &Self) -> Self {
        let port = primary.port.to_string();
        let replica = Self::start_with(&[
            "--replicaof",
            "127.0.0.1",
            &port,
            "--appendonly",
            "yes",
            "--maxmemory-policy",
            "noeviction",
            "--repl-diskless-load",
            "swapdb",
        ]);
        until("the replica to follow", || (primary.command("WAIT 1 100") == ":1").then_some(()));
        replica
    }

    /// Takes the place of its primary, which is no more: on its port, as a primary.
    ///
    /// # Panics
    /// When it does not.
    pub fn take_over(&mut self, mut primary: Self) {
        primary.kill();
        assert_eq!(self.command("REPLICAOF NO ONE"), "+OK");
        assert_eq!(self.command(&format!("CONFIG SET port {}", primary.port)), "+OK");
        self.port = primary.port;
    }

    /// Starts one that also speaks TLS, on the port returned beside it, under the certificate authority returned last
    /// (PEM), and lets in the user `weir` with the password `pass` and the rights that docs/operating.md names.
    ///
    /// # Panics
    /// When Redis is not installed or does not start.
    pub fn start_with_tls_and_user() -> (Self, u16, String) {
        let port = free_port();
        let authority = Authority::new();
        let certificate = authority.issue("localhost");
        let dir = tempfile::tempdir().expect("a temporary folder");
        let put = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("a file in a temporary folder");
            path.display().to_string()
        };
        let files = [put("cert.pem", &certificate.pem), put("key.pem", &certificate.key_pem)];
        let pem = authority.pem();
        let options = [
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            &files[0],
            "--tls-key-file",
            &files[1],
            "--tls-auth-clients",
            "no",
            "--appendonly",
            "yes",
            "--maxmemory-policy",
            "noeviction",
            "--user",
            "weir",
            "on",
            ">pass",
        ];
        let mut server = Self::start_with(&[&options[..], &documented_rights()].concat());
        server.certificates = Some(dir);
        (server, port, pem)
    }

    fn run(&mut self) {
        let process = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .arg("--dir")
            .arg(self.dir.path())
            .args(&self.options)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is not installed: apt-get install redis-server");
        self.process = Some(process);
        until("redis to answer PING", || (self.command("PING") == "+PONG").then_some(()));
    }

    /// A port for further listening, free a moment ago.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Sends one inline command and returns the first line of the answer; empty when nobody answers.
    pub fn command(&self, text: &str) -> String {
        let exchange = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(format!("{text}\r\n").as_bytes())?;
            let mut answer = Vec::new();
            let mut byte = [0];
            while stream.read(&mut byte)? == 1 && byte[0] != b'\n' {
                answer.push(byte[0]);
            }
            Ok(String::from_utf8_lossy(&answer).trim().to_owned())
        };
        exchange().unwrap_or_default()
    }

    /// Ends it without warning, as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may be gone already; either way it is not running afterwards.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Starts it again on the same port and folder.
    pub fn restart(&mut self) {
        self.kill();
        self.run();
    }
}

/// The rights that Weir needs in Redis, as docs/operating.md has them.
fn documented_rights() -> Vec<&'static str> {
    let text = include_str!("../../docs/operating.md");
    let (_, rights) = text.split_once("ACL SETUSER weir on >… ").expect("the rights");
    let (rights, _) = rights.split_once("```").expect("an end of them");
    rights.split_whitespace().collect()
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}
