//! Why a call is answered as it is: `weir explain` before it is made, `weir why` after it was refused.
//!
//! Goal: operators learn every fact that decided, and nothing is counted, sent on or given away by asking. (That what is
//! foretold comes true is judged on every case of the conformance suite.)

use std::process::Output;

use serde_json::{Value, json};
use weir_tests::http;
use weir_tests::process::weir;
use weir_tests::wait::until;

use crate::world::{Api, KEY, PLAIN, World};

pub(crate) const OPERATOR: &str = "operator-s3cret";
const SEARCHES: &str = r#"{ metric = "search", period = "day", max = 9 }"#;
const BACKENDS: &str = r#"
[[providers.services.backends]]
id = "finder"
mount = "/find"
api_backend = "{upstream}/found"
mapping_rules = [{ method = "GET", pattern = "/", metrics = { search = 3 }, free_answers = ["5xx"], last = true }]
[[providers.services.applications]]
id = "idle"
plan = "plan"
state = "suspended"
user_key = "idle-s3cret"
"#;

async fn start(hits_max: u64, lines: &str) -> World {
    let limits = format!("{{ metric = \"hits\", period = \"eternity\", max = {hits_max} }}, {SEARCHES}");
    let api = Api { id: "api", limits: &limits, applications: BACKENDS, ..PLAIN };
    World::start_with(&[api], &format!("operator_token = \"{OPERATOR}\"\n{lines}")).await
}

/// Runs `weir explain` or `weir why` against the first gateway.
fn ask(world: &World, token: &str, arguments: &[&str]) -> Output {
    let dir = tempfile::tempdir().expect("a folder of its own");
    let file = dir.path().join("token");
    std::fs::write(&file, token).expect("a file of its own");
    let gateway = format!("http://{}", world.stack.gateways[0].telemetry);
    let file = file.display().to_string();
    weir(&[arguments, &["--gateway", &gateway, "--token-file", &file]].concat())
}

/// The explanation, and the exit code.
#[track_caller]
pub(crate) fn told(world: &World, arguments: &[&str]) -> (Value, i32) {
    let output = ask(world, OPERATOR, &[arguments, &["--json"]].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!text.contains("s3cret"), "{text}");
    let told = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{output:?}"));
    (told, output.status.code().expect("an exit code"))
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_explained_before_they_are_made() {
    let world = start(5, "").await;
    let url = format!("http://api.test/find/x?user_key={KEY}&q=1");
    let (passes, code) = told(&world, &["explain", "GET", &url]);
    assert_eq!((code, &passes["answer"]["from"]), (0, &json!("upstream")));
    let upstream = format!("http://{}/found/x", world.stack.upstream.address());
    for (name, expected) in [
        ("service", json!("api")),
        ("backend", json!("finder")),
        ("application", json!("app")),
        ("decided_by", json!("listener")),
        ("path", json!("/find/x")),
        ("upstream", json!(upstream)),
        ("usage", json!([{ "metric": "hits", "amount": 1 }, { "metric": "search", "amount": 3 }])),
        ("credentials", json!({ "mode": "user_key", "location": "query or form: user_key" })),
        ("policies", json!([])),
    ] {
        assert_eq!(passes[name], expected, "{name}");
    }
    let rule = &passes["rules"][1];
    assert_eq!((&rule["pattern"], &rule["last"]), (&json!("/find/"), &json!(true)));
    assert_eq!(rule["free_answers"], json!(["5xx"]));
    let hits = json!({ "metric": "hits", "period": "eternity", "max": 5, "used": 0, "held": 0, "left": 5, "resets_in_s": null });
    assert_eq!(passes["limits"][0], hits);

    // Nothing was counted, nothing arrived; twice the same.
    assert_eq!(world.stack.upstream.received(), 0);
    assert_eq!(world.used("api").await.values().sum::<u64>(), 0);
    assert_eq!(told(&world, &["explain", "GET", &url]).0, passes);

    world.check("GET api.test/?user_key={key}", "200");
    world.check("GET api.test/?user_key={key}", "200");
    let (full, code) = told(&world, &["explain", "GET", &url]);
    assert_eq!(
        (code, &full["answer"]["status"], &full["answer"]["code"]),
        (3, &json!(429), &json!("limits_exceeded"))
    );
    assert_eq!(full["answer"]["retry_after_s"], json!(null), "never");

    let refused = |arguments: &[&str], status: u16, code: &str| {
        let (told, exit) = told(&world, &[&["explain"], arguments].concat());
        assert_eq!((exit, &told["answer"]["status"]), (3, &json!(status)), "{arguments:?} {told}");
        assert_eq!(told["answer"]["code"], code, "{arguments:?}");
        told
    };
    refused(&["GET", "http://api.test/"], 401, "credentials_missing");
    refused(&["GET", "http://other.test/"], 404, "service_not_found");
    refused(&["GET", "http://api.test/?user_key=nobodys"], 403, "user_key_invalid");
    refused(&["GET", "http://api.test/%2e%2e/x"], 400, "request_malformed");
    refused(&["POST", "http://api.test/", "--data", "user_key=nobodys"], 403, "user_key_invalid");
    let idle = refused(&["GET", "http://api.test/", "--application", "idle"], 403, "application_not_active");
    assert_eq!(idle["application"], "idle");
    refused(&["GET", "http://api.test/", "--application", "nobody"], 403, "user_key_invalid");
    refused(&["GET", "http://api.test/find/", "--application", "app"], 429, "limits_exceeded");
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_explained_by_their_ids() {
    let mut world = start(2, "[refusals]\nfile = \"refusals.jsonl\"\n").await;
    let refused = world.call("GET api.test/find/x?user_key=nobodys-s3cret&q=2");
    let id = refused.header("x-request-id");
    assert_eq!(refused.status, 403);
    assert!(world.stack.gateways[0].log().contains(&id), "the log shows it, too");
    let (why, code) = told(&world, &["why", &id]);
    assert_eq!((code, &why["request_id"]), (0, &json!(id)));
    assert_eq!((&why["answer"]["status"], &why["answer"]["code"]), (&json!(403), &json!("user_key_invalid")));
    assert_eq!(
        (&why["service"], &why["backend"], &why["path"]),
        (&json!("api"), &json!("finder"), &json!("/find/x"))
    );
    assert!(why["at_unix_ms"].as_i64().is_some_and(|at| at > 1_700_000_000_000));

    for _ in 0..2 {
        world.check("GET api.test/?user_key={key}", "200");
    }
    let limited =
        world.call("GET api.test/?user_key={key}|X-Request-Id: mine-7|Accept: application/problem+json");
    assert_eq!(limited.json()["instance"], "urn:weir:request:mine-7");
    let (why, _) = told(&world, &["why", "mine-7"]);
    assert_eq!((&why["limits"][0]["metric"], &why["limits"][0]["max"]), (&json!("hits"), &json!(2)));
    assert_eq!(why["application"], "app");

    let malformed = world.raw("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    let (why, _) = told(&world, &["why", &malformed.header("x-request-id")]);
    assert_eq!(why["answer"]["status"], 400);

    let told_text = ask(&world, OPERATOR, &["why", &id]);
    let text = String::from_utf8_lossy(&told_text.stdout).into_owned();
    assert!(
        text.contains("answer       403 (user_key_invalid)") && text.contains("backend      finder"),
        "{text}"
    );

    // Kept longer, since that is switched on; not what passed, and not what never was.
    world.stack.gateways[0].terminate();
    world.stack.gateways[0].start();
    until("the file", || ask(&world, OPERATOR, &["why", &id]).status.success().then_some(()));
    let unknown = ask(&world, OPERATOR, &["why", "never-was"]);
    assert_eq!(unknown.status.code(), Some(1), "{unknown:?}");
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_operators_are_told() {
    let world = start(5, "").await;
    for arguments in [&["explain", "GET", "http://api.test/"][..], &["why", "x"]] {
        let output = ask(&world, "another-token", arguments);
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("operator's token"), "{output:?}");
    }
    let telemetry = world.stack.gateways[0].telemetry;
    assert_eq!(http::call(telemetry, "POST", "/explain", &[], "GET / HTTP/1.1\r\n\r\n").status, 401);
    let bearer = format!("Bearer {OPERATOR}");
    let signed = [("Authorization", bearer.as_str())];
    assert_eq!(
        http::call(telemetry, "POST", "/explain", &signed, "GET / HTTP/1.1\r\n").status,
        400,
        "not whole"
    );
    assert_eq!(http::call(telemetry, "GET", "/explain", &signed, "").status, 405);
    assert_eq!(http::call(telemetry, "POST", "/why/x", &signed, "").status, 405);
    let closed = World::start(&[PLAIN]).await;
    assert_eq!(http::get(closed.stack.gateways[0].telemetry, "/why/x").status, 403, "nobody may ask");
    closed.finish();
    world.finish();
}
