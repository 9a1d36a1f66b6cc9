//! What a run does: against what, when, with which requests, within which bounds.
//!
//! Plain data. The binary fills it from command line and files, once everything in them is known to be right.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use weir_core::Secret;

use crate::connect::TlsSettings;
use crate::mix::Mix;

/// All that a run is told.
#[derive(Clone)]
pub struct Plan {
    /// How requests travel.
    pub protocol: Protocol,
    /// What gets the load; connections are spread over them. At least one.
    pub targets: Vec<Target>,
    /// Given: connections are TLS.
    pub tls: Option<TlsSettings>,
    /// What a listener is asked under, for [`Protocol::Decisions`].
    pub token: Option<Secret>,
    /// One after the other. At least one.
    pub stages: Vec<Stage>,
    /// How requests of a stage are spread over its time.
    pub arrivals: Arrivals,
    /// Decides all that is random.
    pub seed: u64,
    /// Who calls what.
    pub mix: Arc<Mix>,
    /// Whether admitted requests are counted by caller and call, to be compared with a listener's counters.
    pub compares_counters: bool,
    /// Its bounds.
    pub limits: Limits,
}

/// How requests travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// One request at a time on each connection.
    Http1,
    /// Many at a time; gRPC calls as well.
    Http2,
    /// No calls at all, but the question that a gateway would ask its listener about each.
    Decisions,
    /// No calls either, but an authrep of 3scale's API about each, by HTTP/1.1.
    Authrep {
        /// Whether answers come with their XML documents.
        has_body: bool,
    },
}

impl Protocol {
    /// What reports call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
            Self::Decisions => "decisions by gRPC stream",
            Self::Authrep { has_body: false } => "3scale authrep over HTTP/1.1",
            Self::Authrep { has_body: true } => "3scale authrep with documents over HTTP/1.1",
        }
    }

    /// Whether connections carry HTTP/2.
    pub(crate) fn is_http2(self) -> bool {
        match self {
            Self::Http1 | Self::Authrep { .. } => false,
            Self::Http2 | Self::Decisions => true,
        }
    }
}

/// Something that gets load.
#[derive(Debug, Clone)]
pub struct Target {
    /// Host and port as they were given.
    pub authority: String,
    /// The host alone, for certificates.
    pub host: String,
    /// Where it is; looked up once, so that no connection can go elsewhere. Tried in order.
    pub addresses: Vec<SocketAddr>,
}

/// A stretch of time with a rate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Requests per second when it begins.
    pub from: u32,
    /// Requests per second when it ends; another than `from` makes it a ramp.
    pub to: u32,
    /// How long it takes.
    pub length: Duration,
    /// It only warms caches and connections: reported, but held to no threshold.
    pub is_warm_up: bool,
}

impl Stage {
    /// Requests per second, so far into the stage.
    pub fn rate_at(&self, elapsed: Duration) -> f64 {
        let share = (elapsed.as_secs_f64() / self.length.as_secs_f64()).clamp(0.0, 1.0);
        f64::from(self.from) + (f64::from(self.to) - f64::from(self.from)) * share
    }
}

/// How requests are spread over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrivals {
    /// Evenly.
    Uniform,
    /// Independent of each other, as those of many customers are: the same rate, but in bursts.
    Poisson,
}

impl Arrivals {
    /// What reports call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Poisson => "poisson",
        }
    }
}

/// The bounds of a run.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections, all opened before the first request; at least one for each thread.
    pub connections: usize,
    /// Most requests that are due and neither answered nor given up; further ones are not sent, and reported so.
    pub in_flight_max: usize,
    /// Longest wait for an answer, from the time the request was due.
    pub timeout: Duration,
    /// Threads that send, at least one; a further one keeps the time.
    pub threads: usize,
}

/// What is not given.
pub const LIMITS: Limits =
    Limits { connections: 64, in_flight_max: 10_000, timeout: Duration::from_secs(10), threads: 1 };

impl Plan {
    /// How long it takes, without waiting for the last answers.
    pub fn length(&self) -> Duration {
        self.stages.iter().map(|stage| stage.length).sum()
    }
}
