//! The refusals: their texts, problem documents, what they tell of limits, and which comes first.

use serde_json::json;
use weir_tests::http::Answer;

use crate::world::{Api, PLAIN, World};

const CUSTOM: &str = r#"errors = { auth_missing = { status = 407, body = "who are you?", content_type = "text/html" }, auth_failed = { status = 418, body = "{\"error\":\"no\"}", content_type = "application/json" }, no_match = { status = 412, body = "", content_type = "text/x-none" }, limits_exceeded = { status = 509, body = "<slow/>", content_type = "application/xml; charset=utf-8" } }"#;
const RULES: &str = r#"
{ method = "GET", pattern = "/hit", metrics = { hits = 1 } },
{ method = "GET", pattern = "/closed", metrics = { mail = 1 } },
{ method = "GET", pattern = "/dear", metrics = { hits = 3 } },
"#;
const LIMITS: &str = r#"
{ metric = "hits", period = "week", max = 2 },
{ metric = "hits", period = "eternity", max = 1000 },
{ metric = "mail", period = "eternity", max = 0 },
"#;
const FOREVER: &str = r#"{ metric = "hits", period = "eternity", max = 1 }"#;
const WEEK_S: u64 = 604_800;

#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_why() {
    let api = |id| Api { id, rules: RULES, limits: LIMITS, ..PLAIN };
    let world = World::start(&[
        api("default"),
        Api { proxy: CUSTOM, ..api("custom") },
        api("problems"),
        api("headers"),
        Api { limits: FOREVER, ..api("forever") },
        Api { backend: "", ..api("nowhere") },
    ])
    .await;
    four_texts(&world, "default", &DEFAULTS);
    four_texts(&world, "custom", &CUSTOMS);
    problems(&world);
    rate_limit_headers(&world);
    all_or_nothing(&world).await;
    order_of_failures(&world).await;
    no_upstream(&world).await;
    world.finish();
}

/// Missing, failed, no match, over a limit.
type Texts = [(u16, &'static str, &'static str); 4];

const PLAIN_TEXT: &str = "text/plain; charset=utf-8";
const DEFAULTS: Texts = [
    (401, "Authentication parameters missing", PLAIN_TEXT),
    (403, "Authentication failed", PLAIN_TEXT),
    (404, "No Mapping Rule matched", PLAIN_TEXT),
    (429, "Limits exceeded", PLAIN_TEXT),
];
const CUSTOMS: Texts = [
    (407, "who are you?", "text/html"),
    (418, "{\"error\":\"no\"}", "application/json"),
    (412, "", "text/x-none"),
    (509, "<slow/>", "application/xml; charset=utf-8"),
];

fn four_texts(world: &World, service: &str, texts: &Texts) {
    let targets = ["/hit", "/hit?user_key=wrong-s3cret", "/none?user_key={key}", "/dear?user_key={key}"];
    for (target, text) in targets.into_iter().zip(texts) {
        let answer = world.call(&format!("GET {service}.test{target}"));
        let found = (answer.status, answer.body.as_str(), answer.header("content-type"));
        assert_eq!(found, (text.0, text.1, text.2.to_owned()), "{service} {target}");
        assert_eq!(answer.header("content-length"), text.1.len().to_string());
        assert_eq!(answer.header("retry-after").is_empty(), text.1 != texts[3].1, "{service} {target}");
    }
    // Closed in this plan: waiting does not help, so it reads as a failed authorisation.
    let closed = world.call(&format!("GET {service}.test/closed?user_key={{key}}"));
    assert_eq!((closed.status, closed.body.as_str()), (texts[1].0, texts[1].1));
    assert_eq!((closed.header("retry-after"), closed.header("ratelimit")), (String::new(), String::new()));
}

fn problems(world: &World) {
    for (target, status, code) in [
        ("/hit", 401, "credentials_missing"),
        ("/hit?user_key=wrong-s3cret", 403, "user_key_invalid"),
        ("/none?user_key={key}", 404, "no_mapping_rule"),
        ("/closed?user_key={key}", 403, "limits_exceeded"),
    ] {
        let answer = world.call(&format!("GET problems.test{target}|Accept: application/problem+json"));
        let document = answer.json();
        assert_eq!(answer.status, status, "{target}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert_eq!((&document["status"], &document["code"]), (&json!(status), &json!(code)), "{target}");
        assert_eq!(document["type"], format!("urn:weir:problem:{code}"));
        assert_eq!(document["instance"], format!("urn:weir:request:{}", answer.header("x-request-id")));
        assert!(
            !document["detail"].as_str().unwrap().is_empty() && document["title"].is_string(),
            "{document}"
        );
        assert!(document["limit"].is_null(), "{document}");
    }
    let accept = "Accept: text/html;q=0.5, application/problem+json";
    let answer = world.call(&format!("GET problems.test/dear?user_key={{key}}|{accept}"));
    let limit = &answer.json()["limit"];
    let left_s: u64 = answer.header("retry-after").parse().unwrap();
    assert_eq!(answer.status, 429);
    assert_eq!(
        *limit,
        json!({ "metric": "hits", "period": "week", "max": 2, "used": 0, "reset_seconds": left_s })
    );
    for accept in ["*/*", "application/json", "application/problem+json;q=0"] {
        world.check(
            &format!("GET problems.test/hit|Accept: {accept}"),
            "401 Authentication parameters missing",
        );
    }
}

fn rate_limit_headers(world: &World) {
    let call = |service: &str| world.call(&format!("GET {service}.test/hit?user_key={{key}}"));
    let policy = "\"hits-week\";q=2;w=604800, \"hits-eternity\";q=1000";
    for (status, left) in [(200, [1, 999]), (200, [0, 998])] {
        let answer = call("headers");
        assert_eq!((answer.status, answer.header("ratelimit-policy").as_str()), (status, policy));
        let (week, eternity) = (left[0], left[1]);
        let told =
            format!("\"hits-week\";r={week};t={}, \"hits-eternity\";r={eternity}", seconds_left(&answer));
        assert_eq!(answer.header("ratelimit"), told);
        assert_eq!(answer.header("retry-after"), "");
    }
    let refused = call("headers");
    assert_eq!(
        (refused.status, refused.header("ratelimit-policy").as_str()),
        (429, "\"hits-week\";q=2;w=604800")
    );
    assert_eq!(refused.header("ratelimit"), format!("\"hits-week\";r=0;t={}", seconds_left(&refused)));
    assert_eq!(refused.header("retry-after"), seconds_left(&refused).to_string());
    assert_eq!(call("forever").header("ratelimit"), "\"hits-eternity\";r=0");
    let refused = call("forever");
    assert_eq!((refused.status, refused.header("retry-after").as_str()), (429, ""));
    assert_eq!(refused.header("ratelimit-policy"), "\"hits-eternity\";q=1");
}

fn seconds_left(answer: &Answer) -> u64 {
    let state = answer.header("ratelimit");
    let left = state.split([';', ',']).find_map(|part| part.strip_prefix("t=")).unwrap();
    left.parse().ok().filter(|seconds| (1..=WEEK_S).contains(seconds)).unwrap()
}

/// A refused call counts nothing, and what fits still passes afterwards.
async fn all_or_nothing(world: &World) {
    assert!(world.used("default").await.is_empty());
    world.check("GET default.test/hit?user_key={key}", "200");
    world.check("GET default.test/dear?user_key={key}", "429 Limits exceeded");
    world.check("GET default.test/hit?user_key={key}", "200");
    world.check("GET default.test/hit?user_key={key}", "429 Limits exceeded");
    assert_eq!(world.used("default").await.get("hits"), Some(&2));
}

/// Unknown host, malformed path, credentials missing, no rule, no upstream, refused.
async fn order_of_failures(world: &World) {
    world.check("GET unknown.test/none", "404");
    assert_eq!(world.call("GET default.test/none/../x").status, 400);
    world.check("GET default.test/none", "401 Authentication parameters missing");
    world.check("GET nowhere.test/none", "401 Authentication parameters missing");
    world.check("GET nowhere.test/none?user_key=wrong-s3cret", "404 No Mapping Rule matched");
    world.check("GET nowhere.test/hit?user_key=wrong-s3cret", "404");
    world.check("GET default.test/closed?user_key=wrong-s3cret", "403 Authentication failed");
}

async fn no_upstream(world: &World) {
    let before = world.stack.upstream.received();
    world.check("GET nowhere.test/hit?user_key={key}", "404");
    assert!(world.used("nowhere").await.is_empty());
    assert_eq!(world.stack.upstream.received(), before);
}
