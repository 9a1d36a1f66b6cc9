//! `cors`: what browsers are told about calls from pages of other origins.

use weir_tests::http::Answer;

use crate::policies::{api, comes_to, judge, proxy};
use crate::world::{Api, World};

const NAMED: &str = r#"{ policy = "cors", origins = ["https://app.test", "https://*.pages.test"], methods = ["GET", "PUT"],
    headers = ["X-A", "X-B"], exposed_headers = ["X-C", "X-D"], credentials = true, max_age_s = 60 }"#;
const ANYBODY: &str = r#"{ policy = "cors", origins = "*" }"#;
const LIMITED: &str = r#"{ metric = "hits", period = "eternity", max = 1 }"#;

const ALLOWED: [&str; 3] = ["https://app.test", "https://a.pages.test", "https://a.b-c.pages.test"];
const OTHERS: [&str; 10] = [
    "http://app.test",
    "https://app.test:8443",
    "https://app.test.evil.test",
    "https://evil-app.test",
    "https://pages.test",
    "https://.pages.test",
    "https://evilpages.test",
    "https://evil.test/.pages.test",
    "http://a.pages.test",
    "null",
];

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins_may_call() {
    let (named, anybody) = (proxy(NAMED), proxy(ANYBODY));
    let closed = proxy(&format!("{NAMED}, {{ policy = \"maintenance\" }}"));
    let behind = proxy(&format!("{{ policy = \"ip_check\", deny = \"127.0.0.1\" }}, {NAMED}"));
    let world = World::start(&[
        api("named", &named),
        api("anybody", &anybody),
        Api { limits: LIMITED, ..api("limited", &named) },
        Api {
            rules: r#"{ method = "GET", pattern = "/only", metrics = { hits = 1 } }"#,
            ..api("ruled", &named)
        },
        api("behind", &behind),
        api("closed", &closed),
        api("none", ""),
    ])
    .await;
    preflights(&world);
    preflights_of_everybody(&world);
    in_order(&world);
    assert_eq!(world.stack.upstream.received(), 0, "preflights are answered here");
    for service in ["named", "anybody"] {
        comes_to(&world, service, "app", 0).await;
    }
    other_options(&world).await;
    calls(&world);
    calls_of_everybody(&world);
    refusals(&world).await;
    world.finish();
}

/// What an answer says of who may read it, in the order of the specification; `-`: nothing.
fn said(answer: &Answer) -> String {
    let names =
        ["allow-origin", "allow-credentials", "allow-methods", "allow-headers", "max-age", "expose-headers"];
    let values = names.map(|name| answer.header(&format!("access-control-{name}")));
    values.map(|value| if value.is_empty() { "-".to_owned() } else { value }).join(" | ")
}

fn varies(answer: &Answer) -> bool {
    answer.header("vary").to_ascii_lowercase().split(',').any(|name| name.trim() == "origin")
}

fn preflight(world: &World, service: &str, origin: &str, more: &str) -> Answer {
    let asked = format!("Origin: {origin}|Access-Control-Request-Method: PUT{more}");
    let answer = world.call(&format!("OPTIONS {service}.test/x|{asked}"));
    assert_eq!((answer.status, answer.body.as_str()), (204, ""), "{origin}: {answer:?}");
    answer
}

fn preflights(world: &World) {
    let asked = "|Access-Control-Request-Headers: x-a, x-other";
    for origin in ALLOWED {
        for more in [asked, ""] {
            let answer = preflight(world, "named", origin, more);
            assert_eq!(
                said(&answer),
                format!("{origin} | true | GET, PUT | X-A, X-B | 60 | -"),
                "{answer:?}"
            );
            assert!(varies(&answer), "{answer:?}");
        }
    }
    for origin in OTHERS {
        let answer = preflight(world, "named", origin, asked);
        assert_eq!(said(&answer), "- | - | - | - | - | -", "{origin}");
        assert!(varies(&answer), "{answer:?}");
    }
    // Even credentials that are wrong are not looked at.
    let answer = preflight(world, "named", ALLOWED[0], "|user_key: wrong-s3cret");
    assert_eq!(answer.header("access-control-allow-origin"), ALLOWED[0]);
}

fn preflights_of_everybody(world: &World) {
    let methods = "GET, HEAD, POST, PUT, PATCH, DELETE";
    let answer = preflight(
        world,
        "anybody",
        "https://who.test",
        "|Access-Control-Request-Headers: x-any, authorization",
    );
    assert_eq!(said(&answer), format!("* | - | {methods} | x-any, authorization | 600 | -"));
    assert!(!varies(&answer), "all get the same: {answer:?}");
    let answer = preflight(world, "anybody", "null", "");
    assert_eq!(said(&answer), format!("* | - | {methods} | - | 600 | -"));
}

/// What stands in front of it goes first; mapping rules come later.
fn in_order(world: &World) {
    preflight(world, "ruled", ALLOWED[0], "");
    preflight(world, "closed", ALLOWED[0], "");
    let call = |service: &str, method: &str| {
        let asked = "Origin: https://app.test|Access-Control-Request-Method: PUT";
        let answer = world.call(&format!("{method} {service}.test/x?user_key={{key}}|{asked}"));
        assert!(said(&answer).starts_with("https://app.test | true"), "{answer:?}");
        answer.status
    };
    assert_eq!((call("behind", "OPTIONS"), call("behind", "GET")), (403, 403));
    assert_eq!((call("closed", "GET"), call("ruled", "GET")), (503, 404));
}

/// Without both headers, or without the policy, it is a call like any other.
async fn other_options(world: &World) {
    judge(
        world,
        "named",
        &[
            ("OPTIONS /|Origin: https://app.test", "401 credentials_missing"),
            ("OPTIONS /|Access-Control-Request-Method: PUT", "401 credentials_missing"),
            ("OPTIONS /?user_key={key}|Origin: https://app.test", "200"),
            ("OPTIONS /?user_key={key}", "200"),
            ("POST /?user_key={key}|Origin: https://app.test|Access-Control-Request-Method: PUT", "200"),
        ],
    )
    .await;
    judge(
        world,
        "none",
        &[
            (
                "OPTIONS /|Origin: https://app.test|Access-Control-Request-Method: PUT",
                "401 credentials_missing",
            ),
            ("GET /?user_key={key}|Origin: https://app.test", "200"),
        ],
    )
    .await;
    let untouched = world.call("GET none.test/?user_key={key}|Origin: https://app.test");
    assert_eq!((said(&untouched).as_str(), varies(&untouched)), ("- | - | - | - | - | -", false));
}

fn calls(world: &World) {
    let ask = |origin: &str, more: &str| {
        let answer = world.call(&format!("GET named.test/?user_key={{key}}|Origin: {origin}{more}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(varies(&answer), "{origin}: {answer:?}");
        answer
    };
    for theirs in [
        "",
        "|x-header: Access-Control-Allow-Origin=https://evil.test",
        "|x-header: access-control-max-age=9",
    ] {
        for origin in ALLOWED {
            let answer = ask(origin, theirs);
            assert_eq!(said(&answer), format!("{origin} | true | - | - | - | X-C, X-D"), "{theirs}");
        }
        for origin in OTHERS {
            assert_eq!(said(&ask(origin, theirs)), "- | - | - | - | - | -", "{origin}{theirs}");
        }
    }
    // Caches must not give what was said to one to another.
    let answer = ask(ALLOWED[0], "|x-header: Vary=Accept-Encoding");
    assert!(answer.header("vary").contains("Accept-Encoding"), "{answer:?}");
    let plain = world.call("GET named.test/?user_key={key}");
    assert_eq!((said(&plain).as_str(), varies(&plain)), ("- | - | - | - | - | -", true), "{plain:?}");
    let failed = world.call("GET named.test/?user_key={key}|Origin: https://app.test|x-status: 500");
    assert_eq!(said(&failed), "https://app.test | true | - | - | - | X-C, X-D");
}

fn calls_of_everybody(world: &World) {
    let theirs = "x-header: Access-Control-Allow-Credentials=true";
    let answer = world.call(&format!("GET anybody.test/?user_key={{key}}|Origin: https://who.test|{theirs}"));
    assert_eq!((said(&answer).as_str(), varies(&answer)), ("* | - | - | - | - | -", false), "{answer:?}");
}

/// A page has to be able to read why it was refused.
async fn refusals(world: &World) {
    judge(
        world,
        "limited",
        &[
            ("GET /?user_key={key}|Origin: https://app.test", "200"),
            ("GET /?user_key={key}|Origin: https://app.test", "429 limits_exceeded"),
            ("GET /|Origin: https://app.test", "401 credentials_missing"),
        ],
    )
    .await;
    for (query, status) in [("?user_key={key}", 429), ("", 401), ("?user_key=wrong-s3cret", 403)] {
        for format in ["text/plain", "application/problem+json"] {
            let request = format!("GET limited.test/{query}|Accept: {format}|Origin: ");
            let answer = world.call(&format!("{request}https://app.test"));
            assert_eq!(answer.status, status, "{answer:?}");
            assert_eq!(said(&answer), "https://app.test | true | - | - | - | X-C, X-D");
            assert!(varies(&answer), "{answer:?}");
            let other = world.call(&format!("{request}https://evil.test"));
            assert_eq!((other.status, said(&other).as_str()), (status, "- | - | - | - | - | -"));
        }
    }
}
