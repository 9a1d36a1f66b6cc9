//! The way to an upstream: its address, the client pool, the wait for the head of its answer.
//!
//! A service's base URL is read once, when the service is compiled. Pools are shared by services that allow the
//! same time to connect, so a configuration change keeps warm connections. TLS is verified against the public
//! roots. Nothing is sent twice: a request that fails is answered, not repeated.
//!
//! gRPC goes over HTTP/2, known beforehand to `http://` upstreams and agreed on with `https://` ones; all else over
//! HTTP/1, from which upgrades leave.

use std::collections::HashMap;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiAddrs, GaiResolver, Name};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use tokio::time::Instant;
use weir_core::proxy::UpstreamTimeouts;

use crate::body::{BodyError, Progress, RequestBody};
use crate::reply::Refusal;

/// A pooled client.
pub(crate) type Client = legacy::Client<HttpsConnector<HttpConnector<Resolver>>, RequestBody>;

/// How long a pooled connection may idle: less than the five seconds after which common servers close theirs,
/// since a request that meets the closing would fail.
const POOL_IDLE: Duration = Duration::from_secs(4);

/// Why the exchange with an upstream failed before its answer's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UpstreamError {
    /// Its name has no address.
    NoAddress,
    /// It does not take connections.
    NoConnection,
    /// It closed the connection or answered something that is no HTTP.
    BadAnswer,
    /// It did not answer in time.
    Timeout,
}

/// The clients of one service.
#[derive(Clone)]
pub(crate) struct ClientPair {
    pub(crate) http1: Client,
    /// For gRPC: one connection per upstream, shared by all calls.
    pub(crate) http2: Client,
}

/// The clients of a gateway, by time to connect.
pub(crate) struct Clients {
    idle_max: usize,
    by_connect_ms: Mutex<HashMap<u32, ClientPair>>,
}

impl Clients {
    /// No client yet; each will keep up to `idle_max` idle connections per host.
    pub(crate) fn new(idle_max: usize) -> Self {
        Self { idle_max, by_connect_ms: Mutex::default() }
    }

    /// The clients that give up connecting after this time.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub(crate) fn connecting_within(&self, connect_ms: u32) -> Result<ClientPair, rustls::Error> {
        let mut clients = self.by_connect_ms.lock();
        if let Some(client) = clients.get(&connect_ms) {
            return Ok(client.clone());
        }
        let [http1, http2] = [false, true].map(|is_http2| build(connect_ms, self.idle_max, is_http2));
        let pair = ClientPair { http1: http1?, http2: http2? };
        clients.insert(connect_ms, pair.clone());
        Ok(pair)
    }
}

fn build(connect_ms: u32, idle_max: usize, is_http2: bool) -> Result<Client, rustls::Error> {
    let mut tcp = HttpConnector::new_with_resolver(Resolver(GaiResolver::new()));
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(Duration::from_secs(60)));
    tcp.set_connect_timeout(Some(Duration::from_millis(connect_ms.into())));
    let connector = HttpsConnectorBuilder::new()
        .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())?
        .https_or_http();
    let connector = if is_http2 {
        connector.enable_http2().wrap_connector(tcp)
    } else {
        connector.enable_http1().wrap_connector(tcp)
    };
    Ok(legacy::Client::builder(TokioExecutor::new())
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(idle_max)
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .set_host(false)
        .http1_max_headers(RESPONSE_HEADERS_MAX)
        .http2_only(is_http2)
        .http2_max_header_list_size(RESPONSE_HEAD_BYTES_MAX)
        .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
        .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_max_send_buf_size(SEND_BUFFER_BYTES_MAX)
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .build(connector))
}

/// Most headers of an answer.
const RESPONSE_HEADERS_MAX: usize = 256;
/// Longest head of an answer over HTTP/2.
const RESPONSE_HEAD_BYTES_MAX: u32 = 64 << 10;
/// How much of one answer over HTTP/2, and of all of a connection, may be under way unasked.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// How much of each request may wait to be sent over HTTP/2.
const SEND_BUFFER_BYTES_MAX: usize = 64 << 10;
/// How often an HTTP/2 upstream with calls in flight is pinged, and how long it may take to answer.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The system's resolver, with failures that can be told from failures to connect.
#[derive(Clone)]
pub(crate) struct Resolver(GaiResolver);

#[derive(Debug, thiserror::Error)]
#[error("the name has no address")]
struct NoAddress(#[source] std::io::Error);

impl tower_service::Service<Name> for Resolver {
    type Response = GaiAddrs;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<GaiAddrs, std::io::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), std::io::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let found = self.0.call(name);
        Box::pin(async move { found.await.map_err(|error| std::io::Error::other(NoAddress(error))) })
    }
}

/// Where a service's requests go.
#[derive(Debug, Clone)]
pub(crate) struct Upstream {
    scheme: Scheme,
    authority: Authority,
    /// Without a lone slash.
    path: String,
    query: Option<String>,
    /// The Host it sees.
    pub(crate) host: HeaderValue,
}

/// Why a base URL cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamUrlError {
    #[error("is no URL")]
    NotUrl(#[from] http::uri::InvalidUri),
    #[error("does not start with http:// or https://")]
    Scheme,
    #[error("has no host, or a user in front of it")]
    Host,
    #[error("has a host rewrite that is no header value")]
    Rewrite(#[from] http::header::InvalidHeaderValue),
}

impl Upstream {
    /// Reads a base URL, and the Host that replaces its own.
    pub(crate) fn parse(url: &str, host_rewrite: Option<&str>) -> Result<Self, UpstreamUrlError> {
        let parts = url.parse::<Uri>()?.into_parts();
        let scheme = match parts.scheme.as_ref().map(Scheme::as_str) {
            Some("http" | "ws") => Scheme::HTTP,
            Some("https" | "wss") => Scheme::HTTPS,
            _ => return Err(UpstreamUrlError::Scheme),
        };
        let authority = parts.authority.filter(|authority| !authority.as_str().contains('@'));
        let authority = authority.ok_or(UpstreamUrlError::Host)?;
        let default_port = if scheme == Scheme::HTTP { 80 } else { 443 };
        let own_host = match authority.port_u16() {
            Some(port) if port == default_port => authority.host(),
            _ => authority.as_str(),
        };
        let host = HeaderValue::from_str(host_rewrite.unwrap_or(own_host))?;
        let target = parts.path_and_query.unwrap_or(PathAndQuery::from_static("/"));
        let path = if target.path() == "/" { String::new() } else { target.path().to_owned() };
        Ok(Self { scheme, authority, path, query: target.query().map(str::to_owned), host })
    }

    /// The URL of a request: base path and path joined by one slash, the base's query before the client's.
    pub(crate) fn url(&self, path: &str, query: Option<&str>) -> Result<Uri, http::Error> {
        let base = self.path.as_str();
        let mut target = match (base, path) {
            ("", path) => path.to_owned(),
            (base, "/") => base.to_owned(),
            (base, path) => format!("{}{path}", base.strip_suffix('/').unwrap_or(base)),
        };
        let queries = [self.query.as_deref(), query].into_iter().flatten();
        for (at, query) in queries.enumerate() {
            target.push(if at == 0 { '?' } else { '&' });
            target.push_str(query);
        }
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(PathAndQuery::try_from(target)?)
            .build()
    }
}

/// Sends a request and waits for the head of its answer.
///
/// # Errors
/// The upstream's failure, or what ended the request's body.
pub(crate) async fn send(
    client: &Client,
    request: Request<RequestBody>,
    progress: &Progress,
    timeouts: UpstreamTimeouts,
) -> Result<Response<Incoming>, Refusal> {
    let answer = tokio::select! {
        answer = client.request(request) => answer,
        () = stalled(progress, timeouts) => return Err(Refusal::Upstream(UpstreamError::Timeout)),
    };
    match answer {
        Ok(answer) => Ok(answer),
        Err(error) => Err(match progress.failure() {
            Some(BodyError::TooLong) => Refusal::BodyTooLong,
            Some(BodyError::Stalled) => Refusal::BodyStalled,
            Some(BodyError::Broken) => Refusal::BodyBroken,
            None => Refusal::Upstream(classify(&error)),
        }),
    }
}

/// Ends when the upstream has taken too long: to answer, once it has the whole request; before, to connect or to
/// take a piece of the body.
async fn stalled(progress: &Progress, timeouts: UpstreamTimeouts) {
    let response = Duration::from_millis(timeouts.response_ms.into());
    let piece = Duration::from_millis(timeouts.idle_ms.max(timeouts.connect_ms).into());
    loop {
        let deadline = progress.last() + if progress.is_sent() { response } else { piece };
        if deadline <= Instant::now() {
            return;
        }
        // The end of the body may come meanwhile, and with it another deadline.
        tokio::time::sleep_until(deadline.min(Instant::now() + response)).await;
    }
}

fn classify(error: &legacy::Error) -> UpstreamError {
    let mut source: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(cause) = source {
        if cause.downcast_ref::<NoAddress>().is_some() {
            return UpstreamError::NoAddress;
        }
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            if io.kind() == std::io::ErrorKind::TimedOut {
                return UpstreamError::Timeout;
            }
            if io.get_ref().is_some_and(|inner| inner.is::<NoAddress>()) {
                return UpstreamError::NoAddress;
            }
        }
        source = cause.source();
    }
    if error.is_connect() { UpstreamError::NoConnection } else { UpstreamError::BadAnswer }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(base: &str, path: &str, query: Option<&str>, expected: &str) {
        let url = Upstream::parse(base, None).unwrap().url(path, query).unwrap();
        assert_eq!(url.to_string(), expected);
    }

    #[test]
    fn paths_are_joined_by_one_slash() {
        check("http://up.test", "/", None, "http://up.test/");
        check("http://up.test/", "/foo", None, "http://up.test/foo");
        check("http://up.test/v1", "/", None, "http://up.test/v1");
        check("http://up.test/v1/", "/", None, "http://up.test/v1/");
        check("http://up.test/v1", "/foo", None, "http://up.test/v1/foo");
        check("http://up.test/v1/", "/foo/", None, "http://up.test/v1/foo/");
        check("http://up.test/a/b", "/%c3%a9", None, "http://up.test/a/b/%c3%a9");
    }

    #[test]
    fn the_bases_query_comes_first() {
        check("http://up.test/v1?fixed=1", "/x", Some("a=1"), "http://up.test/v1/x?fixed=1&a=1");
        check("http://up.test?fixed=1", "/x", None, "http://up.test/x?fixed=1");
        check("http://up.test", "/x", Some("b=%41+c&&c=%zz"), "http://up.test/x?b=%41+c&&c=%zz");
        check("http://up.test", "/x", Some(""), "http://up.test/x?");
    }

    #[test]
    fn hosts_and_schemes() {
        let host = |url, rewrite| Upstream::parse(url, rewrite).unwrap().host;
        assert_eq!(host("http://up.test:80/x", None), "up.test");
        assert_eq!(host("http://up.test:8080", None), "up.test:8080");
        assert_eq!(host("https://up.test:443", Some("in.test:8443")), "in.test:8443");
        check("ws://up.test", "/x", None, "http://up.test/x");
        for url in ["up.test", "ftp://up.test", "http://a:b@up.test", "", "http://"] {
            assert!(Upstream::parse(url, None).is_err(), "{url}");
        }
    }
}
