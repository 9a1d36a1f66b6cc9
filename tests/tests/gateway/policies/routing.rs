//! `routing`: which call goes to which upstream. (By what a token says: see `claims`.)

use crate::policies::{api, code, comes_to, proxy};
use crate::world::{Api, World};

const ROUTES: &str = r#"{ policy = "routing", routes = [
    { when = { paths = ["/v2", "/exact$"] }, api_backend = "{upstream}/two" },
    { when = { headers = [{ name = "X-Beta", values = ["yes", "1"] }] }, api_backend = "{upstream}/beta", host_rewrite = "beta.test" },
    { when = { query = [{ name = "v", matches = "^3[.]" }] }, api_backend = "{upstream}/three?fixed=1" },
    { when = { methods = ["PUT", "DELETE"], paths = "/{thing}/write$" }, api_backend = "{upstream}/write/" },
    { when = { headers = [{ name = "User-Agent", matches = "(?i)robot" }, { name = "X-Human", not = true }] }, api_backend = "{upstream}/robots" },
    { when = { paths = "/away" }, api_backend = "http://127.0.0.1:1" },
] }"#;

const SOME: &str = r#"{ policy = "routing", routes = [{ when = { paths = "/" }, api_backend = "{upstream}/new" }],
    when = { headers = [{ name = "X-Canary" }] }, unless = { methods = "POST" } }"#;

const STRIPPED: &str = "strip_credentials = true";

#[tokio::test(flavor = "multi_thread")]
async fn calls_take_the_first_way_that_is_theirs() {
    let routes = format!("{}\n{STRIPPED}\nhost_rewrite = \"inner.test\"", proxy(ROUTES));
    let bare = format!("{}\n{STRIPPED}", proxy(ROUTES));
    let some = format!("{}\n{STRIPPED}", proxy(SOME));
    let secret = format!("{bare}\nsecret_token = \"backend-s3cret\"");
    let world = World::start(&[
        api("routes", &routes),
        Api { backend: "", ..api("bare", &bare) },
        api("some", &some),
        api("secret", &secret),
    ])
    .await;
    ways(&world);
    hosts(&world);
    conditions(&world);
    let gone = "GET routes.test/away?user_key={key}";
    world.check(gone, "502 The API cannot be reached.");
    assert_eq!(code(&world, gone), "502 upstream_unreachable");
    // Who it is that calls is asked first, wherever the call would go.
    assert_eq!(code(&world, "GET bare.test/v2/x"), "401 credentials_missing");
    world.lands("GET bare.test/v2/x?user_key={key}", "/two/v2/x");
    world.check("GET bare.test/v1?user_key={key}", "404");
    comes_to(&world, "some", "app", 5).await;
    world.finish();
}

fn ways(world: &World) {
    for (call, target) in [
        ("GET /a", "/a"),
        ("GET /v2/x", "/two/v2/x"),
        ("GET /v%32/x", "/two/v%32/x"),
        ("POST /exact", "/two/exact"),
        ("GET /exact/not", "/exact/not"),
        ("GET /a|X-Beta: 1", "/beta/a"),
        ("GET /a|x-beta: no", "/a"),
        ("GET /v2|X-Beta: yes", "/two/v2"),
        ("GET /a?v=3.1", "/three/a?fixed=1&v=3.1"),
        ("GET /a?v=3%2E1", "/three/a?fixed=1&v=3%2E1"),
        ("GET /a?v=3.1&v=2", "/a?v=3.1&v=2"),
        ("GET /a?v=13.1", "/a?v=13.1"),
        ("PUT /x/write", "/write/x/write"),
        ("DELETE /x/write", "/write/x/write"),
        ("PUT /write", "/write"),
        ("PATCH /x/write", "/x/write"),
        ("GET /a|User-Agent: Some Robot/1.0", "/robots/a"),
        ("GET /a|User-Agent: Some Robot/1.0|X-Human: really", "/a"),
    ] {
        let (line, headers) =
            call.split_once('|').map_or((call, String::new()), |(l, h)| (l, format!("|{h}")));
        let joint = if line.contains('?') { '&' } else { '?' };
        let line = line.replacen(" /", " routes.test/", 1);
        world.lands(&format!("{line}{joint}user_key={{key}}{headers}"), target);
    }
}

fn hosts(world: &World) {
    let own = world.stack.upstream.address().to_string();
    for (request, expected) in [
        ("GET routes.test/a?user_key={key}", "inner.test"),
        ("GET routes.test/v2?user_key={key}", own.as_str()),
        ("GET routes.test/a?user_key={key}|X-Beta: yes", "beta.test"),
        ("GET bare.test/a?user_key={key}|X-Beta: yes", "beta.test"),
        ("GET bare.test/v2?user_key={key}", own.as_str()),
    ] {
        world.sends(request, "host", expected);
    }
    // What proves the gateway to upstreams goes along, and nothing of the client's under its name.
    for path in ["/a", "/v2"] {
        let request = format!("GET secret.test{path}?user_key={{key}}|X-3scale-Proxy-Secret-Token: mine");
        world.sends(&request, "x-3scale-proxy-secret-token", "backend-s3cret");
    }
}

fn conditions(world: &World) {
    for (call, target) in [
        ("GET some.test/a?user_key={key}", "/a"),
        ("GET some.test/a?user_key={key}|X-Canary: any", "/new/a"),
        ("GET some.test/a?user_key={key}|X-Canary: ", "/new/a"),
        ("POST some.test/a?user_key={key}|X-Canary: any", "/a"),
        ("PUT some.test/a?user_key={key}|X-Canary: any", "/new/a"),
    ] {
        world.lands(call, target);
    }
}
