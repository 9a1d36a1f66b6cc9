//! `url_rewriting`: which path and query mapping rules see, and which the upstream.

use crate::policies::{api, code, comes_to, hits, judge, proxy};
use crate::world::{Api, World, growth};

const OLD_IS_NEW: &str =
    r#"{ policy = "url_rewriting", path = [{ pattern = "^/old/", replacement = "/new/" }] }"#;

/// Old ways are mails, new ones hits.
const RULES: &str = r#"
{ method = "ANY", pattern = "/new", metrics = { hits = 1 } },
{ method = "ANY", pattern = "/old", metrics = { mail = 1 } },
{ method = "ANY", pattern = "/ask?kind=big", metrics = { search = 1 } },
"#;

const CHAIN: &str = r#"{ policy = "url_rewriting", path = [
    { pattern = "q", replacement = "r" },
    { pattern = "x", replacement = "y", all = true },
    { pattern = "^/stop", replacement = "/halt", last = true },
    { pattern = "^/halt", replacement = "/never" },
    { pattern = "^/post", replacement = "/sent", methods = ["POST", "PUT"] },
    { pattern = '^/v(\d+)/([^/]+)$', replacement = "/$2/v$1" },
    { pattern = '%20', replacement = "-", all = true },
] }"#;

const QUERY: &str = r#"{ policy = "url_rewriting", query = [
    { name = "set", value = "1" },
    { change = "add", name = "add", value = "{method}" },
    { change = "default", name = "default", value = "d" },
    { change = "remove", name = "remove" },
    { name = "a name", value = "a b&c={header.X-Zone}" },
] }"#;

const BROKEN: &str = r#"{ policy = "url_rewriting", path = [
    { pattern = "^/gone$", replacement = "" },
    { pattern = "^/relative", replacement = "x" },
    { pattern = "^/slash", replacement = "/a%2Fb" },
    { pattern = "^/backslash", replacement = "/a%5cb" },
    { pattern = "^/dots", replacement = "/a/../b" },
    { pattern = "^/escaped", replacement = "/a/%2e%2E/b" },
    { pattern = "^/zero", replacement = "/a%00b" },
    { pattern = "^/half", replacement = "/a%4" },
    { pattern = "^/fragment", replacement = "/a#b" },
    { pattern = "^/question", replacement = "/a?b=1" },
    { pattern = "^/blank", replacement = "/a b" },
    { pattern = "^/up", replacement = "/." },
    { pattern = "^/mine", replacement = "/fine" },
] }"#;

const SOME: &str = r#"{ policy = "url_rewriting", path = [{ pattern = "^", replacement = "/beta" }],
    when = { query = [{ name = "beta", matches = "^(1|yes)$" }] }, unless = { methods = "POST" } }"#;

const AUTHORISE: &str = r#", { policy = "authorise" }"#;

fn list(policies: &str) -> String {
    format!("strip_credentials = true\n{}", proxy(policies))
}

#[tokio::test(flavor = "multi_thread")]
async fn urls_are_rewritten() {
    let kind = r#"{ policy = "url_rewriting", query = [{ name = "kind", value = "big" }] }"#;
    let [behind, chain, query, broken, some] = [OLD_IS_NEW, CHAIN, QUERY, BROKEN, SOME].map(list);
    let [front, front_query, front_broken] =
        [OLD_IS_NEW, kind, BROKEN].map(|policy| list(&format!("{policy}{AUTHORISE}")));
    let ruled = |id, proxy| Api { rules: RULES, ..api(id, proxy) };
    let world = World::start(&[
        ruled("behind", &behind),
        ruled("front", &front),
        ruled("front-query", &front_query),
        api("chain", &chain),
        api("query", &query),
        api("broken", &broken),
        api("front-broken", &front_broken),
        api("some", &some),
    ])
    .await;
    rules_see(&world).await;
    paths(&world);
    queries(&world);
    for service in ["broken", "front-broken"] {
        what_is_no_path(&world, service).await;
    }
    comes_to(&world, "some", "app", 0).await;
    for (call, target) in [
        ("GET some.test/a?beta=yes", "/beta/a?beta=yes"),
        ("GET some.test/a?beta=no", "/a?beta=no"),
        ("POST some.test/a?beta=1", "/a?beta=1"),
    ] {
        world.lands(&format!("{call}&user_key={{key}}"), target);
    }
    comes_to(&world, "some", "app", 3).await;
    world.finish();
}

/// Goal: rewrites that make paths longer and longer do not use up the gateway's memory. Method: each of them doubles it.
#[tokio::test(flavor = "multi_thread")]
async fn paths_do_not_grow_for_ever() {
    let double = r#"{ pattern = "a", replacement = "aa", all = true }"#;
    let doubling = |times: usize| {
        let rewrites = vec![double; times].join(", ");
        list(&format!(r#"{{ policy = "url_rewriting", path = [{rewrites}] }}"#))
    };
    let [few, many] = [10, 26].map(doubling);
    let world = World::start(&[api("few", &few), api("many", &many)]).await;
    world.lands("GET few.test/a?user_key={key}", &format!("/{}", "a".repeat(1 << 10)));
    let before = world.stack.gateways[0].memory_peak_bytes();
    for request in ["GET few.test/aaaaaaaaa?user_key={key}", "GET many.test/a?user_key={key}"] {
        assert_eq!(code(&world, request), "500 policy_failed", "{request}");
    }
    let more = world.stack.gateways[0].memory_peak_bytes() - before;
    assert!(more < 16 << 20, "{more} bytes for one path");
    world.finish();
}

/// In front of `authorise` rules see the new path, behind it the client's; the upstream always sees the new one.
async fn rules_see(world: &World) {
    for (service, call, target, expected) in [
        ("front", "/old/a", "/new/a", "hits=1"),
        ("front", "/new/a", "/new/a", "hits=1"),
        ("behind", "/old/a", "/new/a", "mail=1"),
        ("behind", "/new/a", "/new/a", "hits=1"),
        ("front-query", "/ask", "/ask?kind=big", "hits=1 search=1"),
        ("front-query", "/ask?kind=small&b", "/ask?b&kind=big", "hits=1 search=1"),
    ] {
        let before = world.used(service).await;
        let joint = if call.contains('?') { '&' } else { '?' };
        world.lands(&format!("GET {service}.test{call}{joint}user_key={{key}}"), target);
        assert_eq!(growth(&before, &world.used(service).await), expected, "{service} {call}");
    }
    // What the client wrote is judged before anybody rewrites it.
    for service in ["front", "behind"] {
        judge(world, service, &[("GET /old/../x?user_key={key}", "400 request_malformed")]).await;
    }
}

fn paths(world: &World) {
    for (call, target) in [
        ("GET /qq", "/rq"),
        ("GET /xax/x", "/yay/y"),
        ("GET /qx", "/ry"),
        ("GET /stop/here", "/halt/here"),
        ("GET /halt/here", "/never/here"),
        ("POST /post", "/sent"),
        ("PUT /post/1", "/sent/1"),
        ("GET /post", "/post"),
        ("GET /v12/mails", "/mails/v12"),
        ("GET /v1/mails/7", "/v1/mails/7"),
        ("GET /a%20b%20%C3%A9", "/a-b-%C3%A9"),
        ("GET /other", "/other"),
    ] {
        let call = call.replacen(" /", " chain.test/", 1);
        world.lands(&format!("{call}?a=q%78&user_key={{key}}"), &format!("{target}?a=q%78"));
    }
}

fn queries(world: &World) {
    for (query, expected) in [
        ("", "set=1&add=GET&default=d&a%20name=a%20b%26c%3D"),
        (
            "set=0&remove=x&keep=%41+b&s%65t=9&add=0&",
            "keep=%41+b&add=0&set=1&add=GET&default=d&a%20name=a%20b%26c%3D",
        ),
        ("default=&remove&a+name=x", "default=&set=1&add=GET&a%20name=a%20b%26c%3D"),
    ] {
        world.lands(&format!("GET query.test/p?{query}&user_key={{key}}"), &format!("/p?{expected}"));
    }
    let zoned = "/p?set=1&add=GET&default=d&a%20name=a%20b%26c%3D%261%3D%C3%A9";
    world.lands("GET query.test/p?user_key={key}|X-Zone: &1=\u{e9}", zoned);
}

/// What two servers may read differently goes nowhere, whoever wrote it.
async fn what_is_no_path(world: &World, service: &str) {
    let (sent, used) = (world.stack.upstream.received(), hits(world, service, "app").await);
    for path in [
        "/gone",
        "/relative",
        "/slash",
        "/backslash",
        "/dots",
        "/escaped",
        "/zero",
        "/half",
        "/fragment",
        "/question",
        "/blank",
        "/up",
    ] {
        let request = format!("GET {service}.test{path}?user_key={{key}}");
        assert_eq!(code(world, &request), "500 policy_failed", "{path}");
        let answer = world.call(&request);
        assert!(answer.status == 500 && !answer.body.contains("/a"), "nothing of what is behind: {answer:?}");
    }
    assert_eq!(world.stack.upstream.received(), sent, "{service}");
    world.lands(&format!("GET {service}.test/mine?user_key={{key}}"), "/fine");
    comes_to(world, service, "app", used + 1).await;
}
