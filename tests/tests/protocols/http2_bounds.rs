//! What a hostile HTTP/2 client may do: little, and to nobody but itself.

use std::time::{Duration, Instant};

use weir_tests::http;
use weir_tests::stack::Stack;

use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GO_AWAY, HEADERS, PING, RST_STREAM, SETTINGS, block,
    frame, get,
};
use crate::world::{Http2, PLAIN, hits, start};

const REQUEST: u8 = END_STREAM | END_HEADERS;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_HEADER_LIST_SIZE: u16 = 6;

#[track_caller]
fn others_are_served(stack: &Stack) {
    assert_eq!(http::get(stack.gateways[0].address, "/x?user_key=key").status, 200);
}

/// That a bound was reached shows in the metrics.
#[track_caller]
fn is_told(stack: &Stack, bound: &str) {
    let metrics = http::get(stack.gateways[0].telemetry, "/metrics").body;
    let line = format!("weir_gateway_bounds_hit_total{{bound=\"{bound}\"}} 1");
    assert!(metrics.contains(&line), "{line} in {metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bounds_are_told() {
    let lines = "[limits]\nhead_bytes_max = 16384\n[http2]\nstreams_max = 7\nstream_window_bytes = 65_600";
    let stack = start(&[PLAIN], lines).await;
    let mut frames = Frames::connect(stack.gateways[0].address, &[]);
    let settings = frames.next_of(SETTINGS).unwrap().payload;
    let told = |id: u16| {
        let found = settings.chunks(6).find(|pair| pair[..2] == id.to_be_bytes());
        found.map(|pair| u32::from_be_bytes([pair[2], pair[3], pair[4], pair[5]]))
    };
    assert_eq!(told(MAX_CONCURRENT_STREAMS), Some(7));
    assert_eq!(told(MAX_HEADER_LIST_SIZE), Some(16_384));
    assert_eq!(told(INITIAL_WINDOW_SIZE), Some(65_600));
}

/// The HTTP library drops a fragment from `:path` without a word. It is dropped for everybody: what is matched is what
/// the upstream sees.
#[tokio::test(flavor = "multi_thread")]
async fn fragments_go_nowhere() {
    let stack = start(&[PLAIN], "").await;
    let mut frames = Frames::connect(stack.gateways[0].address, &[]);
    let path = "/x?user_key=key#/../secret";
    let head = block(&[(":method", "GET"), (":scheme", "http"), (":authority", "api.test"), (":path", path)]);
    assert!(frames.send(HEADERS, REQUEST, 1, &head));
    let seen = String::from_utf8(frames.next_of(DATA).unwrap().payload).unwrap();
    assert!(seen.contains(r#""target":"/x?user_key=key""#), "{seen}");
}

/// Goal: requests that are taken back at once end the connection (CVE-2023-44487), and count for little.
#[tokio::test(flavor = "multi_thread")]
async fn rapid_reset_ends_the_connection() {
    let stack = start(&[PLAIN], "[http2]\nresets_pending_max = 10").await;
    let mut frames = Frames::connect(stack.gateways[0].address, &[]);
    let mut burst = Vec::new();
    for number in 0..20_000 {
        let id = number * 2 + 1;
        burst.extend(frame(HEADERS, REQUEST, id, &get()));
        burst.extend(frame(RST_STREAM, 0, id, &8_u32.to_be_bytes()));
    }
    frames.send_all(&burst);
    // Its reason may be lost when the client still sends; the end is not.
    while frames.next().is_some() {}
    others_are_served(&stack);
    is_told(&stack, "http2");
    let counted = hits(&stack, "api").await;
    assert!(counted < 5_000, "the connection ended early: {counted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_beyond_the_maximum_are_refused() {
    let stack = start(&[PLAIN], "[http2]\nstreams_max = 4").await;
    let mut frames = Frames::connect(stack.gateways[0].address, &[]);
    frames.next_of(SETTINGS).unwrap();
    assert!(frames.send(SETTINGS, 1, 0, &[]));
    let slow = [get(), block(&[("x-delay-ms", "3000")])].concat();
    for number in 0..5 {
        assert!(frames.send(HEADERS, REQUEST, number * 2 + 1, &slow));
    }
    let refused = frames.next_of(RST_STREAM).unwrap();
    assert_eq!((refused.stream, refused.payload), (9, 7_u32.to_be_bytes().to_vec()), "REFUSED_STREAM");
    others_are_served(&stack);
}

/// Goal: long heads are refused without being kept.
#[tokio::test(flavor = "multi_thread")]
async fn long_heads_are_refused() {
    let stack = start(&[PLAIN], "[limits]\nhead_bytes_max = 8192").await;
    let client = Http2::connect(stack.gateways[0].address).await;
    let mut frames = Frames::connect(stack.gateways[0].address, &[]);
    let long = [get(), block(&[("x-long", &"x".repeat(12_000))])].concat();
    assert!(frames.send(HEADERS, REQUEST, 1, &long));
    let answer = frames.next_of(HEADERS).unwrap();
    assert!(answer.payload.windows(3).any(|bytes| bytes == b"431") || answer.flags & END_STREAM != 0);
    let mut flood = frame(HEADERS, END_STREAM, 3, &get());
    let piece = block(&[("x-piece", &"x".repeat(4_000))]);
    (0..5_000).for_each(|_| flood.extend(frame(CONTINUATION, 0, 3, &piece)));
    frames.send_all(&flood);
    while frames.next().is_some() {}
    assert_eq!(stack.upstream.received(), 0);
    assert_eq!(client.get("http://api.test/x?user_key=key").await.status, 200);
}

/// Goal: floods of settings and pings harm nobody. Method: what is unanswered is bounded by not being read.
#[tokio::test(flavor = "multi_thread")]
async fn floods_of_control_frames_harm_nobody() {
    let stack = start(&[PLAIN], "[limits]\nwrite_timeout_ms = 500").await;
    let mut frames = Frames::connect(stack.gateways[0].address, &[]);
    let mut flood = Vec::new();
    for _ in 0..1_000 {
        flood.extend(frame(SETTINGS, 0, 0, &[]));
        flood.extend(frame(PING, 0, 0, &[7; 8]));
    }
    let start = Instant::now();
    let ended = (0..20_000).any(|_| !frames.send_all(&flood) || start.elapsed() > Duration::from_secs(10));
    assert!(ended);
    others_are_served(&stack);
}

/// Goal: a client that never takes its answer loses that request, not its connection.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_takes_are_dropped() {
    let stack = start(&[PLAIN], "[limits]\nwrite_timeout_ms = 400").await;
    let mut frames = Frames::connect(stack.gateways[0].address, &[(INITIAL_WINDOW_SIZE, 0)]);
    assert!(frames.send(HEADERS, REQUEST, 1, &get()));
    assert_eq!(frames.next_of(HEADERS).unwrap().stream, 1);
    assert_eq!(frames.next_of(RST_STREAM).unwrap().stream, 1);
    is_told(&stack, "write_timeout_ms");
    assert!(frames.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255]));
    assert!(frames.send(HEADERS, REQUEST, 3, &get()));
    assert_eq!(frames.next_of(DATA).unwrap().stream, 3);
}

/// Goal: who asks nothing is left, also in the middle of a head.
#[tokio::test(flavor = "multi_thread")]
async fn quiet_connections_end() {
    let stack = start(&[PLAIN], "[limits]\nhead_timeout_ms = 400\nwrite_timeout_ms = 400").await;
    let address = stack.gateways[0].address;
    let mut quiet = Frames::connect(address, &[]);
    assert!(quiet.next_of(GO_AWAY).is_some());
    while quiet.next().is_some() {}
    let mut half = Frames::connect(address, &[]);
    assert!(half.send(HEADERS, END_STREAM, 1, &get()));
    while half.next().is_some() {}
    let client = Http2::connect(address).await;
    let slow = hyper::Request::get("http://api.test/x?user_key=key").header("x-delay-ms", "1500");
    let body = http_body_util::BodyExt::boxed(http_body_util::Empty::new());
    assert_eq!(client.call(slow.body(body).unwrap()).await.status, 200, "waiting for an answer is not quiet");
}
