//! The gateway against what the field's gateway was recorded to do: 365 cases, black box (tests/conformance/gateway).
//!
//! Goal: whoever moves over finds the same mapping rules, credentials, refusals and headers, or a reason.
//! Method: the suite's own judge, with real `weir` processes behind `adapter.py`. Cases that differ are listed here,
//! each with its reason; one that begins to agree has to leave the list.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use weir_tests::process::weir_binary;

/// What our gateway does not have: services of several backends.
const LEFT_OUT: &str = "product-";

/// How many cases are left.
const CASES: usize = 366;

/// Cases that differ, and why they may.
const DIFFERENT: [(&str, &str); 9] = [
    ("answer-accel", "judges the origin's body by its text and by its mark at once: cannot agree"),
    ("away-known-none", "asks for no usage though two of its calls are answered 200: cannot agree"),
    ("away-known-resilient", "what passes in an outage is counted afterwards; the recorded gateway loses it"),
    ("away-refused-allow", "as away-known-resilient"),
    ("away-unknown-allow", "as away-known-resilient"),
    ("backend-encoding", "metric names and application ids are narrower in a catalog"),
    ("map-slashes", "runs of slashes are merged upstream, too, so that it reads what was matched"),
    ("refuse-limits", "Retry-After tells our window, not the 60 seconds of the recorded one"),
    ("refuse-limits-custom", "as refuse-limits"),
];

#[test]
fn recorded_behaviour_is_kept() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/gateway");
    let run = Command::new("python3")
        .arg("-B")
        .arg(folder.join("suite.py"))
        .arg("--adapter")
        .arg(folder.join("adapter.py"))
        // Ids have no blanks, groups mostly do.
        .args(["--only", &format!("^(?!{LEFT_OUT})[^ ]+$")])
        .env("WEIR", weir_binary())
        .env("WEIR_USAGE", env!("CARGO_BIN_EXE_weir-usage"))
        .output()
        .expect("python3 runs the suite: apt-get install python3");
    let told = String::from_utf8_lossy(&run.stdout);
    let failed: BTreeMap<&str, &str> = told.lines().filter_map(failure).collect();
    let known: BTreeMap<&str, &str> = DIFFERENT.into_iter().collect();
    let new: Vec<_> = failed.iter().filter(|(id, _)| !known.contains_key(*id)).collect();
    assert!(new.is_empty(), "differ without a reason: {new:#?}");
    let agree: Vec<_> = known.keys().filter(|id| !failed.contains_key(*id)).collect();
    let sum = format!("{} passed, {} failed of {CASES}", CASES - failed.len(), failed.len());
    assert!(told.contains(&sum), "{sum}, but:\n{told}{}", String::from_utf8_lossy(&run.stderr));
    assert!(agree.is_empty(), "no longer differ: {agree:?}");
    assert_eq!(run.status.code(), Some(i32::from(!known.is_empty())), "{told}");
}

/// `FAIL id [group] title: what differs`.
fn failure(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("FAIL ")?.split_once(' ')
}
