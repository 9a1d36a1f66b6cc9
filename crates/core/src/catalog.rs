//! Everything the data plane serves, as one document: what a catalog file holds.
//!
//! The binary parses it from TOML, the listener publishes it to the store. Checked as a whole before anything
//! of it is used.

use crate::application::Application;
use crate::service::Service;

/// All services, with their providers, and all applications at one revision.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// Rises with every change; a store never goes back to a lower one.
    pub revision: u64,
    /// All services.
    pub services: Vec<Service>,
    /// All applications.
    pub applications: Vec<Application>,
}
