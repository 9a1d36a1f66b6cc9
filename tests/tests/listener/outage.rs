//! Redis away: UNAVAILABLE within a bounded time, nothing counted, back by itself.

use std::time::{Duration, Instant};

use tonic::Code;
use weir_proto::v1;
use weir_tests::http::get;
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
