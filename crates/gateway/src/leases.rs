//! Decides in memory, within what this gateway holds on lease.
//!
//! The pipeline calls [`Leases::decide`]; what it cannot say anything about is asked of a listener, whose admissions are
//! told to [`Leases::admitted`]. From these it is known which credentials are good, whose they are and how much is used;
//! where that is worth a lease, the keeper ([`keeper`]) asks for one. Every application is behind a lock of its own.
//!
//! Credentials are held in memory only, and count only while a lease lives that was granted by the same records they
//! were accepted by. What is spent is written to the journal before the request goes on.

mod clock;
mod keeper;
mod known;
mod outage;
mod slots;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};
use weir_core::lease::holding::{Holding, Receipt, Terms};
use weir_core::lease::{LeaseId, Message, Standing};
use weir_core::proxy::{Decisions, WhenAway};
use weir_core::ratelimit::Tightest;
use weir_core::{
    ApplicationId, ApplicationRef, Decision, Denial, LimitStatus, MetricName, ServiceId, StatusSet,
    Timestamp, Usage,
};
use weir_journal::{Corrupt, Journal, Opened};
use weir_proto::v1;

use crate::StartError;
use crate::backend::{Links, Question, Verdict};
use crate::config::Config;
use crate::listener::Listener;
use crate::meters::LeaseMeters;
use keeper::Keeper;
use known::{Accepted, Known};
use outage::Outage;
use slots::{LeaseRecord, Record, Slots, Tag};

/// How long a refusal is remembered: until then nothing may have been freed.
const REFUSAL_KEPT_MS: u64 = 100;
/// Where in the state folder what is spent is written down.
const JOURNAL_FILE: &str = "journal";
/// Most recalls that wait to be seen to; further ones are made good by the ends of leases.
const RECALLS_MAX: usize = 4_096;
/// Most applications that wait to be seen to.
const WANTED_MAX: usize = 65_536;
/// Most applications that are known; the calls of further ones are decided by listeners.
const APPLICATIONS_MAX: usize = 262_144;

/// All that a gateway holds.
pub(crate) struct Leases {
    slots: Slots,
    boot: [u8; 16],
    sequence: AtomicU64,
    /// The store's life, as the latest answer told; 0: none has.
    incarnation: AtomicU64,
    known: Known,
    applications: Mutex<HashMap<ApplicationRef, Arc<Application>>>,
    wanted: mpsc::Sender<Arc<Application>>,
    /// No new leases: the gateway stops.
    stopping: AtomicBool,
    emptied: Notify,
    outage: Outage,
    meters: LeaseMeters,
}

/// An application and what is held of it.
pub(crate) struct Application {
    pub(crate) reference: ApplicationRef,
    state: Mutex<State>,
    /// The keeper has been told to see to it.
    is_wanted: AtomicBool,
}

struct State {
    holding: Holding<Tag>,
    /// Of the records that the latest lease was granted by.
    records_version: u64,
    refused: Option<Refused>,
}

/// A refusal that will be the same for a moment.
struct Refused {
    usage: Usage,
    limit: LimitStatus,
    until_ms: u64,
}

/// What was decided here: it may go on and is counted, or it may not.
pub(crate) type Decided = Result<Here, Denial>;

/// An admission of this gateway's own.
pub(crate) struct Here {
    pub(crate) ticket: Ticket,
    pub(crate) limits: Tightest,
    /// Answers with which the plan has it for nothing.
    pub(crate) free_answers: Option<Arc<StatusSet>>,
}

/// Where a request was counted.
pub(crate) enum Ticket {
    /// Taken from a lease.
    Lease(Arc<Application>, Receipt),
    /// It passed without a listener.
    Outage(outage::Key),
    /// By a listener, for this application and in the windows of a moment.
    Listener(ApplicationRef, Timestamp),
}

impl Ticket {
    /// Whose call it is, where that is known.
    pub(crate) fn application(&self) -> Option<ApplicationRef> {
        match self {
            Self::Lease(application, _) => Some(application.reference.clone()),
            Self::Outage(key) => key.application(),
            Self::Listener(application, _) => Some(application.clone()),
        }
    }

    /// Whose usage it is, where that is known, and the minute that it counts in, since 1970.
    fn booked(&self) -> Option<(ApplicationRef, i64)> {
        match self {
            Self::Lease(application, receipt) => {
                Some((application.reference.clone(), receipt.moment().unix_s() / 60))
            }
            Self::Outage(key) => Some((key.application()?, key.minute())),
            Self::Listener(application, at) => Some((application.clone(), at.unix_s() / 60)),
        }
    }
}

impl Leases {
    /// Opens the journal, and begins to keep leases on streams of their own, until `end`.
    ///
    /// # Errors
    /// When the journal cannot be used, or the system has no random numbers.
    pub(crate) fn start(
        config: &Config,
        listeners: &[Listener],
        end: &CancellationToken,
    ) -> Result<Arc<Self>, StartError> {
        let (journal, left) = match &config.state_dir {
            Some(dir) => {
                let unusable = |source| StartError::StateDir { dir: dir.clone(), source };
                std::fs::create_dir_all(dir).map_err(unusable)?;
                let Opened { journal, left, corrupt } =
                    Journal::open(dir.join(JOURNAL_FILE), config.leases_max)?;
                for Corrupt { offset } in corrupt {
                    error!(offset, "a record of the journal is damaged: what it held counts as used");
                }
                (Some(journal), left)
            }
            None => (None, vec![]),
        };
        let (leases, wanted) = Self::new(journal, config.leases_max)?;
        let leases = Arc::new(leases);
        leases.take_over(left);
        let (recalls_in, recalls) = mpsc::channel(RECALLS_MAX);
        let keeper = Keeper {
            listeners: listeners.to_vec(),
            leases: Arc::clone(&leases),
            links: Links::for_leases(listeners, &recalls_in, end),
            wanted,
            recalls,
        };
        let end = end.clone();
        let syncing = Arc::clone(&leases).sync(Duration::from_millis(config.journal_sync_interval_ms));
        tokio::spawn(async move {
            tokio::select! {
                () = syncing => {}
                () = keeper.keep() => {}
                () = end.cancelled() => {}
            }
        });
        Ok(leases)
    }

    /// Nothing held yet, and whom to see to.
    fn new(
        journal: Option<Journal>,
        places: u32,
    ) -> Result<(Self, mpsc::Receiver<Arc<Application>>), StartError> {
        let mut boot = [0; 16];
        getrandom::fill(&mut boot)?;
        let (wanted, waiting) = mpsc::channel(WANTED_MAX);
        let leases = Self {
            slots: Slots(journal),
            boot,
            sequence: AtomicU64::new(0),
            incarnation: AtomicU64::new(0),
            known: Known::new(),
            applications: Mutex::default(),
            wanted,
            stopping: AtomicBool::new(false),
            emptied: Notify::new(),
            outage: Outage::new(places),
            meters: LeaseMeters::new(),
        };
        Ok((leases, waiting))
    }

    /// Forces the journal to disk, for ever.
    async fn sync(self: Arc<Self>, pause: Duration) {
        let mut was_failing = false;
        loop {
            tokio::time::sleep(pause).await;
            if self.slots.depth() == 0 {
                continue;
            }
            let leases = Arc::clone(&self);
            let synced = tokio::task::spawn_blocking(move || leases.slots.sync()).await;
            let failure = synced.map_err(std::io::Error::other).and_then(|synced| synced).err();
            if let Some(error) = failure.as_ref().filter(|_| !was_failing) {
                error!(%error, "the journal cannot be forced to disk: a power cut may lose what it holds");
            }
            was_failing = failure.is_some();
        }
    }

    /// Without a keeper.
    #[cfg(feature = "measuring")]
    pub(crate) fn for_measuring(journal: Journal) -> Result<Arc<Self>, StartError> {
        Ok(Arc::new(Self::new(Some(journal), 0)?.0))
    }

    /// Accepts a caller, and has the caller's first lease granted.
    #[cfg(feature = "measuring")]
    pub(crate) fn hold(self: &Arc<Self>, question: &Question<'_>, granted: &weir_core::lease::Reply) {
        let now = clock::now_ms();
        let application = self.application(&question.service.id, "app-0", now).expect("room for one");
        let accepted = Accepted {
            application: Arc::clone(&application),
            records_version: 1,
            until_ms: u64::MAX,
            free_answers: None,
        };
        self.known.put(question, accepted, true, now);
        let mut state = application.state.lock();
        state.records_version = 1;
        state.holding.set_terms(Terms::Outage);
        // The first answer only tells which life of the ledger it is.
        for _ in 0..2 {
            state.holding.note(question.usage, now);
            let messages = state.holding.due(now, |metrics| self.open(&application.reference, metrics));
            for Message { id, round, .. } in messages {
                state.holding.answered(id, round, granted.clone(), 1, now);
            }
        }
    }

    /// Settles the leases that earlier runs left, and reports what passed in their outages.
    fn take_over(&self, left: Vec<weir_journal::Left>) {
        let (now, mut presumed_used) = (clock::now_ms(), 0_usize);
        for weir_journal::Left { record, counts, machine_restarted, slot } in left {
            match Record::read(&record) {
                // More may have been spent than the disk has. Unsettled, it counts as used whole at its deadline.
                Some(Record::Lease(_)) if machine_restarted => {
                    slot.release();
                    presumed_used += 1;
                }
                Some(Record::Lease(record)) => self.settle(record, &counts, Tag::of(slot), now),
                // Also after a restart of the machine: to count too little is better than nothing.
                Some(Record::Tally(record)) => self.outage.put_left(record, counts, Tag::of(slot)),
                None => {
                    error!("a record of the journal cannot be read: what it held counts as used");
                    slot.release();
                }
            }
        }
        if presumed_used > 0 {
            warn!(
                leases = presumed_used,
                "the machine restarted: what was held on lease before counts as used"
            );
        }
    }

    fn settle(&self, record: LeaseRecord, counts: &[u64], tag: Tag, now: u64) {
        let LeaseRecord { id, application: ApplicationRef { service, application }, metrics } = record;
        // A journal has fewer places than there may be applications.
        let Some(application) = self.application(&service, application.as_str(), now) else { return };
        let spent = metrics.into_iter().zip(counts.iter().copied());
        let last_word = Message::last_word(id, tag.declared(), spent);
        application.state.lock().holding.restore(tag, last_word);
        self.want(&application);
    }

    /// Decides on a call; `None`: a listener has to.
    pub(crate) fn decide(self: &Arc<Self>, question: &Question<'_>) -> Option<Decided> {
        if question.service.proxy.decisions != Decisions::Leased {
            return None;
        }
        let now = clock::now_ms();
        let Accepted { application, records_version, until_ms, free_answers } =
            self.known.find(question, now)?;
        if now >= until_ms {
            return None;
        }
        let mut state = application.state.lock();
        if state.records_version != records_version {
            return None;
        }
        if let Some(denial) = state.remembered_refusal(question.usage, now) {
            self.meters.refused.increment(1);
            return Some(Err(denial));
        }
        let spent = state.holding.spend(question.usage, now, |slot, line, by| slot.add(line, by))?;
        let limits = Tightest::of(spent.standings().map(status));
        let (receipt, is_low) = (spent.receipt(), spent.is_low);
        drop(state);
        if is_low {
            self.want(&application);
        }
        self.meters.decided.increment(1);
        Some(Ok(Here { ticket: Ticket::Lease(application, receipt), limits, free_answers }))
    }

    /// What [`Self::decide`] would say, and of whom; nothing is taken.
    pub(crate) fn foresee(&self, question: &Question<'_>) -> Option<(ApplicationRef, Result<(), Denial>)> {
        if question.service.proxy.decisions != Decisions::Leased {
            return None;
        }
        let now = clock::now_ms();
        let known = self.known.find(question, now).filter(|known| now < known.until_ms)?;
        let mut state = known.application.state.lock();
        if state.records_version != known.records_version {
            return None;
        }
        if let Some(denial) = state.remembered_refusal(question.usage, now) {
            return Some((known.application.reference.clone(), Err(denial)));
        }
        let fits = state.holding.fits(question.usage, now);
        fits.then(|| (known.application.reference.clone(), Ok(())))
    }

    /// Lets a call pass that nobody decided on, of a service that chose so; `None`: it may not.
    pub(crate) fn pass_undecided(&self, question: &Question<'_>) -> Option<Here> {
        if question.service.proxy.when_away != WhenAway::Allow {
            return None;
        }
        let known = self.known.find(question, clock::now_ms());
        let (application, free_answers) = match known {
            Some(known) => (Some(known.application.reference.application.clone()), known.free_answers),
            None => (None, None),
        };
        let minute = outage::now_s() / 60;
        let ticket = self.outage.count(&self.slots, question, application, minute).map(Ticket::Outage)?;
        Some(Here { ticket, limits: Tightest::default(), free_answers })
    }

    /// Takes back so much of what a call used that it did not cost after all; `whole` is all of it. Before this returns it is
    /// in the journal, where there is one.
    pub(crate) fn give_back(&self, ticket: &Ticket, whole: &Usage, part: &Usage) {
        let is_back = match ticket {
            Ticket::Lease(application, receipt) => {
                let receipt = receipt.part(whole.iter().map(|(metric, _)| part.added(metric)));
                let mut state = application.state.lock();
                state.holding.take_back(&receipt, |slot, line, by| slot.take_back(line, by))
            }
            Ticket::Outage(key) => self.outage.take_back(key, part),
            Ticket::Listener(..) => false,
        };
        // What has been told already is told again, with the other sign and a name of its own.
        if !is_back && self.book(ticket, true, part).is_none() {
            self.meters.stayed_counted.increment(1);
        }
    }

    /// Counts what a call used besides.
    pub(crate) fn count_besides(&self, ticket: &Ticket, extra: &Usage) {
        if self.book(ticket, false, extra).is_none() {
            self.meters.extra_lost.increment(1);
        }
    }

    /// `None`: nobody knows whose it is, or there is no room.
    fn book(&self, ticket: &Ticket, gives_back: bool, usage: &Usage) -> Option<()> {
        let (application, minute) = ticket.booked()?;
        self.outage.count_after(&self.slots, application, gives_back, minute, usage)
    }

    /// A listener has decided on a call.
    pub(crate) fn heard(
        self: &Arc<Self>,
        question: &Question<'_>,
        verdict: &Verdict,
        message: &v1::Decision,
    ) {
        if question.service.proxy.decisions != Decisions::Leased || self.stopping.load(Ordering::Relaxed) {
            return;
        }
        let now = clock::now_ms();
        match verdict {
            Verdict::Decided(Decision::Allow(_), _) if message.records_version != 0 => {
                self.admitted(question, message, now);
            }
            Verdict::Decided(Decision::Deny(Denial::LimitsExceeded(limit)), heard) => {
                if let Some(Accepted { application, .. }) = self.known.find(question, now) {
                    application.state.lock().remember_refusal(question.usage, limit, heard.at, now);
                }
            }
            Verdict::Decided(Decision::Deny(_), _) => self.known.forget(question),
            _ => {}
        }
    }

    fn admitted(self: &Arc<Self>, question: &Question<'_>, message: &v1::Decision, now: u64) {
        let Some(application) = self.application(&question.service.id, &message.application_id, now) else {
            return;
        };
        let until_ms = message.accepted_for_ms.map_or(u64::MAX, |for_ms| now.saturating_add(for_ms));
        let records_version = message.records_version;
        // What cannot be read makes nothing free.
        let free_answers = message.read_free_answers().unwrap_or_default().map(Arc::new);
        let accepted =
            Accepted { application: Arc::clone(&application), records_version, until_ms, free_answers };
        self.known.put(question, accepted, message.accepted_for_any_referrer, now);
        let mut state = application.state.lock();
        state.refused = None;
        state.holding.set_terms(match question.service.proxy.when_away {
            WhenAway::AllowKnown => Terms::Outage,
            WhenAway::Deny | WhenAway::Allow => Terms::Ordinary,
        });
        state.holding.note(question.usage, now);
        if state.holding.is_empty() {
            // Refusals are remembered for those, too, of whom nothing is held.
            state.records_version = records_version;
        }
        drop(state);
        self.want(&application);
    }

    /// The application of that name; `None`: there are too many, or it is no name.
    fn application(&self, service: &ServiceId, id: &str, now: u64) -> Option<Arc<Application>> {
        let application = ApplicationId::parse(id).ok()?;
        let reference = ApplicationRef { service: service.clone(), application };
        let mut applications = self.applications.lock();
        if let Some(application) = applications.get(&reference) {
            return Some(Arc::clone(application));
        }
        if applications.len() >= APPLICATIONS_MAX {
            return None;
        }
        let incarnation = Some(self.incarnation.load(Ordering::Relaxed)).filter(|known| *known != 0);
        let application = Arc::new(Application::new(reference.clone(), incarnation, now));
        applications.insert(reference, Arc::clone(&application));
        Some(application)
    }

    /// The records of an application have changed, or those of a whole service, where `id` is empty: whoever was accepted
    /// before is asked about again. Returns those of whom something is held.
    fn outdated(&self, service: &str, id: &str) -> Vec<Arc<Application>> {
        let Ok(service) = ServiceId::parse(service) else { return vec![] };
        let mut meant: Vec<Arc<Application>> = match ApplicationId::parse(id) {
            Ok(application) => {
                let reference = ApplicationRef { service, application };
                self.applications.lock().get(&reference).cloned().into_iter().collect()
            }
            Err(_) => {
                let applications = self.applications.lock();
                let is_meant = |application: &&Arc<Application>| application.reference.service == service;
                applications.values().filter(is_meant).cloned().collect()
            }
        };
        meant.retain(|application| {
            let mut state = application.state.lock();
            state.records_version = 0;
            state.refused = None;
            state.holding.outdated();
            !state.holding.is_empty()
        });
        meant
    }

    /// Has the keeper see to an application.
    fn want(&self, application: &Arc<Application>) {
        if !application.is_wanted.swap(true, Ordering::AcqRel)
            && self.wanted.try_send(Arc::clone(application)).is_err()
        {
            // Its next request tries again.
            application.is_wanted.store(false, Ordering::Release);
        }
    }

    /// Names a new lease, and finds a place for what is spent of it; `None`: the journal is full.
    fn open(
        &self,
        application: &ApplicationRef,
        metrics: &mut dyn Iterator<Item = &MetricName>,
    ) -> Option<(LeaseId, Tag)> {
        let id = LeaseId { boot: self.boot, sequence: self.sequence.fetch_add(1, Ordering::Relaxed) + 1 };
        let (application, metrics) = (application.clone(), metrics.cloned().collect());
        let tag = self.slots.claim(&Record::Lease(LeaseRecord { id, application, metrics }));
        if tag.is_none() {
            self.meters.journal_full.increment(1);
        }
        Some((id, tag?))
    }
}

impl Application {
    fn new(reference: ApplicationRef, incarnation: Option<u64>, now: u64) -> Self {
        let mut hasher = DefaultHasher::new();
        reference.hash(&mut hasher);
        let holding = Holding::new(hasher.finish(), now).knowing(incarnation);
        let state = State { holding, records_version: 0, refused: None };
        Self { reference, state: Mutex::new(state), is_wanted: AtomicBool::new(false) }
    }
}

impl State {
    fn remembered_refusal(&mut self, usage: &Usage, now: u64) -> Option<Denial> {
        let refused = self.refused.as_ref()?;
        if now >= refused.until_ms {
            self.refused = None;
            return None;
        }
        (refused.usage == *usage).then(|| Denial::LimitsExceeded(refused.limit.clone()))
    }

    fn remember_refusal(&mut self, usage: &Usage, limit: &LimitStatus, at: Timestamp, now: u64) {
        let window_left_ms = limit.window.end.map_or(i64::MAX, |end| end.unix_ms() - at.unix_ms());
        let kept_ms = REFUSAL_KEPT_MS.min(u64::try_from(window_left_ms).unwrap_or(0));
        self.refused = Some(Refused { usage: usage.clone(), limit: limit.clone(), until_ms: now + kept_ms });
    }
}

/// A limit as the client is told.
fn status((standing, taken): (&Standing, u64)) -> LimitStatus {
    let Standing { metric, window, max, .. } = standing;
    LimitStatus { metric: metric.clone(), window: *window, max: *max, used: taken, held: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leases::slots::{TallyKind, TallyRecord};

    #[test]
    fn after_a_restart_of_the_machine_tallies_are_reported_and_leases_are_not_settled() {
        for (machine_restarted, settled, still_claimed) in [(false, 1, 2), (true, 0, 1)] {
            let dir = tempfile::tempdir().unwrap();
            let open = || Journal::open(dir.path().join(JOURNAL_FILE), 2).unwrap();
            let application: ApplicationRef = "mail_api/globex".parse().unwrap();
            let metrics = vec!["hits".parse().unwrap()];
            let tally = TallyRecord {
                id: [7; 16],
                application: application.clone(),
                minute: 9,
                metrics: metrics.clone(),
                kind: TallyKind::Known,
            };
            let lease = LeaseRecord { id: LeaseId { boot: [9; 16], sequence: 1 }, application, metrics };
            let slots = Slots(Some(open().journal));
            for record in [Record::Lease(lease), Record::Tally(tally)] {
                slots.claim(&record).unwrap().add(0, 5);
            }
            drop(slots);
            let Opened { journal, mut left, .. } = open();
            left.iter_mut().for_each(|left| left.machine_restarted = machine_restarted);
            let (leases, mut wanted) = Leases::new(None, 0).unwrap();
            leases.take_over(left);
            let outstanding = wanted.try_recv().map_or(0, |a| a.state.lock().holding.outstanding());
            assert_eq!(outstanding, settled);
            assert!(!leases.outage.is_empty());
            assert_eq!(journal.depth(), still_claimed);
        }
    }
}
