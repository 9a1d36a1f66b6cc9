//! Gets an issuer's documents, within bounds: no redirects, no long documents, no private addresses.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HOST};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};

use super::reach::may_reach;
use crate::upstream::{BaseUrl, Connector, Protocol, UpstreamError, UrlError};
use weir_core::network::Network;

/// Longest document.
const BYTES_MAX: usize = 1 << 20;
/// Longest wait for one, from the name to the last byte.
const WITHIN: Duration = Duration::from_secs(5);

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("the URL {0:?} cannot be used")]
    Url(String, #[source] UrlError),
    #[error(
        "{0} has only private addresses, which issuers may not be at unless oidc.private_networks names them"
    )]
    Private(String),
    #[error("{0} cannot be reached: {1:?}")]
    Unreachable(String, UpstreamError),
    #[error("{0} answered {1}")]
    Status(String, StatusCode),
    #[error("{0} did not answer within {WITHIN:?}")]
    Timeout(String),
    #[error("the answer of {0} is broken, or longer than {BYTES_MAX} bytes")]
    Answer(String),
    #[error("the answer of {0} is not what it should be: {1}")]
    Content(String, &'static str),
}

/// What is at a URL.
pub(super) async fn fetch(
    connector: &Connector,
    url: &str,
    private_networks: &[Network],
) -> Result<Bytes, FetchError> {
    let deadline = Instant::now() + WITHIN;
    let fetched = timeout_at(deadline, fetch_by(connector, url, private_networks, deadline)).await;
    fetched.unwrap_or_else(|_| Err(FetchError::Timeout(url.to_owned())))
}

async fn fetch_by(
    connector: &Connector,
    url: &str,
    private_networks: &[Network],
    deadline: Instant,
) -> Result<Bytes, FetchError> {
    let base = BaseUrl::parse(url, None).map_err(|error| FetchError::Url(url.to_owned(), error))?;
    let broken = || FetchError::Answer(url.to_owned());
    let unreachable = |error| FetchError::Unreachable(base.origin.to_string(), error);
    let mut addresses = Connector::addresses(&base.origin).await.map_err(unreachable)?;
    addresses.retain(|address| may_reach(address.ip(), private_networks));
    if addresses.is_empty() {
        return Err(FetchError::Private(base.origin.to_string()));
    }
    let stream = connector.connect_at(&base.origin, &addresses, Protocol::Http1, deadline);
    let stream = stream.await.map_err(unreachable)?;
    let (mut sender, connection) =
        http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await.map_err(|_| broken())?;
    let target = base.target("/", None).map_err(|_| broken())?;
    let request = Request::get(target.as_str())
        .header(HOST, &base.host)
        .header(ACCEPT, "application/json")
        .body(Empty::new())
        .map_err(|_| broken())?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(|_| broken())?;
        if answer.status() != StatusCode::OK {
            return Err(FetchError::Status(url.to_owned(), answer.status()));
        }
        let body = Limited::new(answer.into_body(), BYTES_MAX).collect().await.map_err(|_| broken())?;
        Ok(body.to_bytes())
    };
    let (mut exchange, mut connection) = (pin!(exchange), pin!(connection));
    tokio::select! {
        document = &mut exchange => document,
        // What came before it ended is there to be read.
        _ = &mut connection => exchange.await,
    }
}
