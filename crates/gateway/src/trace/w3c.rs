//! The headers `traceparent` and `tracestate` of W3C Trace Context.
//!
//! What is no trace context is as good as none: then the gateway begins one, and drops the `tracestate` beside it.

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

use crate::fields::{self, Fields};

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// Longest `tracestate` that spans carry; it passes in any length.
const STATE_BYTES_MAX: usize = 512;

/// The context that a client sends.
pub(super) fn read(headers: &Fields) -> Option<SpanContext> {
    let (trace_id, span_id, flags) = parse(fields::text(headers.only(TRACEPARENT)?)?)?;
    let context = SpanContext::new(trace_id, span_id, flags, true, state(headers));
    context.is_valid().then_some(context)
}

/// `00-<trace id>-<span id>-<flags>`; a later version may say more behind that.
fn parse(text: &str) -> Option<(TraceId, SpanId, TraceFlags)> {
    let mut fields = text.splitn(5, '-');
    let version = hex(fields.next()?, 2)?;
    let trace_id = hex(fields.next()?, 32)?;
    let span_id = hex(fields.next()?, 16)?;
    let flags = hex(fields.next()?, 2)?;
    if version == "ff" || (version == "00" && fields.next().is_some()) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?);
    Some((TraceId::from_hex(trace_id).ok()?, SpanId::from_hex(span_id).ok()?, flags))
}

fn hex(field: &str, length: usize) -> Option<&str> {
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (field.len() == length && field.bytes().all(is_hex)).then_some(field)
}

fn state(headers: &Fields) -> TraceState {
    let value = headers.only(TRACESTATE).filter(|value| value.len() <= STATE_BYTES_MAX);
    value.and_then(|value| fields::text(value)?.parse().ok()).unwrap_or_default()
}

/// Says in a request's headers which span it is part of; `is_continued`: of a trace that the client began.
pub(super) fn write(headers: &mut Fields, context: &SpanContext, is_continued: bool) {
    if !context.is_valid() {
        return;
    }
    let flags = context.trace_flags().to_u8();
    headers.set(TRACEPARENT, format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id()));
    if !is_continued {
        headers.remove(TRACESTATE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(pairs: &[(&str, &str)]) -> Fields {
        let mut headers = Fields::new();
        pairs.iter().for_each(|(name, value)| headers.push(name, value));
        headers
    }

    #[track_caller]
    fn check_written(found: &Fields, expected: &[(&str, &str)]) {
        assert_eq!(found.to_map(), headers(expected).to_map());
    }

    #[track_caller]
    fn check(value: &str, expected: bool) {
        let found = read(&headers(&[("traceparent", value)]));
        assert_eq!(found.map(|context| context.trace_id().to_string()), expected.then(|| TRACE.into()));
    }

    #[test]
    fn contexts_are_read() {
        check(GOOD, true);
        check(&GOOD.replace("-01", "-00"), true);
        check(&GOOD.replace("00-4b", "cc-4b"), true);
        check(&format!("{}-what-comes", GOOD.replace("00-4b", "cc-4b")), true);
        let context = read(&headers(&[("traceparent", GOOD), ("tracestate", "a=1,b=2")])).unwrap();
        assert!(context.is_sampled() && context.is_remote());
        assert_eq!(context.trace_state().header(), "a=1,b=2");
    }

    #[test]
    fn what_is_none_is_not() {
        for value in [
            "",
            "00",
            &GOOD.to_uppercase(),
            &GOOD[..54],
            &format!("{GOOD}0"),
            &format!("{GOOD}-more"),
            &GOOD.replace("00-4b", "ff-4b"),
            &GOOD.replace("00-4b", "0-4b"),
            &GOOD.replace(TRACE, &"0".repeat(32)),
            &GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &GOOD.replace("4bf", "+bf"),
        ] {
            check(value, false);
        }
        assert!(read(&headers(&[("traceparent", GOOD), ("traceparent", GOOD)])).is_none());
    }

    #[test]
    fn contexts_are_written() {
        let sent = [("traceparent", GOOD), ("tracestate", "a=1")];
        let context = read(&headers(&sent)).unwrap();
        let mut continued = headers(&sent);
        write(&mut continued, &context, true);
        check_written(&continued, &sent);
        let mut begun = headers(&[("tracestate", "a=1"), ("traceparent", "x"), ("traceparent", "y")]);
        write(&mut begun, &context, false);
        check_written(&begun, &sent[..1]);
        // Nothing is traced.
        write(&mut begun, &SpanContext::NONE, false);
        check_written(&begun, &sent[..1]);
    }
}
