//! Two other people's servers: nginx and HAProxy as Debian ships them, plain reverse proxies with kept connections.
//!
//! Each has a port per lane, which leads to that lane's own recorder, so what arrives there came through it. nginx
//! also writes down how it read each path that came through the gateway: it decodes paths, HAProxy does not.

use std::net::SocketAddr;
use std::path::Path;

use weir_tests::foreign::{Foreign, free_addresses};

/// Starts nginx in front of these upstreams.
pub(crate) fn nginx(upstreams: &[SocketAddr]) -> Foreign {
    let addresses = free_addresses(upstreams.len());
    Foreign::nginx(addresses.clone(), |dir| nginx_config(dir, &addresses, upstreams))
}

/// Starts HAProxy in front of these upstreams.
pub(crate) fn haproxy(upstreams: &[SocketAddr]) -> Foreign {
    let addresses = free_addresses(upstreams.len());
    let config = haproxy_config(&addresses, upstreams);
    Foreign::haproxy(addresses, &config)
}

/// The targets that nginx read behind the gateway, and the path that it took each for.
pub(crate) fn paths_read(nginx: &Foreign) -> Vec<(String, String)> {
    let log = nginx.read("paths.log");
    let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    lines.map(|line| (text(&line["target"]), text(&line["path"]))).collect()
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
