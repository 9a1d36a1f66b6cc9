//! What only Redis can do to us: be volatile, stall, die, lose its functions.

use std::time::Duration;

use weir_core::Secret;
use weir_store::{Config, OpenError, RedisConfig, Store};
use weir_tests::redis::RedisServer;

use crate::words::{apply, ask, publication, read, words};

async fn open(server: &RedisServer) -> Store {
    let store = Store::open(Config::Redis(RedisConfig::new(Secret::new(&server.url())))).await.unwrap();
    store.publish(publication(1, &["a", "b"])).await.unwrap();
    store
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_may_lose_counters_is_refused() {
    let server = RedisServer::start_with(&["--maxmemory-policy", "allkeys-lru"]);
    let mut config = RedisConfig::new(Secret::new(&server.url()));
    let refused = Store::open(Config::Redis(config.clone())).await;
    let Err(OpenError::Volatile(lines)) = refused else { panic!("accepted") };
    assert_eq!(lines, "  appendonly yes\n  maxmemory-policy noeviction");
    config.allow_volatile = true;
    assert!(Store::open(Config::Redis(config)).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stalled_redis_did_late_is_taken_back() {
    let server = RedisServer::start();
    let store = open(&server).await;
    assert_eq!(apply(&store, "a", "hits=1<=99/day").await, "ok 1");
    assert_eq!(server.command("CLIENT PAUSE 600 ALL"), "+OK");
    let asked: Vec<_> = (0..20)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let ask = store.apply(ask("a", "hits=1<=99/day"));
                tokio::time::timeout(Duration::from_millis(250), ask).await.is_err()
            })
        })
        .collect();
    for task in asked {
        assert!(task.await.unwrap(), "no answer within the deadline");
    }
    weir_tests::wait::until_async("nothing but the first to be counted", || async {
        // A batch that the stall held back may run now, and its cancels right behind it.
        let settled = tokio::time::timeout(Duration::from_secs(1), read(&store, "a", "hits=0<=99/day")).await;
        (settled.as_deref() == Ok("ok 1")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_still_wait_survive_a_short_stall() {
    let server = RedisServer::start();
    let store = open(&server).await;
    assert_eq!(server.command("CLIENT PAUSE 400 ALL"), "+OK");
    let asked: Vec<_> = (0..20)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { words(&store.apply(ask("b", "hits=1<=99/day")).await.unwrap()) })
        })
        .collect();
    for task in asked {
        assert!(task.await.unwrap().starts_with("ok"));
    }
    assert_eq!(read(&store, "b", "hits=0<=99/day").await, "ok 20", "asked twice, counted once");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_recovers_from_a_kill_and_from_lost_functions() {
    let mut server = RedisServer::start();
    let store = open(&server).await;
    assert_eq!(apply(&store, "a", "hits=1<=99/day").await, "ok 1");
    server.kill();
    let away =
        tokio::time::timeout(Duration::from_millis(300), store.apply(ask("a", "hits=1<=99/day"))).await;
    assert!(away.is_err(), "nobody answers");
    server.restart();
    assert_eq!(apply(&store, "a", "hits=1<=99/day").await, "ok 2");
    assert_eq!(server.command("FUNCTION FLUSH"), "+OK");
    assert_eq!(apply(&store, "a", "hits=1<=99/day").await, "ok 3");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_keys_of_a_shard_share_a_slot() {
    let server = RedisServer::start();
    let store = open(&server).await;
    apply(&store, "a", "hits=1<=99/minute").await;
    let mut client = redis_client(&server).await;
    let keys: Vec<String> = ::redis::cmd("KEYS").arg("*").query_async(&mut client).await.unwrap();
    assert!(keys.len() > 10);
    for key in keys {
        let (tag, _) = key.strip_prefix("weir:{").and_then(|rest| rest.split_once('}')).unwrap();
        assert!(tag == "catalog" || tag.parse::<u16>().is_ok_and(|shard| shard < 1024), "{key}");
        let ttl: i64 = ::redis::cmd("TTL").arg(&key).query_async(&mut client).await.unwrap();
        let expires = key.contains(":count:") && !key.ends_with(":ever");
        assert_eq!(ttl > 0, expires, "{key} expires in {ttl} s");
    }
}

async fn redis_client(server: &RedisServer) -> ::redis::aio::MultiplexedConnection {
    ::redis::Client::open(server.url()).unwrap().get_multiplexed_async_connection().await.unwrap()
}
