//! Whole-stack stories: real processes, real Redis, real sockets; each says its goal and method.
#![allow(clippy::unwrap_used, reason = "a test fails by it, with the place")]

mod demo;
mod leases;
mod mutual_tls;
mod outage;
mod redis_access;
mod truth;
