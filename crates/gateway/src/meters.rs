//! The gateway's metrics, named in one place.
//!
//! Labels come from closed sets: services, classes of answers, outcomes. Handles of a service are looked up
//! once, when it is compiled, so that a request only adds to them.

use std::time::Duration;

use http::StatusCode;
use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};

/// Tells the recorder what each metric means.
pub(crate) fn describe() {
    describe_counter!(
        "weir_gateway_requests_total",
        "Requests that ended, by service and class of the answer"
    );
    describe_histogram!("weir_gateway_request_seconds", "From a request's head to the end of its answer");
    describe_histogram!("weir_gateway_upstream_seconds", "From sending a request to the head of the answer");
    describe_counter!("weir_gateway_authorisations_total", "Decisions on calls, by outcome");
    describe_gauge!("weir_gateway_cancels_waiting", "Refused calls that listeners have yet to take back");
    describe_counter!(
        "weir_gateway_cancels_dropped_total",
        "Refused calls that stay counted: too many waited"
    );
    describe_counter!(
        "weir_gateway_malformed_total",
        "What clients sent that is no request, or no body, by what is wrong"
    );
    describe_gauge!("weir_gateway_connections", "Open client connections");
    describe_gauge!("weir_gateway_upstream_in_flight", "Requests in flight, tunnels included, by upstream");
    describe_gauge!("weir_gateway_upstream_waiting", "Requests that wait for a place at their upstream");
    describe_gauge!("weir_gateway_upstream_idle", "Idle connections, by upstream");
    describe_counter!("weir_gateway_upstream_connects_total", "Connections opened, by upstream and outcome");
    describe_gauge!("weir_gateway_listeners_up", "Listeners with an open stream");
    describe_gauge!("weir_gateway_configuration_revision", "Revision of the configuration in force");
}

/// Handles of one service.
pub(crate) struct Meters {
    classes: [Counter; 6],
    request_seconds: Histogram,
    upstream_seconds: Histogram,
}

/// Index 0: nothing was answered.
const CLASSES: [&str; 6] = ["aborted", "1xx", "2xx", "3xx", "4xx", "5xx"];

impl Meters {
    /// The handles of a service.
    pub(crate) fn of(service: &str) -> Self {
        let label = || service.to_owned();
        Self {
            classes: CLASSES
                .map(|class| counter!("weir_gateway_requests_total", "service" => label(), "class" => class)),
            request_seconds: histogram!("weir_gateway_request_seconds", "service" => label()),
            upstream_seconds: histogram!("weir_gateway_upstream_seconds", "service" => label()),
        }
    }

    /// A request has ended.
    pub(crate) fn ended(&self, status: Option<StatusCode>, took: Duration) {
        let class = status.map_or(0, |status| usize::from(status.as_u16() / 100));
        if let Some(counter) = self.classes.get(class) {
            counter.increment(1);
        }
        self.request_seconds.record(took.as_secs_f64());
    }

    /// The upstream sent the head of its answer.
    pub(crate) fn upstream_answered(&self, took: Duration) {
        self.upstream_seconds.record(took.as_secs_f64());
    }
}

/// Handles of one upstream's pool.
pub(crate) struct PoolMeters {
    pub(crate) in_flight: Gauge,
    pub(crate) waiting: Gauge,
    pub(crate) idle: Gauge,
    opened: Counter,
    failed: Counter,
}

impl PoolMeters {
    /// The handles for an origin, which the catalog names.
    pub(crate) fn of(upstream: &str) -> Self {
        let label = || upstream.to_owned();
        let connects = |outcome| counter!("weir_gateway_upstream_connects_total", "upstream" => label(), "outcome" => outcome);
        Self {
            in_flight: gauge!("weir_gateway_upstream_in_flight", "upstream" => label()),
            waiting: gauge!("weir_gateway_upstream_waiting", "upstream" => label()),
            idle: gauge!("weir_gateway_upstream_idle", "upstream" => label()),
            opened: connects("opened"),
            failed: connects("failed"),
        }
    }

    /// A connection was tried.
    pub(crate) fn connected(&self, is_open: bool) {
        if is_open { self.opened.increment(1) } else { self.failed.increment(1) }
    }
}

/// How an authorisation ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outcome {
    Allowed,
    Denied,
    LimitsExceeded,
    Unavailable,
}

/// Counts an authorisation.
pub(crate) fn authorised(outcome: Outcome) {
    let outcome = match outcome {
        Outcome::Allowed => "allowed",
        Outcome::Denied => "denied",
        Outcome::LimitsExceeded => "limits_exceeded",
        Outcome::Unavailable => "unavailable",
    };
    counter!("weir_gateway_authorisations_total", "outcome" => outcome).increment(1);
}

/// Takings-back that wait for a listener.
pub(crate) fn cancels_waiting() -> Gauge {
    gauge!("weir_gateway_cancels_waiting")
}

/// Takings-back that were given up: their requests stay counted.
pub(crate) fn cancels_dropped() -> Counter {
    counter!("weir_gateway_cancels_dropped_total")
}

/// Counts what a client sent that cannot be read; `reason` is a label of [`crate::framing::Malformed`] or `timeout`.
pub(crate) fn malformed(reason: &'static str) {
    counter!("weir_gateway_malformed_total", "reason" => reason).increment(1);
}

/// Open client connections.
pub(crate) fn connections() -> Gauge {
    gauge!("weir_gateway_connections")
}

/// Listeners with an open stream.
pub(crate) fn listeners_up() -> Gauge {
    gauge!("weir_gateway_listeners_up")
}

/// Revision of the configuration in force.
pub(crate) fn revision() -> Gauge {
    gauge!("weir_gateway_configuration_revision")
}
