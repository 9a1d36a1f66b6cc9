//! The listener through its ports: what gateways, the control plane and probes see.

mod callers;
mod catalog;
mod decisions;
mod freshness;
mod outage;
mod protocol;
mod streaming;
