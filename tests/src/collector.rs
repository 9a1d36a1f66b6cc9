//! A collector of OpenTelemetry spans: takes what roles export by OTLP, and tells it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// A span, ids in hex.
#[derive(Debug, Clone, Default)]
pub struct SeenSpan {
    /// The `service.name` that it was exported under.
    pub role: String,
    /// Its name.
    pub name: String,
    /// 1 internal, 2 server, 3 client.
    pub kind: i32,
    /// Of the whole trace.
    pub trace_id: String,
    /// Its own.
    pub span_id: String,
    /// Of the span that it is part of; empty: of none.
    pub parent_id: String,
    /// Its `tracestate`.
    pub trace_state: String,
    /// Numbers as text.
    pub attributes: BTreeMap<String, String>,
    /// Whether its status is an error.
    pub is_error: bool,
}

impl SeenSpan {
    /// An attribute; empty: it has none of this name.
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

/// A running collector; ended when dropped.
pub struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<SeenSpan>>>,
    _stop: DropGuard,
}

impl Collector {
    /// Starts one on a free port of loopback.
    ///
    /// # Panics
    /// When there is none.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound address");
        let spans = Arc::<Mutex<Vec<SeenSpan>>>::default();
        let stop = CancellationToken::new();
        let server = Server::builder().add_service(TraceServiceServer::new(Taker(Arc::clone(&spans))));
        let ended = stop.clone().cancelled_owned();
        tokio::spawn(server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), ended));
        Self { address, spans, _stop: stop.drop_guard() }
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What has come so far.
    pub fn spans(&self) -> Vec<SeenSpan> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Taker(Arc<Mutex<Vec<SeenSpan>>>);

#[tonic::async_trait]
impl TraceService for Taker {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let taken = request.into_inner().resource_spans.into_iter().flat_map(read);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(taken);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn read(of_role: ResourceSpans) -> Vec<SeenSpan> {
    let resource = attributes(&of_role.resource.unwrap_or_default().attributes);
    let role = resource.get("service.name").cloned().unwrap_or_default();
    let spans = of_role.scope_spans.into_iter().flat_map(|scope| scope.spans);
    spans.map(|span| seen(&role, span)).collect()
}

fn seen(role: &str, span: Span) -> SeenSpan {
    SeenSpan {
        role: role.to_owned(),
        kind: span.kind,
        trace_id: hex(&span.trace_id),
        span_id: hex(&span.span_id),
        parent_id: hex(&span.parent_span_id),
        attributes: attributes(&span.attributes),
        is_error: span.status.is_some_and(|status| status.code == 2),
        name: span.name,
        trace_state: span.trace_state,
    }
}

fn attributes(pairs: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |pair: &KeyValue| match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    pairs.iter().map(|pair| (pair.key.clone(), text(pair))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
