//! A Redis that wants TLS and a password, and gives few rights.

use weir_tests::http::get;
use weir_tests::redis::RedisServer;
use weir_tests::stack::{Plan, Stack, catalog};

/// Goal: TLS and ACL work through the URL, with the rights that docs/operating.md names and no others. Method: a Redis
/// with a certificate of its own authority; calls are counted through it.
#[tokio::test(flavor = "multi_thread")]
async fn tls_and_a_user_of_few_rights() {
    let (redis, port, authority) = RedisServer::start_with_tls_and_user();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("authority.pem");
    std::fs::write(&file, authority).unwrap();
    let store = |url: &str| {
        format!("kind = \"redis\"\n[store.redis]\nurl = \"{url}\"\ntls_ca_file = \"{}\"", file.display())
    };
    let good = store(&format!("rediss://weir:pass@localhost:{port}"));
    let text = catalog(1, "{ metric = \"hits\", period = \"day\", max = 2 }");
    let stack = Stack::start(&Plan { store: Some(good), ..Plan::small(&text) }).await;
    let statuses: Vec<u16> =
        (0..4).map(|_| get(stack.gateways[0].address, "/?user_key=key").status).collect();
    assert_eq!(statuses, [200, 200, 429, 429]);
    stack.counter_settles_at("app", "hits", 2).await;
    let log = stack.listeners[0].log();
    assert!(!log.contains("pass"), "no password in the log: {log}");
    assert_eq!(redis.command("PING"), "+PONG");
}
