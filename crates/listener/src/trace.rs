//! A decision as a span below the gateway's, when the gateway says that the call is traced.
//!
//! Without the feature `otel` nothing is done here. The listener begins no traces: what is recorded is the gateway's
//! choice. What goes wrong here never touches a decision.

#[cfg(not(feature = "otel"))]
mod none;
#[cfg(feature = "otel")]
mod spans;

#[cfg(not(feature = "otel"))]
pub(crate) use none::Parent;
#[cfg(feature = "otel")]
pub(crate) use spans::Parent;
