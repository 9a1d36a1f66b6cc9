//! The ledger and the catalog records, embedded or in Redis.

pub mod config;

pub use config::{Config, EmbeddedConfig, RedisConfig};
