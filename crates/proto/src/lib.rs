//! The wire contract of `/proto` and its conversion to and from the rules of `weir-core`.
//!
//! Roles meet only here. Conversion into core checks everything a peer could get wrong and names the field;
//! conversion out of core cannot fail. The `.proto` files are the reference for units and defaults.
//!
//! It decides nothing and does no I/O.

mod catalog;
mod codec;
mod decision;
mod lease;
mod proxy;
mod settings;
mod usage;

/// The generated messages, clients and servers.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    reason = "generated; documented in /proto"
)]
pub mod v1 {
    tonic::include_proto!("weir.v1");
}

/// What the listener serves of Envoy's contracts: `envoy::service::auth::v3` and `envoy::service::ratelimit::v3`.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    reason = "generated; documented in /proto"
)]
mod envoys {
    include!(concat!(env!("OUT_DIR"), "/envoy.rs"));
}

pub use envoys::{envoy, google};

pub use codec::{StrictCodec, StrictDecoder, StrictEncoder};
pub use decision::Acceptance;
pub use lease::{LeaseAnswer, Unsettled};
pub use usage::USAGE_ENTRIES_MAX;

/// The compiled descriptors, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/weir.bin"));

/// Those of Envoy's contracts.
pub const ENVOY_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/envoy.bin"));

/// Bytes of a request id.
pub const REQUEST_ID_BYTES: usize = 16;

/// A message that does not say what the contract asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct FieldError {
    /// Path of the field, as in the `.proto` file.
    pub field: String,
    /// What is wrong with it. Holds no credential.
    pub problem: String,
}

impl FieldError {
    /// An error about a field.
    pub fn new(field: &str, problem: impl std::fmt::Display) -> Self {
        Self { field: field.to_owned(), problem: problem.to_string() }
    }

    /// The same error one message further out.
    #[must_use]
    pub fn within(mut self, outer: &str) -> Self {
        self.field = format!("{outer}.{}", self.field);
        self
    }
}

mod redacted {
    //! `Debug` for messages that hold secrets.

    use std::fmt;

    use crate::envoy::config::core::v3::HeaderValue;
    use crate::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
    use crate::envoy::service::auth::v3::attribute_context::HttpRequest;
    use crate::envoy::service::auth::v3::{DeniedHttpResponse, OkHttpResponse};
    use crate::v1;

    impl fmt::Debug for HeaderValue {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "HeaderValue({}: ***)", self.key)
        }
    }

    impl fmt::Debug for Entry {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "Entry({}: ***)", self.key)
        }
    }

    impl fmt::Debug for HttpRequest {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("HttpRequest").field("method", &self.method).finish_non_exhaustive()
        }
    }

    impl fmt::Debug for DeniedHttpResponse {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("DeniedHttpResponse").field("status", &self.status).finish_non_exhaustive()
        }
    }

    impl fmt::Debug for OkHttpResponse {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("OkHttpResponse").finish_non_exhaustive()
        }
    }

    impl fmt::Debug for v1::Credentials {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Credentials(***)")
        }
    }

    impl fmt::Debug for v1::credentials::Kind {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("***")
        }
    }

    impl fmt::Debug for v1::AppIdAndKey {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("AppIdAndKey(***)")
        }
    }

    impl fmt::Debug for v1::Transaction {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("Transaction").field("usage", &self.usage).finish_non_exhaustive()
        }
    }

    impl fmt::Debug for v1::transaction::Application {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("***")
        }
    }

    impl fmt::Debug for v1::Proxy {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("Proxy").field("hosts", &self.hosts).finish_non_exhaustive()
        }
    }
}

#[cfg(test)]
mod tests;
