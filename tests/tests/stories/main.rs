//! Whole-stack stories: real processes, real Redis, real sockets; each says its goal and method.

mod demo;
mod outage;
mod redis_access;
mod truth;
