//! `weir demo`, as a newcomer and as a script meet it.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use weir_tests::http::call;
use weir_tests::process::{Process, weir};
use weir_tests::redis::RedisServer;
use weir_tests::wait::until;

/// The demo's ports without an offset.
const PORTS: [u16; 8] = [8080, 8081, 8090, 8091, 8110, 9080, 9081, 9090];

/// An offset at which all ports are free; each story begins its search elsewhere.
fn free_offset(from: u16) -> u16 {
    let free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    (from..from + 2_000)
        .step_by(37)
        .find(|offset| PORTS.iter().all(|port| free(port + offset)))
        .expect("loopback has eight free ports")
}

/// Goal: the example's story holds, on whatever store. Method: the demo tells it about itself.
fn the_story_holds(offset: u16, more: &[&str]) {
    let offset = offset.to_string();
    let told = weir(&[&["demo", "--check", "--port-offset", &offset], more].concat());
    let text = String::from_utf8_lossy(&told.stdout);
    assert!(told.status.success(), "{text}{}", String::from_utf8_lossy(&told.stderr));
    assert!(text.ends_with("all steps passed\n"), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("ok ")).count(), 6, "{text}");
}

#[test]
fn the_story_holds_on_the_embedded_store() {
    the_story_holds(free_offset(20_000), &[]);
}

#[test]
fn the_story_holds_on_redis() {
    let redis = RedisServer::start();
    the_story_holds(free_offset(24_000), &["--store", &redis.url()]);
}

/// Goal: a script finds everything in demo.json once it is there. Method: call what it names; then stop the demo.
#[test]
fn a_script_finds_its_way_by_demo_json() {
    let dir = tempfile::tempdir().unwrap();
    let offset = free_offset(28_000).to_string();
    let data_dir = dir.path().join("data");
    let arguments = ["demo", "--port-offset", &offset, "--data-dir", data_dir.to_str().unwrap()];
    let mut demo = Process::start(&arguments, &dir.path().join("log"));
    let value = until("demo.json", || read_json(&data_dir.join("demo.json")));
    let gateway = value["gateway"]["production"].as_str().unwrap().strip_prefix("http://").unwrap();
    let host = value["gateway"]["host"].as_str().unwrap();
    let acme = value["applications"].as_array().unwrap().iter().find(|app| app["name"] == "acme").unwrap();
    let key = acme["app_keys"][0].as_str().unwrap();
    let target = format!("/v3/mail/send?api_user={}&api_key={key}", acme["app_id"].as_str().unwrap());
    let answer = call(gateway.parse().unwrap(), "POST", &target, &[("host", host)], "");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let limits = acme["limits"].as_array().unwrap();
    assert!(limits.iter().any(|limit| limit["metric"] == "mail" && limit["max"] == 10_000), "{limits:?}");
    for name in ["/listener/grpc", "/listener/http", "/upstream", "/telemetry/gateway", "/service_token"] {
        assert!(value.pointer(name).is_some_and(|found| found.is_string()), "{name}");
    }
    let telemetry = value["telemetry"]["gateway"].as_str().unwrap();
    let token_file = value["operator_token_file"].as_str().unwrap();
    let url = format!("http://{host}/v3/mail/send");
    let asked = [
        "explain",
        "POST",
        &url,
        "--application",
        "acme",
        "--gateway",
        telemetry,
        "--token-file",
        token_file,
    ];
    let explained = weir(&asked);
    let text = String::from_utf8_lossy(&explained.stdout);
    assert!(explained.status.success() && text.contains("mail_send 1, mail 1"), "{text}");
    assert!(demo.terminate().success());
    assert!(demo.log().contains("curl -i"), "what to try is printed: {}", demo.log());
    assert!(!demo.log().contains("WARN"), "a quiet stop: {}", demo.log());
}

fn read_json(path: &Path) -> Option<serde_json::Value> {
    serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
}
