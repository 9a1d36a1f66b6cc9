//! The sample e-mail API behind the gateway: answers a little JSON, and only to calls that came through it.

use std::convert::Infallible;

use anyhow::Context;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use weir_core::proxy::SECRET_TOKEN_HEADER;

use super::setup::SECRET_TOKEN;

/// Longest mail it takes.
const BODY_BYTES_MAX: usize = 1 << 20;

/// The API, bound.
pub(super) struct Postbote(TcpListener);

impl Postbote {
    /// Binds a port of loopback.
    ///
    /// # Errors
    /// When it is taken.
    pub(super) async fn bind(port: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await;
        Ok(Self(listener.with_context(|| format!("cannot listen on 127.0.0.1:{port}"))?))
    }

    /// Answers until told to stop.
    pub(super) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                accepted = self.0.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else { continue };
            let stop = stop.clone();
            tokio::spawn(async move {
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .serve_connection(TokioIo::new(stream), service_fn(answer));
                tokio::select! {
                    // The gateway closes connections it no longer needs.
                    _ = connection => {}
                    () = stop.cancelled() => {}
                }
            });
        }
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let token = request.headers().get(SECRET_TOKEN_HEADER).map(|value| value.as_bytes().to_owned());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await;
    let (status, value) = match (token, body) {
        (Some(token), Ok(body)) if token == SECRET_TOKEN.as_bytes() => {
            endpoint(&method, &path, body.to_bytes().len())
        }
        (Some(token), Err(_)) if token == SECRET_TOKEN.as_bytes() => {
            (StatusCode::PAYLOAD_TOO_LARGE, json!({ "error": "a mail has at most 1 MiB" }))
        }
        _ => (StatusCode::UNAUTHORIZED, json!({ "error": "calls have to come through the gateway" })),
    };
    let mut response = Response::new(Full::from(format!("{value}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    Ok(response)
}

fn endpoint(method: &Method, path: &str, body_bytes: usize) -> (StatusCode, Value) {
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let value = match (method.as_str(), segments.as_slice()) {
        ("POST", ["v3", "mail", "send"]) => json!({ "queued": 1, "bytes": body_bytes }),
        ("POST", ["v3", "mail", "batch"]) => json!({ "queued": 10, "bytes": body_bytes }),
        ("GET", ["v3", "stats", ..]) => json!({ "delivered": 1234, "bounced": 5 }),
        ("GET", ["v3", "templates"]) => json!({ "templates": ["welcome", "invoice"] }),
        ("GET", ["v3", "templates", id]) => json!({ "template": id, "subject": "Hello" }),
        ("POST" | "PUT" | "DELETE", ["v3", "templates", ..]) => json!({ "saved": true }),
        ("POST", ["v3", "contacts", "import"]) => json!({ "imported": 50 }),
        ("GET", ["v3", "contacts", ..]) => json!({ "contacts": ["ada@example.org"] }),
        ("POST", ["v3", "contacts", ..]) => json!({ "added": 1 }),
        (_, ["v3", "subusers", ..]) => json!({ "subusers": [] }),
        _ => return (StatusCode::NOT_FOUND, json!({ "error": "no such endpoint" })),
    };
    (StatusCode::OK, value)
}
