//! An upstream that tells what reached it: each request comes back as JSON and is counted.
//!
//! A request may ask for something else by its headers: `x-status: 503`, `x-delay-ms: 200`, `x-header: name=value`; for a
//! status also by its query, `?x-status=503`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A running upstream; ended when dropped.
pub struct Upstream {
    address: SocketAddr,
    received: Arc<AtomicU64>,
    _stop: DropGuard,
}

impl Upstream {
    /// Starts one on a free port of loopback.
    ///
    /// # Panics
    /// When there is none.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound address");
        let received = Arc::new(AtomicU64::new(0));
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, Arc::clone(&received), stop.clone()));
        Self { address, received, _stop: stop.drop_guard() }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many requests it has received.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::SeqCst)
    }
}

async fn serve(listener: TcpListener, received: Arc<AtomicU64>, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else { continue };
        let received = Arc::clone(&received);
        let stop = stop.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                received.fetch_add(1, Ordering::SeqCst);
                echo(request)
            });
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                // The gateway closes connections as it likes.
                _ = connection => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let wish = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(delay_ms) = wish("x-delay-ms").and_then(|text| text.parse().ok()) {
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
    }
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let headers: Vec<(String, String)> = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let seen = json!({
        "method": head.method.as_str(),
        "target": head.uri.to_string(),
        "headers": headers,
        "body_bytes": body.len(),
        "body": String::from_utf8_lossy(&body[..body.len().min(64 << 10)]),
    });
    let of_query = || head.uri.query()?.split('&').find_map(|part| part.strip_prefix("x-status="));
    let status =
        wish("x-status").or_else(of_query).and_then(|text| text.parse().ok()).unwrap_or(StatusCode::OK);
    let mut response = Response::builder().status(status).header("content-type", "application/json");
    if let Some((name, value)) = wish("x-header").and_then(|text| text.split_once('=')) {
        response = response.header(name, value);
    }
    Ok(response.body(Full::from(seen.to_string())).expect("a response of valid parts"))
}
