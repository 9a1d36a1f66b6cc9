//! The listener through its ports: what gateways, the control plane and probes see.
#![allow(clippy::unwrap_used, reason = "a test fails by it, with the place")]

mod api_bounds;
mod api_calls;
mod api_changes;
mod api_reports;
mod callers;
mod catalog;
mod clients;
mod decisions;
mod envoy;
mod events;
mod freshness;
mod http_port;
mod outage;
mod protocol;
mod streaming;
