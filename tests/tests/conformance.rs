//! The gateway and the Service Management API against what those of the field were recorded to do: cases by the
//! hundred, black box (tests/conformance).
//!
//! Goal: whoever moves over finds the same mapping rules, credentials, refusals, documents and headers, or a reason.
//! Method: the suites' own judges, with real `weir` processes behind their adapters. Cases that differ are listed here,
//! each with its reason; one that begins to agree has to leave the list.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use weir_tests::process::weir_binary;
use weir_tests::stack::{Plan, Stack};

/// How many cases there are.
const CASES: usize = 372;

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

const PUBLISH_TOKEN: &str = "conformance-publish-token";

/// How many cases the Service Management API has.
const API_CASES: usize = 442;

/// Its cases that differ. Each rests on an oddity of the recorded server; the page has the reasons.
const API_DIFFERENT: [(&str, &[&str]); 9] = [
    (
        "Keys are never listed",
        &[
            "list-keys/two",
            "list-keys/when-denied",
            "list-keys/user-key-mode",
            "list-keys/oauth",
            "oauth/authorize",
            "oauth/app-key-right",
        ],
    ),
    ("Every text is escaped", &["keys/markup-in-bad-key", "oauth/redirect-markup-in-reason"]),
    (
        "An answer shows what the counters hold",
        &[
            "tree/flat-authrep",
            "limits/metric-blanks",
            "shown/authrep-set-and-child-shown",
            "shown/set-rescue-still-exceeded",
            "limit-headers/flat",
        ],
    ),
    ("Blanks around a usage are dropped", &["limits/value-space-hash", "limits/metric-blanks-no-body"]),
    ("A metric that is not used bounds nothing", &["limit-headers/mixed-zero-reversed"]),
    ("An empty provider_key is none", &["credentials/empty-key-report-with-token"]),
    (
        "Nested parameters that contradict each other",
        &[
            "encoding/nest-list-after-map",
            "encoding/nest-map-after-scalar",
            "encoding/nest-list-after-scalar",
        ],
    ),
    (
        "A report of the wrong shape",
        &["report/member-string", "report/usage-string", "report/usage-empty-string"],
    ),
    ("An options header that cannot be read", &["reason/bad-percent-header"]),
];

#[tokio::test]
async fn the_recorded_api_is_kept_by_the_embedded_store() {
    check_api(false).await;
}

#[tokio::test]
async fn the_recorded_api_is_kept_by_redis() {
    check_api(true).await;
}

async fn check_api(redis: bool) {
    let listener_lines = format!("publish_token = \"{PUBLISH_TOKEN}\"");
    let plan = Plan { gateways: 0, redis, catalog_file: false, listener_lines, ..Plan::small("") };
    let stack = Stack::start(&plan).await;
    let listener = &stack.listeners[0];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/service-management-api");
    let arguments = format!("{} {PUBLISH_TOKEN} one stack-server-secret", listener.address);
    let http = listener.http.expect("a listener has an HTTP port");
    let run = tokio::process::Command::new("python3")
        .arg("-B")
        .arg(folder.join("suite.py"))
        .arg("--adapter")
        .arg(folder.join("adapter.py"))
        .args(["--base-url", &format!("http://{http}")])
        .env("WEIR_PUBLISH", env!("CARGO_BIN_EXE_weir-publish"))
        .env("WEIR_PUBLISH_ARGUMENTS", arguments)
        .output();
    let run = run.await.expect("python3 runs the suite: apt-get install python3");
    let told = String::from_utf8_lossy(&run.stdout);
    let failed: BTreeSet<&str> = told.lines().filter_map(api_failure).collect();
    let known: BTreeSet<&str> = API_DIFFERENT.iter().flat_map(|(_, cases)| *cases).copied().collect();
    let sum = format!("{} passed, {} failed of {API_CASES}", API_CASES - known.len(), known.len());
    assert_eq!(failed, known, "{told}{}", String::from_utf8_lossy(&run.stderr));
    assert!(told.contains(&sum), "{sum}, but:\n{told}");
}

/// `FAIL group/name: what differs`.
fn api_failure(line: &str) -> Option<&str> {
    Some(line.strip_prefix("FAIL ")?.split_once(": ")?.0)
}

#[test]
fn every_difference_of_the_api_has_its_reason() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/compatibility.md");
    let page = std::fs::read_to_string(page).expect("the page is there");
    for (reason, cases) in API_DIFFERENT {
        assert!(page.contains(&format!("**{reason}")), "docs/compatibility.md has no reason {reason:?}");
        assert!(!cases.is_empty());
    }
}
