//! Redis away: UNAVAILABLE within a bounded time, nothing counted, back by itself.

use std::time::{Duration, Instant};

use tonic::Code;
use weir_proto::v1;
use weir_tests::http::get;
use weir_tests::listener::auth_rep_request;
use weir_tests::stack::{Plan, Stack, catalog};
use weir_tests::wait::{until, until_async};

/// The deadline of 250 ms, and room for a busy machine.
const BOUND: Duration = Duration::from_millis(750);

#[tokio::test(flavor = "multi_thread")]
async fn redis_away_is_told_in_time_and_heals_by_itself() {
    let plan = Plan { gateways: 0, redis: true, ..Plan::small(&catalog(1, "")) };
    let mut stack = Stack::start(&plan).await;
    let client = stack.listener_client(0);
    client.auth_rep("key", &[("hits", 1)]).await.unwrap();
    let telemetry = stack.listeners[0].telemetry;

    for freeze in [false, true] {
        let redis = stack.redis.as_mut().unwrap();
        if freeze {
            assert_eq!(redis.command("CLIENT PAUSE 3000 ALL"), "+OK");
        } else {
            redis.kill();
        }
        for _ in 0..5 {
            let asked = Instant::now();
            let status = client.auth_rep("key", &[("hits", 1)]).await.unwrap_err();
            assert_eq!(status.code(), Code::Unavailable, "{status}");
            assert!(asked.elapsed() < BOUND, "took {:?}", asked.elapsed());
            assert!(
                !status.message().to_lowercase().contains("redis"),
                "no word of the store's own: {status}"
            );
        }
        if !freeze {
            until("readiness to go", || (get(telemetry, "/readyz").status == 503).then_some(()));
            stack.redis.as_mut().unwrap().restart();
        }
        until_async("calls to pass again", || async {
            client.auth_rep("key", &[]).await.ok().filter(|decision| decision.denial.is_none())
        })
        .await;
        until("readiness to come back", || (get(telemetry, "/readyz").status == 200).then_some(()));
        stack.counter_settles_at("app", "hits", 1).await;
    }
    assert_eq!(client.used("app", "hits", v1::Period::Day).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_was_emptied_refuses_nobody() {
    let plan = Plan { gateways: 1, redis: true, ..Plan::small(&catalog(3, "")) };
    let stack = Stack::start(&plan).await;
    let client = stack.listener_client(0);
    client.auth_rep("key", &[("hits", 1)]).await.unwrap();
    assert_eq!(stack.redis.as_ref().unwrap().command("FLUSHALL"), "+OK");
    until("readiness to go", || (get(stack.listeners[0].telemetry, "/readyz").status == 503).then_some(()));
    let status = client.auth_rep("key", &[("hits", 1)]).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert_eq!(get(stack.gateways[0].address, "/?user_key=key").status, 503, "not 403, not 404");
    stack.put_catalog(&catalog(4, ""));
    until("readiness to come back", || {
        (get(stack.listeners[0].telemetry, "/readyz").status == 200).then_some(())
    });
    assert_eq!(get(stack.gateways[0].address, "/?user_key=key").status, 200);
}

/// A call was counted, its answer lost; meanwhile the application was suspended: the further attempt is refused, and
/// then nothing of the call stays counted.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_further_attempt_leaves_nothing_counted() {
    let stack = Stack::start(&Plan { gateways: 0, ..Plan::small(&catalog(1, "")) }).await;
    let client = stack.listener_client(0);
    for (revision, warm) in [(2, false), (4, true)] {
        let first = auth_rep_request("key", &[("hits", 1)]);
        let again = v1::AuthRepRequest { attempt: 1, ..first.clone() };
        client.client.clone().auth_rep(client.signed(first)).await.unwrap();
        stack.put_catalog(&(catalog(revision, "") + "state = \"suspended\"\n"));
        let published = format!("revision {revision} published");
        until("the catalog", || stack.listeners[0].log().contains(&published).then_some(()));
        if warm {
            client.auth_rep("key", &[]).await.unwrap();
        }
        let answer = client.client.clone().auth_rep(client.signed(again)).await.unwrap().into_inner();
        assert_eq!(answer.denial.unwrap().code, "application_not_active");
        stack.counter_settles_at("app", "hits", 0).await;
        stack.put_catalog(&catalog(revision + 1, ""));
        until_async("the application to be back", || async {
            client.auth_rep("key", &[]).await.ok().filter(|decision| decision.denial.is_none())
        })
        .await;
    }
}
