//! Policies of a gateway that runs: they change, some cannot be used, and operators ask what applies.

use std::time::{Duration, Instant};

use serde_json::json;
use weir_tests::wait::until;

use crate::explain::{OPERATOR, told};
use crate::policies::{api, code, comes_to, judge, proxy};
use crate::world::{Api, KEY, PLAIN, World, catalog};

/// Goal: a changed policy is in force within a second; a catalog that cannot be used changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn policies_change_while_the_gateway_runs() {
    let tagged = |tag: &str| {
        let change = format!("[{{ name = \"X-Tag\", value = \"{tag}\" }}]");
        proxy(&format!("{{ policy = \"headers\", request = {change}, response = {change} }}"))
    };
    let put = |world: &World, revision: u64, policies: &str| {
        world.stack.put_catalog(&catalog(revision, &[Api { proxy: policies, ..PLAIN }]));
    };
    let request = "GET plain.test/?user_key={key}";
    let first = tagged("first");
    let world = World::start(&[Api { proxy: &first, ..PLAIN }]).await;
    world.sends(request, "x-tag", "first");
    for (revision, tag) in [(2, "second"), (3, "third")] {
        put(&world, revision, &tagged(tag));
        let changed = Instant::now();
        until(tag, || (world.call(request).header("x-tag") == tag).then_some(()));
        // A second is promised; another is for machines that are busy with other tests.
        assert!(changed.elapsed() < Duration::from_secs(2), "{:?}", changed.elapsed());
        world.sends(request, "x-tag", tag);
    }
    for (revision, bad, why) in [
        (4, r#"{ policy = "corz", origins = "*" }"#, "there is no policy \"corz\""),
        (5, r#"{ policy = "cors", origins = "everybody" }"#, "is not an origin"),
        (
            6,
            r#"{ policy = "authorise" }, { policy = "cors", origins = "*" }"#,
            "cors stands behind authorise",
        ),
        (7, r#"{ policy = "url_rewriting", path = [{ pattern = "(", replacement = "" }] }"#, "pattern"),
        (8, r#"{ policy = "anonymous", application = "nobody" }"#, "application nobody is not one of"),
    ] {
        put(&world, revision, &proxy(bad));
        until(why, || world.stack.listeners[0].log().contains(why).then_some(()));
        world.sends(request, "x-tag", "third");
    }
    put(&world, 9, &proxy(r#"{ policy = "maintenance" }"#));
    until("maintenance", || (code(&world, request) == "503 maintenance").then_some(()));
    put(&world, 10, "");
    until("the end of it", || (world.call(request).status == 200).then_some(()));
    world.sends(request, "x-tag", "");
    assert_eq!(world.call(request).header("x-tag"), "");
    world.finish();
}

const MANY: &str = r#"
    { policy = "headers", request = [{ name = "X-A", value = "1" }] },
    { policy = "cors", origins = "*" },
    { policy = "routing", routes = [{ when = { paths = "/a" }, api_backend = "{upstream}/routed" }], when = { methods = "GET" } },
    { policy = "ip_check", deny = "192.0.2.1", unless = { paths = "/free" } },
    { policy = "url_rewriting", path = [{ pattern = "^/a", replacement = "/b" }] }"#;

const FRONT: &str =
    r#"{ policy = "edge_limits", limits = [{ per = "service", requests = 2, period_s = 3600 }] }"#;

/// Goal: an explanation names what applies, in the order in which it is done, and uses nothing up.
#[tokio::test(flavor = "multi_thread")]
async fn policies_are_explained() {
    let many = proxy(MANY);
    let ordered = proxy(&format!(
        "{FRONT}, {{ policy = \"authorise\" }}, {FRONT}, {}",
        MANY.lines().nth(1).unwrap().trim()
    ));
    let down = proxy(r#"{ policy = "maintenance", when = { paths = "/down" } }"#);
    let world = World::start_with(
        &[api("many", &many), api("ordered", &ordered), api("down", &down)],
        &format!("operator_token = \"{OPERATOR}\"\n"),
    )
    .await;
    let url = |service: &str, path: &str| format!("http://{service}.test{path}?user_key={KEY}");
    for (method, service, path, expected) in [
        ("GET", "many", "/a", json!(["cors", "ip_check", "headers", "routing", "url_rewriting"])),
        ("POST", "many", "/a", json!(["cors", "ip_check", "headers", "url_rewriting"])),
        ("GET", "many", "/free", json!(["cors", "headers", "routing", "url_rewriting"])),
        ("GET", "ordered", "/", json!(["edge_limits", "edge_limits", "headers"])),
        ("GET", "down", "/", json!([])),
    ] {
        let (explained, exit) = told(&world, &["explain", method, &url(service, path)]);
        assert_eq!((exit, &explained["policies"]), (0, &expected), "{method} {service}{path}: {explained}");
    }
    for _ in 0..5 {
        let (explained, exit) = told(&world, &["explain", "GET", &url("ordered", "/")]);
        assert_eq!(exit, 0, "{explained}");
    }
    let (down, exit) = told(&world, &["explain", "GET", &url("down", "/down")]);
    assert_eq!(
        (exit, &down["answer"]["status"], &down["answer"]["code"]),
        (3, &json!(503), &json!("maintenance"))
    );
    assert_eq!(world.stack.upstream.received(), 0);
    comes_to(&world, "ordered", "app", 0).await;
    judge(
        &world,
        "ordered",
        &[
            ("GET /?user_key={key}", "200"),
            ("GET /?user_key={key}", "200"),
            ("GET /?user_key={key}", "429 edge_rate_exceeded"),
        ],
    )
    .await;
    let (full, exit) = told(&world, &["explain", "GET", &url("ordered", "/")]);
    assert_eq!((exit, &full["answer"]["code"]), (3, &json!("edge_rate_exceeded")), "{full}");
    world.finish();
}

/// Goal: what callers have used of their rates outlives changes of everything else.
#[tokio::test(flavor = "multi_thread")]
async fn buckets_outlive_changes() {
    let limited = proxy(FRONT);
    let world = World::start(&[api("limited", &limited)]).await;
    const FAST: &str = "429 edge_rate_exceeded";
    let get = "GET /?user_key={key}";
    judge(&world, "limited", &[(get, "200"), (get, "200"), (get, FAST)]).await;
    let tagged = r#"{ policy = "headers", response = [{ name = "X-Tag", value = "new" }] }"#;
    let changed = proxy(&format!("{FRONT}, {tagged}"));
    world.stack.put_catalog(&catalog(2, &[api("limited", &changed)]));
    let request = "GET limited.test/?user_key={key}";
    until("the change", || (world.call(request).header("x-tag") == "new").then_some(()));
    judge(&world, "limited", &[(get, FAST)]).await;
    let looser = changed.replace("requests = 2", "requests = 3");
    world.stack.put_catalog(&catalog(3, &[api("limited", &looser)]));
    until("the looser limit", || (world.call(request).status == 200).then_some(()));
    world.finish();
}

/// Goal: what staging's policies are is nothing to production.
#[tokio::test(flavor = "multi_thread")]
async fn deployments_have_their_own() {
    let staging = r#"[providers.services.staging]
hosts = ["api.staging.test"]
policies = [{ policy = "maintenance" }]"#;
    let world = World::start(&[api("plain", staging)]).await;
    judge(&world, "plain", &[("GET /?user_key={key}", "200"), ("GET /", "401 credentials_missing")]).await;
    world.check("GET api.staging.test/", "404");
    world.finish();
}
