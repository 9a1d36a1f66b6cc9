//! The one place where what went wrong becomes a gRPC status. Nothing of the store's own words gets out.

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use weir_proto::FieldError;
use weir_store::StoreError;

/// A question that got no decision.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The caller wrote something that cannot be.
    #[error("{0}")]
    Field(#[from] FieldError),
    /// The caller's token is not for this service.
    #[error("the token is not for service {0}")]
    Forbidden(String),
    /// What is asked is not served here.
    #[error("{0} is not served here")]
    Unknown(&'static str),
    /// The store did not answer in time.
    #[error("the store did not answer in time")]
    Timeout,
    /// The store could not answer.
    #[error("the store cannot answer")]
    Store(#[from] StoreError),
    /// Records changed faster than they could be read.
    #[error("the catalog changes too fast to decide")]
    Unsettled,
    /// The store's catalog is older than it was.
    #[error("the store has lost its catalog: it holds revision {held}, it held {known}")]
    CatalogLost {
        /// Its revision now.
        held: u64,
        /// The highest one seen.
        known: u64,
    },
    /// There is no catalog yet.
    #[error("there is no catalog yet")]
    NoCatalog,
    /// A record in the store cannot be read.
    #[error("a record in the store cannot be read: {0}")]
    Record(FieldError),
}

impl Failure {
    /// The status code a unary call ends with.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Field(_) => Code::InvalidArgument,
            Self::Forbidden(_) => Code::PermissionDenied,
            Self::Unknown(_) => Code::Unimplemented,
            Self::Store(StoreError::Busy) => Code::ResourceExhausted,
            Self::Store(StoreError::TakenBack) => Code::Aborted,
            Self::Timeout
            | Self::Store(_)
            | Self::Unsettled
            | Self::CatalogLost { .. }
            | Self::NoCatalog
            | Self::Record(_) => Code::Unavailable,
        }
    }

    /// Logs what an operator should look at, once.
    pub(crate) fn log(&self) {
        match self {
            Self::Record(error) => tracing::error!(error = %error, "a catalog record cannot be read"),
            // An outage is one line in `watch`, and a metric; not a line for every call in it.
            Self::Store(error) => tracing::debug!(error = %chain(error), "the store cannot answer"),
            Self::Timeout | Self::CatalogLost { .. } | Self::NoCatalog => tracing::debug!("{self}"),
            Self::Unsettled => tracing::warn!("{self}"),
            Self::Field(_) | Self::Forbidden(_) | Self::Unknown(_) => tracing::debug!("{self}"),
        }
        crate::meters::failed(label(self.code()));
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        failure.log();
        match &failure {
            Failure::Field(FieldError { field, problem }) => {
                let details = ErrorDetails::with_bad_request_violation(field, problem);
                Self::with_error_details(Code::InvalidArgument, failure.to_string(), details)
            }
            _ => Self::new(failure.code(), failure.to_string()),
        }
    }
}

/// A code as a label.
pub(crate) fn label(code: Code) -> &'static str {
    match code {
        Code::InvalidArgument => "invalid_argument",
        Code::PermissionDenied => "permission_denied",
        Code::Unimplemented => "unimplemented",
        Code::ResourceExhausted => "resource_exhausted",
        _ => "unavailable",
    }
}

/// An error with everything behind it, for the log.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
