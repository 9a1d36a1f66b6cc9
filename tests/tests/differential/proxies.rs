//! Two other people's servers: nginx and HAProxy as Debian ships them, plain reverse proxies with kept connections.
//!
//! Each has a port per lane, which leads to that lane's own recorder, so what arrives there came through it. nginx
//! also writes down how it read each path that came through the gateway: it decodes paths, HAProxy does not.

use std::fs::File;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use weir_tests::wait::until;

/// A running proxy; ended when dropped.
pub(crate) struct Proxy {
    child: Child,
    dir: tempfile::TempDir,
    /// Where it listens, by lane.
    pub(crate) addresses: Vec<SocketAddr>,
}

impl Proxy {
    /// Starts nginx in front of these upstreams.
    pub(crate) fn nginx(upstreams: &[SocketAddr]) -> Self {
        let (dir, addresses) = (tempfile::tempdir().unwrap(), free_addresses(upstreams.len()));
        let config = dir.path().join("nginx.conf");
        std::fs::write(&config, nginx_config(dir.path(), &addresses, upstreams)).unwrap();
        let mut command = Command::new("nginx");
        // Without it nginx opens the system's log before it reads a line of its configuration.
        command.arg("-e").arg(dir.path().join("error.log"));
        command.arg("-p").arg(dir.path()).arg("-c").arg(config);
        Self::start(command, "nginx", dir, addresses)
    }

    /// Starts HAProxy in front of these upstreams.
    pub(crate) fn haproxy(upstreams: &[SocketAddr]) -> Self {
        let (dir, addresses) = (tempfile::tempdir().unwrap(), free_addresses(upstreams.len()));
        let config = dir.path().join("haproxy.cfg");
        std::fs::write(&config, haproxy_config(&addresses, upstreams)).unwrap();
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(config);
        Self::start(command, "haproxy", dir, addresses)
    }

    fn start(mut command: Command, name: &str, dir: tempfile::TempDir, addresses: Vec<SocketAddr>) -> Self {
        let log = File::create(dir.path().join("output.log")).unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        // Where Debian puts them is not on everybody's path.
        command.env("PATH", format!("{path}:/usr/sbin:/usr/local/sbin"));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| match error.kind() {
            ErrorKind::NotFound => panic!("{name} is not installed: apt-get install {name}"),
            _ => panic!("{name} does not start: {error}"),
        });
        let mut proxy = Self { child, dir, addresses };
        until("a proxy to listen", || {
            let ended = proxy.child.try_wait().unwrap();
            assert!(ended.is_none(), "{name} ended: {ended:?}\n{}", proxy.logs());
            proxy.addresses.iter().all(|address| TcpStream::connect(address).is_ok()).then_some(())
        });
        proxy
    }

    fn logs(&self) -> String {
        ["output.log", "error.log"].map(|name| self.read(name)).join("\n")
    }

    fn read(&self, name: &str) -> String {
        let bytes = std::fs::read(self.dir.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The targets that nginx read behind the gateway, and the path that it took each for.
    pub(crate) fn paths_read(&self) -> Vec<(String, String)> {
        let log = self.read("paths.log");
        let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        lines.map(|line| (text(&line["target"]), text(&line["path"]))).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may be gone already; either way it is not running afterwards.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Different ports, free a moment ago.
fn free_addresses(count: usize) -> Vec<SocketAddr> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap()).collect()
}

/// One process, so that ending it by its id ends all of it. What other requests did to a connection must not end it
/// under the next case, so connections are kept for as long as the test runs.
fn nginx_config(dir: &Path, addresses: &[SocketAddr], upstreams: &[SocketAddr]) -> String {
    let dir = dir.display();
    let places: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {dir}/{kind};\n"))
        .concat();
    let mut text = format!(
        r#"daemon off;
master_process off;
pid {dir}/nginx.pid;
events {{ worker_connections 1024; }}
http {{
{places}
log_format paths escape=json '{{"target":"$request_uri","path":"$uri"}}';
access_log {dir}/paths.log paths if=$http_x_real_ip;
keepalive_requests 1000000;
keepalive_timeout 600s;
proxy_http_version 1.1;
proxy_set_header Connection "";
proxy_next_upstream off;
"#
    );
    for (lane, (address, upstream)) in addresses.iter().zip(upstreams).enumerate() {
        text += &format!(
            "upstream lane{lane} {{ server {upstream} max_fails=0; keepalive 8; }}\n\
             server {{ listen {address}; location / {{ proxy_pass http://lane{lane}; }} }}\n"
        );
    }
    text + "}\n"
}

fn haproxy_config(addresses: &[SocketAddr], upstreams: &[SocketAddr]) -> String {
    let mut text = "defaults\nmode http\nretries 0\ntimeout connect 5s\ntimeout client 600s\n\
                    timeout server 600s\ntimeout http-keep-alive 600s\n"
        .to_owned();
    for (lane, (address, upstream)) in addresses.iter().zip(upstreams).enumerate() {
        text += &format!("listen lane{lane}\nbind {address}\nserver recorder {upstream}\n");
    }
    text
}
