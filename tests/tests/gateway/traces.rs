//! Spans of a call, from the client's context to the upstream's, and what becomes of them without a collector.

use std::time::{Duration, Instant};

use weir_tests::collector::{Collector, SeenSpan};
use weir_tests::http::{Answer, get};
use weir_tests::stack::{Plan, Stack};
use weir_tests::wait::until;

use crate::world::{Api, PLAIN, World, catalog, header_seen};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SERVER: i32 = 2;
const CLIENT: i32 = 3;

async fn traced(endpoint: &str, sample_ratio: &str) -> World {
    let table = format!("[tracing]\nendpoint = \"{endpoint}\"\n");
    let plan = Plan {
        gateway_lines: format!("{table}sample_ratio = {sample_ratio}"),
        listener_tables: table,
        ..Plan::small(&catalog(
            1,
            &[
                Api { proxy: "decisions = \"synchronous\"", ..PLAIN },
                Api {
                    id: "closed",
                    backend: "http://127.0.0.1:1",
                    proxy: "decisions = \"synchronous\"",
                    ..PLAIN
                },
            ],
        ))
    };
    World { stack: Stack::start(&plan).await }
}

/// A call whose client traces it, or not.
fn call(world: &World, target: &str, flags: &str) -> Answer {
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-{flags}");
    world.call(&format!("GET {target}|traceparent: {parent}|tracestate: a=1,b=s"))
}

/// The spans of a trace, once there are as many.
fn spans_of(collector: &Collector, trace_id: &str, count: usize) -> Vec<SeenSpan> {
    until("the spans", || {
        let spans: Vec<_> = collector.spans().into_iter().filter(|span| span.trace_id == trace_id).collect();
        (spans.len() >= count).then_some(spans)
    })
}

#[track_caller]
fn one<'a>(spans: &'a [SeenSpan], name: &str, kind: i32) -> &'a SeenSpan {
    let mut found = spans.iter().filter(|span| span.name == name && span.kind == kind);
    let span = found.next().unwrap_or_else(|| panic!("no {name} in {spans:#?}"));
    assert!(found.next().is_none(), "{name} twice in {spans:#?}");
    span
}

/// Goal: a client's trace goes on through gateway and listener to the upstream.
#[tokio::test(flavor = "multi_thread")]
async fn a_clients_trace_is_continued() {
    let collector = Collector::start().await;
    let world = traced(&collector.url(), "0").await;
    let answer = call(&world, "plain.test/some/path?user_key={key}&q=s3cret", "01");
    let seen = answer.json();
    let spans = spans_of(&collector, TRACE, 4);
    let request = one(&spans, "GET plain", SERVER);
    let asked = one(&spans, "weir.v1.Authorization/AuthRep", CLIENT);
    let decided = one(&spans, "weir.v1.Authorization/AuthRep", SERVER);
    let exchange = one(&spans, "GET", CLIENT);
    let parents = [request, asked, decided, exchange].map(|span| span.parent_id.as_str());
    let expected = ["00f067aa0ba902b7", &request.span_id, &asked.span_id, &request.span_id];
    assert_eq!(parents, expected, "{spans:#?}");
    let sent = header_seen(&seen, "traceparent");
    assert_eq!(sent, format!("00-{TRACE}-{}-01", exchange.span_id));
    assert_eq!(header_seen(&seen, "tracestate"), "a=1,b=s");
    assert_eq!(request.trace_state, "a=1,b=s");
    assert_eq!((decided.role.as_str(), request.role.as_str()), ("weir-listener", "weir-gateway"));
    attributes(request, asked, decided, exchange, &answer.header("x-request-id"));
    assert!(!format!("{spans:?}").contains("s3cret"), "{spans:#?}");
    let line = format!("trace_id=\"{TRACE}\"");
    until("the trace in the access log", || world.stack.gateways[0].log().contains(&line).then_some(()));
    world.finish();
}

#[track_caller]
fn attributes(
    request: &SeenSpan,
    asked: &SeenSpan,
    decided: &SeenSpan,
    exchange: &SeenSpan,
    request_id: &str,
) {
    for (span, name, value) in [
        (request, "http.request.method", "GET"),
        (request, "url.path", "/some/path"),
        (request, "url.scheme", "http"),
        (request, "network.protocol.version", "1.1"),
        (request, "http.response.status_code", "200"),
        (request, "weir.service.id", "plain"),
        (request, "weir.request.id", request_id),
        (asked, "weir.outcome", "allowed"),
        (decided, "weir.outcome", "allowed"),
        (decided, "weir.application.id", "app"),
        (exchange, "http.response.status_code", "200"),
        (exchange, "server.address", "127.0.0.1"),
    ] {
        assert_eq!(span.attribute(name), value, "{name} of {span:#?}");
    }
    assert!(![request, asked, decided, exchange].iter().any(|span| span.is_error));
}

/// Goal: spans say what went wrong, and only what is nobody's own fault is an error.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_traced() {
    let collector = Collector::start().await;
    let world = traced(&collector.url(), "0").await;
    assert_eq!(call(&world, "plain.test/?user_key=wrong-s3cret", "01").status, 403);
    let spans = spans_of(&collector, TRACE, 3);
    let request = one(&spans, "GET plain", SERVER);
    assert_eq!(request.attribute("weir.refusal.reason"), "user_key_invalid");
    assert_eq!((request.is_error, request.attribute("http.response.status_code")), (false, "403"));
    assert_eq!(
        one(&spans, "weir.v1.Authorization/AuthRep", SERVER).attribute("weir.outcome"),
        "user_key_invalid"
    );

    assert_eq!(call(&world, "closed.test/?user_key={key}", "01").status, 502);
    let spans = spans_of(&collector, TRACE, 7);
    let request = one(&spans, "GET closed", SERVER);
    assert_eq!((request.is_error, request.attribute("error.type")), (true, "upstream_unreachable"));
    let exchange = one(&spans, "GET", CLIENT);
    assert_eq!((exchange.is_error, exchange.attribute("error.type")), (true, "upstream_unreachable"));
    world.finish();
}

/// Goal: what is not sampled is not recorded, and the upstream learns of it.
#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_not_sampled_leave_no_spans() {
    let collector = Collector::start().await;
    let world = traced(&collector.url(), "0").await;
    let seen = call(&world, "plain.test/?user_key={key}", "00").json();
    let sent = header_seen(&seen, "traceparent");
    assert!(sent.starts_with(&format!("00-{TRACE}-")) && sent.ends_with("-00"), "{sent}");
    assert!(!sent.contains("00f067aa0ba902b7"), "{sent}");
    assert_eq!(header_seen(&seen, "tracestate"), "a=1,b=s");
    for parent in ["", "|traceparent: nonsense|tracestate: a=1"] {
        let seen = world.seen(&format!("GET plain.test/?user_key={{key}}{parent}"));
        let begun = header_seen(&seen, "traceparent");
        assert!(begun.len() == 55 && begun.ends_with("-00") && !begun.contains(TRACE), "{begun}");
        assert_eq!(header_seen(&seen, "tracestate"), "", "of another trace");
    }
    // What comes after them is there: then they would be, too.
    call(&world, "plain.test/?user_key={key}", "01");
    spans_of(&collector, TRACE, 4);
    assert_eq!(collector.spans().len(), 4);
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_begins_traces() {
    let collector = Collector::start().await;
    let world = traced(&collector.url(), "1").await;
    let seen = world.seen("GET plain.test/?user_key={key}");
    let sent = header_seen(&seen, "traceparent");
    let trace_id = &sent[3..35];
    assert!(sent.ends_with("-01"), "{sent}");
    let spans = spans_of(&collector, trace_id, 4);
    assert_eq!(one(&spans, "GET plain", SERVER).parent_id, "");
    assert_eq!(one(&spans, "GET", CLIENT).span_id, &sent[36..52]);
    world.finish();
}

/// Goal: a collector that is away delays no call and no stop, and is logged once.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_may_be_away() {
    let mut world = traced("http://127.0.0.1:1", "1").await;
    let begun = Instant::now();
    for _ in 0..200 {
        world.check("GET plain.test/?user_key={key}", "200");
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let telemetry = world.stack.gateways[0].telemetry;
    // The first batch is 1 s old, the second another one.
    for _ in 0..2 {
        let lost = lost(&get(telemetry, "/metrics"));
        world.check("GET plain.test/?user_key={key}", "200");
        until("spans to be lost", || (self::lost(&get(telemetry, "/metrics")) > lost).then_some(()));
    }
    let begun = Instant::now();
    assert!(world.stack.gateways[0].terminate().success());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let log = world.stack.gateways[0].log();
    assert_eq!(log.matches("the collector does not take spans").count(), 1, "{log}");
    world.finish();
}

fn lost(metrics: &Answer) -> u64 {
    let lines = metrics.body.lines().filter_map(|line| line.strip_prefix("weir_spans_lost_total{"));
    lines.filter_map(|line| line.split(' ').nth(1)?.parse::<u64>().ok()).sum()
}

/// Goal: without `[tracing]` a client's context is the client's and its upstream's business.
#[tokio::test(flavor = "multi_thread")]
async fn contexts_pass_where_nothing_is_traced() {
    let world = World::start(&[PLAIN]).await;
    let seen = call(&world, "plain.test/?user_key={key}", "01").json();
    assert_eq!(header_seen(&seen, "traceparent"), format!("00-{TRACE}-00f067aa0ba902b7-01"));
    assert_eq!(header_seen(&seen, "tracestate"), "a=1,b=s");
    let seen = world.seen("GET plain.test/?user_key={key}|traceparent: odd|tracestate: a=1|tracestate: b=2");
    assert_eq!(header_seen(&seen, "traceparent"), "odd");
    assert_eq!(header_seen(&seen, "tracestate"), "a=1, b=2");
    assert_eq!(header_seen(&world.seen("GET plain.test/?user_key={key}"), "traceparent"), "");
    world.finish();
}
