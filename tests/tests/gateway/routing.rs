//! Which host leads to which service.

use crate::world::{Api, PLAIN, World};

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
