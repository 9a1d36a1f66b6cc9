//! Serves authorisation: authenticates, decides and counts.
//!
//! Gateways ask over gRPC; the engine turns a question into one store call, so that many listeners over one store
//! decide as one. Services and applications are cached with their versions, and the store compares these in the same
//! step in which it counts: a revoked key or a changed plan holds on the very next call.
//!
//! It keeps nothing of its own: a listener can be killed and another asked.

mod caller;
mod catalog;
pub mod config;
mod edge;
mod engine;
#[cfg(fuzzing)]
pub mod fuzzing;
mod grpc;
mod http;
mod meters;
mod recalls;
mod records;
mod server;
mod status;
mod trace;
mod watch;

pub use catalog::{CatalogHandle, PublishError, Published};
pub use config::{Config, GatewayToken, ServerTls};
pub use server::{Listener, StartError, Status};
