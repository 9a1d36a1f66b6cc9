//! What there is of traces without the feature `otel`: nothing, which costs nothing.

use http::Method;
use weir_proto::v1;

use crate::access::Ended;
use crate::backend::Verdict;
use crate::config::Config;
use crate::fields::Fields;
use crate::message::{Reply, RequestHead};
use crate::reply::Refusal;
use crate::upstream::Origin;

pub(crate) struct Tracer;

impl Tracer {
    pub(crate) fn new(_: &Config) -> Self {
        Self
    }

    pub(crate) fn begin(&self, _: &RequestHead, _scheme: &'static str, _path: &str) -> Trace {
        Trace
    }
}

#[derive(Default)]
pub(crate) struct Trace;

impl Trace {
    pub(crate) fn id(&self) -> Option<String> {
        None
    }

    pub(crate) fn authorise(&self) -> Step {
        Step
    }

    pub(crate) fn exchange(&self, _: &Method, _: &mut Fields, _: &Origin) -> Step {
        Step
    }

    pub(crate) fn end(self, _: &Ended<'_>) {}
}

pub(crate) struct Step;

impl Step {
    pub(crate) fn context(&self) -> Option<v1::TraceContext> {
        None
    }

    pub(crate) fn decided(self, _: &Verdict) {}

    pub(crate) fn answered<B>(self, _: &Result<Reply<B>, Refusal>) {}
}
