//! No stale authentication: what the catalog says holds on the very next call, at every listener.

use weir_tests::listener::ListenerClient;
use weir_tests::stack::{Plan, Stack, catalog};

async fn code(client: &ListenerClient, key: &str) -> String {
    let decision = client.auth_rep(key, &[("hits", 1)]).await.unwrap();
    decision.denial.map_or_else(|| "ok".into(), |denial| denial.code)
}

/// Waits until the first listener has taken the new catalog up; by then it must hold everywhere.
async fn taken_up(stack: &Stack, revision: u64) {
    let published = format!("revision {revision} published");
    weir_tests::wait::until_async("the catalog to be published", || async {
        stack.listeners.iter().any(|role| role.log().contains(&published)).then_some(())
    })
    .await;
}

async fn every_change_holds_on_the_next_call(plan: Plan) {
    let stack = Stack::start(&plan).await;
    let clients: Vec<_> = (0..plan.listeners).map(|number| stack.listener_client(number)).collect();
    let all = async |key: &str, expected: &str, what: &str| {
        for client in &clients {
            assert_eq!(code(client, key).await, expected, "{what}");
        }
    };
    // Memory is warm everywhere.
    all("key", "ok", "at first").await;
    all("new-key", "user_key_invalid", "at first").await;

    let limits = "{ metric = \"hits\", period = \"year\", max = 1000 }";
    let changes = [
        (
            2,
            catalog(2, limits).replace("user_key = \"key\"", "user_key = \"new-key\""),
            "user_key_invalid",
            "ok",
        ),
        (3, catalog(3, limits), "ok", "user_key_invalid"),
        (4, catalog(4, limits) + "state = \"suspended\"\n", "application_not_active", "user_key_invalid"),
        (
            5,
            catalog(5, "{ metric = \"hits\", period = \"year\", max = 0 }"),
            "limits_exceeded",
            "user_key_invalid",
        ),
        (
            6,
            catalog(6, limits).replace("name = \"API\"", "name = \"API\"\nstate = \"suspended\""),
            "service_not_active",
            "user_key_invalid",
        ),
        (7, catalog(7, limits), "ok", "user_key_invalid"),
        (8, moved(limits), "ok", "user_key_invalid"),
        (
            9,
            catalog(9, limits).split("[[providers.services.applications]]").next().unwrap().to_owned(),
            "user_key_invalid",
            "user_key_invalid",
        ),
        (10, catalog(10, limits), "ok", "user_key_invalid"),
    ];
    for (revision, text, key, new_key) in changes {
        stack.put_catalog(&text);
        taken_up(&stack, revision).await;
        all("key", key, &format!("revision {revision}")).await;
        all("new-key", new_key, &format!("revision {revision}")).await;
    }
}

/// The key belongs to another application.
fn moved(limits: &str) -> String {
    catalog(8, limits).replace("user_key = \"key\"", "user_key = \"other\"")
        + "[[providers.services.applications]]\nid = \"second\"\nplan = \"plan\"\nuser_key = \"key\"\n"
}

fn first() -> String {
    catalog(1, "{ metric = \"hits\", period = \"year\", max = 1000 }")
}

#[tokio::test(flavor = "multi_thread")]
async fn at_two_listeners_over_redis() {
    let plan = Plan { listeners: 2, gateways: 0, redis: true, ..Plan::small(&first()) };
    every_change_holds_on_the_next_call(plan).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_the_embedded_store() {
    every_change_holds_on_the_next_call(Plan { gateways: 0, ..Plan::small(&first()) }).await;
}
