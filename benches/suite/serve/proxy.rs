//! A reverse proxy of hyper's parts and nothing else: what a gateway costs that does nothing.

use std::net::SocketAddr;

use anyhow::Context;
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::http::uri::{Authority, Scheme};
use hyper::service::service_fn;
use hyper::{Request, Response, Uri, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

type Upstream = Client<HttpConnector, Empty<Bytes>>;

/// Proxies until the process ends.
pub(super) async fn serve(address: SocketAddr, origin: Option<SocketAddr>) -> anyhow::Result<()> {
    let origin: Authority = origin.context("a proxy needs an origin")?.to_string().parse()?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let upstream: Upstream = Client::builder(TokioExecutor::new()).build(connector);
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (upstream, origin) = (upstream.clone(), origin.clone());
        let service = service_fn(move |request| forward(upstream.clone(), origin.clone(), request));
        // A client that leaves ends this task, nothing else.
        tokio::spawn(
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
        );
    }
}

/// Requests here have no bodies; answers stream through.
async fn forward(
    upstream: Upstream,
    origin: Authority,
    request: Request<Incoming>,
) -> Result<Response<Incoming>, hyper_util::client::legacy::Error> {
    let (mut head, _) = request.into_parts();
    let mut uri = head.uri.into_parts();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Some(origin);
    head.uri = Uri::from_parts(uri).unwrap_or_default();
    head.headers.remove(header::CONNECTION);
    let mut response = upstream.request(Request::from_parts(head, Empty::new())).await?;
    response.headers_mut().remove(header::CONNECTION);
    Ok(response)
}
