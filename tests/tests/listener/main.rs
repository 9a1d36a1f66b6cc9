//! The listener through its ports: what gateways, the control plane and probes see.
#![allow(clippy::unwrap_used, reason = "a test fails by it, with the place")]

mod callers;
mod catalog;
mod clients;
mod decisions;
mod freshness;
mod http_port;
mod outage;
mod protocol;
mod streaming;
