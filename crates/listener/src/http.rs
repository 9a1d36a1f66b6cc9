//! The HTTP port: whether the listener is there, as 3scale's clients and load balancers ask it, and what nginx asks.
//!
//! `GET /check.txt` → `ok`, `GET /status` → JSON with the version, `HEAD /available` → 200, `/nginx/auth` → see
//! `http/auth_request.rs`.

mod auth_request;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use crate::server::Shared;

/// Most connections at a time; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 1_024;
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves until stopped.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let stop = shared.stop.clone();
    let room = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, most likely: accepting again at once would only spin.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        // Answers that come in two pieces would wait for the asker's acknowledgement of the first.
        drop(stream.set_nodelay(true));
        let (shared, stop) = (Arc::clone(&shared), stop.clone());
        tokio::spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(
                    TokioIo::new(stream),
                    service_fn(|request| answer(Arc::clone(&shared), request)),
                );
            tokio::select! {
                // A client that breaks off is its own affair.
                _ = connection => {}
                () = stop.cancelled() => {}
            }
            drop(place);
        });
    }
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() == auth_request::PATH {
        return Ok(auth_request::answer(&shared, &request.into_parts().0).await);
    }
    let status = || format!(r#"{{"status":"ok","version":{{"backend":"{}"}}}}"#, env!("CARGO_PKG_VERSION"));
    let (code, content_type, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/check.txt") => (StatusCode::OK, "text/plain", "ok".to_owned()),
        (&Method::GET | &Method::HEAD, "/status") => (StatusCode::OK, "application/json", status()),
        (&Method::HEAD, "/available") => (StatusCode::OK, "text/plain", String::new()),
        _ => (StatusCode::NOT_FOUND, "text/plain", String::new()),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    Ok(response)
}
