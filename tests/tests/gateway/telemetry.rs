//! What a gateway tells of the requests that it saw: its metrics, and the access log.

use std::net::TcpStream;

use serde_json::Value;
use weir_tests::http::get;
use weir_tests::wait::until;

use crate::world::{Api, PLAIN, World};

const SMALL: &str = "request_body_bytes_max = 10";
const LIMITED: &str = r#"{ metric = "hits", period = "eternity", max = 1 }"#;

fn metrics(world: &World) -> String {
    get(world.stack.gateways[0].telemetry, "/metrics").body
}

/// The value of a metric, named with its labels; 0: it is not there.
fn value(metrics: &str, name: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_default()
}

/// Lines of the access log, as JSON.
pub(crate) fn access_log(world: &World) -> Vec<Value> {
    let log = world.stack.gateways[0].log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["target"] == "weir::access").collect()
}

/// Goal: each bad request is one count and one line that say why it was refused.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_told_by_reason() {
    let world = World::start_with(
        &[
            Api { proxy: SMALL, ..PLAIN },
            Api { id: "limited", limits: LIMITED, ..PLAIN },
            Api { id: "closed", backend: "http://127.0.0.1:1", ..PLAIN },
            Api { id: "bare", backend: "", ..PLAIN },
            Api {
                id: "ruled",
                rules: r#"{ method = "GET", pattern = "/x", metrics = { hits = 1 } }"#,
                ..PLAIN
            },
        ],
        "[log]\nformat = \"json\"",
    )
    .await;
    world.check("GET limited.test/?user_key={key}", "200");
    let expected = [
        ("GET other.test/", "none", 404, "service_not_found"),
        ("GET plain.test/%zz?user_key={key}", "none", 400, "request_malformed"),
        ("TRACE plain.test/?user_key={key}", "none", 405, "method_not_allowed"),
        ("GET plain.test/?user_key={key}|Expect: magic", "none", 417, "expectation_failed"),
        ("POST plain.test/?user_key={key}|||longer than ten", "plain", 413, "body_too_long"),
        ("GET plain.test/", "plain", 401, "credentials_missing"),
        ("GET plain.test/?user_key=wrong-s3cret", "plain", 403, "user_key_invalid"),
        ("GET ruled.test/?user_key={key}", "ruled", 404, "no_mapping_rule"),
        ("GET limited.test/?user_key={key}", "limited", 429, "limits_exceeded"),
        ("GET bare.test/?user_key={key}", "bare", 404, "upstream_missing"),
        ("GET closed.test/?user_key={key}", "closed", 502, "upstream_unreachable"),
    ];
    for (request, _, status, _) in expected {
        assert_eq!(world.call(request).status, status, "{request}");
    }
    let lines = until("the lines", || Some(access_log(&world)).filter(|lines| lines.len() > expected.len()));
    let metrics = metrics(&world);
    for (at, (request, service, status, reason)) in expected.into_iter().enumerate() {
        let name = format!("weir_gateway_refusals_total{{service=\"{service}\",reason=\"{reason}\"}}");
        assert_eq!(value(&metrics, &name), 1.0, "{request}: {name} in {metrics}");
        let line = &lines[at + 1];
        let service = if service == "none" { "-" } else { service };
        assert_eq!((&line["status"], &line["reason"]), (&status.into(), &reason.into()), "{request}: {line}");
        assert_eq!(line["service.id"], service, "{request}: {line}");
    }
    assert_eq!((&lines[0]["status"], &lines[0]["reason"]), (&200.into(), &Value::Null));
    world.finish();
}

/// Goal: the gateway's own part is without the waits for others.
#[tokio::test(flavor = "multi_thread")]
async fn the_gateways_own_part_is_told() {
    let world = World::start(&[PLAIN]).await;
    world.check("GET plain.test/?user_key={key}|x-delay-ms: 400", "200");
    world.check("GET plain.test/", "401 Authentication parameters missing");
    let metrics = until("the metrics", || {
        let text = metrics(&world);
        (value(&text, "weir_gateway_request_seconds_count{service=\"plain\"}") == 2.0).then_some(text)
    });
    let of = |name: &str, part: &str| value(&metrics, &format!("{name}_{part}{{service=\"plain\"}}"));
    assert!(of("weir_gateway_request_seconds", "sum") > 0.4, "{metrics}");
    assert!(of("weir_gateway_upstream_seconds", "sum") > 0.4, "{metrics}");
    assert_eq!(of("weir_gateway_own_seconds", "count"), 2.0);
    assert!((0.0..0.2).contains(&of("weir_gateway_own_seconds", "sum")), "{metrics}");
    assert_eq!(of("weir_gateway_authorise_seconds", "count"), 1.0, "the other was not asked about");
    assert!(
        metrics.contains("weir_gateway_own_seconds_bucket{service=\"plain\",le=\"0.00001\"}"),
        "{metrics}"
    );
    world.finish();
}

/// Goal: of what goes well the configured share is logged, chosen by the request's id; what fails always is.
#[tokio::test(flavor = "multi_thread")]
async fn the_access_log_can_be_sampled() {
    let lines = "[log]\nformat = \"json\"\n[access_log]\nsample_ratio = 0.1";
    let world = World::start_with(&[PLAIN], lines).await;
    for id in 0..60 {
        world.check(&format!("GET plain.test/?user_key={{key}}|X-Request-Id: {id}"), "200");
    }
    for id in 0..9 {
        world.check(
            &format!("GET plain.test/?user_key=wrong-s3cret|X-Request-Id: {id}"),
            "403 Authentication failed",
        );
    }
    assert_eq!(world.call("GET plain.test/?user_key={key}|x-status: 503|X-Request-Id: 0").status, 503);
    assert_eq!(world.call("GET plain.test/%zz|X-Request-Id: 1").status, 400);
    let lines = until("the last line", || {
        let lines = access_log(&world);
        lines.iter().any(|line| line["status"] == 400).then_some(lines)
    });
    let told: Vec<String> = lines
        .iter()
        .map(|line| {
            format!("{} {} {}", line["status"], line["request_id"].as_str().unwrap(), line["sampled"])
        })
        .collect();
    let taken = [8, 10, 14, 18, 31, 34, 53, 57].map(|id| format!("200 {id} 0.1"));
    let others = ["403 8 0.1", "503 0 null", "400 1 null"].map(str::to_owned);
    assert_eq!(told, [&taken[..], &others[..]].concat());
    let metrics = metrics(&world);
    assert_eq!(value(&metrics, "weir_gateway_requests_total{service=\"plain\",class=\"2xx\"}"), 60.0);
    world.finish();
}

/// Goal: bounds that hold clients up can be seen. Method: two quiet connections, then a listener that is gone.
#[tokio::test(flavor = "multi_thread")]
async fn bounds_that_are_reached_are_told() {
    let limits = "[limits]\nconnections_max = 4\nauthorisations_waiting_max = 1\nauthorise_timeout_ms = 2000";
    let mut world = World::start_with(&[PLAIN], limits).await;
    let hits = |world: &World, bound: &str| {
        value(&metrics(world), &format!("weir_gateway_bounds_hit_total{{bound=\"{bound}\"}}"))
    };
    assert!(metrics(&world).contains("weir_gateway_bounds_hit_total{bound=\"http2\"} 0"), "from the start");
    let address = world.stack.gateways[0].address;
    let open = [(); 4].map(|()| TcpStream::connect(address).unwrap());
    until("the connections to be counted", || (hits(&world, "connections_max") >= 1.0).then_some(()));
    drop(open);
    world.check("GET plain.test/?user_key={key}", "200");

    world.stack.listeners[0].kill();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| world.check("GET plain.test/?user_key={key}", "503 Please try again shortly."));
        }
    });
    assert!(hits(&world, "authorisations_waiting_max") >= 1.0, "one waits, the others may not");
    world.finish();
}
