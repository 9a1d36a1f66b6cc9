//! What there is of traces without the feature `otel`: nothing, which costs nothing.

use weir_proto::v1;

use crate::engine::{Question, Verdict};
use crate::status::Failure;

pub(crate) struct Parent;

impl Parent {
    pub(crate) fn read(_: Option<&v1::TraceContext>) -> Self {
        Self
    }

    pub(crate) fn begin(&self, _: &Question) -> Deciding {
        Deciding
    }
}

pub(crate) struct Deciding;

impl Deciding {
    pub(crate) fn end(self, _: &Result<Verdict, Failure>) {}
}
