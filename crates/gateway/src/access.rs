//! One request from its head to the end of its answer, for the access log and the metrics.
//!
//! The pipeline makes a [`Call`] first thing and hands it to the answer's body; wherever it is dropped, the
//! request has ended. Logged are the method, the path without its query, the status, the service and the time it
//! took: never a header, a query or a credential.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderValue, Method, Request, StatusCode, Version, header};
use tracing::info;

use crate::headers::{REQUEST_ID, is_sane_request_id};
use crate::meters::Meters;
use crate::reply::grpc::is_grpc;
use crate::request_id::RequestId;
use crate::service::Service;

/// Longest path in the log; the rest is cut off.
const PATH_BYTES_MAX: usize = 1024;

/// A request in progress.
pub(crate) struct Call {
    /// Names the request towards the listener.
    pub(crate) id: RequestId,
    /// The id that the client chose, if it is sane.
    pub(crate) client_id: Option<HeaderValue>,
    /// Whether refusals are to be problem documents.
    pub(crate) wants_problem: bool,
    /// Whether the client speaks gRPC, and refusals have to.
    pub(crate) is_grpc: bool,
    method: Method,
    path: String,
    started: Instant,
    service: Option<Arc<Service>>,
    status: Option<StatusCode>,
    /// For requests that belong to no service.
    nobody: Arc<Meters>,
}

impl Call {
    /// Begins with the head of a request.
    pub(crate) fn begin<B>(request: &Request<B>, id: RequestId, nobody: Arc<Meters>) -> Self {
        let client_id = request.headers().get(REQUEST_ID).filter(|id| is_sane_request_id(id)).cloned();
        let path = request.uri().path();
        let end = path.floor_char_boundary(PATH_BYTES_MAX.min(path.len()));
        Self {
            id,
            client_id,
            wants_problem: wants_problem(request),
            is_grpc: request.version() == Version::HTTP_2 && is_grpc(request.headers()),
            method: request.method().clone(),
            path: path[..end].to_owned(),
            started: Instant::now(),
            service: None,
            status: None,
            nobody,
        }
    }

    /// The request belongs to a service.
    pub(crate) fn belongs_to(&mut self, service: &Arc<Service>) {
        self.service = Some(Arc::clone(service));
    }

    /// The request is malformed, and its path not known.
    pub(crate) fn was_not_read(&mut self) {
        self.path = "-".to_owned();
    }

    /// The head of the answer is known.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// The id that logs and the answer show.
    pub(crate) fn shown_id(&self) -> String {
        let chosen = self.client_id.as_ref().and_then(|id| id.to_str().ok());
        chosen.map_or_else(|| self.id.to_string(), str::to_owned)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        let meters = self.service.as_ref().map_or(&*self.nobody, |service| &service.meters);
        meters.ended(self.status, took);
        info!(
            target: "weir::access",
            method = self.method.as_str(),
            path = self.path,
            // 499, as many gateways write it: the client left before it was answered.
            status = self.status.map_or(499, |status| status.as_u16()),
            service.id = self.service.as_ref().map_or("-", |service| service.id.as_str()),
            duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            request_id = self.shown_id(),
        );
    }
}

/// Whether the client asks for problem documents by name; a wildcard is not enough.
fn wants_problem<B>(request: &Request<B>) -> bool {
    let accepted = request.headers().get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_problem = parts.next().is_some_and(|t| t.eq_ignore_ascii_case("application/problem+json"));
        is_problem && !parts.any(|parameter| matches!(parameter, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(accept: &str, expected: bool) {
        let request = Request::builder().header(header::ACCEPT, accept).body(()).unwrap();
        assert_eq!(wants_problem(&request), expected, "{accept}");
    }

    #[test]
    fn problems_are_asked_for_by_name() {
        check("application/problem+json", true);
        check("text/html, Application/Problem+JSON;q=0.5", true);
        check("*/*", false);
        check("application/json", false);
        check("application/problem+json;q=0", false);
    }
}
