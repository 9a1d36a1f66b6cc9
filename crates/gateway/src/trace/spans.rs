//! Spans of OpenTelemetry, with the attributes of its conventions for HTTP and RPC. Never a query, a header or a
//! credential.
//!
//! The sampler sits behind the tracer: a call that it does not take costs one span that records nothing, so that the
//! upstream learns of the decision, and no spans below it.

use std::borrow::Cow;
use std::sync::Arc;

use http::{Method, StatusCode, Version};
use opentelemetry::global::{self, BoxedSpan, BoxedTracer};
use opentelemetry::trace::{Span, SpanContext, SpanKind, Status, TraceContextExt, Tracer as _};
use opentelemetry::{Context, KeyValue};
use weir_core::Decision;
use weir_proto::v1;

use super::w3c;
use crate::access::Ended;
use crate::backend::Verdict;
use crate::config::Config;
use crate::fields::Fields;
use crate::grpc_status::GrpcStatus;
use crate::message::{Reply, RequestHead};
use crate::reply::Refusal;
use crate::upstream::Origin;

/// Begins traces, if it is told to.
pub(crate) struct Tracer(Option<Arc<BoxedTracer>>);

impl Tracer {
    /// The tracer of the process; the binary says where its spans go.
    pub(crate) fn new(config: &Config) -> Self {
        Self(config.is_traced.then(|| Arc::new(global::tracer("weir-gateway"))))
    }

    /// Begins the span of a request. The path is without its query.
    pub(crate) fn begin(&self, request: &RequestHead, scheme: &'static str, path: &str) -> Trace {
        let Some(tracer) = &self.0 else { return Trace(None) };
        let continued = w3c::read(&request.fields);
        let is_continued = continued.is_some();
        let mut span = start(tracer, method_name(&request.method), SpanKind::Server, continued);
        if span.is_recording() {
            span.set_attributes([
                KeyValue::new("url.scheme", scheme),
                KeyValue::new("url.path", path.to_owned()),
                KeyValue::new("network.protocol.version", version(request.version)),
            ]);
            set_method(&mut span, &request.method);
        }
        Trace(Some(Root { tracer: Arc::clone(tracer), span, is_continued }))
    }
}

fn start(
    tracer: &BoxedTracer,
    name: impl Into<Cow<'static, str>>,
    kind: SpanKind,
    parent: Option<SpanContext>,
) -> BoxedSpan {
    let parent = parent.map(|parent| Context::new().with_remote_span_context(parent)).unwrap_or_default();
    tracer.build_with_context(tracer.span_builder(name).with_kind(kind), &parent)
}

/// A request's part of a trace; `None`: nothing is traced.
#[derive(Default)]
pub(crate) struct Trace(Option<Root>);

struct Root {
    tracer: Arc<BoxedTracer>,
    span: BoxedSpan,
    /// Whether the client began the trace.
    is_continued: bool,
}

impl Root {
    /// A span below; `None`: the sampler did not take the call.
    fn child(&self, name: impl Into<Cow<'static, str>>) -> Option<BoxedSpan> {
        let parent = self.span.is_recording().then(|| self.span.span_context().clone())?;
        Some(start(&self.tracer, name, SpanKind::Client, Some(parent)))
    }
}

impl Trace {
    /// The trace's id, if it is recorded.
    pub(crate) fn id(&self) -> Option<String> {
        let root = self.0.as_ref().filter(|root| root.span.is_recording())?;
        Some(root.span.span_context().trace_id().to_string())
    }

    /// The wait for a decision begins.
    pub(crate) fn authorise(&self) -> Step {
        let mut span = self.0.as_ref().and_then(|root| root.child("weir.v1.Authorization/AuthRep"));
        if let Some(span) = &mut span {
            span.set_attributes([
                KeyValue::new("rpc.system", "grpc"),
                KeyValue::new("rpc.service", "weir.v1.Authorization"),
                KeyValue::new("rpc.method", "AuthRep"),
            ]);
        }
        Step(span)
    }

    /// The exchange with the upstream begins, which learns of the trace.
    pub(crate) fn exchange(&self, method: &Method, headers: &mut Fields, with: &Origin) -> Step {
        let Some(root) = &self.0 else { return Step(None) };
        let mut span = root.child(method_name(method));
        if let Some(span) = &mut span {
            set_method(span, method);
            span.set_attributes([
                KeyValue::new("server.address", with.host.clone()),
                KeyValue::new("server.port", i64::from(with.port)),
            ]);
        }
        let context = span.as_ref().unwrap_or(&root.span).span_context();
        w3c::write(headers, context, root.is_continued);
        Step(span)
    }

    /// The request has ended.
    pub(crate) fn end(self, ended: &Ended<'_>) {
        let Some(Root { mut span, .. }) = self.0.filter(|root| root.span.is_recording()) else { return };
        if let Some(service) = ended.service {
            span.update_name(format!("{} {service}", method_name(ended.method)));
            span.set_attribute(KeyValue::new("weir.service.id", service.to_owned()));
        }
        span.set_attribute(KeyValue::new("weir.request.id", ended.request_id.to_owned()));
        if let Some(status) = ended.grpc_status {
            span.set_attribute(KeyValue::new("rpc.grpc.status_code", i64::from(status.code())));
        }
        if let Some(reason) = ended.reason {
            span.set_attribute(KeyValue::new("weir.refusal.reason", reason));
        }
        set_status(&mut span, ended.status);
        // What a client did wrong, leaving included, is no failure of the gateway's.
        if let Some(status) = ended.meaning.filter(StatusCode::is_server_error) {
            let told = ended.reason.or(ended.grpc_status.map(GrpcStatus::label));
            fail(&mut span, told.map_or_else(|| status.as_u16().to_string().into(), Cow::Borrowed));
        }
    }
}

/// A part of a call; `None`: it is not recorded.
pub(crate) struct Step(Option<BoxedSpan>);

impl Step {
    /// For the listener, whose span is a child of this one.
    pub(crate) fn context(&self) -> Option<v1::TraceContext> {
        let context = self.0.as_ref()?.span_context();
        let (trace_id, span_id) = (context.trace_id().to_bytes(), context.span_id().to_bytes());
        Some(v1::TraceContext { trace_id: trace_id.to_vec(), span_id: span_id.to_vec() })
    }

    /// Ends with a verdict.
    pub(crate) fn decided(self, verdict: &Verdict) {
        let Some(mut span) = self.0 else { return };
        let outcome = match verdict {
            Verdict::Decided(Decision::Allow(_), _) => "allowed",
            Verdict::Decided(Decision::Deny(denial), _) => denial.code(),
            Verdict::Unclear => "unclear",
            Verdict::Unavailable | Verdict::Away => "unavailable",
        };
        span.set_attribute(KeyValue::new("weir.outcome", outcome));
        if matches!(verdict, Verdict::Unclear | Verdict::Unavailable | Verdict::Away) {
            fail(&mut span, outcome);
        }
    }

    /// Ends with the head of the upstream's answer.
    pub(crate) fn answered<B>(self, answer: &Result<Reply<B>, Refusal>) {
        let Some(mut span) = self.0 else { return };
        match answer {
            Ok(answer) => {
                set_status(&mut span, Some(answer.status));
                // As the conventions have it, a client's 4xx are failures, too.
                if answer.status.is_client_error() || answer.status.is_server_error() {
                    fail(&mut span, answer.status.as_u16().to_string());
                }
            }
            Err(refusal) => fail(&mut span, refusal.code()),
        }
    }
}

fn fail(span: &mut BoxedSpan, kind: impl Into<Cow<'static, str>>) {
    span.set_attribute(KeyValue::new("error.type", kind.into()));
    span.set_status(Status::error(""));
}

fn set_status(span: &mut BoxedSpan, status: Option<StatusCode>) {
    if let Some(status) = status {
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
    }
}

fn set_method(span: &mut BoxedSpan, method: &Method) {
    match known(method) {
        Some(known) => span.set_attribute(KeyValue::new("http.request.method", known)),
        None => {
            span.set_attribute(KeyValue::new("http.request.method", "_OTHER"));
            let original = method.as_str().chars().take(METHOD_CHARS_MAX).collect::<String>();
            span.set_attribute(KeyValue::new("http.request.method_original", original));
        }
    }
}

/// Longest method of a client's own that is told.
const METHOD_CHARS_MAX: usize = 32;

/// What stands for a method in the name of a span: names are few.
fn method_name(method: &Method) -> &'static str {
    known(method).unwrap_or("HTTP")
}

fn known(method: &Method) -> Option<&'static str> {
    let all = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"];
    all.into_iter().find(|known| *known == method.as_str())
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}
