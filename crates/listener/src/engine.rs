//! From a question to a decision: load, authenticate, compute, one store call.
//!
//! Every protocol of the listener ends here, so all of them give the same verdicts. What memory says is only trusted
//! once the store has compared the versions in the same step that counts; a refusal too is checked before it is given.

mod report;
mod usage;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use weir_core::authenticate::{authenticate, unknown};
use weir_core::counter::{all_limits, increments};
use weir_core::decide::limit_statuses;
use weir_core::{
    Application, ApplicationId, ApplicationRef, Credentials, Decision, Denial, Increment, KeyHasher, Service,
    ServiceId, Timestamp, Usage,
};
use weir_store::{Ask, Mode, Outcome, RequestId, Store};

use crate::config::Config;
use crate::meters;
use crate::records::{Records, Versioned};
use crate::status::Failure;
use crate::trace::Parent;
use crate::watch::Seen;

pub(crate) use report::Transaction;

/// How often records may turn out old within one question.
const ATTEMPTS_MAX: usize = 8;

/// What is asked of the engine.
pub(crate) struct Question {
    pub(crate) request: RequestId,
    pub(crate) attempt: u32,
    pub(crate) service: ServiceId,
    pub(crate) credentials: Credentials,
    pub(crate) usage: Usage,
    pub(crate) referrer: Option<String>,
    /// Count for authrep, Check for authorize.
    pub(crate) mode: Mode,
    /// The span that waits for the decision.
    pub(crate) trace: Parent,
}

/// The answer.
pub(crate) struct Verdict {
    pub(crate) decision: Decision,
    /// As far as the credentials led to one.
    pub(crate) application: Option<ApplicationId>,
    pub(crate) at: Timestamp,
}

impl Verdict {
    fn deny(denial: Denial, application: Option<ApplicationId>) -> Self {
        Self { decision: Decision::Deny(denial), application, at: now() }
    }
}

/// Decides.
pub(crate) struct Engine {
    pub(crate) store: Store,
    pub(crate) records: Records,
    hasher: KeyHasher,
    timeout: Duration,
    seen: Arc<watch::Sender<Seen>>,
}

impl Engine {
    pub(crate) fn new(store: Store, config: &Config, seen: Arc<watch::Sender<Seen>>) -> Self {
        Self {
            records: Records::new(store.clone(), config.applications_cached_max),
            store,
            hasher: config.key_hasher.clone(),
            timeout: Duration::from_millis(config.decision_timeout_ms),
            seen,
        }
    }

    /// Decides within the deadline. When it passes, the future inside is dropped, which takes back whatever the store
    /// may still count.
    pub(crate) async fn decide(&self, question: &Question) -> Result<Verdict, Failure> {
        let asked = Instant::now();
        let span = question.trace.begin(question);
        let verdict = self.within_deadline(self.decide_settled(question)).await;
        span.end(&verdict);
        let verdict = verdict?;
        meters::decided(&verdict.decision, asked.elapsed());
        Ok(verdict)
    }

    async fn within_deadline<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
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
            self.check_catalog()?;
            return Ok(Some(Verdict::deny(Denial::ServiceIdInvalid, None)));
        };
        let Some(application) = self.find_application(&service.value, &question.credentials).await? else {
            return self.nobody(question, &service).await;
        };
        let judged = self.judge(question, &service.value, &application.value);
        let (wanted, denial) = match judged {
            Ok(wanted) => (wanted, None),
            Err(denial) => (vec![], Some(denial)),
        };
        let ask = Ask {
            request: question.request,
            attempt: question.attempt,
            application: application.value.reference.clone(),
            application_version: application.version,
            service_version: service.version,
            increments: wanted.clone(),
            mode: if denial.is_some() { Mode::Check } else { question.mode },
        };
        let outcome = self.store.apply(ask).await?;
        if denial.is_some() && question.attempt > 0 {
            // What an earlier attempt counted must not stay.
            self.store.cancel(&application.value.reference, question.request, None).await?;
        }
        self.conclude(question, &service, &application, &wanted, denial, outcome)
    }

    /// No application: unless what memory says of key or service is old, a refusal.
    async fn nobody(
        &self,
        question: &Question,
        service: &Versioned<Service>,
    ) -> Result<Option<Verdict>, Failure> {
        let renewed = self.forget_hint(&question.service, &question.credentials)
            || self.records.renew_service(&question.service, service.version).await?;
        self.check_catalog()?;
        Ok((!renewed).then(|| Verdict::deny(unknown(&service.value), None)))
    }

    /// Nobody is unknown to a store that has lost its catalog.
    fn check_catalog(&self) -> Result<(), Failure> {
        match self.seen.borrow().lost {
            Some((held, known)) => Err(Failure::CatalogLost { held, known }),
            None => Ok(()),
        }
    }

    fn judge(
        &self,
        question: &Question,
        service: &Service,
        application: &Application,
    ) -> Result<Vec<Increment>, Denial> {
        let referrer = question.referrer.as_deref();
        authenticate(service, application, &question.credentials, referrer, &self.hasher, now())?;
        // A plan that is gone while its applications are not: nothing says what they may do.
        let plan = service.plan(&application.plan).ok_or(Denial::ApplicationNotActive)?;
        if question.usage.is_empty() && question.mode == Mode::Check {
            return Ok(all_limits(&service.metrics, plan));
        }
        increments(&question.usage, &service.metrics, plan)
    }

    fn conclude(
        &self,
        question: &Question,
        service: &Arc<Versioned<Service>>,
        application: &Arc<Versioned<Application>>,
        wanted: &[Increment],
        denial: Option<Denial>,
        outcome: Outcome,
    ) -> Result<Option<Verdict>, Failure> {
        let reference = &application.value.reference;
        let verdict =
            |decision, at| Some(Verdict { decision, application: Some(reference.application.clone()), at });
        match outcome {
            Outcome::Stale { application: record, service: version } => {
                if version != Some(service.version) {
                    self.records.forget_service(&question.service);
                }
                if record.as_ref().map(|record| record.version) != Some(application.version) {
                    self.records.renew_application(reference, record.as_ref())?;
                }
                Ok(None)
            }
            Outcome::Admitted { used, at } => match denial {
                Some(Denial::UserKeyInvalid)
                    if self.forget_hint(&question.service, &question.credentials) =>
                {
                    Ok(None)
                }
                Some(denial) => Ok(verdict(Decision::Deny(denial), at)),
                None => Ok(verdict(Decision::Allow(limit_statuses(wanted, &used, at)), at)),
            },
            Outcome::Refused { exceeded, used, at } => {
                let refused = limit_statuses(wanted, &used, at).swap_remove(exceeded);
                Ok(verdict(Decision::Deny(Denial::LimitsExceeded(refused)), at))
            }
        }
    }

    /// The application that credentials name; whether they are good is not asked yet.
    pub(crate) async fn find_application(
        &self,
        service: &Service,
        credentials: &Credentials,
    ) -> Result<Option<Arc<Versioned<Application>>>, Failure> {
        let id = match credentials {
            Credentials::UserKey(key) => {
                let mut found = None;
                for hash in self.hasher.hashes(key) {
                    found = self.records.application_of_user_key(&service.id, &hash).await?;
                    if found.is_some() {
                        break;
                    }
                }
                found
            }
            // A text that can be no id is no application's.
            Credentials::AppIdAndKey { app_id, .. } => ApplicationId::parse(app_id).ok(),
            Credentials::ClientId(id) => ApplicationId::parse(id).ok(),
        };
        let Some(application) = id else { return Ok(None) };
        self.records.application(&ApplicationRef { service: service.id.clone(), application }).await
    }

    /// A key may have moved to another application since its owner was remembered.
    fn forget_hint(&self, service: &ServiceId, credentials: &Credentials) -> bool {
        let Credentials::UserKey(key) = credentials else { return false };
        self.hasher.hashes(key).filter(|hash| self.records.forget_user_key(service, hash)).count() > 0
    }

    /// Takes a request back.
    pub(crate) async fn cancel(
        &self,
        service: &ServiceId,
        credentials: &Credentials,
        request: RequestId,
        attempt: Option<u32>,
    ) -> Result<bool, Failure> {
        self.within_deadline(async {
            let Some(service) = self.records.service(service).await? else { return Ok(false) };
            let found = self.find_application(&service.value, credentials).await?;
            let Some(application) = found else { return Ok(false) };
            Ok(self.store.cancel(&application.value.reference, request, attempt).await?)
        })
        .await
    }
}

/// This machine's clock. The store judges windows by its own.
pub(crate) fn now() -> Timestamp {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp::from_unix_ms(since_epoch.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX)))
}
