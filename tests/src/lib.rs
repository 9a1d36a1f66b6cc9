//! What whole-stack tests stand on: private servers, the `weir` binary as real processes, plain clients.
//!
//! Every test starts its own servers on free ports of loopback and ends them when it is over; nothing is shared and
//! nothing is mocked. Missing programs fail with the line that installs them.
//!
//! It uses no role crate: what it checks is what a user could see.

pub mod certificates;
pub mod collector;
pub mod foreign;
pub mod http;
pub mod issuer;
pub mod listener;
pub mod load;
pub mod management_api;
pub mod npm;
pub mod process;
pub mod random;
pub mod redis;
pub mod scripted;
pub mod stack;
pub mod upstream;
pub mod wait;
