//! The listener's metrics, named in one place. Labels come from closed sets: outcomes and status codes.

use std::time::Duration;

use metrics::{Counter, Histogram, counter, describe_counter, describe_histogram, histogram};
use weir_core::Decision;

/// Tells the recorder what each metric means.
pub(crate) fn describe() {
    describe_counter!(
        "weir_listener_decisions_total",
        "Decisions, by outcome: allowed or the refusal's code"
    );
    describe_counter!(
        "weir_listener_edge_calls_total",
        "Calls that Envoy or nginx asked about, by outcome: allowed, the refusal's code, or undecided"
    );
    describe_histogram!("weir_listener_decision_seconds", "From a question to its decision");
    describe_counter!("weir_listener_recalls_total", "Leases asked back for calls that waited for them");
    metrics::describe_gauge!(
        "weir_leases_applications",
        "Applications that something is out on lease of, by shard"
    );
    describe_counter!(
        "weir_over_admitted_total",
        "What was counted beyond limits, by reports of what had happened"
    );
    describe_counter!(
        "weir_under_admitted_total",
        "What had counted as used since its holder was silent, and was not used"
    );
    describe_counter!("weir_leases_presumed_total", "Leases that nobody settled in time, counted as used");
    describe_counter!(
        "weir_events_dropped_total",
        "Events that nobody had acknowledged when there was no more room"
    );
    describe_counter!("weir_listener_failures_total", "Questions without a decision, by gRPC status");
}

/// Another proxy has asked about a call: `asker` is `envoy` or `nginx`, `outcome` as the metric's page has it.
pub(crate) fn asked(asker: &'static str, outcome: &'static str) {
    counter!("weir_listener_edge_calls_total", "asker" => asker, "outcome" => outcome).increment(1);
}

/// What is counted for every decision; looking a metric up by its name costs more than counting.
pub(crate) struct Meters {
    allowed: Counter,
    seconds: Histogram,
}

impl Meters {
    pub(crate) fn new() -> Self {
        Self {
            allowed: counter!("weir_listener_decisions_total", "outcome" => "allowed"),
            seconds: histogram!("weir_listener_decision_seconds"),
        }
    }

    /// Questions were decided together.
    pub(crate) fn decided<'a>(&self, decisions: impl IntoIterator<Item = &'a Decision>, took: Duration) {
        let (mut allowed, mut all) = (0, 0);
        for decision in decisions {
            all += 1;
            match decision {
                Decision::Allow(_) => allowed += 1,
                Decision::Deny(denial) => {
                    counter!("weir_listener_decisions_total", "outcome" => denial.code()).increment(1);
                }
            }
        }
        self.allowed.increment(allowed);
        self.seconds.record_many(took.as_secs_f64(), all);
    }
}

/// A question got no decision.
pub(crate) fn failed(code: &'static str) {
    counter!("weir_listener_failures_total", "code" => code).increment(1);
}
