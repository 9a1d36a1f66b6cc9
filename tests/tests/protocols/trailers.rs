//! What is said behind a body arrives, both ways, over HTTP/1 and HTTP/2.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use weir_tests::scripted::Scripted;

use crate::world::{Api, Http2, PLAIN, start};

/// Answers with a trailer, and tells each request's head and body as they came.
fn upstream() -> (Scripted, Receiver<String>) {
    let (tell, told) = channel();
    let upstream = Scripted::start(move |mut exchange| {
        let mut request = exchange.head.clone();
        if request.contains("chunked") {
            while !request.contains("\r\n0\r\n") || !request.ends_with("\r\n\r\n") {
                let piece = exchange.receive();
                if piece.is_empty() {
                    break;
                }
                request += &String::from_utf8(piece).unwrap();
            }
        }
        tell.send(request).unwrap();
        exchange.send(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\nConnection: close\r\n\r\n\
             5\r\nhello\r\n0\r\nX-Sum: 7\r\n\r\n",
        );
    });
    (upstream, told)
}

fn http1(address: SocketAddr, headers: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let head = format!("POST /x?user_key=key HTTP/1.1\r\nHost: api.test\r\n{headers}\r\n{body}");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_pass() {
    let (upstream, told) = upstream();
    let secret = "secret_token = \"sesame\"\nsecret_token_header = \"X-Secret\"";
    let stack = start(&[Api { backend: &upstream.url(), proxy: secret, ..PLAIN }], "").await;
    let address = stack.gateways[0].address;

    let answer = http1(address, "TE: trailers\r\nConnection: close, TE\r\nContent-Length: 0\r\n", "");
    assert!(answer.ends_with("5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n"), "{answer}");
    assert!(told.recv().unwrap().contains("te: trailers\r\n"));
    let answer = http1(address, "Connection: close\r\nContent-Length: 0\r\n", "");
    assert!(answer.ends_with("5\r\nhello\r\n0\r\n\r\n"), "who does not ask gets none: {answer}");
    assert!(!told.recv().unwrap().contains("te: trailers"));

    let chunked = "Transfer-Encoding: chunked\r\nTrailer: X-Check, X-Secret\r\nConnection: close\r\n";
    http1(address, chunked, "2\r\nhi\r\n0\r\nX-Check: 1\r\nX-Secret: mine\r\n\r\n");
    let request = told.recv().unwrap();
    assert!(request.ends_with("\r\nhi\r\n0\r\nx-check: 1\r\n\r\n"), "{request}");
    assert!(request.contains("x-secret: sesame") && !request.contains("mine"), "{request}");

    let client = Http2::connect(address).await;
    let trailers = HeaderMap::from_iter([("x-check".parse().unwrap(), "2".parse().unwrap())]);
    let body = Full::new(Bytes::from("hi")).with_trailers(async move { Some(Ok(trailers)) });
    let request = Request::post("http://api.test/x?user_key=key").header("trailer", "x-check");
    let answer = client.call(request.header("te", "trailers").body(body.boxed()).unwrap()).await;
    assert_eq!((answer.body.as_str(), answer.trailers["x-sum"].as_bytes()), ("hello", &b"7"[..]));
    let request = told.recv().unwrap();
    assert!(request.ends_with("\r\nhi\r\n0\r\nx-check: 2\r\n\r\n"), "{request}");
}
