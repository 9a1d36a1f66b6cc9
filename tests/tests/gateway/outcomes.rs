//! What a call costs by its answer: free failures, and what upstreams add.
//!
//! Goal: the counters hold what the answers say, once, whoever decides. Method: the same calls through a service that is
//! decided within leases and one whose calls are decided by the listener.

use weir_tests::http::get;
use weir_tests::wait::until_async;

use crate::world::{Api, PLAIN, World};

const RULES: &str = r#"
{ method = "GET", pattern = "/", metrics = { hits = 1 }, free_answers = ["5xx", "404"] },
{ method = "GET", pattern = "/search", metrics = { search = 2 } },
{ method = "GET", pattern = "/mail", metrics = { mail = 1 }, free_answers = "4xx" }
"#;

const LIMITS: &str = r#"{ metric = "hits", period = "eternity", max = 100 }"#;

const APPLICATIONS: &str = r#"
[[providers.services.plans]]
id = "generous"
free_answers = ["5xx"]
[[providers.services.applications]]
id = "friend"
plan = "generous"
user_key = "friend-s3cret"
"#;

fn api(id: &'static str, proxy: &'static str) -> Api<'static> {
    Api { id, rules: RULES, limits: LIMITS, applications: APPLICATIONS, proxy, ..PLAIN }
}

/// Waits until an application has used this, and sees that it stays so.
async fn comes_to(world: &World, service: &str, application: &str, expected: &[(&str, u64)]) {
    let client = world.stack.listener_client(0);
    let expected: std::collections::BTreeMap<String, u64> =
        expected.iter().map(|(metric, used)| ((*metric).to_owned(), *used)).collect();
    until_async(&format!("{service}/{application} to come to {expected:?}"), || async {
        let used = client.totals(service, application).await.ok()?;
        (used.into_iter().filter(|(_, used)| *used > 0).collect::<std::collections::BTreeMap<_, _>>()
            == expected)
            .then_some(())
    })
    .await;
}

const BESIDES: &str = "usage_header = \"X-Usage\"\nusage_header_max = 50";
const SYNCHRONOUS: &str = "decisions = \"synchronous\"\nusage_header = \"X-Usage\"\nusage_header_max = 50";
const FRIEND: &str = "friend-s3cret";

#[tokio::test(flavor = "multi_thread")]
async fn answers_decide_what_calls_cost() {
    let world = World::start(&[api("leased", BESIDES), api("synchronous", SYNCHRONOUS)]).await;
    for service in ["leased", "synchronous"] {
        let answered = |key: &str, target: &str, status: u16| {
            let call = world.call(&format!("GET {service}.test{target}?user_key={key}|x-status: {status}"));
            assert_eq!(call.status, status);
        };
        for status in [500, 200, 503, 404, 404, 200, 502] {
            answered("{key}", "/", status);
        }
        comes_to(&world, service, "app", &[("hits", 2)]).await;
        // Only the rule that says so is free; a method's parent follows it.
        answered("{key}", "/search", 500);
        comes_to(&world, service, "app", &[("hits", 4), ("search", 2)]).await;
        answered("{key}", "/search", 200);
        answered("{key}", "/mail", 400);
        answered("{key}", "/mail", 200);
        comes_to(&world, service, "app", &[("hits", 9), ("mail", 1), ("search", 4)]).await;
        // Under this plan a failure is free, whatever the rules say.
        answered(FRIEND, "/search", 503);
        answered(FRIEND, "/mail", 400);
        answered(FRIEND, "/search", 200);
        comes_to(&world, service, "friend", &[("hits", 4), ("search", 2)]).await;
    }
    world.finish();
}

/// What was free makes room for what is not.
#[tokio::test(flavor = "multi_thread")]
async fn free_failures_use_up_no_limit() {
    let limits = r#"{ metric = "hits", period = "eternity", max = 2 }"#;
    let small = |id, proxy| Api { limits, ..api(id, proxy) };
    let world =
        World::start(&[small("leased", ""), small("synchronous", "decisions = \"synchronous\"")]).await;
    for service in ["leased", "synchronous"] {
        let status = |status: u16| {
            world.call(&format!("GET {service}.test/?user_key={{key}}|x-status: {status}")).status
        };
        for _ in 0..5 {
            assert_eq!(status(500), 500);
            comes_to(&world, service, "app", &[]).await;
        }
        assert_eq!([status(200), status(200), status(200)], [200, 200, 429], "{service}");
    }
    world.finish();
}

/// An upstream that cannot be reached has failed, too: its calls are answered 502 by the gateway.
#[tokio::test(flavor = "multi_thread")]
async fn upstreams_that_are_away_are_free() {
    let world = World::start(&[Api { backend: "http://127.0.0.1:1", ..api("away", "") }]).await;
    assert_eq!(world.call("GET away.test/?user_key={key}").status, 502);
    assert_eq!(world.call("GET away.test/search?user_key={key}").status, 502);
    comes_to(&world, "away", "app", &[("hits", 2), ("search", 2)]).await;
    world.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn upstreams_tell_what_calls_used_besides() {
    let world =
        World::start(&[api("leased", BESIDES), api("synchronous", SYNCHRONOUS), api("deaf", "")]).await;
    for (service, is_heard) in [("leased", true), ("synchronous", true), ("deaf", false)] {
        let told = |usage: &str| {
            let answer =
                world.call(&format!("GET {service}.test/?user_key={{key}}|x-header: X-Usage={usage}"));
            assert_eq!(answer.status, 200);
            assert_eq!(answer.header("x-usage").is_empty(), is_heard, "{answer:?}");
        };
        for usage in ["mail=7, search=2", "search=1000000", "nothing=3, mail=1", "mail=-4, mail=, =, mail"] {
            told(usage);
        }
        let expected: &[_] = match is_heard {
            true => &[("hits", 4 + 2 + 50), ("mail", 8), ("search", 52)],
            false => &[("hits", 4)],
        };
        comes_to(&world, service, "app", expected).await;
    }
    // It has happened: limits do not keep it from being counted, but what comes next.
    assert_eq!(world.call("GET leased.test/?user_key={key}|x-header: X-Usage=search=50").status, 200);
    comes_to(&world, "leased", "app", &[("hits", 107), ("mail", 8), ("search", 102)]).await;
    assert_eq!(world.call("GET leased.test/?user_key={key}").status, 429);
    let log = world.stack.gateways[0].log();
    assert!(log.contains("an upstream's usage cannot be read"), "{log}");
    let metrics = get(world.stack.gateways[0].telemetry, "/metrics").body;
    assert!(metrics.contains("weir_gateway_extra_lost_total 0"), "{metrics}");
    world.finish();
}

/// A gateway that is told to stop tells first what it has to tell.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_kept_back_at_the_stop() {
    let mut world = World::start(&[api("api", SYNCHRONOUS)]).await;
    assert_eq!(world.call("GET api.test/mail?user_key={key}|x-header: X-Usage=search=3").status, 200);
    assert_eq!(world.call("GET api.test/?user_key={key}|x-status: 500").status, 500);
    assert!(world.stack.gateways[0].terminate().success());
    comes_to(&world, "api", "app", &[("hits", 4), ("mail", 1), ("search", 3)]).await;
    world.finish();
}
