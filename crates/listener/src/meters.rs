//! The listener's metrics, named in one place. Labels come from closed sets: outcomes and status codes.

use std::time::Duration;

use metrics::{counter, describe_counter, describe_histogram, histogram};
use weir_core::Decision;

/// Tells the recorder what each metric means.
pub(crate) fn describe() {
    describe_counter!(
        "weir_listener_decisions_total",
        "Decisions, by outcome: allowed or the refusal's code"
    );
    describe_histogram!("weir_listener_decision_seconds", "From a question to its decision");
    describe_counter!("weir_listener_failures_total", "Questions without a decision, by gRPC status");
}

/// A question was decided.
pub(crate) fn decided(decision: &Decision, took: Duration) {
    let outcome = match decision {
        Decision::Allow(_) => "allowed",
        Decision::Deny(denial) => denial.code(),
    };
    counter!("weir_listener_decisions_total", "outcome" => outcome).increment(1);
    histogram!("weir_listener_decision_seconds").record(took.as_secs_f64());
}

/// A question got no decision.
pub(crate) fn failed(code: &'static str) {
    counter!("weir_listener_failures_total", "code" => code).increment(1);
}
