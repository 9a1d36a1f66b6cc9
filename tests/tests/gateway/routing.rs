//! Which host leads to which service, and which path to which of its backends.

use crate::world::{Api, PLAIN, World, growth, header_seen};

const STRIPPED: &str = "strip_credentials = true";

#[tokio::test(flavor = "multi_thread")]
async fn hosts_lead_to_services() {
    let world = World::start(&[
        Api { backend: "{upstream}/plain", proxy: STRIPPED, ..PLAIN },
        Api { id: "wild", hosts: "[\"*.wild.test\"]", backend: "{upstream}/wild", proxy: STRIPPED, ..PLAIN },
        Api {
            id: "one",
            hosts: "[\"one.wild.test\", \"Second.Test\"]",
            backend: "{upstream}/one",
            proxy: STRIPPED,
            ..PLAIN
        },
    ])
    .await;
    names(&world);
    absolute_forms(&world);
    odd_hosts(&world);
    world.finish();
}

fn names(world: &World) {
    for (host, target) in [
        ("plain.test", "/plain/x"),
        ("PLAIN.Test", "/plain/x"),
        ("plain.test:8080", "/plain/x"),
        ("plain.test.", "/plain/x"),
        ("Plain.test.:80", "/plain/x"),
        ("a.wild.test", "/wild/x"),
        ("a.b.WILD.test:443", "/wild/x"),
        ("one.wild.test", "/one/x"),
        ("two.one.wild.test", "/wild/x"),
        ("second.test", "/one/x"),
    ] {
        world.lands(&format!("GET {host}/x?user_key={{key}}"), target);
    }
    for host in
        ["other.test", "wild.test", "plain.test.evil.test", "xplain.test", "127.0.0.1", "plain.test.."]
    {
        world.check(&format!("GET {host}/x?user_key={{key}}"), "404");
    }
}

fn absolute_forms(world: &World) {
    let get = |url: &str, host: &str| {
        world
            .raw(&format!("GET {url}?user_key={{key}} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
    };
    assert_eq!(get("http://plain.test/x", "other.test").json()["target"], "/plain/x");
    assert_eq!(get("HTTP://Plain.Test:99/x", "one.wild.test").json()["target"], "/plain/x");
    assert_eq!(get("https://one.wild.test/", "plain.test").json()["target"], "/one");
    assert_eq!(get("http://other.test/x", "plain.test").status, 404);
    assert_eq!(get("http://me@plain.test/x", "plain.test").status, 400);
    assert_eq!(get("ftp://plain.test/x", "plain.test").status, 400);
}

fn odd_hosts(world: &World) {
    let head = |version: &str, hosts: &str| {
        format!("GET /?user_key={{key}} HTTP/{version}\r\n{hosts}Connection: close\r\n\r\n")
    };
    for (version, hosts, status) in [
        ("1.1", "", 400),
        ("1.1", "Host: plain.test\r\nHost: plain.test\r\n", 400),
        ("1.1", "Host: plain.test other.test\r\n", 400),
        ("1.1", "Host: plain.test/x\r\n", 400),
        ("1.1", "Host: plain.test,other.test\r\n", 400),
        ("1.1", "Host: me@plain.test\r\n", 400),
        ("1.1", "Host: \r\n", 404),
        ("1.0", "", 404),
        ("1.0", "Host: plain.test\r\n", 200),
    ] {
        assert_eq!(world.raw(&head(version, hosts)).status, status, "HTTP/{version} {hosts:?}");
    }
}

const BACKENDS: &str = r#"
[[providers.services.backends]]
id = "one"
mount = "/a"
api_backend = "{upstream}/one"
metrics = [{ name = "one" }, { name = "one/deep", parent = "one" }]
mapping_rules = [
  { method = "GET", pattern = "/deep?full={any}", metrics = { "one/deep" = 1 }, last = true },
  { method = "ANY", pattern = "/", metrics = { one = 1 } },
]
[[providers.services.backends]]
id = "two"
mount = "/a/b%20c"
api_backend = "{upstream}?fixed=1"
host_rewrite = "two.internal"
mapping_rules = [{ method = "ANY", pattern = "/", metrics = { search = 5 } }]
"#;

/// Goal: each backend of a product gets its own calls, and no other backend's rules count for them.
#[tokio::test(flavor = "multi_thread")]
async fn paths_lead_to_backends() {
    let proxy = "strip_credentials = true\nhost_rewrite = \"own.internal\"";
    let world = World::start(&[
        Api { id: "product", proxy, applications: BACKENDS, ..PLAIN },
        Api { id: "bare", proxy, backend: "", rules: "", applications: BACKENDS, ..PLAIN },
    ])
    .await;
    let cases = [
        ("product.test/x", "/x", "hits=1"),
        ("product.test/a", "/one", "hits=1"),
        ("product.test/a/", "/one", "hits=1 one=1"),
        ("product.test/%61//x?q=1", "/one/x?q=1", "hits=1 one=1"),
        ("product.test/a/deep?full=1", "/one/deep?full=1", "hits=1 one=1 one/deep=1"),
        ("product.test/a/b%20c/%20?q=1", "/%20?fixed=1&q=1", "hits=6 search=5"),
        ("product.test/ab", "/ab", "hits=1"),
        ("bare.test/a/x", "/one/x", "one=1"),
    ];
    for (url, target, counted) in cases {
        let service = url.split('.').next().expect("a service");
        let joint = if url.contains('?') { '&' } else { '?' };
        let before = world.used(service).await;
        world.lands(&format!("GET {url}{joint}user_key={{key}}"), target);
        assert_eq!(growth(&before, &world.used(service).await), counted, "{url}");
    }
    world.check("GET bare.test/x?user_key={key}", "404 No Mapping Rule matched");
    let host =
        |path: &str| header_seen(&world.seen(&format!("GET product.test{path}?user_key={{key}}")), "host");
    let own = world.stack.upstream.address().to_string();
    assert_eq!([host("/"), host("/a"), host("/a/b%20c")], ["own.internal", &own, "two.internal"]);
    world.finish();
}
