//! `upstream_pool`: several addresses for the API's backend, and which of them are well.

use super::form::Form;
use super::upstream_url::Address;
use super::{Kind, Place, Policy, Repeats};
use crate::status_set::StatusSet;

/// Most addresses.
const ADDRESSES_MAX: usize = 64;

/// Several addresses in the place of the one in `api_backend`.
#[derive(Debug, Clone)]
pub struct UpstreamPool {
    /// `http://` or `https://`, host and port.
    pub addresses: Vec<String>,
    /// How they are asked whether they are well; `None`: they are not asked.
    pub probe: Option<Probe>,
    /// When one is left alone for a while.
    pub breaker: Breaker,
}

/// How an address is asked whether it is well.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Probe {
    /// What is asked for; 200 to 399 is well.
    pub path: String,
    /// How often, in milliseconds.
    pub interval_ms: u64,
    /// Longest wait for the answer, in milliseconds.
    pub timeout_ms: u64,
    /// So many good answers in a row make it well again.
    pub healthy_after: u64,
    /// So many bad ones make it ill.
    pub unhealthy_after: u64,
}

/// When calls say that an address is ill.
#[derive(Debug, Clone)]
pub struct Breaker {
    /// So many failures in a row open it.
    pub failures: u64,
    /// How long it stays open, in milliseconds; then one call tries.
    pub open_ms: u64,
    /// Answers that count as failures, beside connections that fail and answers that do not come.
    pub statuses: StatusSet,
}

impl UpstreamPool {
    pub(super) const KIND: Kind = Kind {
        name: "upstream_pool",
        meaning: "Spreads calls over several addresses, and leaves those alone that are ill: by asking them, and by what becomes of calls (a circuit breaker).",
        place: Place::Either,
        repeats: Repeats::Never,
        has_conditions: false,
        read: |form| Policy::UpstreamPool(Self::read(form)),
    };

    fn read(form: &Form<'_>) -> Self {
        let addresses = form.texts::<Address>(
            "addresses",
            "Where the API's backend is, in place of the host of `api_backend`; path, query and Host stay those of that.",
            "URL without a path",
            ADDRESSES_MAX,
        );
        form.require(&["addresses"]);
        if form.gives("addresses") && addresses.is_empty() {
            form.wrong("addresses", "addresses is empty, or has none that can be used");
        }
        Self {
            addresses: addresses.into_iter().map(|address| address.0).collect(),
            probe: form.table(
                "probe",
                "How they are asked whether they are well; without, they are not asked.",
                Probe::read,
            ),
            breaker: form
                .table("breaker", "When calls say that one is ill.", Breaker::read)
                .unwrap_or_else(|| Breaker::read(&Form::blank())),
        }
    }
}

impl Probe {
    fn read(form: &Form<'_>) -> Self {
        let path = form.text_or("path", "What is asked for, by GET; 200 to 399 is well.", "path", "/");
        if !path.starts_with('/') || path.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'#') {
            form.wrong("path", format!("path {path:?} is not a path that begins with /"));
        }
        Self {
            path,
            interval_ms: form.whole_or("interval_ms", "How often, in milliseconds.", 100..=3_600_000, 5_000),
            timeout_ms: form.whole_or(
                "timeout_ms",
                "Longest wait for the answer, in milliseconds.",
                10..=60_000,
                1_000,
            ),
            healthy_after: form.whole_or(
                "healthy_after",
                "So many good answers in a row make it well again.",
                1..=100,
                2,
            ),
            unhealthy_after: form.whole_or("unhealthy_after", "So many bad ones make it ill.", 1..=100, 3),
        }
    }
}

impl Breaker {
    fn read(form: &Form<'_>) -> Self {
        let failures = form.whole_or("failures", "So many failed calls in a row open it.", 1..=1_000, 5);
        let open_ms = form.whole_or(
            "open_ms",
            "How long it stays open, in milliseconds; then one call tries, and the rest as it went.",
            10..=3_600_000,
            10_000,
        );
        let statuses = form.failures(
            "statuses",
            "Answers that count as failures, beside connections that fail and answers that do not come; without, 502, 503 and 504.",
        );
        Self { failures, open_ms, statuses }
    }
}
