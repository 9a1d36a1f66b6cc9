//! An open loop: a slow answer delays nobody's intended time, and shows in everybody's latency.

use weir_tests::upstream::Upstream;

use crate::world::Desk;

const MIX: &str = r#"
[[services]]
requests = [{ path = "/", headers = { x-delay-ms = "100" } }]
"#;

/// Goal: waiting for those before counts, and the knee is found. Method: an answer takes 100 ms, so the only connection
/// manages the 5 requests of the first second, but 10 of the 20 in the next; each would measure 100 ms by itself.
#[tokio::test(flavor = "multi_thread")]
async fn latency_counts_from_the_intended_time() {
    let upstream = Upstream::start().await;
    let desk = Desk::new();
    let (target, mix) = (format!("http://{}", upstream.address()), desk.put("mix.toml", MIX));
    let page = desk.path("run.html");
    let run = desk
        .load(&[
            &target,
            "--mix",
            &mix,
            "--steps",
            "5..20x4",
            "--for",
            "1s",
            "--connections",
            "1",
            "--fail-if",
            "p99>900ms",
            "--fail-if",
            "errors>0",
            "--html",
            &page,
        ])
        .ended(1);
    assert_eq!(run.number("/stages/1/answers/200"), 20.0);
    let [p50, max] = ["p50", "max"].map(|name| run.number(&format!("/stages/1/latency_ms/{name}")));
    assert!(p50 >= 500.0 && max >= 1_000.0, "p50 {p50}, max {max}");
    assert!(run.number("/stages/1/waited_for_connection") >= 15.0);
    assert!(run.number("/stages/1/rate_achieved") <= 11.0);
    assert!(run.out.contains("FAILED  p99>900ms in stage 2 (20/s): "), "{}", run.out);
    assert!(run.out.contains("held    errors>0\nknee      between 5/s and 20/s\n"), "{}", run.out);
    assert!(run.out.contains("% of the requests waited for a free connection"), "{}", run.out);
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("<svg") && page.contains("p99&gt;900ms"));
    assert!(
        !page.contains("<script") && !page.contains("href=") && !page.contains("src="),
        "nothing to load"
    );
}

/// Goal: what cannot be sent is told, never dropped. Method: no more than five may be in flight.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_find_no_room_are_reported() {
    let upstream = Upstream::start().await;
    let desk = Desk::new();
    let (target, mix) = (format!("http://{}", upstream.address()), desk.put("mix.toml", MIX));
    let run = desk
        .load(&[
            &target,
            "--mix",
            &mix,
            "--rate",
            "100",
            "--for",
            "500ms",
            "--connections",
            "2",
            "--in-flight-max",
            "5",
        ])
        .ended(0);
    let [due, sent, not_sent] =
        ["due", "sent", "not_sent"].map(|name| run.number(&format!("/stages/0/{name}")));
    assert_eq!((due, sent + not_sent), (50.0, 50.0));
    assert!(not_sent >= 30.0, "{not_sent}");
    assert_eq!(upstream.received() as f64, sent);
    assert!(run.out.contains("requests were not sent"), "{}", run.out);
}

/// Goal: whoever does not answer in time is not waited for, and the wait shows. Method: 100 ms to answer, 50 ms to wait.
#[tokio::test(flavor = "multi_thread")]
async fn waits_that_time_out_are_errors_with_a_latency() {
    let upstream = Upstream::start().await;
    let desk = Desk::new();
    let (target, mix) = (format!("http://{}", upstream.address()), desk.put("mix.toml", MIX));
    let run = desk
        .load(&[
            &target,
            "--mix",
            &mix,
            "--rate",
            "20",
            "--for",
            "500ms",
            "--timeout",
            "50ms",
            "--fail-if",
            "errors>10%",
        ])
        .ended(1);
    let timed_out = run.number("/stages/0/no_answer/timeout");
    // On a busy machine the time of some may be over before they are sent.
    assert_eq!(timed_out + run.number("/stages/0/not_sent"), 10.0);
    assert!(timed_out > 1.0 && run.number("/stages/0/latency_ms/p50") >= 50.0, "{timed_out}");
}
