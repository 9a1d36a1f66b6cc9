//! The error list of a service: what was refused with an error, for its provider to read.
//!
//! Reference: Service Management API, section 1.9. A caller is answered even where its error cannot be kept.

use http::request::Parts;
use weir_core::ServiceId;
use weir_store::ServiceError;

use crate::engine::now;
use crate::server::Shared;

/// Keeps an error; one without a code is none.
pub(super) async fn keep_error(
    shared: &Shared,
    service: &ServiceId,
    head: &Parts,
    code: &str,
    message: &str,
) {
    if code.is_empty() {
        return;
    }
    let request = format!("{} {}", head.method, head.uri.path());
    let error = ServiceError { code: code.to_owned(), message: message.to_owned(), at: now(), request };
    if let Err(problem) = shared.engine.store.keep_error(service, &error).await {
        tracing::debug!(error = %problem, service.id = %service, "an error cannot be kept for its provider");
    }
}
