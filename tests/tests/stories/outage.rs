//! Whatever dies under load: every answered call is counted, no refused or failed call is.
//!
//! Each story runs a bounded load, kills something in the middle, brings it back, and compares three numbers: how many
//! calls were answered 200, how many the upstream received, and what the counter says once all is quiet.

use weir_tests::load::{Load, Tally};
use weir_tests::stack::{Plan, Stack, catalog};

const CONNECTIONS: usize = 32;
const REQUESTS_MAX: u64 = 200_000;
const TARGET: &str = "/?user_key=key";
/// Answers to wait for before and after each event.
const STRETCH: u64 = 400;

fn unlimited() -> String {
    catalog(1, "{ metric = \"hits\", period = \"day\", max = 100_000_000 }")
}

fn load(stack: &Stack) -> Load {
    Load::start(&stack.addresses(), CONNECTIONS, REQUESTS_MAX, TARGET)
}

async fn all_is_accounted_for(stack: &Stack, tally: &Tally) {
    let passed = tally.of(200);
    assert_eq!(tally.total(), passed + tally.of(503), "only 200 and 503: {tally:?}");
    assert!(passed > 0, "{tally:?}");
    assert_eq!(stack.upstream.received(), passed, "what the upstream received: {tally:?}");
    stack.counter_settles_at("app", "hits", passed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_killed_and_comes_back() {
    let plan = Plan { listeners: 2, gateways: 2, redis: true, ..Plan::small(&unlimited()) };
    let mut stack = Stack::start(&plan).await;
    let load = load(&stack);
    load.answers(STRETCH).await;
    let redis = stack.redis.as_mut().unwrap();
    redis.kill();
    // What is held on lease may be spent first.
    load.refusals(50).await;
    redis.restart();
    load.answers(STRETCH).await;
    let tally = load.stop().await;
    assert!(tally.of(503) > 0, "calls were refused while Redis was away: {tally:?}");
    all_is_accounted_for(&stack, &tally).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_of_two_over_redis_is_killed_and_comes_back() {
    let plan = Plan { listeners: 2, gateways: 2, redis: true, ..Plan::small(&unlimited()) };
    let mut stack = Stack::start(&plan).await;
    let load = load(&stack);
    for _ in 0..2 {
        load.answers(STRETCH).await;
        stack.listeners[1].kill();
        load.answers(STRETCH).await;
        stack.listeners[1].start();
    }
    load.answers(STRETCH).await;
    let tally = load.stop().await;
    all_is_accounted_for(&stack, &tally).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_listener_over_redis_is_killed_and_comes_back() {
    let plan = Plan { gateways: 2, redis: true, ..Plan::small(&unlimited()) };
    let mut stack = Stack::start(&plan).await;
    only_listener_dies(&mut stack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_listener_is_killed_and_comes_back() {
    let mut stack = Stack::start(&Plan { gateways: 2, ..Plan::small(&unlimited()) }).await;
    only_listener_dies(&mut stack).await;
}

async fn only_listener_dies(stack: &mut Stack) {
    let load = load(stack);
    for _ in 0..3 {
        load.answers(STRETCH).await;
        stack.listeners[0].kill();
        load.refusals(50).await;
        stack.listeners[0].start();
    }
    load.answers(STRETCH).await;
    let tally = load.stop().await;
    assert!(tally.of(503) > 0, "calls were refused while no listener was there: {tally:?}");
    all_is_accounted_for(stack, &tally).await;
}
