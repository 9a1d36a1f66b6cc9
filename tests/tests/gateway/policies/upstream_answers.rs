//! `upstream_timeouts` and `status_overwrite`: how long an answer may take, and what the client is told of it.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::policies::{api, code, comes_to, judge, proxy};
use crate::world::{Api, KEY, World};

const FAST: &str = r#"{ policy = "upstream_timeouts", response_ms = 200, when = { paths = "/fast" }, unless = { methods = "POST" } }"#;
const SLOW: &str = r#"{ policy = "upstream_timeouts", response_ms = 20000, when = { paths = "/slow" } }"#;

const TOLD: &str = r#"{ policy = "status_overwrite", statuses = [
    { from = ["503", "401"], to = 418 },
    { from = "5xx", to = 500 },
    { from = ["404", "410"], to = 200 },
    { from = "201", to = 500 },
    { from = "204", to = 200 },
], unless = { paths = "/as-it-is" } }"#;

const RULES: &str =
    r#"{ method = "ANY", pattern = "/", metrics = { hits = 1 }, free_answers = ["5xx", "404"] }"#;

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_waited_for_as_long_as_is_said() {
    let fast = proxy(FAST);
    let slow = format!("{}\ntimeouts = {{ response_ms = 200 }}", proxy(SLOW));
    let world = World::start(&[api("fast", &fast), api("slow", &slow)]).await;
    for (call, expected) in [
        ("GET fast.test/fast/x?user_key={key}|x-delay-ms: 5000", "504 upstream_timeout"),
        ("GET fast.test/fast?user_key={key}", "200"),
        ("POST fast.test/fast?user_key={key}|x-delay-ms: 800", "200"),
        ("GET fast.test/other?user_key={key}|x-delay-ms: 800", "200"),
        ("GET slow.test/slow?user_key={key}|x-delay-ms: 800", "200"),
        ("GET slow.test/other?user_key={key}|x-delay-ms: 5000", "504 upstream_timeout"),
    ] {
        assert_eq!(code(&world, call), expected, "{call}");
    }
    world.check("GET fast.test/fast?user_key={key}|x-delay-ms: 5000", "504 The API did not answer in time.");
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_told_another_status() {
    let told = proxy(TOLD);
    let synchronous = format!("{told}\ndecisions = \"synchronous\"");
    let ruled = |id, proxy| Api { rules: RULES, ..api(id, proxy) };
    let world = World::start(&[
        ruled("told", &told),
        ruled("synchronous", &synchronous),
        Api { backend: "http://127.0.0.1:1", ..ruled("away", &told) },
    ])
    .await;
    for service in ["told", "synchronous"] {
        statuses(&world, service).await;
    }
    // What the gateway says itself stays.
    judge(
        &world,
        "told",
        &[("GET /", "401 credentials_missing"), ("GET /?user_key=wrong-s3cret", "403 user_key_invalid")],
    )
    .await;
    assert_eq!(code(&world, "GET away.test/?user_key={key}"), "502 upstream_unreachable");
    answers_stay_in_step(&world);
    world.finish();
}

/// What a call costs goes by what the upstream said.
async fn statuses(world: &World, service: &str) {
    let mut used = 0;
    for (path, upstream, expected, cost) in [
        ("/", "200", 200, 1),
        ("/", "503", 418, 0),
        ("/", "401", 418, 1),
        ("/", "502", 500, 0),
        ("/", "404", 200, 0),
        ("/", "410", 200, 1),
        ("/", "201", 500, 1),
        ("/", "403", 403, 1),
        ("/as-it-is", "503", 503, 0),
        ("/as-it-is/x", "410", 410, 1),
    ] {
        let answer = world.call(&format!("GET {service}.test{path}?user_key={{key}}|x-status: {upstream}"));
        assert_eq!(answer.status, expected, "{service} {path} {upstream}");
        // The rest of the answer is the upstream's.
        assert_eq!(answer.json()["method"], "GET", "{upstream}");
        assert_eq!(answer.header("content-type"), "application/json");
        used += cost;
        comes_to(world, service, "app", used).await;
    }
}

/// Goal: what was told of a body is so, where the upstream's status has none. Method: a second
/// request on the same connection is answered behind the first, with nothing between them.
fn answers_stay_in_step(world: &World) {
    for (upstream, told) in [(204, 200)] {
        let mut client = TcpStream::connect(world.stack.gateways[0].address).unwrap();
        for (status, connection) in [(upstream, "keep-alive"), (418, "close")] {
            let head = format!("GET /?user_key={KEY} HTTP/1.1\r\nHost: told.test\r\nx-status: {status}\r\n");
            write!(client, "{head}x-body-bytes: 3\r\nConnection: {connection}\r\n\r\n").unwrap();
        }
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        let (first, behind) = text.split_once("\r\n\r\n").unwrap();
        assert!(first.starts_with(&format!("HTTP/1.1 {told} ")), "{text}");
        assert!(behind.starts_with("HTTP/1.1 418 ") && behind.ends_with("\r\n\r\nxxx"), "{text}");
        let length = first
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned));
        assert_eq!(length.as_deref(), (told == 200).then_some("0"), "{text}");
    }
}
