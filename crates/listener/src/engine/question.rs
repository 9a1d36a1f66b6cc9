//! What the engine is asked, whichever protocol it came by.

use weir_core::{Denial, Presented, Proof, ResponseCode, ServiceId, Usage};
use weir_store::{Mode, RequestId};

use crate::trace::Parent;

/// What is asked of the engine.
pub(crate) struct Question {
    pub(crate) request: RequestId,
    pub(crate) attempt: u32,
    pub(crate) service: ServiceId,
    pub(crate) proof: Proof,
    pub(crate) credentials: Presented,
    pub(crate) usage: Usage,
    pub(crate) wishes: Wishes,
    pub(crate) referrer: Option<String>,
    /// Count for authrep, Check for authorize.
    pub(crate) mode: Mode,
    /// The span that waits for the decision.
    pub(crate) trace: Parent,
}

/// What some ask beside.
#[derive(Default)]
pub(crate) struct Wishes {
    /// Usage is not rolled up into ancestors: the caller has done it.
    pub(crate) flat: bool,
    /// An unknown metric is refused before bad credentials are.
    pub(crate) metrics_first: bool,
    /// Usage that cannot be read ends before that.
    pub(crate) cut_short: Option<CutShort>,
    pub(crate) shows: Shows,
    /// How the upstream answered.
    pub(crate) response_code: Option<ResponseCode>,
}

/// Why usage ends before its first entry that cannot be.
pub(crate) struct CutShort {
    /// What is wrong with that entry.
    pub(crate) denial: Denial,
    /// The metrics that it and those behind it name.
    pub(crate) metrics: Vec<String>,
}

/// Which limits an answer tells of.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Shows {
    /// Those that were judged.
    #[default]
    Judged,
    /// None, unless one of them refuses.
    Nothing,
    /// Those of the metrics used and all their ancestors.
    Touched,
    /// All of the plan.
    All,
}
