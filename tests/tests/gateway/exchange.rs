//! Bodies stream both ways, and answers keep their shape.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use weir_tests::http::read_answer;
use weir_tests::scripted::Scripted;

use crate::world::{Api, KEY, PLAIN, World};

#[tokio::test(flavor = "multi_thread")]
async fn bodies_stream_and_answers_keep_their_shape() {
    let (go, held) = channel();
    let held = holding(held);
    let (seen, arrivals) = channel();
    let swallowing = swallowing(seen);
    let shapes = shapes();
    let urls = [&held, &swallowing, &shapes].map(Scripted::url);
    let world = World::start(&[
        PLAIN,
        Api { id: "held", backend: &urls[0], ..PLAIN },
        Api { id: "swallow", backend: &urls[1], ..PLAIN },
        Api { id: "shapes", backend: &urls[2], ..PLAIN },
    ])
    .await;
    let gateway = world.stack.gateways[0].address;
    answers_start_before_they_end(gateway, &go);
    requests_start_before_they_end(gateway, &arrivals);
    bodiless_answers(&world);
    continues(gateway);
    old_clients(&world);
    connections_are_kept(gateway);
    world.finish();
}

fn begin(gateway: SocketAddr, head: &str) -> TcpStream {
    let mut stream = TcpStream::connect(gateway).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(15))).unwrap();
    stream.write_all(head.replace("{key}", KEY).as_bytes()).unwrap();
    stream
}

/// Sends the first piece, and the last when told.
fn holding(go: Receiver<()>) -> Scripted {
    let go = Mutex::new(go);
    Scripted::start(move |mut exchange| {
        exchange
            .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nfirst\r\n");
        go.lock().unwrap().recv().unwrap();
        exchange.send("4\r\nlast\r\n0\r\n\r\n");
    })
}

fn answers_start_before_they_end(gateway: SocketAddr, go: &Sender<()>) {
    let mut stream = begin(gateway, "GET /?user_key={key} HTTP/1.1\r\nHost: held.test\r\n\r\n");
    let (mut text, mut buffer) = (String::new(), [0; 1024]);
    while !text.contains("first") {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "ended early: {text}");
        text += std::str::from_utf8(&buffer[..count]).unwrap();
    }
    assert!(!text.contains("last"), "{text}");
    go.send(()).unwrap();
    while !text.ends_with("0\r\n\r\n") {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "ended early: {text}");
        text += std::str::from_utf8(&buffer[..count]).unwrap();
    }
    assert!(text.contains("last"), "{text}");
}

/// Tells how much of the body has come, piece by piece, and answers at its end.
fn swallowing(arrivals: Sender<usize>) -> Scripted {
    let arrivals = Mutex::new(arrivals);
    Scripted::start(move |mut exchange| {
        let (mut count, mut end) = (0, Vec::new());
        while !end.ends_with(b"\r\n0\r\n\r\n") {
            let piece = exchange.receive();
            if piece.is_empty() {
                return;
            }
            count += piece.iter().filter(|byte| **byte == b'x').count();
            end.extend_from_slice(&piece);
            end.drain(..end.len().saturating_sub(7));
            let _ = arrivals.lock().unwrap().send(count);
        }
        let body = count.to_string();
        let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length:";
        exchange.send(&format!("{head} {}\r\n\r\n{body}", body.len()));
    })
}

/// The upstream has the first piece while the client still holds the rest, which is larger than any buffer.
fn requests_start_before_they_end(gateway: SocketAddr, arrivals: &Receiver<usize>) {
    const PIECE: usize = 1 << 20;
    const PIECES: usize = 48;
    let head = "POST /?user_key={key} HTTP/1.1\r\nHost: swallow.test\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n";
    let mut stream = begin(gateway, head);
    assert_eq!(arrivals.recv_timeout(std::time::Duration::from_secs(10)), Ok(1));
    let piece = format!("{PIECE:x}\r\n{}\r\n", "x".repeat(PIECE));
    for _ in 0..PIECES {
        stream.write_all(piece.as_bytes()).unwrap();
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    let answer = read_answer(&mut stream, false);
    assert_eq!((answer.status, answer.body), (200, (PIECE * PIECES + 1).to_string()));
}

/// Answers with the status that the path says.
fn shapes() -> Scripted {
    Scripted::start(|mut exchange| {
        let path = exchange.head.split(['/', '?']).nth(1).unwrap_or_default();
        let rest = match path {
            "204" => "204 No Content\r\n\r\n",
            "304" => "304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 77\r\n\r\n",
            "302" => "302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n",
            "head" => "200 OK\r\nContent-Length: 77\r\nX-Head: 1\r\n\r\n",
            "early" => {
                "103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly"
            }
            "close" => "200 OK\r\n\r\nuntil the end",
            _ => "299 Odd\r\nContent-Length: 3\r\n\r\nodd",
        };
        exchange.send(&format!("HTTP/1.1 {}", rest.replacen("\r\n", "\r\nConnection: close\r\n", 1)));
    })
}

fn bodiless_answers(world: &World) {
    let call = |method: &str, path: &str| {
        let answer = world.call(&format!("{method} shapes.test/{path}?user_key={{key}}"));
        let length = answer.header("content-length");
        (answer.status, length, answer.header("transfer-encoding"), answer.body)
    };
    let expected =
        |status: u16, length: &str, body: &str| (status, length.to_owned(), String::new(), body.to_owned());
    assert_eq!(call("GET", "204"), expected(204, "", ""));
    assert_eq!(call("GET", "304"), expected(304, "", ""));
    assert_eq!(call("GET", "302"), expected(302, "0", ""));
    assert_eq!(call("HEAD", "head"), expected(200, "77", ""));
    assert_eq!(call("GET", "early"), expected(200, "5", "early"));
    assert_eq!(call("GET", "odd"), expected(299, "3", "odd"));
    let (status, _, _, body) = call("GET", "close");
    assert_eq!((status, body.as_str()), (200, "until the end"));
    let refused = world.raw("HEAD /none HTTP/1.1\r\nHost: shapes.test\r\nConnection: close\r\n\r\n");
    assert_eq!((refused.status, refused.header("content-length").as_str()), (401, "33"));
}

/// A client that asks first is told to go on, and one that is refused is not.
fn continues(gateway: SocketAddr) {
    let head = "Host: plain.test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    let mut stream = begin(gateway, &format!("POST /?user_key={{key}} HTTP/1.1\r\n{head}"));
    assert_eq!(read_answer(&mut stream, false).status, 100);
    stream.write_all(b"body").unwrap();
    let answer = read_answer(&mut stream, false);
    assert_eq!((answer.status, &answer.json()["body"]), (200, &"body".into()));
    let mut stream = begin(gateway, &format!("POST / HTTP/1.1\r\n{head}"));
    assert_eq!(read_answer(&mut stream, false).status, 401);
}

fn old_clients(world: &World) {
    let get = |host: &str, more: &str| {
        world.raw(&format!("GET /close?user_key={{key}} HTTP/1.0\r\nHost: {host}.test\r\n{more}\r\n"))
    };
    let answer = get("shapes", "");
    assert_eq!((answer.status, answer.body.as_str()), (200, "until the end"));
    assert_eq!(answer.header("transfer-encoding"), "");
    let answer = get("plain", "Connection: keep-alive\r\n");
    assert_eq!((answer.status, &answer.json()["method"]), (200, &"GET".into()));
}

/// Each request of a connection finds its own service, whatever the one before it came to.
fn connections_are_kept(gateway: SocketAddr) {
    let mut stream = TcpStream::connect(gateway).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(15))).unwrap();
    for (request, status) in [
        ("GET /?user_key={key} HTTP/1.1\r\nHost: plain.test\r\n\r\n", 200),
        ("GET /odd?user_key={key} HTTP/1.1\r\nHost: shapes.test\r\n\r\n", 299),
        ("POST / HTTP/1.1\r\nHost: plain.test\r\nContent-Length: 4\r\n\r\nbody", 401),
        ("GET /?user_key={key} HTTP/1.1\r\nHost: other.test\r\n\r\n", 404),
        ("POST /?user_key={key} HTTP/1.1\r\nHost: plain.test\r\nContent-Length: 4\r\n\r\nbody", 200),
        ("GET /?user_key=wrong-s3cret HTTP/1.1\r\nHost: shapes.test\r\n\r\n", 403),
        ("GET /204?user_key={key} HTTP/1.1\r\nHost: shapes.test\r\n\r\n", 204),
        ("HEAD /head?user_key={key} HTTP/1.1\r\nHost: shapes.test\r\n\r\n", 200),
        ("GET /?user_key={key} HTTP/1.1\r\nHost: plain.test\r\n\r\n", 200),
    ] {
        stream.write_all(request.replace("{key}", KEY).as_bytes()).unwrap();
        let answer = read_answer(&mut stream, request.starts_with("HEAD"));
        assert_eq!(answer.status, status, "{request:?}: {answer:?}");
    }
}
