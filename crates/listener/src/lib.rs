//! Serves authorisation: authenticates, decides and counts.

pub mod config;

pub use config::{Config, GatewayToken};
