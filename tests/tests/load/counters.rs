//! What was admitted equals what the counters say.

use serde_json::json;
use weir_tests::stack::{Plan, Stack, catalog};

use crate::world::Desk;

const LIMIT: &str = r#"{ metric = "hits", period = "year", max = 1000 }"#;

fn mix(usage: &str) -> String {
    format!(
        r#"
[[services]]
id = "api"
host = "api.test"
applications = [{{ id = "app", user_key = "key" }}]
requests = [{{ path = "/items/{{1..9}}", usage = {usage} }}]
"#
    )
}

/// Goal: limits hold exactly under load from either side, the tool's counts are the listener's, and a wrong expectation
/// is told. Method: one limit of 1,000, used up by decisions, then by calls, then passed.
#[tokio::test(flavor = "multi_thread")]
async fn admitted_is_what_was_counted() {
    let stack = Stack::start(&Plan::small(&catalog(1, LIMIT))).await;
    let desk = Desk::new();
    let gateway = format!("http://{}", stack.gateways[0].address);
    let listener = stack.listeners[0].address;
    let (check, listener) = (format!("http://{listener}"), format!("grpc://{listener}"));

    let text = catalog(1, LIMIT).replace("{upstream}", "http://127.0.0.1:1");
    let file = desk.put("catalog.toml", &text);
    let arguments = ["--rate", "200", "--for", "500ms", "--check-usage", &check];
    let run = desk.load(&[&[&listener as &str, "--from-catalog", &file], &arguments[..]].concat()).ended(0);
    assert_eq!(run.value("/stages/0/answers"), &json!({ "allowed": 100 }));
    assert_eq!(stack.upstream.received(), 0, "decisions are no calls");

    let wrong = desk.put("wrong.toml", &mix("{ search = 2 }"));
    let run = desk.load(&[&[&gateway as &str, "--mix", &wrong], &arguments[..]].concat()).ended(1);
    assert!(run.out.contains("admitted 200 · counted 100 · DIFFERS by -100"), "{}", run.out);

    let right = desk.put("mix.toml", &mix("{ search = 1, hits = 1 }"));
    let arguments = ["--rate", "1000", "--for", "1500ms", "--check-usage", &check];
    let run = desk.load(&[&[&gateway as &str, "--mix", &right], &arguments[..]].concat()).ended(0);
    assert!(run.out.contains("2 counters: admitted 1,600 · counted 1,600 · exact"), "{}", run.out);
    assert_eq!(run.number("/stages/0/due"), 1_500.0);
    assert_eq!(run.value("/stages/0/answers"), &json!({ "200": 800, "429": 700 }));
    let classes = json!({ "ok": 800, "limited": 700, "refused": 0, "failed": 0 });
    assert_eq!((run.value("/stages/0/classes"), run.value("/calls/0/classes")), (&classes, &classes));
    assert_eq!((run.value("/usage/exact"), run.value("/passed")), (&json!(true), &json!(true)));
    assert_eq!(run.number("/stages/0/latency_ms/count"), 1_500.0);
    assert_eq!(run.number("/stages/0/latency_ok_ms/count"), 800.0);
    let in_slices: u64 =
        run.value("/slices").as_array().unwrap().iter().map(|s| s["due"].as_u64().unwrap()).sum();
    assert_eq!(in_slices, 1_500);
    assert_eq!(stack.upstream.received(), 900, "what the upstream received");
    stack.counter_settles_at("app", "hits", 1_000).await;
}
