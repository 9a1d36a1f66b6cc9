//! A call's part of a trace: a span for the request, one for the wait for a decision, one for the exchange with the
//! upstream.
//!
//! Without the feature `otel` nothing is done here, and a client's trace context passes like any header. With it, and
//! when the binary is told to trace, the gateway continues the client's context or begins one.

#[cfg(not(feature = "otel"))]
mod none;
#[cfg(feature = "otel")]
mod spans;
#[cfg(feature = "otel")]
mod w3c;

#[cfg(not(feature = "otel"))]
pub(crate) use none::{Trace, Tracer};
#[cfg(feature = "otel")]
pub(crate) use spans::{Trace, Tracer};
