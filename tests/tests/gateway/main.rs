//! The gateway over real sockets: what a client, an upstream and a counter can see of it.
//!
//! Each module starts one data plane whose catalog has a service per behaviour, and runs its tables against it.
//! At the end of each the logs of all processes are searched for keys and tokens.
#![allow(clippy::unwrap_used, reason = "a test fails by it, with the place")]

mod access;
mod bounds;
mod exchange;
mod explain;
mod failures;
mod import;
mod ledger;
mod life;
mod limits;
mod outcomes;
mod policies;
mod protocol;
mod routing;
mod rules;
mod telemetry;
mod tokens;
mod traces;
mod upstream;
mod world;
