//! The error list of a service: what was refused with an error, for its provider to read.
//!
//! Reference: Service Management API, section 1.9. A caller is answered even where its error cannot be kept.

use futures_util::FutureExt;
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
    let keeping = async {
        shared.engine.store.keep_error(service, &error).await?;
        Ok(())
    };
    // Rare, and as large as all that a store may do: it should not make every call's work as large.
    let kept = shared.engine.within_deadline(keeping.boxed());
    if let Err(problem) = kept.await {
        tracing::debug!(error = %problem, service.id = %service, "an error cannot be kept for its provider");
    }
}
