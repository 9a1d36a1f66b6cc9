//! The protocols that load travels by: HTTP/1.1 and HTTP/2, with TLS and without, and gRPC through a gateway.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use weir_tests::certificates::Authority;
use weir_tests::stack::{Plan, Stack};
use weir_tests::wait::free_port;

use crate::world::Desk;

const CATALOG: &str = r#"
revision = 1
[[providers]]
name = "Load tests"
[[providers.services]]
id = "plain"
credentials = "app_id_and_key"
metrics = [{ name = "hits" }]
mapping_rules = [{ method = "ANY", pattern = "/", metrics = { hits = 1 } }]
proxy = { hosts = ["plain.test"], api_backend = "{upstream}", credentials_location = "authorization" }
plans = [{ id = "plan" }]
applications = [{ id = "app", plan = "plan", app_keys = ["key"] }]
[[providers.services]]
id = "rpc"
metrics = [{ name = "hits" }]
mapping_rules = [{ method = "POST", pattern = "/grpc.health.v1.Health/Check", metrics = { hits = 1 } }]
proxy = { hosts = ["rpc.test"], api_backend = "{health}", credentials_location = "headers" }
plans = [{ id = "plan", limits = [{ metric = "hits", period = "year", max = 30 }] }]
applications = [{ id = "app", plan = "plan", user_key = "key" }]
"#;

const PLAIN: &str = r#"
[[services]]
id = "plain"
host = "plain.test"
credentials_location = "authorization"
applications = [{ id = "app", app_key = "key" }]
requests = [
  { path = "/a", weight = 3, usage = { hits = 1 }, expect = "200" },
  { path = "/b", body = '{"n": {1..9}}', usage = { hits = 1 } },
]
"#;

const RPC: &str = r#"
[[services]]
id = "rpc"
host = "rpc.test"
credentials_location = "headers"
applications = [{ id = "app", user_key = "key" }]
requests = [{ grpc = "grpc.health.v1.Health/Check", usage = { hits = 1 } }]
"#;

/// A health service, as tonic has it.
async fn health() -> SocketAddr {
    let (_, service) = tonic_health::server::health_reporter();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

/// Goal: whatever the protocol, all requests are answered and counted. Method: one gateway with a plain and a TLS port,
/// a service behind it that speaks HTTP/1.1 and one that speaks gRPC; the listener wants certificates.
#[tokio::test(flavor = "multi_thread")]
async fn all_protocols_carry_load() {
    let (desk, authority, secure) = (Desk::new(), Authority::new(), free_port());
    let certificate = authority.issue("gateway.test");
    let ca = desk.put("ca.pem", &authority.pem());
    let (pem, key) = (desk.put("server.pem", &certificate.pem), desk.put("server.key", &certificate.key_pem));
    let gateway_lines = format!(
        "[tls]\naddress = \"127.0.0.1:{secure}\"\n\
         certificates = [{{ certificate_file = \"{pem}\", key_file = \"{key}\" }}]\n\
         [listener_tls]\nca_file = \"{ca}\"\nserver_name = \"gateway.test\"\n\
         certificate_file = \"{pem}\"\nkey_file = \"{key}\""
    );
    let listener_tables =
        format!("[grpc_tls]\ncertificate_file = \"{pem}\"\nkey_file = \"{key}\"\nclient_ca_file = \"{ca}\"");
    let catalog = CATALOG.replace("{health}", &format!("http://{}", health().await));
    let plan = Plan { tls_between: true, gateway_lines, listener_tables, ..Plan::small(&catalog) };
    let stack = Stack::start(&plan).await;
    let clear = format!("http://{}", stack.gateways[0].address);
    let secure = format!("https://127.0.0.1:{secure}");
    let check = format!("https://{}", stack.listeners[0].address);
    let plain = desk.put("plain.toml", PLAIN);
    let common = [
        &[
            "--rate",
            "200",
            "--for",
            "250ms",
            "--seed",
            "7",
            "--ca",
            &ca,
            "--certificate",
            &pem,
            "--key",
            &key,
        ][..],
        &["--check-usage", &check, "--listener-name", "gateway.test"],
    ]
    .concat();
    let tls = ["--server-name", "gateway.test", "--fail-if", "errors>0"];
    for (target, more, protocol) in [
        (&clear, &["--http2", "--fail-if", "errors>0"][..], "HTTP/2"),
        (&secure, &tls, "HTTP/1.1"),
        (&secure, &[&tls[..], &["--http2", "--arrivals", "poisson", "--threads", "2"]].concat(), "HTTP/2"),
    ] {
        let run = desk.load(&[&[target.as_str(), "--mix", &plain], &common[..], more].concat()).ended(0);
        assert_eq!(run.value("/protocol"), protocol);
        assert_eq!(run.value("/usage/exact"), true);
        assert_eq!(run.number("/stages/0/classes/ok"), run.number("/stages/0/due"));
        let [often, seldom] = [0, 1].map(|at| run.number(&format!("/calls/{at}/answered")));
        assert!(often > seldom && seldom > 0.0, "{often} and {seldom}");
    }
    let stranger = desk.load(&[&secure, "--mix", &plain, "--rate", "1", "--ca", &ca]).ended(1);
    assert!(stranger.err.contains("certificate"), "{}", stranger.err);

    let both = desk.put("both.toml", &format!("{PLAIN}{RPC}"));
    let run = desk.load(&[&[clear.as_str(), "--mix", &both], &common[..]].concat()).ended(0);
    let used = run.number("/calls/2/answers/OK");
    assert_eq!(used, run.number("/calls/2/answered").min(30.0));
    let rpc = desk.put("rpc.toml", RPC);
    let run = desk.load(&[&[clear.as_str(), "--mix", &rpc], &common[..]].concat()).ended(0);
    assert_eq!(run.number("/stages/0/answers/RESOURCE_EXHAUSTED"), 50.0 - (30.0 - used));
    assert_eq!(run.value("/usage/exact"), true);

    let decisions = format!("grpcs://{}", stack.listeners[0].address);
    let run = desk.load(&[&[decisions.as_str(), "--mix", &plain], &common[..], &tls].concat()).ended(0);
    assert_eq!(run.number("/stages/0/answers/allowed"), 50.0);
}
