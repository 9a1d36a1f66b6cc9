//! From a question to a decision: load, authenticate, compute, one store call.
//!
//! Every protocol of the listener ends here, so all of them give the same verdicts. What memory says is only trusted
//! once the store has compared the versions in the same step that counts; a refusal too is checked before it is given.
//!
//! Questions about whom memory knows are decided together, all of a message in one step of the store; where the store is
//! in this process, nothing has to be waited for.

mod leases;
mod question;
mod report;
mod usage;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::sync::watch;
use weir_core::authenticate::{authenticate, unknown};
use weir_core::counter::{all_limits, ceilings, increments_of, looks, untouched};
use weir_core::credentials::CalledBy;
use weir_core::decide::limit_statuses;
use weir_core::{
    AlertBins, Decision, Denial, Increment, KeyHasher, LimitStatus, PlanId, Presented, Service, ServiceId,
    StatusSet, Timestamp,
};
use weir_proto::Acceptance;
use weir_store::{Ask, Mode, Outcome, RequestId, Store, StoreError, Write};

use crate::config::Config;
use crate::meters::Meters;
use crate::recalls::Recalls;
use crate::records::{Found, Known, Records, Versioned};
use crate::status::Failure;
use crate::watch::{Seen, look};

use leases::is_held_back;
pub(crate) use question::{CutShort, Question, Shows, Wishes};
pub(crate) use report::{Booking, Fault, ReportError, Reported, Transaction};
pub(crate) use usage::Standing;

/// How often records may turn out old within one question.
const ATTEMPTS_MAX: usize = 8;

/// The answer.
pub(crate) struct Verdict {
    pub(crate) decision: Decision,
    /// Of a refusal: the limits that were asked about.
    shown: Vec<LimitStatus>,
    /// As far as there is one.
    pub(crate) service: Option<Arc<Versioned<Service>>>,
    /// As far as the credentials led to one.
    pub(crate) application: Option<Arc<Known>>,
    /// Of the records that it was decided by.
    records_version: u64,
    /// The application is held to its referrer filters.
    is_filtered: bool,
    /// It is refused only for what is out on lease.
    is_held_back: bool,
    pub(crate) at: Timestamp,
}

impl Verdict {
    fn deny(denial: Denial, service: Option<Arc<Versioned<Service>>>) -> Self {
        let decision = Decision::Deny(denial);
        Self {
            decision,
            shown: vec![],
            service,
            application: None,
            records_version: 0,
            is_filtered: false,
            is_held_back: false,
            at: now(),
        }
    }

    /// Where the limits stand that were asked about: with the call, where it was counted.
    pub(crate) fn limits(&self) -> &[LimitStatus] {
        match &self.decision {
            Decision::Allow(limits) => limits,
            Decision::Deny(_) => &self.shown,
        }
    }

    /// Of a plan; `None`: all answers cost.
    fn free_answers(&self, plan: &PlanId) -> Option<&StatusSet> {
        let plan = self.service.as_ref()?.value.plan(plan)?;
        (!plan.free_answers.is_empty()).then_some(&plan.free_answers)
    }

    /// Whose the credentials are, and how far gateways may accept them by themselves.
    pub(crate) fn accepted(&self) -> Acceptance<'_> {
        let Some(known) = &self.application else { return Acceptance::default() };
        let is_allowed = matches!(self.decision, Decision::Allow(_));
        // Whichever key it was: none of them outlives its end.
        let ends = known.value.app_keys.iter().filter_map(|key| key.until).filter(|until| *until > self.at);
        let for_ms = ends.min().map(|end| u64::try_from(end.unix_ms() - self.at.unix_ms()).unwrap_or(0));
        Acceptance {
            application_id: known.value.reference.application.as_str(),
            records_version: if is_allowed { self.records_version } else { 0 },
            for_ms,
            for_any_referrer: !self.is_filtered,
            free_answers: self.free_answers(&known.value.plan),
        }
    }
}

/// A question judged by the records in memory, as far as that goes.
struct Judged {
    service: Arc<Versioned<Service>>,
    application: Arc<Known>,
    /// Why it is refused, if the records are not old.
    denial: Option<Denial>,
    /// What is told of beside what is judged.
    shown: Vec<Increment>,
}

/// Decides.
pub(crate) struct Engine {
    pub(crate) store: Store,
    pub(crate) records: Records,
    pub(crate) hasher: KeyHasher,
    timeout: Duration,
    seen: Arc<watch::Sender<Seen>>,
    meters: Meters,
    pub(crate) recalls: Recalls,
}

impl Engine {
    pub(crate) fn new(store: Store, config: &Config, seen: Arc<watch::Sender<Seen>>) -> Self {
        let hasher = config.key_hasher.clone();
        Self {
            records: Records::new(store.clone(), hasher.clone(), config.applications_cached_max),
            store,
            hasher,
            timeout: Duration::from_millis(config.decision_timeout_ms),
            seen,
            meters: Meters::new(),
            recalls: Recalls::default(),
        }
    }

    /// Decides within the deadline. When it passes, the future inside is dropped, which takes back whatever the store
    /// may still count.
    pub(crate) async fn decide(&self, question: &Question) -> Result<Verdict, Failure> {
        let (alone, deadline) = (std::slice::from_ref(question), self.deadline());
        match self.decide_together(alone, Write::WithOthers, deadline).await.pop().flatten() {
            Some(verdict) => verdict,
            None => self.settle(question, deadline).await,
        }
    }

    /// When the store has to have answered what is asked now.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// Whether [`Self::decide_together`] waits for nothing.
    pub(crate) fn is_in_memory(&self) -> bool {
        self.store.is_in_memory()
    }

    /// Decides in one step of the store all questions about whom memory knows; `None` for the rest, which
    /// [`Self::settle`] decides.
    pub(crate) async fn decide_together(
        &self,
        questions: &[Question],
        write: Write,
        deadline: Instant,
    ) -> Vec<Option<Result<Verdict, Failure>>> {
        let (asked, now) = (Instant::now(), now());
        let wanted = questions.iter().map(|question| (&question.service, &question.credentials));
        let found = self.records.find_in_memory(wanted).into_iter().zip(questions);
        let mut asks = Vec::with_capacity(questions.len());
        let mut judge = |(found, question): (Option<_>, &Question)| {
            let (judged, ask) = self.judge_at_once(question, found?, now)?;
            asks.push(ask);
            Some(judged)
        };
        let judged: Vec<_> = found.map(&mut judge).collect();
        let asks = Arc::new(asks);
        let mut outcomes = self.apply_all(&asks, write, deadline).await.into_iter().zip(&*asks);
        let mut verdicts = Vec::with_capacity(questions.len());
        let took = asked.elapsed();
        for (question, judged) in questions.iter().zip(judged) {
            let outcome = judged.and_then(|judged| Some((judged, outcomes.next()?)));
            let verdict = outcome.and_then(|(judged, (outcome, ask))| match outcome {
                // Waits until some of it has come back.
                Ok(outcome) if is_held_back(&outcome, &ask.increments) => None,
                Ok(outcome) => self.conclude(question, judged, ask, outcome).transpose(),
                Err(failure) => Some(Err(failure)),
            });
            if let Some(verdict) = &verdict {
                question.trace.record(question, took, verdict);
            }
            verdicts.push(verdict);
        }
        let decided = verdicts.iter().flatten().flatten().map(|verdict: &Verdict| &verdict.decision);
        self.meters.decided(decided, took);
        verdicts
    }

    async fn apply_all(
        &self,
        asks: &Arc<Vec<Ask>>,
        write: Write,
        deadline: Instant,
    ) -> Vec<Result<Outcome, Failure>> {
        let applied = self.store.apply_all(asks, write);
        if self.is_in_memory() {
            return applied.await.into_iter().map(|outcome| Ok(outcome?)).collect();
        }
        match tokio::time::timeout_at(deadline.into(), applied).await {
            Ok(outcomes) => outcomes.into_iter().map(|outcome| Ok(outcome?)).collect(),
            Err(_) => asks.iter().map(|_| Err(Failure::Timeout)).collect(),
        }
    }

    /// Decides what takes several steps.
    pub(crate) async fn settle(&self, question: &Question, deadline: Instant) -> Result<Verdict, Failure> {
        let asked = Instant::now();
        let verdict = tokio::time::timeout_at(deadline.into(), self.decide_settled(question)).await;
        let mut verdict = verdict.unwrap_or(Err(Failure::Timeout));
        while let Ok(Verdict { is_held_back: true, application: Some(known), .. }) = &verdict {
            if !self.recall(&known.subject, asked).await {
                break;
            }
            verdict = self.within_deadline(self.decide_settled(question)).await;
        }
        let took = asked.elapsed();
        question.trace.record(question, took, &verdict);
        self.meters.decided(verdict.iter().map(|verdict| &verdict.decision), took);
        verdict
    }

    /// The outcome of some work on the store, unless that takes too long.
    pub(crate) async fn within_deadline<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::time::timeout(self.timeout, work).await.unwrap_or(Err(Failure::Timeout))
    }

    async fn decide_settled(&self, question: &Question) -> Result<Verdict, Failure> {
        for _ in 0..ATTEMPTS_MAX {
            if let Some(verdict) = self.attempt(question).await? {
                return Ok(verdict);
            }
        }
        Err(Failure::Unsettled)
    }

    /// `None`: judged by old records, which have been renewed.
    async fn attempt(&self, question: &Question) -> Result<Option<Verdict>, Failure> {
        let Some(service) = self.records.service(&question.service).await? else {
            self.check_catalog().await?;
            return Ok(Some(Verdict::deny(Denial::ServiceIdInvalid, None)));
        };
        let Some(found) = self.records.find(&service.value, &question.credentials).await? else {
            return self.nobody(question, service).await;
        };
        let (judged, ask) = self.judge(question, service, found, now());
        let outcome = self.store.apply(ask.clone()).await?;
        if judged.denial.is_some() && question.attempt > 0 {
            // What an earlier attempt counted must not stay.
            self.store.cancel(&ask.application, question.request, None).await?;
        }
        self.conclude(question, judged, &ask, outcome)
    }

    /// No application: unless what memory says of the service is old, a refusal.
    async fn nobody(
        &self,
        question: &Question,
        service: Arc<Versioned<Service>>,
    ) -> Result<Option<Verdict>, Failure> {
        let renewed = self.records.renew_service(&question.service, service.version).await?;
        self.check_catalog().await?;
        let denial = question.proof.check(&service.value).err().unwrap_or_else(|| unknown(&service.value));
        Ok((!renewed).then(|| Verdict::deny(denial, Some(service))))
    }

    /// Nobody is unknown to a store that has lost its catalog, or has none yet.
    pub(crate) async fn check_catalog(&self) -> Result<(), Failure> {
        // Rare, and as large as all that a store may do: it should not make every call's work as large.
        look(&self.store, &self.seen).boxed().await;
        let seen = self.seen.borrow();
        match (seen.lost, &seen.trouble, &seen.snapshot) {
            (Some((held, known)), ..) => Err(Failure::CatalogLost { held, known }),
            (None, Some(_), _) => Err(StoreError::Away(None).into()),
            (None, None, None) => Err(Failure::NoCatalog),
            (None, None, Some(_)) => Ok(()),
        }
    }

    /// `None`: more than one step of the store is needed.
    fn judge_at_once(
        &self,
        question: &Question,
        (service, found): (Arc<Versioned<Service>>, Found),
        now: Timestamp,
    ) -> Option<(Judged, Ask)> {
        let (judged, ask) = self.judge(question, service, found, now);
        (judged.denial.is_none() || question.attempt == 0).then_some((judged, ask))
    }

    fn judge(
        &self,
        question: &Question,
        service: Arc<Versioned<Service>>,
        found: Found,
        now: Timestamp,
    ) -> (Judged, Ask) {
        let (mut increments, denial) = match self.wanted(question, &service.value, &found, now) {
            Ok(increments) => (increments, None),
            Err(denial) => (vec![], Some(denial)),
        };
        let shown = shown(question, &service.value, &found, &increments);
        increments.extend(looks(&shown));
        let counts = denial.is_none() && !question.usage.is_empty();
        if let (true, Some(code)) = (counts, question.wishes.response_code) {
            increments.extend(code.increments());
        }
        let Found { application, .. } = found;
        let ask = Ask {
            request: question.request,
            attempt: question.attempt,
            application: Arc::clone(&application.subject),
            application_version: application.version,
            service_version: service.version,
            increments,
            mode: if counts { question.mode } else { Mode::Check },
        };
        (Judged { service, application, denial, shown }, ask)
    }

    fn wanted(
        &self,
        question: &Question,
        service: &Service,
        found: &Found,
        now: Timestamp,
    ) -> Result<Vec<Increment>, Denial> {
        let (application, found_by) = (&found.application.value, found.by.as_ref());
        let (credentials, referrer) = (&question.credentials, question.referrer.as_deref());
        question.proof.check(service)?;
        if question.wishes.metrics_first {
            check_metrics(question, service)?;
        }
        authenticate(service, application, credentials, found_by, referrer, &self.hasher, now)?;
        // A plan that is gone while its applications are not: nothing says what they may do.
        let plan = service.plan(&application.plan).ok_or(Denial::ApplicationNotActive)?;
        let metrics = &service.metrics;
        let gains =
            if question.wishes.flat { question.usage.flat(metrics) } else { question.usage.expand(metrics) };
        match (gains?, &question.wishes.cut_short) {
            (_, Some(cut_short)) => Err(cut_short.denial.clone()),
            (gains, None) if gains.is_empty() => Ok(all_limits(metrics, plan)),
            (gains, None) => Ok(increments_of(gains, metrics, plan, service.alert_bins)),
        }
    }

    /// `None`: judged by old records, which have been renewed.
    fn conclude(
        &self,
        question: &Question,
        judged: Judged,
        ask: &Ask,
        outcome: Outcome,
    ) -> Result<Option<Verdict>, Failure> {
        let Judged { service, application, denial, shown } = judged;
        let is_held_back = is_held_back(&outcome, &ask.increments);
        let limits = |used: &[u64], held: &[u64], at| {
            let mut limits = limit_statuses(&ask.increments, used, held, at);
            let judged = limits.len() - ceilings(&shown).count();
            // They were looked at without a maximum.
            limits[judged..].iter_mut().zip(ceilings(&shown)).for_each(|(limit, (_, c))| limit.max = c.max);
            limits
        };
        let (decision, shown, at) = match outcome {
            Outcome::Stale { application: record, service: version } => {
                let known = (Some(application.version), Some(service.version));
                self.records.renew_stale(&application.value.reference, known, (record, version))?;
                return Ok(None);
            }
            Outcome::Admitted { used, held, at } => match denial {
                // Led here by an index that is ahead of the record, or behind it.
                Some(Denial::UserKeyInvalid) if names_user_key(question, &service.value) => return Ok(None),
                Some(denial) => (Decision::Deny(denial), limits(&used, &held, at), at),
                None if question.wishes.shows == Shows::Nothing => (Decision::Allow(vec![]), vec![], at),
                None => (Decision::Allow(limits(&used, &held, at)), vec![], at),
            },
            Outcome::Refused { exceeded, used, held, at } => {
                let limits = limits(&used, &held, at);
                (Decision::Deny(Denial::LimitsExceeded(limits[exceeded].clone())), limits, at)
            }
        };
        let records_version = leases::records_version(application.version, service.version);
        let is_filtered =
            service.value.referrer_filters_required && !application.value.referrer_filters.is_empty();
        let (service, application) = (Some(service), Some(application));
        Ok(Some(Verdict {
            decision,
            shown,
            service,
            application,
            records_version,
            is_filtered,
            is_held_back,
            at,
        }))
    }

    /// Takes a request back.
    pub(crate) async fn cancel(
        &self,
        service: &ServiceId,
        credentials: &Presented,
        request: RequestId,
        attempt: Option<u32>,
    ) -> Result<bool, Failure> {
        self.within_deadline(async {
            let Some(service) = self.records.service(service).await? else { return Ok(false) };
            let found = self.records.find(&service.value, credentials).await?;
            let Some(Found { application, .. }) = found else { return Ok(false) };
            Ok(self.store.cancel(&application.subject, request, attempt).await?)
        })
        .await
    }
}

/// What a verdict is to tell of beside what is judged.
fn shown(question: &Question, service: &Service, found: &Found, judged: &[Increment]) -> Vec<Increment> {
    let wanted = |plan| match question.wishes.shows {
        Shows::Judged | Shows::Nothing => None,
        Shows::All => Some(all_limits(&service.metrics, plan)),
        Shows::Touched if !question.wishes.flat => None,
        Shows::Touched => {
            let gains = question.usage.expand(&service.metrics).ok()?;
            Some(increments_of(gains, &service.metrics, plan, AlertBins::NONE))
        }
    };
    let wanted = service.plan(&found.application.value.plan).and_then(wanted);
    untouched(wanted.unwrap_or_default(), judged)
}

/// Whether every metric that a question names is there.
fn check_metrics(question: &Question, service: &Service) -> Result<(), Denial> {
    let unread = question.wishes.cut_short.iter().flat_map(|cut_short| &cut_short.metrics);
    let mut named =
        question.usage.iter().map(|(metric, _)| metric.as_str()).chain(unread.map(String::as_str));
    match named.find(|name| service.metrics.find(name).is_none()) {
        Some(unknown) => Err(Denial::MetricInvalid(unknown.to_owned())),
        None => Ok(()),
    }
}

fn names_user_key(question: &Question, service: &Service) -> bool {
    matches!(question.credentials.called_by(service.credentials), Some(CalledBy::UserKey(_)))
}

/// This machine's clock. The store judges windows by its own.
pub(crate) fn now() -> Timestamp {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp::from_unix_ms(since_epoch.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX)))
}
