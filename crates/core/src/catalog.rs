//! Everything the data plane serves, as one document: what a catalog file holds.
//!
//! The binary parses it from TOML, the listener publishes it to the store. Checked as a whole before anything
//! of it is used.

use crate::application::Application;
use crate::id::ServiceId;
use crate::service::Service;

/// One company that offers APIs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// Its name.
    pub name: String,
    /// Its services; the first is its default.
    pub services: Vec<ServiceId>,
}

/// All providers, services and applications at one revision.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// Rises with every change; a store never goes back to a lower one.
    pub revision: u64,
    /// Who offers what.
    pub providers: Vec<Provider>,
    /// All services.
    pub services: Vec<Service>,
    /// All applications.
    pub applications: Vec<Application>,
}
