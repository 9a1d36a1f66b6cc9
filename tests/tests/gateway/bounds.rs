//! Bounds on what clients send: heads, bodies declared and grown.

use crate::world::{Api, PLAIN, World};

const HEAD_BYTES_MAX: usize = 16 << 10;
const TOO_LONG: &str = "413 The request body is too long.";

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_unbounded() {
    let api = |id, proxy| Api { id, proxy, ..PLAIN };
    let world = World::start_with(
        &[
            api("plain", ""),
            api("small", "request_body_bytes_max = 1000"),
            api("none", "request_body_bytes_max = 0"),
        ],
        &format!("[limits]\nhead_bytes_max = {HEAD_BYTES_MAX}"),
    )
    .await;
    heads(&world).await;
    declared_bodies(&world).await;
    growing_bodies(&world).await;
    world.finish();
}

async fn heads(world: &World) {
    let get = "GET plain.test/?user_key={key}";
    let long = "x".repeat(HEAD_BYTES_MAX - 1024);
    world.check(&format!("{get}|X-Long: {long}"), "200");
    world.check(&format!("{get}&long={long}"), "200");
    let used = world.used("plain").await;
    let longer = "x".repeat(HEAD_BYTES_MAX + 1024);
    assert_eq!(world.call(&format!("{get}|X-Long: {longer}")).status, 431);
    assert_eq!(world.call(&format!("{get}&long={longer}")).status, 414);
    let many: String = (0..300).map(|n| format!("|X-{n}: {n}")).collect();
    assert_eq!(world.call(&format!("{get}{many}")).status, 431);
    assert_eq!(world.used("plain").await, used);
}

/// A body that says how long it is is refused before anything is asked.
async fn declared_bodies(world: &World) {
    let post = |service: &str, bytes: usize| {
        format!("POST {service}.test/?user_key={{key}}|||{}", "x".repeat(bytes))
    };
    world.check(&post("small", 1000), "200");
    world.check("GET none.test/?user_key={key}", "200");
    let (used, sent) = (world.used("small").await, world.stack.upstream.received());
    world.check(&post("small", 1001), TOO_LONG);
    world.check(&post("small", 5_000_000), TOO_LONG);
    world.check(&post("none", 1), TOO_LONG);
    let huge = "POST /?user_key={key} HTTP/1.1\r\nHost: small.test\r\nContent-Length: 99999999999\r\n\r\n";
    world.check_raw(huge, TOO_LONG);
    assert_eq!((world.used("small").await, world.stack.upstream.received()), (used, sent));
    assert_eq!(world.used("none").await.get("hits"), Some(&1));
}

/// A body that does not say is refused when it has grown too long, or turns out malformed; its upstream never sees its
/// end, and it does not stay counted.
async fn growing_bodies(world: &World) {
    let head = "POST /?user_key={key} HTTP/1.1\r\nHost: small.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    let post = |bytes: usize| format!("{head}{bytes:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(bytes));
    assert_eq!(world.raw(&post(1000)).json()["body_bytes"], 1000);
    let used = world.used("small").await;
    world.check_raw(&post(1001), TOO_LONG);
    world.check_raw(&post(200_000), TOO_LONG);
    assert_eq!(world.raw(&format!("{head}3\r\nabc\r\nzz\r\n")).status, 400);
    weir_tests::wait::until_async("refused bodies to be taken back", || async {
        (world.used("small").await == used).then_some(())
    })
    .await;
    let form = "POST small.test/?user_key={key}|Content-Type: application/x-www-form-urlencoded|||";
    world.check(&format!("{form}{}", "x".repeat(1001)), TOO_LONG);
}
