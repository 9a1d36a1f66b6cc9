//! WebSocket and other protocols: an admitted call's connection becomes a tunnel.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use weir_tests::http::read_answer;
use weir_tests::scripted::Scripted;
use weir_tests::wait::until;

use crate::world::{Api, PLAIN, hits, start};

const WEBSOCKET: &str = "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Switches and echoes; or does what the path says.
fn upstream() -> Scripted {
    Scripted::start(|mut exchange| {
        let head = exchange.head.to_ascii_lowercase();
        if head.contains("/plain") || !head.contains("upgrade: websocket\r\n") {
            exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nplain");
            return;
        }
        let chosen = if head.contains("/other") { "other" } else { "websocket" };
        exchange.send(&format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: {chosen}\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nfirst"
        ));
        loop {
            let piece = exchange.receive();
            if piece.is_empty() {
                return;
            }
            exchange.send(&String::from_utf8(piece).unwrap());
        }
    })
}

fn ask(address: SocketAddr, target: &str, headers: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let host = if target.starts_with("/quiet") { "quiet.test" } else { "api.test" };
    let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

/// Reads one answer's head, byte by byte, so that nothing behind it is taken.
fn head(stream: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.extend_from_slice(&byte);
    }
    String::from_utf8(head).unwrap()
}

#[track_caller]
fn echoes(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).unwrap();
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(back, text.as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_become_tunnels() {
    let upstream = upstream();
    let quick = "timeouts = { connect_ms = 1000, response_ms = 1000, idle_ms = 300 }";
    let stack = start(
        &[
            Api { backend: &upstream.url(), ..PLAIN },
            Api { id: "quiet", backend: &upstream.url(), proxy: quick, ..PLAIN },
        ],
        "",
    )
    .await;
    let address = stack.gateways[0].address;
    let mut stream = ask(address, "/x?user_key=key", WEBSOCKET);
    let answer = head(&mut stream).to_ascii_lowercase();
    for line in
        ["http/1.1 101 ", "\r\nupgrade: websocket\r\n", "\r\nconnection: upgrade\r\n", "sec-websocket-accept"]
    {
        assert!(answer.contains(line), "{line}: {answer}");
    }
    let mut first = [0; 5];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"first", "what came with the head");
    echoes(&mut stream, "GET /x#a HTTP/1.1\r\n");
    echoes(&mut stream, &"y".repeat(300_000));
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0; 9]).unwrap(), 0, "the end passes, too");
    assert_eq!(hits(&stack, "api").await, 1);

    let mut refused = ask(address, "/x?user_key=wrong", WEBSOCKET);
    assert_eq!(read_answer(&mut refused, false).status, 403);
    let mut plain = ask(address, "/plain?user_key=key", WEBSOCKET);
    assert_eq!(read_answer(&mut plain, false).body, "plain");
    let mut other = ask(address, "/other?user_key=key", WEBSOCKET);
    assert_eq!(read_answer(&mut other, false).status, 502, "nobody asked for that");
    let mut hidden =
        ask(address, "/x?user_key=key", "Upgrade: h2c\r\nConnection: upgrade, http2-settings\r\n");
    assert_eq!(read_answer(&mut hidden, false).body, "plain", "no HTTP inside of a tunnel");

    let mut quiet = ask(address, "/quiet?user_key=key", WEBSOCKET);
    assert!(head(&mut quiet).contains(" 101 "));
    let began = Instant::now();
    while quiet.read(&mut [0; 9]).unwrap_or(0) > 0 {}
    assert!(began.elapsed() < Duration::from_secs(10), "a quiet tunnel ends");
}

/// Goal: a tunnel may go on while the gateway drains, until the deadline.
#[tokio::test(flavor = "multi_thread")]
async fn draining_ends_tunnels_at_the_deadline() {
    let upstream = upstream();
    let lines = "[limits]\ndrain_timeout_ms = 1500";
    let mut stack = start(&[Api { backend: &upstream.url(), ..PLAIN }], lines).await;
    let (address, telemetry) = (stack.gateways[0].address, stack.gateways[0].telemetry);
    let mut stream = ask(address, "/x?user_key=key", WEBSOCKET);
    assert!(head(&mut stream).contains(" 101 "));
    stream.read_exact(&mut [0; 5]).unwrap();
    let mut gateway = stack.gateways.remove(0);
    let stopping = std::thread::spawn(move || gateway.terminate());
    until("readiness to go", || (weir_tests::http::get(telemetry, "/readyz").status == 503).then_some(()));
    until("the socket to close", || TcpStream::connect(address).is_err().then_some(()));
    echoes(&mut stream, "still here");
    while stream.read(&mut [0; 9]).unwrap_or(0) > 0 {}
    assert!(stopping.join().unwrap().success());
}
