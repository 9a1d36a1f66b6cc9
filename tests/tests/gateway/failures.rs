//! Upstreams that are away, slow or broken: whose fault it is, and that the next request is none the worse.

use std::time::{Duration, Instant};

use weir_tests::scripted::Scripted;

use crate::world::{Api, PLAIN, World};

const QUICK: &str = "timeouts = { connect_ms = 300, response_ms = 300, idle_ms = 300 }";
const FAILED: &str = "502 The API gave no valid answer.";

#[tokio::test(flavor = "multi_thread")]
async fn upstreams_fail() {
    let broken = broken();
    let broken_url = broken.url();
    let api = |id| Api { id, proxy: QUICK, ..PLAIN };
    // Nobody listens on the port of tcpmux.
    let world = World::start(&[
        Api { backend: "http://127.0.0.1:1", ..api("closed") },
        api("slow"),
        Api { backend: &broken_url, ..api("broken") },
        Api { backend: &broken_url, ..api("patient") },
    ])
    .await;
    world.check("GET closed.test/?user_key={key}", "502 The API cannot be reached.");
    slow_heads(&world);
    broken_heads(&world);
    broken_bodies(&world);
    assert_eq!(world.used("closed").await.get("hits"), Some(&1), "what was admitted is counted");
    problems(&world);
    world.finish();
}

fn slow_heads(world: &World) {
    let start = Instant::now();
    world.check("GET slow.test/?user_key={key}|x-delay-ms: 10000", "504 The API did not answer in time.");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    world.check("GET slow.test/?user_key={key}|x-delay-ms: 1", "200");
}

fn broken_heads(world: &World) {
    for path in ["close", "garbage", "half", "switch", "long", "twice"] {
        world.check(&format!("GET broken.test/{path}?user_key={{key}}"), FAILED);
    }
    world.check("POST broken.test/close?user_key={key}|||body", FAILED);
    world.check("GET broken.test/fine?user_key={key}", "200");
}

/// The status is out already; the client must see that the end is missing.
fn broken_bodies(world: &World) {
    for path in ["cut", "cut-chunked", "stalled"] {
        let answer = world.call(&format!("GET broken.test/{path}?user_key={{key}}"));
        assert_eq!((answer.status, answer.header("x-whole").as_str()), (200, "no"), "{path}");
        assert!(answer.body.len() < 9, "{path}: {answer:?}");
    }
}

fn problems(world: &World) {
    let accept = "Accept: application/problem+json";
    for (request, status, code) in [
        ("GET closed.test/?user_key={key}", 502, "upstream_unreachable"),
        ("GET broken.test/close?user_key={key}", 502, "upstream_failed"),
        ("GET slow.test/?user_key={key}|x-delay-ms: 10000", 504, "upstream_timeout"),
    ] {
        let answer = world.call(&format!("{request}|{accept}"));
        assert_eq!((answer.status, &answer.json()["code"]), (status, &code.into()), "{request}");
    }
}

/// Breaks in the way that the path says.
fn broken() -> Scripted {
    Scripted::start(|mut exchange| {
        let path = exchange.head.split(['/', '?']).nth(1).unwrap_or_default().to_owned();
        let ok = "HTTP/1.1 200 OK\r\nX-Whole: no\r\n";
        exchange.send(&match path.as_str() {
            "garbage" => "SSH-2.0-nonsense\r\n\r\n".into(),
            "half" => "HTTP/1.1 200 OK\r\nContent-Le".into(),
            "switch" => {
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: foo\r\nConnection: upgrade\r\n\r\n".into()
            }
            "long" => format!("HTTP/1.1 200 OK\r\nX-Long: {}", "x".repeat(1 << 20)),
            "twice" => format!("{ok}Content-Length: 4\r\nContent-Length: 5\r\n\r\nbody"),
            "fine" => format!("{ok}Connection: close\r\nContent-Length: 4\r\n\r\nbody"),
            "cut" | "stalled" => format!("{ok}Content-Length: 9\r\n\r\nbody"),
            "cut-chunked" => format!("{ok}Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n"),
            _ => String::new(),
        });
        if path == "stalled" {
            // Until the gateway has had enough.
            exchange.receive();
        }
    })
}
