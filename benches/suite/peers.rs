//! Servers of others to compare with, started from Debian's packages with what a fair comparison needs.
//!
//! Connections stay open on both sides and nothing is logged, unless that is the case's point. Redis keeps what it
//! acknowledges; its append-only file is not rewritten during the run, since that would be another process's time.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::ensure;

use crate::lab::{Lab, START_WAIT};
use crate::machine::{has, nginx};
use crate::server::{Probe, Server, free_address};
use crate::turns::Part;

/// What to do when a peer is not there.
const INSTALL: &str = "make bench installs it where it runs as root";

/// nginx with one worker, as proxy in three ways; its stub is another one.
pub(crate) struct Nginx {
    server: Server,
    stub: Server,
    /// Proxies and nothing else.
    pub(crate) plain: SocketAddr,
    /// Proxies and logs each request.
    pub(crate) logged: SocketAddr,
    /// Proxies after it has asked the stub about each request.
    pub(crate) asking: SocketAddr,
}

impl Nginx {
    /// Starts both.
    ///
    /// # Errors
    /// When nginx is not installed or does not start.
    pub(crate) async fn start(lab: &Lab, origin: SocketAddr) -> anyhow::Result<Self> {
        ensure!(has("nginx"), "nginx is not installed: {INSTALL}");
        let (plain, logged, asking) = (free_address()?, free_address()?, free_address()?);
        let asked = free_address()?;
        let stub = format!("server {{ listen {asked}; location / {{ return 200; }} }}");
        let proxies = format!(
            "upstream origin {{ server {origin}; keepalive 128; keepalive_requests 1000000000; }}
             upstream stub {{ server {asked}; keepalive 128; keepalive_requests 1000000000; }}
             proxy_http_version 1.1;
             proxy_set_header Connection \"\";
             server {{ listen {plain}; location / {{ proxy_pass http://origin; }} }}
             server {{ listen {logged}; access_log access.log; location / {{ proxy_pass http://origin; }} }}
             server {{
               listen {asking};
               location / {{ auth_request /auth; proxy_pass http://origin; }}
               location = /auth {{
                 internal;
                 proxy_pass http://stub/auth;
                 proxy_pass_request_body off;
                 proxy_set_header Connection \"\";
                 proxy_set_header Content-Length \"\";
                 proxy_set_header X-Original-URI $request_uri;
               }}
             }}"
        );
        let mut stub = start_nginx(lab, "nginx-stub", &stub)?;
        let mut server = start_nginx(lab, "nginx", &proxies)?;
        // It listens before it has its worker, which is to be counted: only an answer tells.
        let answers = |address| Probe::Answers { address, host: "nginx", target: "/" };
        stub.wait(START_WAIT, answers(asked)).await?;
        server.wait(START_WAIT, answers(plain)).await?;
        Ok(Self { server, stub, plain, logged, asking })
    }

    /// For summing its CPU time.
    pub(crate) fn part(&self) -> Part {
        Part { name: "nginx", processes: self.server.processes() }
    }

    /// For summing the stub's CPU time.
    pub(crate) fn stub_part(&self) -> Part {
        Part { name: "stub", processes: self.stub.processes() }
    }
}

fn start_nginx(lab: &Lab, name: &str, servers: &str) -> anyhow::Result<Server> {
    let folder = lab.path(name);
    std::fs::create_dir_all(&folder)?;
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {kind};\n"))
        .concat();
    // Errors go to standard error, so that they end up in the log that is shown when it does not start.
    let text = format!(
        "daemon off; worker_processes 1; pid nginx.pid; error_log stderr error;
         events {{ worker_connections 4096; }}
         http {{ access_log off; keepalive_requests 1000000000; {temporary} {servers} }}"
    );
    let config = lab.write(&format!("{name}/nginx.conf"), &text)?;
    let (folder, config) = (folder.display().to_string(), config.display().to_string());
    lab.start(name, Path::new(nginx()), &["-p", &folder, "-c", &config, "-e", "stderr"])
}

/// A private Redis.
pub(crate) struct Redis {
    server: Server,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Redis {
    /// Starts one.
    ///
    /// # Errors
    /// When Redis is not installed or does not start.
    pub(crate) async fn start(lab: &Lab, name: &str) -> anyhow::Result<Self> {
        ensure!(has("redis-server"), "redis-server is not installed: {INSTALL}");
        let address = free_address()?;
        let folder = lab.path(name);
        std::fs::create_dir_all(&folder)?;
        let (port, folder) = (address.port().to_string(), folder.display().to_string());
        let arguments = [
            ["--port", &port],
            ["--bind", "127.0.0.1"],
            ["--dir", &folder],
            ["--save", ""],
            ["--appendonly", "yes"],
            ["--appendfsync", "everysec"],
            ["--auto-aof-rewrite-percentage", "0"],
            ["--maxmemory-policy", "noeviction"],
        ];
        let mut server = lab.start(name, Path::new("redis-server"), arguments.as_flattened())?;
        server.wait(START_WAIT, Probe::Listens(address)).await?;
        Ok(Self { server, address })
    }

    /// For summing its CPU time.
    pub(crate) fn part(&self) -> Part {
        Part { name: "redis", processes: self.server.processes() }
    }
}
