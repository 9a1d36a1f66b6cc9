//! An upstream that tells what reached it: each request comes back as JSON and is counted.
//!
//! A request may ask for something else by its headers: `x-status: 503`, `x-delay-ms: 200`, `x-header: name=value`; for a
//! status also by its query, `?x-status=503`. `x-body-bytes: 100` wants a body of so many bytes in the echo's place, and
//! `x-chunked: 1` wants it in chunks. `x-fail-first: KEY,TIMES,HOW` lets the first requests of a key fail: by a status, by
//! `break` (the connection ends) or by `hang` (nothing comes).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Longest chunk of a body that is wanted in chunks.
const CHUNK_BYTES_MAX: usize = 50;

/// What requests have asked to fail, by key: how often they have.
type Failures = Mutex<HashMap<String, u64>>;

/// What its connections share.
#[derive(Default)]
struct Shared {
    received: AtomicU64,
    failed: Failures,
}

/// A running upstream; ended when dropped.
pub struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

impl Upstream {
    /// Starts one on a free port of loopback.
    ///
    /// # Panics
    /// When there is none.
    pub async fn start() -> Self {
        Self::start_over(None).await
    }

    /// The same over TLS.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn start_tls(config: rustls::ServerConfig) -> Self {
        Self::start_over(Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn start_over(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound address");
        let shared = Arc::new(Shared::default());
        let stop = CancellationToken::new();
        tokio::spawn(accept_all(listener, tls, Arc::clone(&shared), stop.clone()));
        Self { address, shared, _stop: stop.drop_guard() }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many requests it has received.
    pub fn received(&self) -> u64 {
        self.shared.received.load(Ordering::SeqCst)
    }
}

async fn accept_all(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else { continue };
        let (shared, stop, tls) = (Arc::clone(&shared), stop.clone(), tls.clone());
        tokio::spawn(async move {
            let connection = async {
                match tls {
                    None => serve(stream, shared).await,
                    // Who does not get through the handshake is not served.
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            serve(stream, shared).await;
                        }
                    }
                }
            };
            tokio::select! {
                () = connection => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, shared: Arc<Shared>) {
    let service = service_fn(|request| {
        shared.received.fetch_add(1, Ordering::SeqCst);
        answer(request, &shared.failed)
    });
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // The gateway closes connections as it likes.
    let _ = connection.await;
}

/// A connection that is to end without an answer.
#[derive(Debug)]
struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("broken off, as it was asked for")
    }
}

impl std::error::Error for Broken {}

async fn answer(
    request: Request<Incoming>,
    failed: &Failures,
) -> Result<Response<BoxBody<Bytes, Broken>>, Broken> {
    let (head, body) = request.into_parts();
    let wish = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(delay_ms) = wish("x-delay-ms").and_then(|text| text.parse().ok()) {
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
    }
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let failure = wish("x-fail-first").and_then(|text| failure(text, failed));
    match failure {
        Some("break") => return Err(Broken),
        Some("hang") => std::future::pending().await,
        _ => {}
    }
    let of_query = || head.uri.query()?.split('&').find_map(|part| part.strip_prefix("x-status="));
    let status = failure.or_else(|| wish("x-status")).or_else(of_query);
    let status = status.and_then(|text| text.parse().ok()).unwrap_or(StatusCode::OK);
    let mut response = Response::builder().status(status).header("content-type", "application/json");
    if let Some((name, value)) = wish("x-header").and_then(|text| text.split_once('=')) {
        response = response.header(name, value);
    }
    let text = match wish("x-body-bytes").and_then(|text| text.parse().ok()) {
        Some(count) => "x".repeat(count),
        None => echo(&head, &body),
    };
    let body = if wish("x-chunked").is_some() { chunked(text) } else { whole(text) };
    Ok(response.body(body).expect("a response of valid parts"))
}

/// How a request fails, if it is to; it is counted then.
fn failure<'a>(wish: &'a str, failed: &Failures) -> Option<&'a str> {
    let mut parts = wish.split(',');
    let (key, times, how) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?);
    let mut failed = failed.lock().expect("nobody panics with it");
    let count = failed.entry(key.to_owned()).or_default();
    let fails = *count < times;
    *count += u64::from(fails);
    fails.then_some(how)
}

/// What it has seen.
fn echo(head: &http::request::Parts, body: &Bytes) -> String {
    let headers: Vec<(String, String)> = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    json!({
        "method": head.method.as_str(),
        "target": head.uri.to_string(),
        "headers": headers,
        "body_bytes": body.len(),
        "body": String::from_utf8_lossy(&body[..body.len().min(64 << 10)]),
    })
    .to_string()
}

fn whole(text: String) -> BoxBody<Bytes, Broken> {
    Full::from(text).map_err(|never| match never {}).boxed()
}

fn chunked(text: String) -> BoxBody<Bytes, Broken> {
    let text = Bytes::from(text);
    let starts = (0..text.len()).step_by(CHUNK_BYTES_MAX);
    let piece = move |start| text.slice(start..text.len().min(start + CHUNK_BYTES_MAX));
    let frames: Vec<_> = starts.map(|start| Ok(Frame::data(piece(start)))).collect();
    StreamBody::new(tokio_stream::iter(frames)).boxed()
}
