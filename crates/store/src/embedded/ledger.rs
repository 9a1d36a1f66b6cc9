//! The ledger in memory: counters per application and window, records, and what was counted in the last seconds.
//!
//! Changes only by [`LogEntry`]s, live and at replay alike, so that both come to the same state.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use weir_core::counter::{ceilings, changed};
use weir_core::{
    ApplicationId, ApplicationRef, COUNT_MAX, Increment, KeyHash, MetricName, Period, ServiceId, Timestamp,
    UsageValue,
};

use super::entry::{ApplicationChange, LogEntry, Row, Usage};
use crate::key::{IDEMPOTENCY_KEPT_MS, RECENT_KEPT_MS, window_expiry};
use crate::{Ask, Outcome, Record, RequestId, Version};

/// What all services share.
#[derive(Default)]
pub(super) struct Services {
    pub(super) records: BTreeMap<ServiceId, Record>,
    pub(super) user_keys: HashMap<(ServiceId, KeyHash), ApplicationId>,
    user_key_of: HashMap<ApplicationRef, KeyHash>,
    /// Revision and digest of the catalog.
    pub(super) held: Option<(u64, u64)>,
}

impl Services {
    pub(super) fn version(&self, id: &ServiceId) -> Option<Version> {
        self.records.get(id).map(|record| record.version)
    }

    pub(super) fn apply(&mut self, entry: &LogEntry) {
        match entry {
            LogEntry::Service(change) => {
                match &change.record {
                    Some(record) => self.records.insert(change.id.clone(), record.clone()),
                    None => self.records.remove(&change.id),
                };
            }
            LogEntry::Revision { revision, digest } => self.held = Some((*revision, *digest)),
            _ => {}
        }
    }

    /// Keeps the index of user keys in step with an application.
    pub(super) fn index(&mut self, entry: &LogEntry) {
        let LogEntry::Application(change) = entry else { return };
        let ApplicationChange { application, user_key, .. } = change;
        if let Some(old) = self.user_key_of.remove(application) {
            // Unless it has moved to another application already.
            let key = (application.service.clone(), old);
            if self.user_keys.get(&key) == Some(&application.application) {
                self.user_keys.remove(&key);
            }
        }
        if let Some(hash) = user_key {
            self.user_key_of.insert(application.clone(), hash.clone());
            let key = (application.service.clone(), hash.clone());
            self.user_keys.insert(key, application.application.clone());
        }
    }

    pub(super) fn user_key_of(&self, application: &ApplicationRef) -> Option<&KeyHash> {
        self.user_key_of.get(application)
    }
}

/// An application's record and counters.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Account {
    pub(super) record: Option<Record>,
    pub(super) windows: Vec<WindowCounts>,
    /// Number of the last log entry that is in here.
    pub(super) number: u64,
    /// Changed since the last checkpoint.
    pub(super) dirty: bool,
}

/// What was counted in one window.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct WindowCounts {
    pub(super) period: Period,
    pub(super) start: Timestamp,
    pub(super) counts: Vec<(MetricName, u64)>,
}

/// What is known of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    Nothing,
    /// It was counted lately.
    Counted,
    /// It was taken back, this attempt of it included.
    Buried,
}

/// How to take a counted step back; without usages it was taken back, up to that attempt.
struct Counted {
    /// The latest one: whose it is to take back.
    attempt: u32,
    usages: Vec<Usage>,
    idempotency_id: Vec<u8>,
}

impl Counted {
    fn is_buried(&self) -> bool {
        self.usages.is_empty()
    }
}

/// The applications of one shard.
#[derive(Default)]
pub(super) struct Shard {
    pub(super) accounts: HashMap<ApplicationRef, Account>,
    recent: HashMap<RequestId, Counted>,
    recent_older: HashMap<RequestId, Counted>,
    rotated: Timestamp,
    /// Idempotency id → until when it is kept.
    pub(super) reported: HashMap<Vec<u8>, Timestamp>,
}

impl Shard {
    pub(super) fn record(&self, application: &ApplicationRef) -> Option<Record> {
        self.accounts.get(application)?.record.clone()
    }

    pub(super) fn published(&self) -> Vec<ApplicationRef> {
        let with_record = self.accounts.iter().filter(|(_, account)| account.record.is_some());
        with_record.map(|(application, _)| application.clone()).collect()
    }

    /// The answer when the caller judged by old records.
    pub(super) fn stale(&self, ask: &Ask, service: Option<Version>) -> Option<Outcome> {
        let record = self.accounts.get(&ask.application).and_then(|account| account.record.as_ref());
        let current = record.map(|record| record.version) == Some(ask.application_version)
            && service == Some(ask.service_version);
        (!current).then(|| Outcome::Stale { application: record.cloned(), service })
    }

    /// Whether a request was counted lately, and belongs to that attempt where one is named.
    pub(super) fn was_counted(&self, request: RequestId, attempt: Option<u32>) -> bool {
        let counted = self.recent.get(&request).or_else(|| self.recent_older.get(&request));
        counted.is_some_and(|counted| {
            !counted.is_buried() && attempt.is_none_or(|attempt| attempt == counted.attempt)
        })
    }

    /// Looks a request up for an attempt; if it was counted lately, it belongs to the latest attempt from then on.
    pub(super) fn recall(&mut self, request: RequestId, attempt: u32) -> Known {
        let counted = self.recent.get_mut(&request).or_else(|| self.recent_older.get_mut(&request));
        match counted {
            None => Known::Nothing,
            Some(counted) if counted.is_buried() && attempt <= counted.attempt => Known::Buried,
            Some(counted) if counted.is_buried() => Known::Nothing,
            Some(counted) => {
                counted.attempt = counted.attempt.max(attempt);
                Known::Counted
            }
        }
    }

    /// Attempts of a request up to `last` count nothing from now on, unless it was counted for a later one.
    pub(super) fn bury(&mut self, request: RequestId, last: u32, now: Timestamp) {
        self.rotate(now);
        let older = self.recent_older.remove(&request);
        let known = self.recent.remove(&request).or(older);
        let kept = match known {
            Some(counted) if !counted.is_buried() => counted,
            other => {
                let attempt = other.map_or(last, |buried| buried.attempt.max(last));
                Counted { attempt, usages: vec![], idempotency_id: vec![] }
            }
        };
        self.recent.insert(request, kept);
    }

    pub(super) fn was_reported(&self, idempotency_id: &[u8], now: Timestamp) -> bool {
        !idempotency_id.is_empty() && self.reported.get(idempotency_id).is_some_and(|until| now < *until)
    }

    /// What the counter of each ceiling holds.
    pub(super) fn used(
        &self,
        application: &ApplicationRef,
        increments: &[Increment],
        now: Timestamp,
    ) -> Vec<u64> {
        let account = self.accounts.get(application);
        ceilings(increments)
            .map(|(increment, ceiling)| {
                account.map_or(0, |account| account.count(ceiling.period, now, &increment.metric))
            })
            .collect()
    }

    /// Notes in an entry about to be logged what its set values replace.
    pub(super) fn note_replaced(&self, entry: &mut LogEntry) {
        let LogEntry::Counted { usages, .. } = entry else { return };
        for usage in usages {
            let account = self.accounts.get(&usage.application);
            for row in usage.rows.iter().filter(|row| matches!(row.value, UsageValue::Set(_))) {
                for period in row.periods() {
                    let held = account.map_or(0, |a| a.count(*period, usage.at, &row.metric));
                    usage.replaced.push(held);
                }
            }
        }
    }

    /// Takes over one step; nothing happens for accounts that hold it already.
    pub(super) fn apply(&mut self, number: u64, entry: &LogEntry, now: Timestamp) {
        match entry {
            LogEntry::Counted { request, attempt, idempotency_id, usages, .. } => {
                self.rotate(now);
                for usage in usages {
                    self.accounts.entry_ref(&usage.application).or_default().raise(number, usage);
                }
                if !idempotency_id.is_empty() {
                    self.reported.insert(idempotency_id.clone(), now.plus_ms(IDEMPOTENCY_KEPT_MS));
                }
                if request.0 != [0; 16] {
                    let usages = usages.clone();
                    let idempotency_id = idempotency_id.clone();
                    self.recent.insert(*request, Counted { attempt: *attempt, usages, idempotency_id });
                }
            }
            LogEntry::TakenBack { request, .. } => self.take_back(number, *request),
            LogEntry::Application(change) => {
                let account = self.accounts.entry_ref(&change.application).or_default();
                if number > account.number {
                    account.record.clone_from(&change.record);
                    account.touch(number);
                }
            }
            LogEntry::Service(_) | LogEntry::Revision { .. } => {}
        }
    }

    fn take_back(&mut self, number: u64, request: RequestId) {
        let counted = self.recent.remove(&request).or_else(|| self.recent_older.remove(&request));
        let Some(counted) = counted else { return };
        for usage in &counted.usages {
            if let Some(account) = self.accounts.get_mut(&usage.application) {
                account.lower(number, usage);
            }
        }
        self.reported.remove(&counted.idempotency_id);
    }

    /// Every ten seconds what was counted grows a generation older.
    fn rotate(&mut self, now: Timestamp) {
        if now.unix_ms() - self.rotated.unix_ms() <= RECENT_KEPT_MS {
            return;
        }
        self.rotated = now;
        self.recent_older = std::mem::take(&mut self.recent);
        self.reported.retain(|_, until| now < *until);
    }
}

impl Account {
    fn touch(&mut self, number: u64) {
        self.number = number;
        self.dirty = true;
    }

    fn find(&self, period: Period, start: Timestamp) -> Option<usize> {
        // The newest windows are last.
        self.windows.iter().rposition(|window| window.period == period && window.start == start)
    }

    fn count(&self, period: Period, now: Timestamp, metric: &MetricName) -> u64 {
        let start = period.window(now).start;
        let Some(at) = self.find(period, start) else { return 0 };
        self.windows[at].counts.iter().find(|(name, _)| name == metric).map_or(0, |(_, n)| *n)
    }

    fn raise(&mut self, number: u64, usage: &Usage) {
        if number <= self.number {
            return;
        }
        for row in usage.rows.iter().filter(|row| row.value != UsageValue::Add(0)) {
            for period in row.periods() {
                let before = self.count(*period, usage.at, &row.metric);
                self.put(*period, usage.at, &row.metric, changed(before, row.value));
            }
        }
        self.touch(number);
    }

    /// A window that is gone, or a counter that was never raised, has nothing to give back.
    fn lower(&mut self, number: u64, usage: &Usage) {
        if number <= self.number {
            return;
        }
        let mut replaced = usage.replaced.iter().copied();
        for row in &usage.rows {
            for period in row.periods() {
                let (raised, lowered) = match row.value {
                    UsageValue::Add(by) => (0, by),
                    UsageValue::Set(to) => (replaced.next().unwrap_or(to), to),
                };
                let start = period.window(usage.at).start;
                let window = self.find(*period, start).map(|at| &mut self.windows[at]);
                let count = window.and_then(|w| w.counts.iter_mut().find(|(name, _)| *name == row.metric));
                if let Some((_, count)) = count {
                    *count = (*count + raised).saturating_sub(lowered).min(COUNT_MAX);
                }
            }
        }
        self.touch(number);
    }

    fn put(&mut self, period: Period, at: Timestamp, metric: &MetricName, value: u64) {
        let start = period.window(at).start;
        let place = self.find(period, start).unwrap_or_else(|| {
            self.forget_expired(at);
            self.windows.push(WindowCounts { period, start, counts: vec![] });
            self.windows.len() - 1
        });
        let counts = &mut self.windows[place].counts;
        match counts.iter_mut().find(|(name, _)| name == metric) {
            Some((_, count)) => *count = value,
            None => counts.push((metric.clone(), value)),
        }
    }

    /// Drops windows that ended long enough ago.
    pub(super) fn forget_expired(&mut self, now: Timestamp) {
        self.windows
            .retain(|window| window_expiry(window.period, window.start).is_none_or(|expiry| now < expiry));
    }
}

impl Row {
    fn periods(&self) -> &'static [Period] {
        if self.by_minute { &Period::ALL } else { &Period::ALL[1..] }
    }
}
