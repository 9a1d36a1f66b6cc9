//! `payload_limits`: how long bodies may be, each way, whether they say so or not.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::policies::{api, code, comes_to, hits, judge, proxy};
use crate::world::{KEY, World};

const REQUESTS: &str =
    r#"{ policy = "payload_limits", request_bytes_max = 10, unless = { paths = "/upload" } }"#;
const ANSWERS: &str =
    r#"{ policy = "payload_limits", response_bytes_max = 200, unless = { paths = "/download" } }"#;
const NOTHING: &str = r#"{ policy = "payload_limits", request_bytes_max = 0 }"#;
const TOO_LONG: &str = "413 body_too_long";

#[tokio::test(flavor = "multi_thread")]
async fn bodies_have_an_end() {
    let [requests, answers, nothing] = [REQUESTS, ANSWERS, NOTHING].map(proxy);
    let synchronous = format!("{requests}\ndecisions = \"synchronous\"");
    let smaller = format!("{requests}\nrequest_body_bytes_max = 5");
    let world = World::start(&[
        api("requests", &requests),
        api("synchronous", &synchronous),
        api("smaller", &smaller),
        api("nothing", &nothing),
        api("answers", &answers),
    ])
    .await;
    for service in ["requests", "synchronous"] {
        declared(&world, service).await;
        chunked(&world, service).await;
    }
    judge(
        &world,
        "smaller",
        &[
            ("POST /?user_key={key}|||12345", "200"),
            ("POST /?user_key={key}|||123456", TOO_LONG),
            ("POST /upload?user_key={key}|||123456", TOO_LONG),
        ],
    )
    .await;
    judge(
        &world,
        "nothing",
        &[
            ("GET /?user_key={key}", "200"),
            ("POST /?user_key={key}|Content-Length: 0", "200"),
            ("POST /?user_key={key}|||1", TOO_LONG),
        ],
    )
    .await;
    answers_that_say_so(&world);
    answers_that_do_not(&world);
    world.finish();
}

async fn declared(world: &World, service: &str) {
    judge(
        world,
        service,
        &[
            ("GET /?user_key={key}", "200"),
            ("POST /?user_key={key}|||1234567890", "200"),
            ("POST /?user_key={key}|||12345678901", TOO_LONG),
            ("PUT /?user_key={key}|Content-Type: application/x-www-form-urlencoded|||a=123456789", TOO_LONG),
            ("POST /upload?user_key={key}|||12345678901", "200"),
        ],
    )
    .await;
    world.check(
        &format!("POST {service}.test/?user_key={{key}}|||12345678901"),
        "413 The request body is too long.",
    );
}

/// Those that do not say how long they are, in one chunk and in several.
async fn chunked(world: &World, service: &str) {
    let used = hits(world, service, "app").await;
    let send = |path: &str, chunks: &[&str]| {
        let chunks: String = chunks.iter().map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len())).collect();
        world.raw(&format!(
            "POST {path}?user_key={{key}} HTTP/1.1\r\nHost: {service}.test\r\nAccept: application/problem+json\r\n\
             Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n{chunks}0\r\n\r\n"
        ))
    };
    assert_eq!(send("/", &["12345", "67890"]).json()["body"], "1234567890");
    for chunks in [&["12345678901"][..], &["1"; 11], &["1234567890", "1"], &["123456", "789012"]] {
        let answer = send("/", chunks);
        assert_eq!(answer.status, 413, "{service} {chunks:?}: {answer:?}");
        assert_eq!(answer.json()["code"], "body_too_long");
    }
    assert_eq!(send("/upload", &["123456", "789012"]).json()["body"], "123456789012");
    comes_to(world, service, "app", used + 2).await;
}

fn answers_that_say_so(world: &World) {
    for (call, expected) in [
        ("GET answers.test/?user_key={key}|x-body-bytes: 200", "200"),
        ("GET answers.test/?user_key={key}|x-body-bytes: 201", "502 answer_too_long"),
        (
            "POST answers.test/?user_key={key}|x-body-bytes: 5000|x-status: 404|||long bodies may come",
            "502 answer_too_long",
        ),
        ("GET answers.test/download?user_key={key}|x-body-bytes: 5000", "200"),
        // It says how long the answer to GET would be, and has none.
        ("HEAD answers.test/?user_key={key}|x-body-bytes: 5000", "200"),
    ] {
        assert_eq!(code(world, call), expected, "{call}");
    }
    let whole = world.call("GET answers.test/?user_key={key}|x-body-bytes: 200");
    assert_eq!(whole.body, "x".repeat(200));
    let long = world.call("GET answers.test/?user_key={key}|x-body-bytes: 201");
    assert!(!long.body.contains("xxx"), "{long:?}");
}

fn answers_that_do_not(world: &World) {
    let fits = world.call("GET answers.test/?user_key={key}|x-body-bytes: 200|x-chunked: 1");
    assert_eq!((fits.status, fits.body.len()), (200, 200));
    let open = world.call("GET answers.test/download?user_key={key}|x-body-bytes: 5000|x-chunked: 1");
    assert_eq!((open.status, open.body.len()), (200, 5000));
    // Whoever reads it sees that something is missing: it has no end.
    let mut client = TcpStream::connect(world.stack.gateways[0].address).unwrap();
    let request = format!(
        "GET /?user_key={KEY} HTTP/1.1\r\nHost: answers.test\r\nx-body-bytes: 5000\r\nx-chunked: 1\r\n\r\n"
    );
    client.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    // A reset ends it, too.
    let _ = client.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
    assert!(!answer.ends_with("0\r\n\r\n"), "{answer:?}");
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    assert!(body.matches('x').count() <= 200, "{answer:?}");
}
