//! One request from its head to the end of its answer, for the access log, the metrics and its trace.
//!
//! The pipeline makes a [`Call`] first thing and hands it to the answer's body; wherever it is dropped, the
//! request has ended. Logged are the method, the path without its query, the status, the service and the time it
//! took, and headers that a policy names: never a query or a credential. A request that was malformed or failed is always logged, of the
//! others the share that is configured.
//!
//! The gateway's own part of the time is what is left without [`Waits`]. An upgrade ends, here, with its 101.

mod sampling;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use serde_json::Value;
use tracing::info;
use weir_core::RequestId;
use weir_core::policy::access_log::Lines;
use weir_core::refusal::wants_problem;

use crate::config::Config;
use crate::fields;
use crate::grpc_status::{GRPC_STATUS, GrpcStatus};
use crate::headers::{REQUEST_ID, is_sane_request_id};
use crate::message::{Reply, RequestHead};
use crate::meters::Meters;
use crate::policy::Held;
use crate::reply::Refusal;
use crate::reply::grpc::is_grpc;
use crate::service::Service;
use crate::trace::{Trace, Tracer};
use sampling::Sampling;

/// Longest path in the log; the rest is cut off.
const PATH_BYTES_MAX: usize = 1024;

/// What all requests share.
pub(crate) struct Calls {
    /// For requests that belong to no service.
    nobody: Meters,
    sampling: Sampling,
    tracer: Tracer,
}

impl Calls {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            nobody: Meters::of("none"),
            sampling: Sampling::new(config.access_sample_ratio),
            tracer: Tracer::new(config),
        }
    }
}

/// A request in progress.
pub(crate) struct Call {
    /// Names the request towards the listener.
    pub(crate) id: RequestId,
    /// Whether refusals are to be problem documents.
    pub(crate) wants_problem: bool,
    /// Whether the client speaks gRPC, and refusals have to.
    pub(crate) is_grpc: bool,
    /// Time that is not the gateway's own.
    pub(crate) waits: Waits,
    /// Its part of a trace.
    pub(crate) trace: Trace,
    /// What logs and the answer show.
    shown_id: String,
    is_clients_id: bool,
    method: Method,
    path: String,
    started: Instant,
    service: Option<Arc<Service>>,
    status: Option<StatusCode>,
    grpc_status: Option<GrpcStatus>,
    refused: Option<Refused>,
    /// What its service's policies make of it until it ends.
    lasting: Option<Box<Lasting>>,
    calls: Arc<Calls>,
}

/// What policies make of a call that lasts as long as it does.
pub(crate) struct Lasting {
    pub(crate) logged: Logged,
    /// Its places among those under way.
    pub(crate) held: Vec<Held>,
}

/// What policies say of a call's line in the log.
pub(crate) struct Logged {
    pub(crate) lines: Lines,
    /// Names and values that stand there besides.
    pub(crate) headers: Vec<(String, String)>,
}

impl Default for Logged {
    fn default() -> Self {
        Self { lines: Lines::Sampled, headers: vec![] }
    }
}

/// How a request was refused.
struct Refused {
    code: &'static str,
    /// What it means in HTTP, where its reply does not say so: to clients that speak gRPC.
    meaning: Option<StatusCode>,
    is_for_the_request: bool,
}

/// What is told of a request that has ended.
pub(crate) struct Ended<'a> {
    pub(crate) method: &'a Method,
    /// `None`: the client left before the answer.
    pub(crate) status: Option<StatusCode>,
    /// The same, but for gRPC what its code means in HTTP.
    pub(crate) meaning: Option<StatusCode>,
    pub(crate) grpc_status: Option<GrpcStatus>,
    pub(crate) service: Option<&'a str>,
    /// Why the gateway refused it.
    pub(crate) reason: Option<&'static str>,
    pub(crate) request_id: &'a str,
}

impl Call {
    /// Begins with the head of a request that came by `scheme`.
    pub(crate) fn begin(
        request: &RequestHead,
        scheme: &'static str,
        id: RequestId,
        calls: &Arc<Calls>,
    ) -> Self {
        let started = Instant::now();
        let clients_id = request.fields.get(REQUEST_ID).filter(|id| is_sane_request_id(id));
        let path = request.uri.path();
        let path = &path[..path.floor_char_boundary(PATH_BYTES_MAX.min(path.len()))];
        let made = id.hex();
        Self {
            id,
            shown_id: fields::text(clients_id.unwrap_or(&made)).unwrap_or("-").to_owned(),
            is_clients_id: clients_id.is_some(),
            wants_problem: wants_problem(request.fields.all(b"accept").filter_map(fields::text)),
            is_grpc: request.version == Version::HTTP_2 && is_grpc(&request.fields),
            waits: Waits::default(),
            trace: calls.tracer.begin(request, scheme, path),
            method: request.method.clone(),
            path: path.to_owned(),
            started,
            service: None,
            status: None,
            grpc_status: None,
            refused: None,
            lasting: None,
            calls: Arc::clone(calls),
        }
    }

    /// The request belongs to a service.
    pub(crate) fn belongs_to(&mut self, service: &Arc<Service>) {
        self.service = Some(Arc::clone(service));
    }

    /// What policies make of it lasts as long as it does.
    pub(crate) fn keeps(&mut self, lasting: Lasting) {
        self.lasting = Some(Box::new(lasting));
    }

    /// Its places among those under way, for what goes on without it.
    pub(crate) fn take_held(&mut self) -> Vec<Held> {
        self.lasting.as_mut().map(|lasting| std::mem::take(&mut lasting.held)).unwrap_or_default()
    }

    /// Method and path.
    pub(crate) fn line(&self) -> (&str, &str) {
        (self.method.as_str(), &self.path)
    }

    /// The request is malformed, and its path not known.
    pub(crate) fn was_not_read(&mut self) {
        self.path = "-".to_owned();
    }

    /// The gateway refuses it.
    pub(crate) fn refused(&mut self, refusal: &Refusal) {
        self.refused = Some(Refused {
            code: refusal.code(),
            meaning: self.is_grpc.then(|| refusal.status()),
            is_for_the_request: refusal.is_for_the_request(),
        });
    }

    /// The head of the answer is known.
    pub(crate) fn answered<B>(&mut self, answer: &Reply<B>) {
        self.status = Some(answer.status);
        self.told(answer.fields.get(GRPC_STATUS));
        self.meters().answered(self.started.elapsed().saturating_sub(self.waits.total()));
    }

    /// Trailers of the answer, which may tell how a gRPC call ended.
    pub(crate) fn told_behind(&mut self, trailers: &HeaderMap) {
        self.told(trailers.get(GRPC_STATUS).map(HeaderValue::as_bytes));
    }

    fn told(&mut self, grpc_status: Option<&[u8]>) {
        if self.is_grpc {
            self.grpc_status = grpc_status.map(GrpcStatus::read).or(self.grpc_status);
        }
    }

    /// The id that logs and the answer show: the client's if it chose one.
    pub(crate) fn shown_id(&self) -> &str {
        &self.shown_id
    }

    /// The id that the client chose, if it is sane.
    pub(crate) fn clients_id(&self) -> Option<&str> {
        self.is_clients_id.then_some(&self.shown_id)
    }

    /// Where the request is counted.
    pub(crate) fn meters(&self) -> &Meters {
        self.service.as_ref().map_or(&self.calls.nobody, |service| &service.meters)
    }

    fn meaning(&self) -> Option<StatusCode> {
        let refused = self.refused.as_ref().and_then(|refused| refused.meaning);
        let told = refused.or_else(|| self.grpc_status.map(GrpcStatus::equivalent));
        self.status.map(|status| told.unwrap_or(status))
    }

    fn count(&self, ended: &Ended<'_>, took: Duration) {
        let meters = self.meters();
        meters.ended(ended.meaning, took);
        if let Some(code) = ended.reason {
            meters.refused(code);
        }
        if let Some(status) = ended.grpc_status {
            meters.grpc_answered(status.label());
        }
    }

    /// Whether it is logged whatever the share of requests that are.
    fn is_remarkable(&self, ended: &Ended<'_>) -> bool {
        ended.meaning.is_some_and(|status| status.is_server_error())
            || self.refused.as_ref().is_some_and(|refused| refused.is_for_the_request)
    }

    fn log(&self, ended: &Ended<'_>, trace_id: Option<&str>, took: Duration) {
        let sampling = &self.calls.sampling;
        let logged = self.lasting.as_ref().map(|lasting| &lasting.logged);
        let lines = logged.map_or(Lines::Sampled, |logged| logged.lines);
        let is_remarkable = match lines {
            Lines::Sampled => self.is_remarkable(ended),
            Lines::All => true,
            Lines::Failures => ended.meaning.is_none_or(|status| status.as_u16() >= 400),
            Lines::None => return,
        };
        if !is_remarkable && (lines == Lines::Failures || !sampling.takes(ended.request_id)) {
            return;
        }
        let headers = logged.filter(|logged| !logged.headers.is_empty());
        info!(
            target: "weir::access",
            method = ended.method.as_str(),
            path = self.path,
            // 499, as many gateways write it: the client left before it was answered.
            status = ended.status.map_or(499, |status| status.as_u16()),
            grpc_status = ended.grpc_status.map(GrpcStatus::code),
            service.id = ended.service.unwrap_or("-"),
            reason = ended.reason,
            duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            request_id = ended.request_id,
            trace_id,
            headers = headers.map(Logged::headers),
            sampled = if is_remarkable { None } else { sampling.share() },
        );
    }
}

impl Logged {
    /// As a JSON object.
    fn headers(&self) -> String {
        let named = self.headers.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str())));
        Value::Object(named.collect()).to_string()
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        let trace = std::mem::take(&mut self.trace);
        let ended = Ended {
            method: &self.method,
            status: self.status,
            meaning: self.meaning(),
            grpc_status: self.grpc_status,
            service: self.service.as_ref().map(|service| service.id.as_str()),
            reason: self.refused.as_ref().map(|refused| refused.code),
            request_id: &self.shown_id,
        };
        self.count(&ended, took);
        self.log(&ended, trace.id().as_deref(), took);
        trace.end(&ended);
    }
}

/// How long a request has waited for others: for a body that has to be read first, a decision, an upstream.
#[derive(Default)]
pub(crate) struct Waits(AtomicU64);

impl Waits {
    /// A wait is over; says how long it took. (No wrapper around the work: that would hold it twice.)
    pub(crate) fn since(&self, begun: Instant) -> Duration {
        let waited = begun.elapsed();
        self.0.fetch_add(u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        waited
    }

    fn total(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}
