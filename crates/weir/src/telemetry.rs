//! What a role shows of itself: `/metrics`, `/livez` and `/readyz` on an address of its own; a gateway also why it answers
//! as it does.
//!
//! Apart from the role's own port, so that probes and scrapes work while that one is saturated, and are not
//! open to API consumers. It goes on serving while a role drains, then saying that it is not ready.

mod recorder;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub(crate) use self::recorder::Metrics;
use crate::explain_route::ExplainRoute;

/// Most connections at a time; probes and a few scrapers need no more.
const CONNECTIONS_MAX: usize = 64;
/// Longest wait for a request on an open connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long connections may take to end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether a role can serve, or why not.
pub(crate) type Ready = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// A telemetry address, bound.
pub(crate) struct TelemetryServer {
    listener: TcpListener,
    metrics: Metrics,
}

impl TelemetryServer {
    /// Binds the address.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub(crate) async fn bind(address: SocketAddr, metrics: Metrics) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on telemetry_address {address}"))?;
        Ok(Self { listener, metrics })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> anyhow::Result<SocketAddr> {
        self.listener.local_addr().context("the telemetry address")
    }

    /// Serves until told to stop.
    pub(crate) async fn run(self, ready: Ready, explain: Option<ExplainRoute>, stop: CancellationToken) {
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let graceful = GracefulShutdown::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => match accepted {
                    // Over the maximum a connection is closed: a scraper comes again.
                    Ok((stream, _)) => if let Ok(permit) = connections.clone().try_acquire_owned() {
                        let connection = graceful.watch(self.connection(stream, &ready, explain.as_ref()));
                        tokio::spawn(async move {
                            if let Err(error) = connection.await {
                                tracing::debug!("telemetry connection: {error}");
                            }
                            drop(permit);
                        });
                    },
                    Err(error) => {
                        tracing::warn!("cannot accept on the telemetry address: {error}");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
        drop(self.listener);
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await;
    }

    fn connection(
        &self,
        stream: TcpStream,
        ready: &Ready,
        explain: Option<&ExplainRoute>,
    ) -> impl hyper_util::server::graceful::GracefulConnection<Error = hyper::Error> + Send + 'static {
        let (metrics, ready, explain) = (self.metrics.clone(), ready.clone(), explain.cloned());
        let service = service_fn(move |request: Request<Incoming>| {
            let told = reply(&request, &metrics, &ready);
            let explain = explain.clone();
            async move {
                let explained = match explain {
                    Some(explain) => explain.reply(request).await,
                    None => None,
                };
                Ok::<_, Infallible>(explained.unwrap_or(told))
            }
        });
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service)
    }
}

fn reply<B>(request: &Request<B>, metrics: &Metrics, ready: &Ready) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into());
    }
    match request.uri().path() {
        "/metrics" => text(StatusCode::OK, metrics.render()),
        "/livez" => text(StatusCode::OK, "alive\n".into()),
        "/readyz" => match ready() {
            Ok(()) => text(StatusCode::OK, "ready\n".into()),
            Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
        },
        _ => text(StatusCode::NOT_FOUND, "only /metrics, /livez and /readyz\n".into()),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let content_type = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(method: &str, path: &str, ready: Result<(), &str>, status: u16) {
        let ready = ready.map_err(ToOwned::to_owned);
        let ready: Ready = Arc::new(move || ready.clone());
        let request = Request::builder().method(method).uri(path).body(()).unwrap();
        assert_eq!(
            reply(&request, &Metrics::for_tests(), &ready).status().as_u16(),
            status,
            "{method} {path}"
        );
    }

    #[test]
    fn health_follows_the_role() {
        check("GET", "/livez", Err("no listener"), 200);
        check("GET", "/readyz", Ok(()), 200);
        check("GET", "/readyz", Err("no listener"), 503);
        check("GET", "/metrics", Ok(()), 200);
        check("GET", "/", Ok(()), 404);
        check("POST", "/livez", Ok(()), 405);
    }

    #[tokio::test]
    async fn a_stopped_server_frees_its_address() {
        let server = TelemetryServer::bind(([127, 0, 0, 1], 0).into(), Metrics::for_tests()).await.unwrap();
        let address = server.address().unwrap();
        let stop = CancellationToken::new();
        let running = tokio::spawn(server.run(Arc::new(|| Ok(())), None, stop.clone()));
        drop(TcpStream::connect(address).await.unwrap());
        stop.cancel();
        running.await.unwrap();
        TcpListener::bind(address).await.unwrap();
    }
}
