//! Requests that are none, or that two servers would read differently: 400, nothing asked, nothing sent.

use crate::world::{PLAIN, World, header_seen};

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
    chunks_beat_a_length(&world);
    world.check("PURGE plain.test/?user_key={key}", "200");
    world.finish();
}

fn lines(world: &World) {
    for line in [
        "nonsense",
        "GET",
        "GET /?user_key={key}",
        "GET /?user_key={key} HTTP/9.9",
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
        "PRI * HTTP/2.0",
    ] {
        let answer = world.raw(&format!("{line}\r\n{REST}\r\n"));
        assert_eq!(answer.status, 400, "{line:?}: {answer:?}");
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
    for headers in [
        "Content-Length: 4\r\nContent-Length: 5",
        "Content-Length: 4, 5",
        "Content-Length: -1",
        "Content-Length: +4",
        "Content-Length: x",
        "Content-Length: 99999999999999999999999",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: xchunked",
    ] {
        let head = format!("POST /?user_key={{key}} HTTP/1.1\r\n{REST}{headers}\r\n\r\n");
        let answer = world.raw(&format!("{head}4\r\nbody\r\n0\r\n\r\n"));
        assert_eq!(answer.status, 400, "{headers:?}: {answer:?}");
    }
}

/// As RFC 9112 has it: chunks say where the body ends, and the length goes no further.
fn chunks_beat_a_length(world: &World) {
    let head = "POST /?user_key={key} HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n";
    let answer = world.raw(&format!("{head}{REST}\r\n4\r\nbody\r\n0\r\n\r\n"));
    let seen = answer.json();
    assert_eq!((&seen["body"], header_seen(&seen, "content-length").as_str()), (&"body".into(), ""));
}

fn trace(world: &World) {
    let answer = world.call("TRACE plain.test/?user_key={key}");
    assert_eq!((answer.status, answer.header("allow").contains("GET")), (405, true));
}
