//! Requests that are none, or that two servers would read differently: refused, nothing asked, nothing sent.
//!
//! The details are in `protocols/framing.rs`; here is what becomes of them as calls.

use crate::world::{PLAIN, World};

/// What follows the request line.
const REST: &str = "Host: plain.test\r\nConnection: close\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_go_nowhere() {
    let world = World::start(&[PLAIN]).await;
    lines(&world);
    headers(&world);
    framing(&world);
    trace(&world);
    assert_eq!(world.stack.upstream.received(), 0);
    assert!(world.used("plain").await.is_empty());
    world.check("PURGE plain.test/?user_key={key}", "200");
    world.finish();
}

fn lines(world: &World) {
    for line in [
        "nonsense",
        "GET",
        "GET /?user_key={key}",
        "GET /?user_key={key} HTTPS/1.1",
        "GET / ?user_key={key} HTTP/1.1",
        "GET relative?user_key={key} HTTP/1.1",
        "GET * HTTP/1.1",
        "G@T /?user_key={key} HTTP/1.1",
        "GET /\u{1}?user_key={key} HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "CONNECT plain.test:443 HTTP/1.1",
        "get /?user_key={key} HTTP/1.1",
        "GET /#?user_key={key} HTTP/1.1",
    ] {
        let answer = world.raw(&format!("{line}\r\n{REST}\r\n"));
        assert_eq!(answer.status, 400, "{line:?}: {answer:?}");
    }
    for version in ["HTTP/9.9", "HTTP/2.0"] {
        let answer = world.raw(&format!("GET /?user_key={{key}} {version}\r\n{REST}\r\n"));
        assert_eq!(answer.status, 505, "{version}: {answer:?}");
    }
}

fn headers(world: &World) {
    for header in [
        "No colon",
        "Blank : before",
        ": nameless",
        "Na me: x",
        " folded: x",
        "Nul: a\0b",
        "Lone: a\rb",
        "Na\u{e9}me: x",
    ] {
        let answer = world.raw(&format!("GET /?user_key={{key}} HTTP/1.1\r\n{REST}{header}\r\n\r\n"));
        assert_eq!(answer.status, 400, "{header:?}: {answer:?}");
    }
}

/// Two ways to read where a body ends are one too many.
fn framing(world: &World) {
    for (headers, status) in [
        ("Content-Length: 4\r\nContent-Length: 5", 400),
        ("Content-Length: 4, 5", 400),
        ("Content-Length: -1", 400),
        ("Content-Length: +4", 400),
        ("Content-Length: x", 400),
        ("Content-Length: 99999999999999999999999", 400),
        ("Content-Length: 3\r\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding: gzip", 501),
        ("Transfer-Encoding: chunked, gzip", 400),
        ("Transfer-Encoding: gzip, chunked", 501),
        ("Transfer-Encoding: chunked, chunked", 400),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding: xchunked", 501),
    ] {
        let head = format!("POST /?user_key={{key}} HTTP/1.1\r\n{REST}{headers}\r\n\r\n");
        let answer = world.raw(&format!("{head}4\r\nbody\r\n0\r\n\r\n"));
        assert_eq!(answer.status, status, "{headers:?}: {answer:?}");
    }
}

fn trace(world: &World) {
    let answer = world.call("TRACE plain.test/?user_key={key}");
    assert_eq!((answer.status, answer.header("allow").contains("GET")), (405, true));
}
