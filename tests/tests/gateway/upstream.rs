//! What the upstream gets to see: address, path, query and headers.

use weir_tests::scripted::Scripted;

use crate::world::{Api, PLAIN, World, header_seen};

const TOKEN: &str = "backend-s3cret";

#[tokio::test(flavor = "multi_thread")]
async fn upstreams_see_what_they_should() {
    let strict = "strip_credentials = true";
    let secret = format!("{strict}\nsecret_token = \"{TOKEN}\"");
    let named =
        format!("{secret}\nsecret_token_header = \"X-From-Gateway\"\nhost_rewrite = \"inner.test:8443\"");
    let hops = hops();
    let hop_url = hops.url();
    let api = |id, backend| Api { id, backend, proxy: strict, ..PLAIN };
    let world = World::start(&[
        api("plain", "{upstream}"),
        Api { proxy: &secret, ..api("secret", "{upstream}") },
        Api { proxy: &named, ..api("named", "{upstream}") },
        api("based", "{upstream}/v1/"),
        api("sharp", "{upstream}/v1?fixed=1"),
        api("hops", &hop_url),
    ])
    .await;
    secret_tokens(&world);
    hosts(&world);
    forwarding(&world);
    hop_by_hop(&world);
    request_ids(&world);
    paths(&world);
    ambiguous_paths(&world).await;
    world.finish();
}

fn secret_tokens(world: &World) {
    let name = "x-3scale-proxy-secret-token";
    for own in ["", "|X-3scale-Proxy-Secret-Token: mine", "|x_3scale_proxy_secret_token: mine"] {
        world.sends(&format!("GET secret.test/?user_key={{key}}{own}"), name, TOKEN);
        world.sends(&format!("GET plain.test/?user_key={{key}}{own}"), name, "");
        world.sends(&format!("GET secret.test/?user_key={{key}}{own}"), "x_3scale_proxy_secret_token", "");
        world.sends(&format!("GET plain.test/?user_key={{key}}{own}"), "x_3scale_proxy_secret_token", "");
    }
    world.sends("GET named.test/?user_key={key}|X-From-Gateway: mine", "x-from-gateway", TOKEN);
    world.sends("GET named.test/?user_key={key}", name, "");
    let answer = world.call("GET secret.test/?user_key={key}");
    assert!(answer.headers.iter().all(|(_, value)| !value.contains("s3cret")), "{answer:?}");
}

fn hosts(world: &World) {
    let own = world.stack.upstream.address().to_string();
    world.sends("GET plain.test/?user_key={key}", "host", &own);
    world.sends("GET named.test/?user_key={key}", "host", "inner.test:8443");
}

fn forwarding(world: &World) {
    let get = "GET Plain.test:81/?user_key={key}";
    for (sent, name, expected) in [
        ("", "x-forwarded-for", "127.0.0.1"),
        ("|X-Forwarded-For: 192.0.2.7, 10.0.0.1", "x-forwarded-for", "192.0.2.7, 10.0.0.1, 127.0.0.1"),
        ("|X-Forwarded-Proto: https", "x-forwarded-proto", "http"),
        ("|X-Forwarded-Host: evil.test", "x-forwarded-host", "Plain.test:81"),
        ("|X-Real-IP: 192.0.2.7", "x-real-ip", "127.0.0.1"),
        ("|X_Real_IP: 192.0.2.7", "x_real_ip", ""),
        ("|X-3scale-Debug: anything", "x-3scale-debug", ""),
        ("|User-Agent: tests", "user-agent", "tests"),
        ("", "user-agent", ""),
        ("|X-Many: 1|x-many: 2", "x-many", "1, 2"),
        ("|Cookie: a=b", "cookie", "a=b"),
        ("|X_Odd.Name: yes", "x_odd.name", "yes"),
    ] {
        world.sends(&format!("{get}{sent}"), name, expected);
    }
}

fn hop_by_hop(world: &World) {
    let sent = "GET hops.test/?user_key={key}|Keep-Alive: timeout=5|TE: trailers|Upgrade: foo/2|X-Hop: 1|\
                Proxy-Connection: keep-alive|Proxy-Authorization: Basic eA==|Connection: X-Hop|X-Stays: 1";
    let answer = world.call(sent);
    let seen = answer.body.to_ascii_lowercase();
    for name in ["keep-alive", "te:", "upgrade", "x-hop", "proxy-"] {
        assert!(!seen.contains(name), "{name} in {seen}");
    }
    assert!(seen.contains("x-stays: 1"), "{seen}");
    for name in ["keep-alive", "upgrade", "x-back-hop", "proxy-connection"] {
        assert_eq!(answer.header(name), "", "{name}");
    }
    assert_eq!(answer.header("set-cookie"), "a=1, b=2");
    assert_eq!(answer.header("x-accel-redirect"), "/inside");
    assert_eq!(answer.header("location"), "http://elsewhere.test/");
}

/// Answers with the head it got, and with headers of its own, some only for its neighbour.
fn hops() -> Scripted {
    Scripted::start(|mut exchange| {
        let body = exchange.head.clone();
        let headers = "Connection: close, X-Back-Hop\r\nKeep-Alive: timeout=9\r\nX-Back-Hop: 1\r\nUpgrade: h2c\r\n\
                       Proxy-Connection: close\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\
                       X-Accel-Redirect: /inside\r\nLocation: http://elsewhere.test/\r\n";
        exchange.send(&format!("HTTP/1.1 200 Fine\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()));
    })
}

fn request_ids(world: &World) {
    let get = "GET plain.test/?user_key={key}";
    let chosen = world.call(&format!("{get}|X-Request-Id: chosen-1"));
    assert_eq!(chosen.header("x-request-id"), "chosen-1");
    assert_eq!(header_seen(&chosen.json(), "x-request-id"), "chosen-1");
    let long = "x".repeat(129);
    for unfit in ["", "|X-Request-Id: not sane", &format!("|X-Request-Id: {long}")] {
        let made = world.call(&format!("{get}{unfit}"));
        let id = made.header("x-request-id");
        assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
        assert_eq!(header_seen(&made.json(), "x-request-id"), "");
    }
    let refused = world.call("GET plain.test/|X-Request-Id: chosen-2");
    assert_eq!((refused.status, refused.header("x-request-id").as_str()), (401, "chosen-2"));
}

fn paths(world: &World) {
    for (request, expected) in [
        ("plain.test/?user_key={key}", "/"),
        ("plain.test/a%20b/%C3%A9?user_key={key}&b=%41+c&&d=%zz", "/a%20b/%C3%A9?b=%41+c&&d=%zz"),
        ("plain.test/a?q=\u{e9}&user_key={key}", "/a?q=\u{e9}"),
        ("plain.test/a/?user_key={key}&x", "/a/?x"),
        ("plain.test//a///b//?user_key={key}", "/a/b/"),
        ("based.test/?user_key={key}", "/v1/"),
        ("based.test/a/b?user_key={key}&c=d", "/v1/a/b?c=d"),
        ("sharp.test/?user_key={key}", "/v1?fixed=1"),
        ("sharp.test/a?b=1&user_key={key}&c=2", "/v1/a?fixed=1&b=1&c=2"),
    ] {
        world.lands(&format!("GET {request}"), expected);
    }
}

/// What two servers may read differently goes nowhere and counts nothing.
async fn ambiguous_paths(world: &World) {
    let (sent, used) = (world.stack.upstream.received(), world.used("plain").await);
    for path in [
        "/a/../b",
        "/a/./b",
        "/..",
        "/a/%2e%2E/b",
        "/a%2Fb",
        "/a%2f..%2fb",
        "/a%5Cb",
        "/a\\b",
        "/a%00b",
        "/a%zz",
        "/a%4",
        "/a#b",
    ] {
        let answer = world.call(&format!("GET plain.test{path}?user_key={{key}}"));
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
    }
    assert_eq!((world.stack.upstream.received(), world.used("plain").await), (sent, used));
}
