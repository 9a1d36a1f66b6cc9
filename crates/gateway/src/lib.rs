//! The streaming reverse proxy that authenticates, counts and limits API traffic.

pub mod config;

pub use config::{Config, Routing};
