//! HTTP/2 by prior knowledge, on the port that HTTP/1 is spoken on.

use std::io::{Read, Write};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::Request;
use weir_tests::http;
use weir_tests::wait::until;

use crate::world::{Http2, PLAIN, hits, start};

const GOOD: &str = "http://api.test/x?user_key=key";

/// Goal: what holds over HTTP/1 holds over HTTP/2. Method: one connection, its answers and what the upstream saw.
#[tokio::test(flavor = "multi_thread")]
async fn requests_come_over_http2() {
    let stack = start(&[PLAIN], "").await;
    let address = stack.gateways[0].address;
    let client = Http2::connect(address).await;
    let answer = client.get(GOOD).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.seen("x-forwarded-host"), "api.test");
    assert_eq!(answer.seen("x-forwarded-proto"), "http");
    assert_eq!(client.get("http://api.test/x").await.status, 401);
    assert_eq!(client.get("http://api.test/x?user_key=wrong").await.status, 403);
    assert_eq!(client.get("http://other.test/x?user_key=key").await.status, 404);
    assert_eq!(client.get("http://api.test/%2e%2e%5c?user_key=key").await.status, 400);

    let post = Request::post(GOOD).body(Full::new(Bytes::from("hello")).boxed()).unwrap();
    let answer = client.call(post).await;
    assert!(answer.body.contains("\"body\":\"hello\""), "{}", answer.body);

    let cookies = Request::get(GOOD).header("cookie", "a=1").header("cookie", "b=2");
    let answer = client.call(cookies.body(Empty::new().boxed()).unwrap()).await;
    assert_eq!(answer.seen("cookie"), "a=1; b=2");

    let calls: Vec<_> = (0..100).map(|_| client.get(GOOD)).collect();
    for call in calls {
        assert_eq!(call.await.status, 200);
    }
    assert_eq!(http::get(address, "/x?user_key=key").status, 200, "HTTP/1 on the same port");
    assert_eq!(hits(&stack, "api").await, 104);
}

#[tokio::test(flavor = "multi_thread")]
async fn host_and_authority_agree() {
    let stack = start(&[PLAIN], "").await;
    let client = Http2::connect(stack.gateways[0].address).await;
    for (host, status) in [("api.test", 200), ("other.test", 400)] {
        let request = Request::get(GOOD).header("host", host).body(Empty::new().boxed()).unwrap();
        assert_eq!(client.call(request).await.status, status, "{host}");
    }
    assert_eq!(stack.upstream.received(), 1);
}

/// Goal: what only begins like the preface is HTTP/1, whatever pieces it comes in.
#[tokio::test(flavor = "multi_thread")]
async fn other_beginnings_are_http1() {
    let stack = start(&[PLAIN], "[limits]\nhead_timeout_ms = 700").await;
    let address = stack.gateways[0].address;
    assert_eq!(http::raw(address, "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n").status, 505);
    assert_eq!(http::raw(address, "PRI * HTTP/2.0\r\nHost: api.test\r\n\r\n").status, 505);
    let mut slow = std::net::TcpStream::connect(address).unwrap();
    slow.set_nodelay(true).unwrap();
    slow.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    for byte in b"PUT /x?user_key=key HTTP/1.1\r\nHost: api.test\r\nContent-Length: 0\r\n\r\n" {
        slow.write_all(&[*byte]).unwrap();
    }
    assert_eq!(http::read_answer(&mut slow, false).status, 200);
    let mut silent = std::net::TcpStream::connect(address).unwrap();
    silent.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    silent.write_all(b"PRI").unwrap();
    assert_eq!(silent.read(&mut [0; 9]).unwrap(), 0, "who does not go on is left");
}

/// Goal: SIGTERM costs no request in flight, and the connection says that it takes no more.
#[tokio::test(flavor = "multi_thread")]
async fn draining_ends_what_is_in_flight() {
    let mut stack = start(&[PLAIN], "").await;
    let client = Http2::connect(stack.gateways[0].address).await;
    let slow = Request::get(GOOD).header("x-delay-ms", "1500").body(Empty::new().boxed()).unwrap();
    let mut requests = client.requests.clone();
    let flight = tokio::spawn(async move { requests.send_request(slow).await.unwrap().status() });
    tokio::task::block_in_place(|| {
        until("the request upstream", || (stack.upstream.received() == 1).then_some(()));
        assert!(stack.gateways[0].terminate().success());
    });
    assert_eq!(flight.await.unwrap(), 200);
    assert!(client.connection.await.unwrap().is_ok(), "closed in order");
}
