//! What is counted here and told to listeners afterwards: calls that pass while none answers, of services that chose so,
//! what upstreams say that a call used besides, and what calls did not cost after all.
//!
//! A tally is what one caller used of some metrics in one minute, so that it is counted where it belongs. It has an id
//! of its own, under which a listener counts it once, however often it is reported. Tallies of applications that are
//! known are in the journal; of callers that nobody knows, only memory has the credentials, so a killed gateway forgets
//! those.

use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use parking_lot::Mutex;
use tonic::Code;
use tracing::{error, warn};
use weir_core::lease::LINES_MAX;
use weir_core::{ApplicationId, ApplicationRef, Credentials, MetricName, ServiceId, Usage, UsageValue};
use weir_proto::v1;

use super::slots::{Record, Slots, Tag, TallyKind, TallyRecord};
use crate::backend::Question;
use crate::listener::Listener;
use crate::meters::OutageMeters;

/// Listeners take usage of a day; a minute less, since clocks differ.
const AGE_S_MAX: i64 = 86_400 - 60;
/// Most tallies at a time; what does not fit is refused.
const TALLIES_MAX: usize = 65_536;
/// Of these, most that belong to callers whom nobody has accepted: made-up names must not take the others' places.
const STRANGERS_MAX: usize = TALLIES_MAX / 4 * 3;
/// Most tallies that are told at a time.
const REPORTS_AT_ONCE: usize = 32;

/// What passed without a listener.
pub(super) struct Outage {
    tallies: Mutex<Tallies>,
    /// Held by who reports.
    reporting: tokio::sync::Mutex<()>,
    /// Most places of the journal for callers whom nobody has accepted; the tallies of more are in memory alone.
    strangers_written_max: u32,
    meters: OutageMeters,
}

#[derive(Default)]
struct Tallies {
    /// Those that calls are added to.
    open: HashMap<Key, Tally>,
    /// Those that are reported: nothing is added to them any more, since a listener may have heard of them.
    closed: VecDeque<(Key, Tally)>,
    /// The same of what is given back.
    closed_back: VecDeque<(Key, Tally)>,
    /// How many are being reported just now.
    taken: usize,
    /// Callers whom nobody has accepted, among those in memory and those of them in the journal.
    strangers: usize,
    strangers_written: u32,
}

impl Tallies {
    /// It is reported.
    fn forget(&mut self, key: &Key, tally: Tally) {
        self.strangers -= usize::from(key.is_stranger());
        self.strangers_written -= u32::from(key.is_stranger() && tally.tag.is_written());
        tally.tag.release();
    }

    fn len(&self) -> usize {
        self.open.len() + self.closed.len() + self.closed_back.len() + self.taken
    }

    /// Nothing is added to it any more; behind the others, so that one that no listener takes does not keep them waiting.
    fn close(&mut self, key: Key, tally: Tally) {
        let closed = if key.kind == TallyKind::GivenBack { &mut self.closed_back } else { &mut self.closed };
        closed.push_back((key, tally));
    }

    /// Some that are due. What is given back comes once all else is told.
    fn take_some(&mut self) -> Vec<(Key, Tally)> {
        let closed = if self.closed.is_empty() { &mut self.closed_back } else { &mut self.closed };
        let count = closed.len().min(REPORTS_AT_ONCE);
        self.taken += count;
        closed.drain(..count).collect()
    }
}

/// Whose usage, of what, and when.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    service: ServiceId,
    caller: Caller,
    kind: TallyKind,
    /// Since 1970.
    minute: i64,
    metrics: Vec<MetricName>,
}

impl Key {
    fn new(service: ServiceId, caller: Caller, kind: TallyKind, minute: i64, usage: &Usage) -> Self {
        let metrics = usage.iter().map(|(metric, _)| metric.clone()).collect();
        Self { service, caller, kind, minute, metrics }
    }

    fn is_stranger(&self) -> bool {
        self.kind == TallyKind::Stranger
    }

    /// Whose usage it is, where that is known.
    pub(super) fn application(&self) -> Option<ApplicationRef> {
        self.owner().filter(|_| self.kind == TallyKind::Known)
    }

    /// Whose tally it is.
    fn owner(&self) -> Option<ApplicationRef> {
        match &self.caller {
            Caller::Application(id) => {
                Some(ApplicationRef { service: self.service.clone(), application: id.clone() })
            }
            Caller::UserKey(_) => None,
        }
    }

    /// Since 1970.
    pub(super) fn minute(&self) -> i64 {
        self.minute
    }
}

/// Who called.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Caller {
    Application(ApplicationId),
    /// Nobody knows whose it is, if anybody's. Never leaves memory but to a listener.
    UserKey(String),
}

struct Tally {
    id: [u8; 16],
    counts: Vec<u64>,
    tag: Tag,
}

impl Outage {
    /// Beside a journal of so many places.
    pub(super) fn new(places: u32) -> Self {
        let strangers_written_max = places / 4;
        let (tallies, reporting) = (Mutex::default(), tokio::sync::Mutex::default());
        Self { tallies, reporting, strangers_written_max, meters: OutageMeters::new() }
    }

    /// Counts a call that passes; `None`: it cannot be counted, so it must not pass. `application` is the caller's,
    /// where that is known, `minute` since 1970.
    pub(super) fn count(
        &self,
        slots: &Slots,
        question: &Question<'_>,
        application: Option<ApplicationId>,
        minute: i64,
    ) -> Option<Key> {
        let kind = if application.is_none() { TallyKind::Stranger } else { TallyKind::Known };
        let caller = match (application, question.credentials) {
            (Some(application), _) => Caller::Application(application),
            (None, Credentials::UserKey(key)) => Caller::UserKey(key.expose().to_owned()),
            (
                None,
                Credentials::AppIdAndKey { app_id: id, .. }
                | Credentials::ClientId(id)
                | Credentials::Anonymous(id),
            ) => Caller::Application(ApplicationId::parse(id).ok()?),
        };
        let key = Key::new(question.service.id.clone(), caller, kind, minute, question.usage);
        self.add(slots, &key, question.usage)?;
        self.meters.passed.increment(1);
        Some(key)
    }

    /// Counts what an application used besides in a minute, or gives back what its calls did not cost; `None`: there is no
    /// room for it.
    pub(super) fn count_after(
        &self,
        slots: &Slots,
        ApplicationRef { service, application }: ApplicationRef,
        gives_back: bool,
        minute: i64,
        usage: &Usage,
    ) -> Option<()> {
        let kind = if gives_back { TallyKind::GivenBack } else { TallyKind::Known };
        let key = Key::new(service, Caller::Application(application), kind, minute, usage);
        self.add(slots, &key, usage)
    }

    fn add(&self, slots: &Slots, key: &Key, usage: &Usage) -> Option<()> {
        let is_stranger = key.is_stranger();
        let mut tallies = self.tallies.lock();
        let is_full = tallies.len() >= TALLIES_MAX || is_stranger && tallies.strangers >= STRANGERS_MAX;
        let is_written = !is_stranger || tallies.strangers_written < self.strangers_written_max;
        let Tallies { open, strangers, strangers_written, .. } = &mut *tallies;
        let tally = match open.entry(key.clone()) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(_) if is_full => return None,
            Entry::Vacant(place) => {
                let tally = Tally::begin(key, slots, is_written)?;
                *strangers += usize::from(is_stranger);
                *strangers_written += u32::from(is_stranger && tally.tag.is_written());
                place.insert(tally)
            }
        };
        tally.add(usage);
        self.tell(&tallies);
        Some(())
    }

    /// A call did not cost this much of what it used. `false`: that is being reported, or was.
    pub(super) fn take_back(&self, key: &Key, usage: &Usage) -> bool {
        let mut tallies = self.tallies.lock();
        let Some(tally) = tallies.open.get_mut(key) else { return false };
        let amounts: Vec<u64> = key.metrics.iter().map(|metric| usage.added(metric)).collect();
        // Another one may have been begun since the call was counted.
        let holds_it = tally.counts.iter().zip(&amounts).all(|(count, by)| count >= by);
        if holds_it {
            tally.take_back(&amounts);
        }
        holds_it
    }

    /// What an earlier run did not report.
    pub(super) fn put_left(&self, record: TallyRecord, counts: Vec<u64>, tag: Tag) {
        let TallyRecord { id, application, minute, metrics, kind } = record;
        let caller = Caller::Application(application.application);
        let key = Key { service: application.service, caller, kind, minute, metrics };
        let is_stranger = key.is_stranger();
        let mut tallies = self.tallies.lock();
        tallies.strangers += usize::from(is_stranger);
        tallies.strangers_written += u32::from(is_stranger && tag.is_written());
        tallies.close(key, Tally { id, counts, tag });
        self.tell(&tallies);
    }

    /// Whether there is nothing to report.
    pub(super) fn is_empty(&self) -> bool {
        self.tallies.lock().len() == 0
    }

    fn tell(&self, tallies: &Tallies) {
        self.meters.waiting.set(tallies.len() as f64);
    }

    /// Reports what there is to the first listener that takes it, until none does. What is given back goes last, and of an
    /// application only once it `is_settled`: a counter has to hold what is taken from it.
    pub(super) async fn report(&self, listeners: &[Listener], is_settled: impl Fn(&ApplicationRef) -> bool) {
        let _alone = self.reporting.lock().await;
        {
            let mut tallies = self.tallies.lock();
            let open: Vec<_> = tallies.open.drain().collect();
            open.into_iter().for_each(|(key, tally)| tallies.close(key, tally));
        }
        let may_go = |(key, _): &(Key, Tally)| {
            key.kind != TallyKind::GivenBack || key.owner().is_none_or(|owner| is_settled(&owner))
        };
        let mut waiting = Vec::new();
        loop {
            let taken = self.tallies.lock().take_some();
            let is_over = taken.is_empty();
            let (some, unsettled): (Vec<_>, Vec<_>) = taken.into_iter().partition(may_go);
            waiting.extend(unsettled);
            let reports = some.iter().map(|(key, tally)| self.report_one(listeners, key, tally));
            let are_done = join_all(reports).await;
            let is_over = is_over || are_done.contains(&false);
            let mut tallies = self.tallies.lock();
            tallies.taken -= some.len();
            for ((key, tally), is_done) in some.into_iter().zip(are_done) {
                if is_done {
                    tallies.forget(&key, tally);
                } else {
                    tallies.close(key, tally);
                }
            }
            if is_over {
                tallies.taken -= waiting.len();
                waiting.drain(..).for_each(|(key, tally)| tallies.close(key, tally));
            }
            self.tell(&tallies);
            if is_over {
                return;
            }
        }
    }

    /// Whether it is done with.
    async fn report_one(&self, listeners: &[Listener], key: &Key, tally: &Tally) -> bool {
        if key.kind == TallyKind::GivenBack && key.minute * 60 < now_s() - AGE_S_MAX {
            // Listeners take it as of a later moment only, whose windows never held it.
            warn!(service.id = key.service.as_str(), "what was free is too old to be given back");
            self.meters.unclaimed.increment(1);
            return true;
        }
        for listener in listeners {
            let request = listener.signed(tally.request(key));
            match listener.authorization().report(request).await {
                Ok(_) => {
                    self.meters.reported.increment(1);
                    return true;
                }
                Err(status) if status.code() == Code::InvalidArgument => {
                    // Of credentials that are nobody's, as a rule.
                    self.meters.unclaimed.increment(1);
                    let service = key.service.as_str();
                    warn!(service.id = service, code = ?status.code(), "usage during an outage is nobody's");
                    return true;
                }
                // Another may take it, now or later.
                Err(_) => {}
            }
        }
        false
    }
}

impl Tally {
    /// `None`: there is no room in the journal, or no random number.
    fn begin(key: &Key, slots: &Slots, is_written: bool) -> Option<Self> {
        let mut id = [0; 16];
        if let Err(error) = getrandom::fill(&mut id) {
            error!(%error, "a call cannot be counted");
            return None;
        }
        let tag = match &key.caller {
            // The journal has no place for so many: a killed gateway forgets them.
            _ if key.metrics.len() > LINES_MAX || !is_written => Tag::nowhere(),
            Caller::Application(application) => slots.claim(&Record::Tally(TallyRecord {
                id,
                application: ApplicationRef {
                    service: key.service.clone(),
                    application: application.clone(),
                },
                minute: key.minute,
                metrics: key.metrics.clone(),
                kind: key.kind,
            }))?,
            Caller::UserKey(_) => Tag::nowhere(),
        };
        Some(Self { id, counts: vec![0; key.metrics.len()], tag })
    }

    fn add(&mut self, usage: &Usage) {
        for (place, (count, (_, value))) in self.counts.iter_mut().zip(usage.iter()).enumerate() {
            let (UsageValue::Add(by) | UsageValue::Set(by)) = value;
            self.tag.add(place, by);
            *count = count.saturating_add(by);
        }
    }

    fn take_back(&mut self, amounts: &[u64]) {
        for (place, (count, by)) in self.counts.iter_mut().zip(amounts).enumerate() {
            self.tag.take_back(place, *by);
            *count -= by;
        }
    }

    fn request(&self, key: &Key) -> v1::ReportRequest {
        use v1::transaction::Application;
        let usage = Usage::new(
            key.metrics.iter().zip(&self.counts).map(|(metric, by)| (metric.clone(), UsageValue::Add(*by))),
        );
        let application = match &key.caller {
            Caller::Application(id) => Application::AppId(id.to_string()),
            Caller::UserKey(user_key) => Application::UserKey(user_key.clone()),
        };
        v1::ReportRequest {
            service_id: key.service.to_string(),
            idempotency_id: self.id.to_vec(),
            gives_back: key.kind == TallyKind::GivenBack,
            transactions: vec![v1::Transaction {
                application: Some(application),
                usage: v1::UsageEntry::list(&usage),
                // What is older than listeners take is told as of the oldest moment that they do.
                at_unix_s: Some((key.minute * 60).max(now_s() - AGE_S_MAX)),
            }],
        }
    }
}

pub(super) fn now_s() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use weir_core::{CredentialKind, Proxy, RequestIds};
    use weir_journal::Journal;

    use super::*;
    use crate::service::{Neighbours, Service};

    const PLACES: u32 = 8;

    #[test]
    fn strangers_leave_places_in_the_journal_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let slots = Slots(Some(Journal::open(dir.path().join("journal"), PLACES).unwrap().journal));
        let neighbours = Neighbours::idle().unwrap();
        let kind = CredentialKind::ClientId;
        let service = Service::new("api".parse().unwrap(), kind, Proxy::default(), &neighbours).unwrap();
        let usage = Usage::new([("hits".parse().unwrap(), UsageValue::Add(1))]);
        let outage = Outage::new(PLACES);
        let calls = |name: String, is_known: bool| {
            let credentials = Credentials::ClientId(name.clone());
            let question = Question {
                id: RequestIds::new([7; 8]).next(),
                service: &service,
                credentials: &credentials,
                usage: &usage,
                referrer: None,
                trace: None,
            };
            let application = is_known.then(|| name.parse().unwrap());
            outage.count(&slots, &question, application, 9).is_some()
        };
        assert!((0..100).all(|number| calls(format!("stranger-{number}"), false)), "they may pass");
        assert_eq!(slots.depth(), PLACES as usize / 4, "and have a quarter of the places");
        assert!((0..6).all(|number| calls(format!("known-{number}"), true)));
        assert_eq!(slots.depth(), PLACES as usize);
        assert!(!calls("known-6".into(), true), "without a place it could not be counted");
        assert!(calls("known-1".into(), true), "it has one");
    }

    #[test]
    fn what_is_taken_back_is_there_or_told_otherwise() {
        let (slots, outage) = (Slots(None), Outage::new(PLACES));
        let application: ApplicationRef = "api/known".parse().unwrap();
        let hits = |by| Usage::new([("hits".parse().unwrap(), UsageValue::Add(by))]);
        let (service, caller) = (application.service.clone(), Caller::Application("known".parse().unwrap()));
        let key = Key::new(service, caller, TallyKind::Known, 9, &hits(1));
        assert!(!outage.take_back(&key, &hits(1)), "there is none");
        outage.count_after(&slots, application, false, 9, &hits(3)).unwrap();
        assert!(!outage.take_back(&key, &hits(4)), "another call's is not touched");
        assert!(outage.take_back(&key, &hits(3)));
        assert!(!outage.take_back(&key, &hits(1)));
    }
}
