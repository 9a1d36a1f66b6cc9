//! Whole-stack stories: real processes, real Redis, real sockets; each says its goal and method.

mod outage;
mod truth;
