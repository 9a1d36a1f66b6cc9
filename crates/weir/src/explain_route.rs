//! What operators ask of a gateway's telemetry address: `POST /explain` and `GET /why/ID`, with the operator's token.
//!
//! A request to explain is sent as it would go over the wire (`application/http`), so that nothing is lost of it.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use weir_core::Secret;
use weir_gateway::{Explainer, Explanation};

/// Longest request that is explained, body included.
const REQUEST_BYTES_MAX: usize = 1 << 20;
/// Its media type (RFC 9112, section 10.2).
pub(crate) const REQUEST_TYPE: &str = "application/http";

/// Explains, to whoever has the token.
#[derive(Clone)]
pub(crate) struct ExplainRoute {
    pub(crate) explainer: Explainer,
    /// `None`: nobody has it.
    pub(crate) token: Option<Secret>,
}

impl ExplainRoute {
    /// The answer, if the path is one of these.
    pub(crate) async fn reply(&self, request: Request<Incoming>) -> Option<Response<Full<Bytes>>> {
        let path = request.uri().path();
        let id = path.strip_prefix("/why/").map(|id| percent_decode_str(id).decode_utf8_lossy().into_owned());
        if path != "/explain" && id.is_none() {
            return None;
        }
        if let Some(refusal) = self.refusal(request.headers()) {
            return Some(refusal);
        }
        Some(match (request.method(), id) {
            (&Method::POST, None) => self.explain(request).await,
            (&Method::GET | &Method::HEAD, Some(id)) => self.why(id).await,
            _ => text(StatusCode::METHOD_NOT_ALLOWED, "POST /explain, or GET /why/ID\n"),
        })
    }

    /// `None`: the operator asks.
    fn refusal(&self, headers: &header::HeaderMap) -> Option<Response<Full<Bytes>>> {
        let Some(wanted) = &self.token else {
            let why = "this gateway has no operator_token: nobody may ask this\n";
            return Some(text(StatusCode::FORBIDDEN, why));
        };
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.strip_prefix("Bearer ")).map(Secret::new);
        let is_operator = given.as_ref() == Some(wanted);
        (!is_operator).then(|| text(StatusCode::UNAUTHORIZED, "the operator's token is needed\n"))
    }

    async fn explain(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let Ok(body) = Limited::new(request.into_body(), REQUEST_BYTES_MAX).collect().await else {
            return text(StatusCode::PAYLOAD_TOO_LARGE, "the request to explain is too long, or broke off\n");
        };
        let application = match query.split_once('=') {
            Some(("application", id)) => Some(percent_decode_str(id).decode_utf8_lossy()),
            Some(_) => return text(StatusCode::BAD_REQUEST, "only ?application=ID can be asked for\n"),
            None => None,
        };
        match self.explainer.explain(body.to_bytes(), application.as_deref()).await {
            Ok(explanation) => json(&explanation),
            Err(problem) => text(StatusCode::BAD_REQUEST, &format!("{problem}\n")),
        }
    }

    async fn why(&self, id: String) -> Response<Full<Bytes>> {
        let explainer = self.explainer.clone();
        // A file may have to be read.
        match tokio::task::spawn_blocking(move || explainer.why(&id)).await {
            Ok(Some(explanation)) => json(&explanation),
            _ => text(StatusCode::NOT_FOUND, "no refusal with this id is known here (any more)\n"),
        }
    }
}

fn json(explanation: &Explanation) -> Response<Full<Bytes>> {
    let body = serde_json::to_vec(explanation).unwrap_or_default();
    answer(StatusCode::OK, "application/json", body.into())
}

fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    answer(status, "text/plain; charset=utf-8", Bytes::copy_from_slice(body.as_bytes()))
}

fn answer(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}
