//! Limits hold exactly under parallel load.

use weir_tests::http::get;
use weir_tests::load::Load;
use weir_tests::stack::{Plan, Stack, catalog};

const LIMIT: u64 = 1_000;
const CONNECTIONS: usize = 64;
const REQUESTS: u64 = 1_500;
const TARGET: &str = "/?user_key=key";

/// Goal: of 1,500 parallel calls exactly as many pass as the limit says, and the counter says the same.
/// Method: 64 connections on all gateways at once; the upstream counts what reaches it.
async fn exactly_the_limit_passes(plan: Plan) {
    let stack = Stack::start(&plan).await;
    let tally = Load::start(&stack.addresses(), CONNECTIONS, REQUESTS, TARGET).finish().await;
    assert_eq!((tally.of(200), tally.of(429)), (LIMIT, REQUESTS - LIMIT), "{tally:?}");
    assert_eq!(stack.upstream.received(), LIMIT, "what the upstream received");
    for metric in ["hits", "search"] {
        stack.counter_settles_at("app", metric, LIMIT).await;
    }
    let refusal = get(stack.gateways[0].address, TARGET);
    assert_eq!((refusal.status, refusal.body.as_str()), (429, "Limits exceeded"));
}

fn limited() -> String {
    catalog(1, &format!("{{ metric = \"hits\", period = \"year\", max = {LIMIT} }}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_and_two_listeners_over_redis_pass_exactly_the_limit() {
    let plan = Plan { listeners: 2, gateways: 2, redis: true, ..Plan::small(&limited()) };
    exactly_the_limit_passes(plan).await;
}

/// Goal: four gateways and two listeners, 64 connections on each gateway, and still not one too many or too few.
#[tokio::test(flavor = "multi_thread")]
async fn four_gateways_and_two_listeners_pass_exactly_the_limit() {
    let plan = Plan { listeners: 2, gateways: 4, redis: true, ..Plan::small(&limited()) };
    let stack = Stack::start(&plan).await;
    let tally = Load::start(&stack.addresses(), 4 * CONNECTIONS, 4 * REQUESTS, TARGET).finish().await;
    assert_eq!((tally.of(200), tally.of(429)), (LIMIT, 4 * REQUESTS - LIMIT), "{tally:?}");
    assert_eq!(stack.upstream.received(), LIMIT, "what the upstream received");
    stack.counter_settles_at("app", "hits", LIMIT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_over_the_embedded_store_pass_exactly_the_limit() {
    let plan = Plan { gateways: 2, ..Plan::small(&limited()) };
    exactly_the_limit_passes(plan).await;
}
