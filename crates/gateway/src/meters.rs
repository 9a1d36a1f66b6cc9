//! The gateway's metrics, named in one place.
//!
//! Labels come from closed sets: services, classes of answers, outcomes, codes, bounds. Handles of a service are
//! looked up once, when it is compiled, so that a request only adds to them; those of codes at their first use, since
//! most services never see most of them.

use std::time::Duration;

use hashbrown::HashMap;
use http::StatusCode;
use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use parking_lot::Mutex;

/// Tells the recorder what each metric means.
pub(crate) fn describe() {
    describe_counter!(
        "weir_gateway_requests_total",
        "Requests that ended, by service and class of the answer"
    );
    describe_histogram!("weir_gateway_request_seconds", "From a request's head to the end of its answer");
    describe_histogram!(
        "weir_gateway_own_seconds",
        "From a request's head to the head of its answer, without waiting for client, listener and upstream"
    );
    describe_histogram!("weir_gateway_authorise_seconds", "Waiting for a decision");
    describe_histogram!("weir_gateway_upstream_seconds", "From sending a request to the head of the answer");
    describe_counter!("weir_gateway_refusals_total", "Requests that the gateway refused, by reason");
    describe_counter!("weir_gateway_grpc_answers_total", "gRPC calls that ended, by grpc-status");
    describe_counter!("weir_gateway_bounds_hit_total", "How often a bound was reached, by its key");
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
    describe_counter!(
        "weir_gateway_outage_calls_total",
        "Calls that passed without a decision while no listener answered: what they used may be beyond limits"
    );
    describe_counter!("weir_gateway_outage_reports_total", "What they used, reported later, by outcome");
    describe_gauge!("weir_gateway_outage_reports_waiting", "What they used and no listener knows yet");
    describe_counter!("weir_gateway_lease_decisions_total", "Calls decided within leases, by outcome");
    describe_counter!("weir_gateway_lease_messages_total", "What was said of leases to listeners");
    describe_histogram!(
        "weir_gateway_lease_answer_seconds",
        "From what was said of a lease to its answer: how long what was spent is not settled yet"
    );
    describe_counter!(
        "weir_gateway_lease_changes_total",
        "Times that a listener said that records behind leases have changed"
    );
    describe_counter!("weir_gateway_lease_recalls_total", "Leases given back since others waited for them");
    describe_counter!(
        "weir_gateway_stayed_counted_total",
        "Calls that stay counted though they did not go on, or were free: nobody knows whose, or there is no room"
    );
    describe_counter!(
        "weir_gateway_extra_lost_total",
        "Calls of which upstreams told further usage that is not counted: nobody knows whose it is, or there is no room"
    );
    describe_counter!("weir_gateway_journal_full_total", "Leases not asked for: the journal has no place");
    describe_gauge!(
        "weir_gateway_leases",
        "Leases out, those of an earlier run included until they are settled"
    );
    describe_gauge!("weir_gateway_journal_leases", "Leases in the journal");
    describe_neighbours();
    // What starts at 0 shows its first hit as a rise.
    Bound::ALL.into_iter().for_each(|bound| bound_counter(bound).increment(0));
}

/// Of issuers, listeners and policies.
fn describe_neighbours() {
    describe_counter!("weir_gateway_tokens_total", "Tokens that were shown, by service and outcome");
    describe_counter!("weir_gateway_issuer_fetches_total", "Times issuers were asked for keys, by outcome");
    describe_counter!("weir_gateway_refusals_unwritten_total", "Refusals that are not in their file");
    describe_counter!("weir_gateway_retries_total", "Calls that were sent to their upstream again");
    describe_gauge!(
        "weir_gateway_upstream_healthy",
        "Whether an address of an upstream is well, by upstream"
    );
    describe_gauge!("weir_gateway_listeners_up", "Listeners with an open stream");
    describe_gauge!("weir_gateway_configuration_revision", "Revision of the configuration in force");
}

/// Tokens shown to one service.
pub(crate) struct TokenMeters {
    /// Known to be good.
    pub(crate) remembered: Counter,
    /// Good, and seen for the first time.
    pub(crate) verified: Counter,
    /// Not good, or nobody could say.
    pub(crate) refused: Counter,
}

impl TokenMeters {
    /// The handles of a service.
    pub(crate) fn of(service: &str) -> Self {
        let outcome = |outcome: &'static str| counter!("weir_gateway_tokens_total", "service" => service.to_owned(), "outcome" => outcome);
        Self { remembered: outcome("remembered"), verified: outcome("verified"), refused: outcome("refused") }
    }
}

/// An issuer was asked for its keys.
pub(crate) fn issuer_asked(outcome: &'static str) {
    counter!("weir_gateway_issuer_fetches_total", "outcome" => outcome).increment(1);
}

/// A call is sent to its upstream again.
pub(crate) fn retried() {
    counter!("weir_gateway_retries_total").increment(1);
}

/// A refusal could not be written down.
pub(crate) fn refusal_not_written() {
    counter!("weir_gateway_refusals_unwritten_total").increment(1);
}

/// Handles of one service.
pub(crate) struct Meters {
    service: String,
    classes: [Counter; 6],
    request_seconds: Histogram,
    own_seconds: Histogram,
    authorise_seconds: Histogram,
    upstream_seconds: Histogram,
    refusals: Mutex<HashMap<&'static str, Counter>>,
    grpc_answers: Mutex<HashMap<&'static str, Counter>>,
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
            own_seconds: histogram!("weir_gateway_own_seconds", "service" => label()),
            authorise_seconds: histogram!("weir_gateway_authorise_seconds", "service" => label()),
            upstream_seconds: histogram!("weir_gateway_upstream_seconds", "service" => label()),
            refusals: Mutex::default(),
            grpc_answers: Mutex::default(),
            service: label(),
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

    /// The head of an answer is there; so long did the gateway itself work for it.
    pub(crate) fn answered(&self, own: Duration) {
        self.own_seconds.record(own.as_secs_f64());
    }

    /// A decision came, or nobody decided.
    pub(crate) fn authorised(&self, waited: Duration) {
        self.authorise_seconds.record(waited.as_secs_f64());
    }

    /// A request was refused; codes are a closed set.
    pub(crate) fn refused(&self, code: &'static str) {
        let new =
            || counter!("weir_gateway_refusals_total", "service" => self.service.clone(), "reason" => code);
        self.refusals.lock().entry(code).or_insert_with(new).increment(1);
    }

    /// A gRPC call ended; codes are a closed set.
    pub(crate) fn grpc_answered(&self, code: &'static str) {
        let service = || self.service.clone();
        let new =
            || counter!("weir_gateway_grpc_answers_total", "service" => service(), "grpc_status" => code);
        self.grpc_answers.lock().entry(code).or_insert_with(new).increment(1);
    }

    /// The upstream sent the head of its answer.
    pub(crate) fn upstream_answered(&self, took: Duration) {
        self.upstream_seconds.record(took.as_secs_f64());
    }
}

/// Handles of what is held on lease.
pub(crate) struct LeaseMeters {
    pub(crate) decided: Counter,
    pub(crate) refused: Counter,
    pub(crate) messages: Counter,
    pub(crate) answered: Histogram,
    pub(crate) recalled: Counter,
    pub(crate) outdated: Counter,
    pub(crate) stayed_counted: Counter,
    pub(crate) extra_lost: Counter,
    pub(crate) journal_full: Counter,
    pub(crate) out: Gauge,
    pub(crate) journal_depth: Gauge,
}

impl LeaseMeters {
    /// The handles of a gateway.
    pub(crate) fn new() -> Self {
        Self {
            decided: counter!("weir_gateway_lease_decisions_total", "outcome" => "allowed"),
            refused: counter!("weir_gateway_lease_decisions_total", "outcome" => "limits_exceeded"),
            messages: counter!("weir_gateway_lease_messages_total"),
            answered: histogram!("weir_gateway_lease_answer_seconds"),
            recalled: counter!("weir_gateway_lease_recalls_total"),
            outdated: counter!("weir_gateway_lease_changes_total"),
            stayed_counted: counter!("weir_gateway_stayed_counted_total"),
            extra_lost: counter!("weir_gateway_extra_lost_total"),
            journal_full: counter!("weir_gateway_journal_full_total"),
            out: gauge!("weir_gateway_leases"),
            journal_depth: gauge!("weir_gateway_journal_leases"),
        }
    }
}

/// Handles of what passes in an outage.
pub(crate) struct OutageMeters {
    pub(crate) passed: Counter,
    pub(crate) reported: Counter,
    pub(crate) unclaimed: Counter,
    pub(crate) waiting: Gauge,
}

impl OutageMeters {
    /// The handles of a gateway.
    pub(crate) fn new() -> Self {
        Self {
            passed: counter!("weir_gateway_outage_calls_total"),
            reported: counter!("weir_gateway_outage_reports_total", "outcome" => "counted"),
            unclaimed: counter!("weir_gateway_outage_reports_total", "outcome" => "nobodys"),
            waiting: gauge!("weir_gateway_outage_reports_waiting"),
        }
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

/// What was reached that is bounded, and does not end one request with a refusal of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bound {
    /// A connection has to wait until another one ends.
    Connections,
    /// A call gets no decision since too many wait for one.
    Authorisations,
    /// A call stays counted since too many wait to be taken back.
    Cancels,
    /// A client took nothing of its answer for too long.
    WriteTimeout,
    /// TLS did not begin in time.
    HandshakeTimeout,
    /// A connection ended since its client passed one of the bounds of HTTP/2.
    Http2,
    /// Connections were closed since they did not end while draining.
    DrainTimeout,
}

impl Bound {
    const ALL: [Self; 7] = [
        Self::Connections,
        Self::Authorisations,
        Self::Cancels,
        Self::WriteTimeout,
        Self::HandshakeTimeout,
        Self::Http2,
        Self::DrainTimeout,
    ];

    /// Its key or table in the configuration.
    fn key(self) -> &'static str {
        match self {
            Self::Connections => "connections_max",
            Self::Authorisations => "authorisations_waiting_max",
            Self::Cancels => "cancels_waiting_max",
            Self::WriteTimeout => "write_timeout_ms",
            Self::HandshakeTimeout => "handshake_timeout_ms",
            Self::Http2 => "http2",
            Self::DrainTimeout => "drain_timeout_ms",
        }
    }
}

/// Counts that a bound was reached.
pub(crate) fn bound_hit(bound: Bound) {
    bound_counter(bound).increment(1);
}

fn bound_counter(bound: Bound) -> Counter {
    counter!("weir_gateway_bounds_hit_total", "bound" => bound.key())
}

/// How an authorisation ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outcome {
    Allowed,
    Denied,
    LimitsExceeded,
    Unavailable,
}

/// Counts authorisations.
pub(crate) struct OutcomeMeters([Counter; 4]);

impl OutcomeMeters {
    /// In the order of the outcomes.
    pub(crate) fn new() -> Self {
        let counter = |outcome| counter!("weir_gateway_authorisations_total", "outcome" => outcome);
        Self(["allowed", "denied", "limits_exceeded", "unavailable"].map(counter))
    }

    /// One has ended.
    pub(crate) fn count(&self, outcome: Outcome) {
        self.0[outcome as usize].increment(1);
    }
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
