//! An interrupted run says what it has.

use weir_tests::process::Process;
use weir_tests::upstream::Upstream;
use weir_tests::wait::until_async;

use crate::world::Desk;

/// Goal: Ctrl-C ends a run in time, with its table and its files. Method: an hour's run is interrupted once some of its
/// requests have arrived; the last ones are slow, so that the moment in which they may end is used.
#[tokio::test(flavor = "multi_thread")]
async fn control_c_prints_what_there_is() {
    let upstream = Upstream::start().await;
    let desk = Desk::new();
    let (target, json, log) =
        (format!("http://{}/", upstream.address()), desk.path("run.json"), desk.path("log"));
    let arguments = [
        "load",
        &target,
        "--rate",
        "200",
        "--for",
        "1h",
        "--header",
        "x-delay-ms: 50",
        "--json",
        &json,
        "--fail-if",
        "p50>1ms",
    ];
    let mut run = Process::start(&arguments, std::path::Path::new(&log));
    until_async("requests to arrive", || async { (upstream.received() >= 50).then_some(()) }).await;
    let status = run.interrupt();
    assert_eq!(status.code(), Some(130), "{}", run.log());
    let printed = run.log();
    for said in [", interrupted\n", "stage 1, ", "answers   200 ", "FAILED  p50>1ms"] {
        assert!(printed.contains(said), "{said:?} in\n{printed}");
    }
    let value: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    let stage = &value["stages"][0];
    assert_eq!(value["interrupted"], true);
    assert_eq!(stage["answers"]["200"], stage["sent"], "all that was sent had time to be answered");
    assert!(stage["length_ms"].as_f64().unwrap() < 60_000.0, "{stage:#}");
}
