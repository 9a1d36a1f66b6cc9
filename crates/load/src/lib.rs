//! Load by arrival rate, and what came of it: the engine behind `weir load`.
//!
//! The binary hands over a [`Plan`], [`run`] sends what it says, and [`report`] makes tables and pages of the [`Outcome`].
//! Each request has a time at which it is due, whatever the answers do (an open loop), and latency counts from that time:
//! a slow answer cannot hide the requests that it holds up.
//!
//! It reads no file and no environment, and does not ask whose host it is that gets the load; the binary does.

mod answer;
mod connect;
mod counts;
mod cpu;
mod latency;
mod mix;
mod outcome;
mod pacer;
mod plan;
mod random;
pub mod report;
mod run;
mod schedule;
mod span;
mod tally;
mod template;
mod threshold;
mod usage;
mod worker;

pub use answer::{Answer, Class, Expected, ExpectedError, Fault};
pub use connect::{TlsError, TlsOptions, TlsSettings};
pub use counts::Counts;
pub use latency::Latencies;
pub use mix::{Call, CallKind, Caller, CallerError, Group, Mix, Proof};
pub use outcome::{CallOutcome, Outcome, Slice, StageOutcome};
pub use plan::{Arrivals, LIMITS, Limits, Plan, Protocol, Stage, Target};
pub use run::{Live, RunError, run};
pub use span::{Span, SpanError};
pub use template::{PathTemplate, Template, TemplateError};
pub use threshold::{Judgement, Threshold, ThresholdError, judge};
pub use usage::{Listener, ListenerError, UsageCheck, UsageReading, Verdict};
