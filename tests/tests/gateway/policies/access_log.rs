//! `access_log`: which calls have a line in the access log, and what stands there besides.

use serde_json::{Value, json};
use weir_tests::wait::until;

use crate::policies::{api, proxy};
use crate::telemetry::access_log;
use crate::world::World;

const NONE: &str = r#"{ policy = "access_log", lines = "none" }"#;
const ALL: &str = r#"{ policy = "access_log", lines = "all" }"#;
const FAILURES: &str = r#"{ policy = "access_log", lines = "failures" }"#;
const NAMED: &str =
    r#"{ policy = "access_log", lines = "all", headers = ["X-Tenant", "User-Agent", "X-Nobodys"] }"#;
const SOME: &str =
    r#"{ policy = "access_log", lines = "all", when = { paths = "/loud" }, unless = { methods = "POST" } }"#;

/// The ids of a service's calls that have a line, in order.
fn told(lines: &[Value], service: &str) -> Vec<String> {
    let own = lines.iter().filter(|line| line["service.id"] == service);
    let mut told: Vec<String> =
        own.filter_map(|line| line["request_id"].as_str()).map(str::to_owned).collect();
    told.sort_unstable();
    told
}

/// Goal: each service has the lines that its policy says, whatever the share that the gateway is configured for.
#[tokio::test(flavor = "multi_thread")]
async fn lines_are_as_the_policy_says() {
    let [none, all, failures, named, some] = [NONE, ALL, FAILURES, NAMED, SOME].map(proxy);
    let sampled = proxy(r#"{ policy = "access_log" }"#);
    let lines = "[log]\nformat = \"json\"\n[access_log]\nsample_ratio = 0";
    let world = World::start_with(
        &[
            api("none", &none),
            api("all", &all),
            api("failures", &failures),
            api("named", &named),
            api("some", &some),
            api("sampled", &sampled),
            api("without", ""),
        ],
        lines,
    )
    .await;
    for service in ["none", "all", "failures", "sampled", "without"] {
        for (id, more) in [("a-200", "200"), ("b-302", "302"), ("c-400", "400"), ("d-503", "503")] {
            let request = format!("GET {service}.test/?user_key={{key}}|X-Request-Id: {id}|x-status: {more}");
            assert_eq!(world.call(&request).status.to_string(), more);
        }
        world.check(
            &format!("GET {service}.test/?user_key=wrong-s3cret|X-Request-Id: e-403"),
            "403 Authentication failed",
        );
    }
    for (id, call) in [("a", "GET /loud"), ("b", "POST /loud"), ("c", "GET /quiet")] {
        let request = crate::policies::to("some", &format!("{call}?user_key={{key}}|X-Request-Id: {id}"));
        world.check(&request, "200");
    }
    with_headers(&world);
    let lines = until("the last line", || {
        let lines = access_log(&world);
        (told(&lines, "named").len() == 4 && told(&lines, "all").len() == 5).then_some(lines)
    });
    for (service, expected) in [
        ("none", &[][..]),
        ("all", &["a-200", "b-302", "c-400", "d-503", "e-403"]),
        ("failures", &["c-400", "d-503", "e-403"]),
        ("sampled", &["d-503"]),
        ("without", &["d-503"]),
        ("some", &["a"]),
    ] {
        assert_eq!(told(&lines, service), expected, "{service}");
    }
    what_stands_there(&lines);
    world.finish();
}

fn with_headers(world: &World) {
    let tenants = ["acme".to_owned(), "x".repeat(300), "\u{e9} \"quoted\"".to_owned()];
    for (id, tenant) in ["a", "b", "c"].into_iter().zip(tenants) {
        let more = "Authorization: Bearer wrong-s3cret|Cookie: session=s3cret|X-Other: untold";
        let request =
            format!("GET named.test/?user_key={{key}}|X-Request-Id: {id}|X-Tenant: {tenant}|{more}");
        world.check(&request, "200");
    }
    let refused = "GET named.test/?user_key=wrong-s3cret|X-Request-Id: d|User-Agent: tests";
    world.check(refused, "403 Authentication failed");
}

fn what_stands_there(lines: &[Value]) {
    let headers = |id: &str| -> Value {
        let line = lines.iter().find(|line| line["service.id"] == "named" && line["request_id"] == id);
        let text = line.and_then(|line| line["headers"].as_str()).unwrap_or_else(|| panic!("{id}: {line:?}"));
        serde_json::from_str(text).unwrap()
    };
    assert_eq!(headers("a"), json!({ "x-tenant": "acme" }));
    assert_eq!(headers("b"), json!({ "x-tenant": "x".repeat(256) }), "256 bytes of each");
    assert_eq!(headers("c"), json!({ "x-tenant": "\u{e9} \"quoted\"" }));
    assert_eq!(headers("d"), json!({ "user-agent": "tests" }));
    for line in lines.iter().filter(|line| line["service.id"] != "named") {
        assert_eq!(line["headers"], Value::Null, "{line}");
    }
    assert!(lines.iter().all(|line| !line.to_string().contains("untold")));
}
