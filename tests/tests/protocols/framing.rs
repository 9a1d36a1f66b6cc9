//! HTTP/1 is read strictly: what two servers may read differently is refused, and nothing behind it is read.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use weir_tests::http::get;
use weir_tests::scripted::Scripted;
use weir_tests::wait::until;

use crate::world::{Api, PLAIN, hits, start};

/// Who is called, with which key; the end of a head.
const REST: &str = "Host: api.test\r\n\r\n";
const GET: &str = "GET /x?user_key=key HTTP/1.1\r\nHost: api.test\r\n\r\n";
const LAST: &str = "GET /x?user_key=key HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n";
const CHUNKED: &str = "POST /x?user_key=key HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";

/// A request line and headers, with the key and what else is needed.
fn request(line: &str, headers: &str) -> String {
    let end = if headers.is_empty() { "" } else { "\r\n" };
    format!("{} HTTP/1.1\r\n{headers}{end}{REST}", line.replace('?', "?user_key=key&"))
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Sends these pieces, and reads what comes until the gateway closes, which it has to by itself.
fn talk<'a>(address: SocketAddr, pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut stream = connect(address);
    for piece in pieces {
        stream.write_all(piece).unwrap();
    }
    let mut answers = Vec::new();
    stream.read_to_end(&mut answers).expect("an end, and no reset");
    String::from_utf8(answers).unwrap()
}

/// The statuses of answers, and the body of the last.
fn statuses(mut answers: &str) -> (Vec<u16>, &str) {
    let (mut found, mut body) = (Vec::new(), "");
    while let Some((head, rest)) = answers.split_once("\r\n\r\n") {
        found.push(head["HTTP/1.1 ".len()..][..3].parse().unwrap());
        let head = head.to_ascii_lowercase();
        let length =
            head.split("content-length: ").nth(1).map_or("0", |rest| rest.split('\r').next().unwrap());
        (body, answers) = rest.split_at(length.parse().unwrap());
    }
    assert_eq!(answers, "");
    (found, body)
}

#[track_caller]
fn check(address: SocketAddr, bytes: &str, expected: &[u16]) {
    // Something good behind it, which is not to be answered.
    let bytes = [bytes, GET].concat();
    let answers = talk(address, [bytes.as_bytes()]);
    assert_eq!(statuses(&answers).0, expected, "{bytes:?}: {answers}");
}

fn metric(telemetry: SocketAddr, reason: &str) -> u64 {
    let line = format!("weir_gateway_malformed_total{{reason=\"{reason}\"}} ");
    let metrics = get(telemetry, "/metrics").body;
    metrics.split(&line).nth(1).map_or(0, |rest| rest.lines().next().unwrap().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_heads_are_refused() {
    let stack = start(&[PLAIN], "[limits]\nhead_bytes_max = 16384").await;
    let (address, telemetry) = (stack.gateways[0].address, stack.gateways[0].telemetry);
    bodies_with_two_ends(address);
    lines_that_are_none(address);
    heads_that_are_too_long(address);
    for (reason, count) in [
        ("framing", 15),
        ("coding", 4),
        ("header", 11),
        ("request_line", 4),
        ("version", 3),
        ("too_large", 3),
    ] {
        assert_eq!(metric(telemetry, reason), count, "{reason}");
    }
    let requests = get(telemetry, "/metrics").body;
    assert!(
        requests.contains("weir_gateway_requests_total{service=\"none\",class=\"4xx\"} 33"),
        "{requests}"
    );

    let head = talk(address, [request("HEAD /?#", "").as_bytes()]);
    assert!(head.starts_with("HTTP/1.1 400 ") && head.ends_with("\r\n\r\n"), "no body for HEAD: {head}");
    let answer = talk(address, [request("POST /?", "Content-Length: 1, 1").as_bytes()]);
    assert!(
        answer.contains("\r\nconnection: close\r\n") && answer.contains("\r\nx-request-id: "),
        "{answer}"
    );
    let told = "The request is malformed: the Content-Length is not one whole number.";
    assert_eq!(statuses(&answer), (vec![400], told));
    let long = [request("GET /?#", ""), "x".repeat(200_000)].concat();
    assert_eq!(statuses(&talk(address, [long.as_bytes()])).0, [400], "read on, so that it is not reset");

    assert_eq!(stack.upstream.received(), 0);
    assert_eq!(hits(&stack, "api").await, 0);
    let log = stack.gateways[0].log();
    let line = log.lines().rfind(|line| line.contains("weir::access")).unwrap();
    assert!(line.contains("method=\"GET\"") && line.contains("path=\"-\""), "{line}");
    assert!(!log.contains("user_key"), "{log}");
}

fn bodies_with_two_ends(address: SocketAddr) {
    for (headers, status) in [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5", 400),
        ("Content-Length: 5\r\nContent-Length: 5", 400),
        ("Content-Length: 5\r\nContent-Length: 6", 400),
        ("Content-Length: +5", 400),
        ("Content-Length: -5", 400),
        ("Content-Length: 5, 5", 400),
        ("Content-Length: 5 5", 400),
        ("Content-Length: 0x5", 400),
        ("Content-Length:", 400),
        ("Content-Length: 18446744073709551616", 400),
        ("Transfer-Encoding: chunked, chunked", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding: chunked, gzip", 400),
        ("Transfer-Encoding: gzip, chunked", 501),
        ("Transfer-Encoding: gzip", 501),
        ("Transfer-Encoding: identity", 501),
        ("Transfer-Encoding: xchunked", 501),
    ] {
        check(address, &format!("{}5\r\nhello\r\n0\r\n\r\n", request("POST /?", headers)), &[status]);
    }
    let old = CHUNKED.replace("HTTP/1.1", "HTTP/1.0");
    check(address, &format!("{old}0\r\n\r\n"), &[400]);
}

fn lines_that_are_none(address: SocketAddr) {
    for header in [
        "Bare-LF: a\nB: c",
        "Bare-CR: a\rB: c",
        "Folded: a\r\n b",
        "Folded: a\r\n\tb",
        "Blank : a",
        "NUL: a\0b",
        "Control: \u{1b}[1m",
        "No colon",
        ": nameless",
    ] {
        check(address, &request("GET /?", header), &[400]);
    }
    check(address, &GET.replace("HTTP/1.1\r\n", "HTTP/1.1\n"), &[400]);
    check(address, &GET.replace("\r\n", "\n"), &[400]);
    check(address, &request("GET /?#a", ""), &[400]);
    check(address, &request("GET /? ", ""), &[400]);
    check(address, &request("G@T /?", ""), &[400]);
    check(address, &format!("\r\n\r\n{GET}"), &[400]);
    for version in ["HTTP/2.0", "HTTP/1.9", "HTTP/0.9"] {
        check(address, &GET.replace("HTTP/1.1", version), &[505]);
    }
}

fn heads_that_are_too_long(address: SocketAddr) {
    let long = "x".repeat(16_384);
    check(address, &request(&format!("GET /?{long}"), ""), &[414]);
    check(address, &request("GET /?", &format!("X-Long: {long}")), &[431]);
    check(address, &request("GET /?", &["A: b"; 256].join("\r\n")), &[431]);
}

/// A malformed body is found out about when the call is admitted already: it does not stay counted, and no upstream
/// takes it for whole.
#[tokio::test(flavor = "multi_thread")]
async fn malformed_chunks_are_refused() {
    let stack = start(&[PLAIN], "").await;
    let (address, telemetry) = (stack.gateways[0].address, stack.gateways[0].telemetry);
    let bodies = [
        "x\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello!\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5;a\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r\n0\n\r\n",
        "5\r\nhello\r\n0\r\n\n",
        "5\r\nhello\r\n0\r\nA: b\n\r\n",
        "5\r\nhello\r\n0\r\nA: b\rc\r\n\r\n",
        "5\r\nhello\r\n0\r\nno colon\r\n\r\n",
        "5\r\nhello\r\n0\r\nA: b\r\n folded\r\n\r\n",
    ];
    for body in bodies {
        check(address, &format!("{CHUNKED}{body}"), &[400]);
    }
    let sent = [CHUNKED, "5\r\nhello\r\n", "5\r\nhello!\r\n"];
    assert_eq!(statuses(&talk(address, sent.map(str::as_bytes))).0, [400]);
    let told = metric(telemetry, "chunk") + metric(telemetry, "header");
    assert_eq!(told, bodies.len() as u64 + 1);
    stack.counter_settles_at("app", "hits", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn good_requests_in_front_are_answered() {
    let stack = start(&[PLAIN], "").await;
    let address = stack.gateways[0].address;
    let bad = request("GET /?#", "");
    check(address, &[GET, &bad].concat(), &[200, 400]);
    let slow = GET.replace("\r\n\r\n", "\r\nx-delay-ms: 300\r\n\r\n");
    check(address, &[&slow, GET, &bad].concat(), &[200, 200, 400]);
    check(address, &[GET, &CHUNKED.replace("close", "keep-alive"), "x\r\n"].concat(), &[200, 400]);
    check(address, &[GET, LAST, &bad].concat(), &[200, 200]);
    assert_eq!(hits(&stack, "api").await, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn good_requests_go_on_working() {
    let stack = start(&[PLAIN], "").await;
    let address = stack.gateways[0].address;
    check(address, &[GET, GET, LAST].concat(), &[200, 200, 200]);
    check(address, &format!("\r\n{GET}\r\n{LAST}"), &[200, 200]);
    check(address, &LAST.replace("HTTP/1.1", "HTTP/1.0"), &[200]);
    check(address, &LAST.replace("\r\n\r\n", "\r\nEmpty:\r\nX: \u{e9}\ta\r\n\r\n"), &[200]);

    let chunks = "5;name=\"a b\"\r\nhello\r\n6 ; x\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n";
    let keep = CHUNKED.replace("Connection: close\r\n", "");
    let all = [GET, &keep, chunks, "\r\n", &keep, chunks, CHUNKED, chunks].concat();
    for pieces in [all.as_bytes().chunks(all.len()), all.as_bytes().chunks(7), all.as_bytes().chunks(1)] {
        let answers = talk(address, pieces);
        let (found, body) = statuses(&answers);
        assert_eq!(found, [200; 4]);
        let seen: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(seen["body"], "hello world");
    }

    let body = vec![b'#'; 10 << 20];
    let head =
        format!("POST /x?user_key=key HTTP/1.1\r\nHost: api.test\r\nContent-Length: {}\r\n\r\n", body.len());
    let answers = talk(address, [head.as_bytes(), &body, LAST.as_bytes()]);
    assert_eq!(statuses(&answers).0, [200, 200]);
    assert!(answers.contains("\"body_bytes\":10485760"), "{}", &answers[..500]);

    let asking = head.replace("10485760", "5\r\nExpect: 100-continue");
    let answers = talk(address, [asking.as_bytes(), b"hello", LAST.as_bytes()]);
    assert_eq!(statuses(&answers).0, [100, 200, 200]);
}

/// Goal: what follows a wish to leave HTTP is read as the answer has it.
/// Method: bytes sent along with the wish, to an upstream that switches and to one that does not.
#[tokio::test(flavor = "multi_thread")]
async fn early_bytes_wait_for_the_answer_to_an_upgrade() {
    let echo = Scripted::start(|mut exchange| {
        exchange.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n");
        while let Some(piece) = Some(exchange.receive()).filter(|piece| !piece.is_empty()) {
            exchange.send(&String::from_utf8(piece).unwrap());
        }
    });
    let stack = start(&[PLAIN, Api { id: "echo", backend: &echo.url(), ..PLAIN }], "").await;
    let address = stack.gateways[0].address;
    let wish = GET.replace("\r\n\r\n", "\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
    check(address, &[&wish, GET, &wish, LAST].concat(), &[200, 200, 200, 200]);
    check(address, &format!("{wish}{}", request("GET /?#", "")), &[200, 400]);

    let early = "no HTTP\n#".repeat(1000);
    let mut stream = connect(address);
    stream.write_all((wish.replace("api.test", "echo.test") + &early).as_bytes()).unwrap();
    stream.write_all(b"\0the end").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, echoed) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(echoed, format!("{early}\0the end"));

    let began = Instant::now();
    let slow = wish.replace("\r\n\r\n", "\r\nx-delay-ms: 30000\r\n\r\n");
    let received = stack.upstream.received();
    let mut leaving = connect(address);
    leaving.write_all(slow.as_bytes()).unwrap();
    until("the call upstream", || (stack.upstream.received() > received).then_some(()));
    drop(leaving);
    until("the client to be missed", || stack.gateways[0].log().contains("status=499").then_some(()));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_heads_are_not_waited_for() {
    let stack = start(&[PLAIN], "[limits]\nhead_timeout_ms = 500").await;
    let (address, telemetry) = (stack.gateways[0].address, stack.gateways[0].telemetry);
    let began = Instant::now();
    assert_eq!(talk(address, [&GET.as_bytes()[..40]]), "");
    assert_eq!(talk(address, [GET.as_bytes(), b"GET"]).matches("200 OK").count(), 1);
    assert_eq!(talk(address, [&b"PRI"[..]]), "");
    until("three timeouts", || (metric(telemetry, "timeout") == 3).then_some(()));
    assert_eq!(talk(address, []), "");
    assert_eq!(talk(address, [GET.as_bytes(), b"\r\n"]).matches("200 OK").count(), 1);
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    drop(connect(address).write_all(b"GET / HT"));
    assert_eq!(talk(address, [&b"\x16\x03\x01"[..]]).matches(" 400 ").count(), 1, "TLS is told at once");
    let answer = talk(address, [GET.replace("/x", "x").as_bytes()]);
    assert!(
        answer.contains(" 400 ") && answer.contains("x-request-id: "),
        "a target that is no URL: {answer}"
    );
    for (reason, count) in [("timeout", 3), ("header", 1), ("request_line", 1)] {
        until(reason, || (metric(telemetry, reason) == count).then_some(()));
    }
}

/// Goal: a request whose head has begun is in flight. Method: half a head, then SIGTERM, then the rest.
#[tokio::test(flavor = "multi_thread")]
async fn draining_waits_for_the_rest_of_a_head() {
    let mut stack = start(&[PLAIN], "").await;
    let (address, telemetry) = (stack.gateways[0].address, stack.gateways[0].telemetry);
    let mut stream = connect(address);
    stream.write_all(&GET.as_bytes()[..40]).unwrap();
    // A second connection is served: the first has been read.
    assert_eq!(statuses(&talk(address, [LAST.as_bytes()])).0, [200]);
    let mut gateway = stack.gateways.remove(0);
    let stopping = std::thread::spawn(move || gateway.terminate());
    until("readiness to go", || (get(telemetry, "/readyz").status == 503).then_some(()));
    until("the socket to close", || TcpStream::connect(address).is_err().then_some(()));
    stream.write_all(&GET.as_bytes()[40..]).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(statuses(&answer).0, [200]);
    assert!(stopping.join().unwrap().success());
}
