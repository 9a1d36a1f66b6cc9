//! What the modules share: a catalog of services by backend, and an HTTP/2 client.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use weir_tests::stack::{Plan, Stack};

/// One service at `<id>.test` with one application `app`, whose key is `key`.
pub(crate) struct Api<'a> {
    pub(crate) id: &'a str,
    /// `{upstream}`: the stack's own.
    pub(crate) backend: &'a str,
    /// Further lines of its proxy.
    pub(crate) proxy: &'a str,
    /// TOML tables.
    pub(crate) rules: &'a str,
    /// TOML tables.
    pub(crate) limits: &'a str,
}

/// Counts a hit for everything, without limits.
pub(crate) const PLAIN: Api<'static> = Api {
    id: "api",
    backend: "{upstream}",
    proxy: "",
    rules: r#"{ method = "ANY", pattern = "/", metrics = { hits = 1 } }"#,
    limits: "",
};

impl Api<'_> {
    fn toml(&self) -> String {
        let Self { id, backend, proxy, rules, limits } = self;
        format!(
            r#"
[[providers.services]]
id = "{id}"
credentials = "user_key"
metrics = [{{ name = "hits" }}, {{ name = "extra" }}]
mapping_rules = [{rules}]
[providers.services.proxy]
hosts = ["{id}.test"]
api_backend = "{backend}"
{proxy}
[[providers.services.plans]]
id = "plan"
limits = [{limits}]
[[providers.services.applications]]
id = "app"
plan = "plan"
user_key = "key"
"#
        )
    }
}

/// A listener, a gateway and an upstream for these services.
pub(crate) async fn start(apis: &[Api<'_>], gateway_lines: &str) -> Stack {
    let services: String = apis.iter().map(Api::toml).collect();
    let catalog = format!("revision = 1\n[[providers]]\nname = \"Protocol tests\"\n{services}");
    Stack::start(&Plan { gateway_lines: gateway_lines.to_owned(), ..Plan::small(&catalog) }).await
}

/// How often a service's application was counted.
pub(crate) async fn hits(stack: &Stack, service: &str) -> u64 {
    let totals = stack.listener_client(0).totals(service, "app").await.unwrap();
    totals.get("hits").copied().unwrap_or_default()
}

/// A request's body.
pub(crate) type Body = BoxBody<Bytes, std::convert::Infallible>;

/// A connection that speaks HTTP/2.
pub(crate) struct Http2 {
    pub(crate) requests: SendRequest<Body>,
    /// Ends with the connection.
    pub(crate) connection: JoinHandle<hyper::Result<()>>,
}

impl Http2 {
    /// By prior knowledge.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap()).await
    }

    pub(crate) async fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (requests, connection) = handshake.await.unwrap();
        Self { requests, connection: tokio::spawn(connection) }
    }

    pub(crate) async fn get(&self, url: &str) -> Answer {
        let request = Request::get(url).body(Empty::new().boxed()).unwrap();
        self.call(request).await
    }

    pub(crate) async fn call(&self, request: Request<Body>) -> Answer {
        Answer::read(self.requests.clone().send_request(request).await.unwrap()).await
    }
}

/// A whole answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
    pub(crate) trailers: HeaderMap,
}

impl Answer {
    pub(crate) async fn read(response: Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap();
        let trailers = body.trailers().cloned().unwrap_or_default();
        let body = String::from_utf8(body.to_bytes().to_vec()).unwrap();
        Self { status: head.status.as_u16(), body, trailers }
    }

    /// A header that the stack's upstream saw; empty: none.
    pub(crate) fn seen(&self, name: &str) -> String {
        let seen: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        let headers = seen["headers"].as_array().unwrap();
        let values = headers.iter().filter(|pair| pair[0] == name).filter_map(|pair| pair[1].as_str());
        values.collect::<Vec<_>>().join(" | ")
    }
}
