//! Spans of OpenTelemetry, with the attributes of its conventions for RPC. Never a key or other credentials.

use std::time::{Duration, SystemTime};

use opentelemetry::global::{self, BoxedSpan};
use opentelemetry::trace::{
    Span, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer,
};
use opentelemetry::{Context, KeyValue};
use weir_core::Decision;
use weir_proto::v1;

use crate::engine::{Question, Verdict};
use crate::status::{Failure, label};

/// The gateway's span; `None`: the call is not traced.
pub(crate) struct Parent(Option<SpanContext>);

impl Parent {
    /// What a gateway says; ids of another length are none.
    pub(crate) fn read(message: Option<&v1::TraceContext>) -> Self {
        Self(message.and_then(context))
    }

    /// A question was decided, or not, and that took so long.
    pub(crate) fn record(&self, question: &Question, took: Duration, decided: &Result<Verdict, Failure>) {
        let Some(parent) = &self.0 else { return };
        let mut span = start(parent.clone(), question, SystemTime::now() - took);
        match decided {
            Ok(verdict) => tell_verdict(&mut span, verdict),
            Err(failure) => {
                span.set_attribute(KeyValue::new("error.type", label(failure.code())));
                span.set_status(Status::error(""));
            }
        }
    }
}

fn context(message: &v1::TraceContext) -> Option<SpanContext> {
    let trace_id = TraceId::from_bytes(message.trace_id.as_slice().try_into().ok()?);
    let span_id = SpanId::from_bytes(message.span_id.as_slice().try_into().ok()?);
    let context = SpanContext::new(trace_id, span_id, TraceFlags::SAMPLED, true, TraceState::NONE);
    context.is_valid().then_some(context)
}

fn tell_verdict(span: &mut BoxedSpan, verdict: &Verdict) {
    let outcome = match &verdict.decision {
        Decision::Allow(_) => "allowed",
        Decision::Deny(denial) => denial.code(),
    };
    span.set_attribute(KeyValue::new("weir.outcome", outcome));
    let application = verdict.accepted().application_id;
    if !application.is_empty() {
        span.set_attribute(KeyValue::new("weir.application.id", application.to_owned()));
    }
}

fn start(parent: SpanContext, question: &Question, began: SystemTime) -> BoxedSpan {
    let tracer = global::tracer("weir-listener");
    let builder = tracer.span_builder("weir.v1.Authorization/AuthRep").with_kind(SpanKind::Server);
    let builder = builder.with_start_time(began);
    let builder = builder.with_attributes([
        KeyValue::new("rpc.system", "grpc"),
        KeyValue::new("rpc.service", "weir.v1.Authorization"),
        KeyValue::new("rpc.method", "AuthRep"),
        KeyValue::new("weir.service.id", question.service.to_string()),
        KeyValue::new("weir.attempt", i64::from(question.attempt)),
    ]);
    tracer.build_with_context(builder, &Context::new().with_remote_span_context(parent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(trace_id: &[u8], span_id: &[u8], expected: bool) {
        let message = v1::TraceContext { trace_id: trace_id.to_vec(), span_id: span_id.to_vec() };
        let read = Parent::read(Some(&message)).0;
        assert_eq!(read.is_some_and(|context| context.is_sampled() && context.is_remote()), expected);
    }

    #[test]
    fn ids_of_another_length_are_none() {
        check(&[1; 16], &[2; 8], true);
        check(&[0; 16], &[2; 8], false);
        check(&[1; 16], &[0; 8], false);
        check(&[1; 15], &[2; 8], false);
        check(&[1; 16], &[2; 9], false);
        check(&[], &[], false);
        assert!(Parent::read(None).0.is_none());
    }
}
