//! `weir load`, as load-testing teams use it: through its command line, against a data plane of real processes.
#![allow(clippy::unwrap_used, reason = "a test fails by it, with the place")]

mod authrep;
mod counters;
mod input;
mod interruption;
mod latency;
mod protocols;
mod world;
