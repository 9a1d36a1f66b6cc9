//! The ledger and the catalog records: in this process or in Redis, with the same answers.
//!
//! The listener hands it increments that core computed; the store applies all of them or none in one atomic
//! step, so nothing ever reads, then decides, then writes. Services and applications are opaque records to
//! it, each with a version that is compared in that same step.
//!
//! It holds no policy: what an increment costs and who may make it is decided before it gets here.

mod ask;
pub mod config;
mod embedded;
mod error;
mod event;
mod key;
mod recalls;
mod redis;
mod service_error;

use std::sync::Arc;

use tokio::sync::mpsc;
use weir_core::lease::ledger::Lease;
use weir_core::{ApplicationId, ApplicationRef, KeyHash, ServiceId};

pub use ask::{
    Ask, Entry, LeaseAsk, LeaseOutcome, Mode, Outcome, Publication, PublishedApplication, Record, Report,
    Subject, Version,
};
pub use config::{Config, EmbeddedConfig, RedisConfig};
pub use embedded::{Embedded, Write};
pub use error::{OpenError, PublishError, StoreError};
pub use event::{
    EVENTS_KEPT_MAX, EVENTS_LISTED_MAX, Event, EventId, EventIdError, EventKind, FIRSTS_KEPT_MAX,
};
pub use recalls::Recall;
pub use service_error::{
    ERROR_CODE_BYTES_MAX, ERROR_MESSAGE_BYTES_MAX, ERROR_REQUEST_BYTES_MAX, ERRORS_KEPT_MAX, ErrorPage,
    ServiceError,
};
pub use weir_core::RequestId;

/// Longest idempotency id of a report in bytes, what scopes it included.
pub const IDEMPOTENCY_ID_BYTES_MAX: usize = 512;

/// Of how many applications of a shard something is out on lease.
fn tell_lent(shard: usize, applications: u64) {
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    metrics::gauge!("weir_leases_applications", "shard" => shard.to_string()).set(applications as f64);
}

/// So much was counted beyond limits.
fn tell_over_admitted(units: u64) {
    if units > 0 {
        metrics::counter!("weir_over_admitted_total").increment(units);
    }
}

/// So much had counted as used and was not.
fn tell_under_admitted(units: u64) {
    if units > 0 {
        metrics::counter!("weir_under_admitted_total").increment(units);
    }
}

/// The store.
#[derive(Clone, Debug)]
pub enum Store {
    /// In this process.
    Embedded(Embedded),
    /// In Redis.
    Redis(redis::Redis),
}

impl Store {
    /// Opens what a configuration names. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the folder is in use or damaged, Redis is away, too old, or may lose counters.
    pub async fn open(config: Config) -> Result<Self, OpenError> {
        Ok(match config {
            Config::Embedded(config) => Self::Embedded(Embedded::open(config).await?),
            Config::Redis(config) => Self::Redis(redis::Redis::open(config).await?),
        })
    }

    /// Whether it decides without waiting: in this process, and no answer has to be on disk first.
    pub fn is_in_memory(&self) -> bool {
        match self {
            Self::Embedded(store) => !store.forces_each(),
            Self::Redis(_) => false,
        }
    }

    /// Decides one request and, in [`Mode::Count`], counts it: all increments or none.
    ///
    /// A caller that drops the future before it ends has whatever was counted taken back.
    ///
    /// # Errors
    /// When the store is away; nothing stays counted then.
    pub async fn apply(&self, ask: Ask) -> Result<Outcome, StoreError> {
        let mut outcomes = self.apply_all(&Arc::new(vec![ask]), Write::WithOthers).await;
        outcomes.pop().expect("an outcome for each ask")
    }

    /// Decides requests in their order, each as [`Self::apply`] does. They are one piece of work: less to do than for
    /// each by itself, and all wait for the last.
    pub async fn apply_all(&self, asks: &Arc<Vec<Ask>>, write: Write) -> Vec<Result<Outcome, StoreError>> {
        match self {
            Self::Embedded(store) => store.apply_all(asks, write).await,
            Self::Redis(store) => store.apply_all(asks).await,
        }
    }

    /// Takes back a request of an application that was counted in the last seconds: of one attempt, or of any.
    /// What it takes back counts nothing if it comes, or comes again, in the next seconds. Returns whether there was
    /// anything to take back.
    ///
    /// # Errors
    /// When the store is away: ask again.
    pub async fn cancel(
        &self,
        application: &ApplicationRef,
        request: RequestId,
        attempt: Option<u32>,
    ) -> Result<bool, StoreError> {
        match self {
            Self::Embedded(store) => store.cancel(request, attempt).await,
            Self::Redis(store) => store.cancel(application, request, attempt).await,
        }
    }

    /// Does what a gateway's message about a lease asks for.
    ///
    /// # Errors
    /// When the store is away: the message may have been heard or not. The next one makes it good.
    pub async fn lease(&self, ask: LeaseAsk) -> Result<LeaseOutcome, StoreError> {
        match self {
            Self::Embedded(store) => store.lease(&ask).await,
            Self::Redis(store) => store.lease(ask).await,
        }
    }

    /// What is out on lease of an application, or was and may be corrected.
    ///
    /// # Errors
    /// When the store is away.
    pub async fn leases(&self, application: &ApplicationRef) -> Result<Vec<Lease>, StoreError> {
        match self {
            Self::Embedded(store) => Ok(store.leases(application)),
            Self::Redis(store) => store.leases(application).await,
        }
    }

    /// Counts whole the leases that nobody settled in time. To be called a few times a second.
    ///
    /// # Errors
    /// When the store is away.
    pub async fn presume_due(&self) -> Result<(), StoreError> {
        match self {
            Self::Embedded(store) => store.presume_due().await,
            Self::Redis(store) => store.presume_due().await,
        }
    }

    /// Asks all who hear [`Self::recalls`], in any process, for what is out on lease of an application.
    pub async fn recall(&self, application: &ApplicationRef) {
        let recall = [Recall::Needed(application.clone())];
        match self {
            Self::Embedded(store) => store.recall(&recall),
            Self::Redis(store) => store.recall(&recall).await,
        }
    }

    /// What gateways are to hear from now on, of recalls and of publications, until the receiver is dropped. Some of it may
    /// be lost.
    pub fn recalls(&self) -> mpsc::Receiver<Recall> {
        match self {
            Self::Embedded(store) => store.recalls(),
            Self::Redis(store) => store.recalls(),
        }
    }

    /// Counts what has happened, whatever the limits. Returns false when this idempotency id was counted before.
    ///
    /// # Errors
    /// When the store is away: some of it may be counted. Sent again under the same id, the rest is.
    pub async fn report(&self, report: Report) -> Result<bool, StoreError> {
        match self {
            Self::Embedded(store) => store.report(report).await,
            Self::Redis(store) => store.report(report).await,
        }
    }

    /// Keeps an error in the list of a service, in place of the oldest of [`ERRORS_KEPT_MAX`]. Texts that are too long are
    /// cut.
    ///
    /// # Errors
    /// When the store is away: it may be kept or not.
    pub async fn keep_error(&self, service: &ServiceId, error: &ServiceError) -> Result<(), StoreError> {
        match self {
            Self::Embedded(store) => store.keep_error(service, error).await,
            Self::Redis(store) => store.keep_error(service, error).await,
        }
    }

    /// The errors of a service, newest first. Pages count from 1.
    ///
    /// # Errors
    /// When the store is away.
    pub async fn errors(
        &self,
        service: &ServiceId,
        page: usize,
        per_page: usize,
    ) -> Result<ErrorPage, StoreError> {
        match self {
            Self::Embedded(store) => Ok(store.errors(service, page, per_page)),
            Self::Redis(store) => store.errors(service, page, per_page).await,
        }
    }

    /// The oldest events that nobody has acknowledged, so many at most; later ones of an application come later.
    ///
    /// # Errors
    /// When the store is away.
    pub async fn events(&self, most: usize) -> Result<Vec<Event>, StoreError> {
        let most = most.min(EVENTS_LISTED_MAX);
        match self {
            Self::Embedded(store) => Ok(store.events(most)),
            Self::Redis(store) => store.events(most).await,
        }
    }

    /// Forgets events. Those that are not there any more stay so.
    ///
    /// # Errors
    /// When the store is away: ask again.
    pub async fn acknowledge(&self, ids: &[EventId]) -> Result<(), StoreError> {
        match self {
            Self::Embedded(store) => store.acknowledge(ids).await,
            Self::Redis(store) => store.acknowledge(ids).await,
        }
    }

    /// Empties the error list of a service.
    ///
    /// # Errors
    /// When the store is away: ask again.
    pub async fn forget_errors(&self, service: &ServiceId) -> Result<(), StoreError> {
        match self {
            Self::Embedded(store) => store.forget_errors(service).await,
            Self::Redis(store) => store.forget_errors(service).await,
        }
    }

    /// A service's record.
    ///
    /// # Errors
    /// When the store is away.
    pub async fn service(&self, id: &ServiceId) -> Result<Option<Record>, StoreError> {
        match self {
            Self::Embedded(store) => Ok(store.service(id)),
            Self::Redis(store) => store.service(id).await,
        }
    }

    /// All services' records.
    ///
    /// # Errors
    /// When the store is away.
    pub async fn services(&self) -> Result<Vec<(ServiceId, Record)>, StoreError> {
        match self {
            Self::Embedded(store) => Ok(store.services()),
            Self::Redis(store) => store.services().await,
        }
    }

    /// An application's record.
    ///
    /// # Errors
    /// When the store is away.
    pub async fn application(&self, application: &ApplicationRef) -> Result<Option<Record>, StoreError> {
        match self {
            Self::Embedded(store) => Ok(store.application(application)),
            Self::Redis(store) => store.application(application).await,
        }
    }

    /// The application that a `user_key` probably belongs to: a hint, the application's own record decides.
    ///
    /// # Errors
    /// When the store is away.
    pub async fn application_of_user_key(
        &self,
        service: &ServiceId,
        user_key: &KeyHash,
    ) -> Result<Option<ApplicationId>, StoreError> {
        match self {
            Self::Embedded(store) => Ok(store.application_of_user_key(service, user_key)),
            Self::Redis(store) => store.application_of_user_key(service, user_key).await,
        }
    }

    /// The catalog's revision; 0 before the first publication.
    ///
    /// # Errors
    /// When the store is away.
    pub async fn revision(&self) -> Result<u64, StoreError> {
        match self {
            Self::Embedded(store) => Ok(store.revision()),
            Self::Redis(store) => store.revision().await,
        }
    }

    /// Puts services and applications in place. The same publication again changes nothing.
    ///
    /// # Errors
    /// When the store holds a higher revision, or this one with other content, or is away.
    pub async fn publish(&self, publication: Publication) -> Result<(), PublishError> {
        match self {
            Self::Embedded(store) => store.publish(publication),
            Self::Redis(store) => store.publish(publication).await,
        }
    }

    /// Whether the store can answer now.
    ///
    /// # Errors
    /// Why it cannot.
    pub async fn check(&self) -> Result<(), StoreError> {
        self.revision().await.map(|_| ())
    }
}
