//! The store in this process: memory is the truth, a log makes it last, a checkpoint keeps the log short.
//!
//! Each step is appended to the log with `write(2)` before it is answered, so a killed process loses nothing;
//! the log is forced to disk at the configured moment, which is what a power cut can cost. The folder belongs to one
//! process at a time.
//!
//! Same algorithm as `redis/functions.lua`; the contract suite runs over both.

mod checkpoint;
mod entry;
mod ledger;
mod log;

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio_util::sync::{CancellationToken, DropGuard};
use weir_core::{ApplicationId, ApplicationRef, KeyHash, ServiceId};

use crate::config::EmbeddedConfig;
use crate::key::{SHARDS, now, shard_of};
use crate::{
    Ask, Mode, OpenError, Outcome, Publication, PublishError, Record, Report, RequestId, StoreError, ask,
};
use entry::{LogEntry, ServiceChange};
use ledger::{Known, Services, Shard};
use log::Log;

/// A store in a folder.
#[derive(Clone)]
pub struct Embedded {
    shared: Arc<Shared>,
}

struct Shared {
    config: EmbeddedConfig,
    shards: Vec<Mutex<Shard>>,
    services: RwLock<Services>,
    log: Log,
    /// Serialises publications and checkpoints.
    maintenance: Mutex<()>,
    /// Held as long as the store: one process per folder.
    _lock: File,
    _background: DropGuard,
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Embedded({})", self.shared.config.dir.display())
    }
}

impl Embedded {
    /// Opens or makes the folder and brings memory up to the last answered step.
    pub(crate) async fn open(config: EmbeddedConfig) -> Result<Self, OpenError> {
        let dir = config.dir.clone();
        let failed = |problem: String| OpenError::Checkpoint { dir: dir.clone(), problem };
        let (store, stop) = tokio::task::spawn_blocking(move || Self::recover(config))
            .await
            .map_err(|error| failed(error.to_string()))??;
        store.start_background(stop);
        Ok(store)
    }

    fn recover(config: EmbeddedConfig) -> Result<(Self, CancellationToken), OpenError> {
        let folder = |source| OpenError::Folder { dir: config.dir.clone(), source };
        std::fs::create_dir_all(&config.dir).map_err(folder)?;
        let lock = File::create(config.dir.join("lock")).map_err(folder)?;
        lock.try_lock().map_err(|_| OpenError::Locked(config.dir.clone()))?;

        let mut shards: Vec<Shard> = (0..SHARDS).map(|_| Shard::default()).collect();
        let mut services = Services::default();
        let sequence = checkpoint::load(&config.dir, &mut shards, &mut services)?;
        let log = Log::open(&config.dir, sequence, |number, entry| {
            replay(number, entry, &mut shards, &mut services);
        })
        .map_err(folder)?;
        let stop = CancellationToken::new();
        let shared = Shared {
            shards: shards.into_iter().map(Mutex::new).collect(),
            services: RwLock::new(services),
            log,
            maintenance: Mutex::new(()),
            _lock: lock,
            _background: stop.clone().drop_guard(),
            config,
        };
        Ok((Self { shared: Arc::new(shared) }, stop))
    }

    /// Forces the log to disk and folds it into the checkpoint, each at its moment, until the store is dropped.
    fn start_background(&self, stop: CancellationToken) {
        let shared = Arc::downgrade(&self.shared);
        let interval = Duration::from_millis(self.shared.config.sync_interval_ms.clamp(10, 60_000));
        tokio::spawn(async move {
            while tokio::time::timeout(interval, stop.cancelled()).await.is_err() {
                let Some(shared) = shared.upgrade() else { return };
                // A panic in there is already reported; the next round tries again.
                let _ = tokio::task::spawn_blocking(move || shared.keep()).await;
            }
        });
    }

    pub(crate) async fn apply(&self, ask: Ask) -> Result<Outcome, StoreError> {
        let uncertain = Uncertain {
            store: self,
            application: ask.application.clone(),
            ask: Some((ask.request, ask.attempt)),
        };
        let outcome = self.decide(ask)?;
        self.persisted().await?;
        uncertain.answered();
        Ok(outcome)
    }

    fn decide(&self, ask: Ask) -> Result<Outcome, StoreError> {
        let at = now();
        let service = self.shared.services.read().version(&ask.application.service);
        let mut shard = self.shared.shards[shard_of(&ask.application)].lock();
        if let Some(stale) = shard.stale(&ask, service) {
            drop(shard);
            // Judged anew, it may be refused: what an earlier attempt counted must not stay.
            if ask.attempt > 0 {
                self.take_back(&ask.application, ask.request, None, ask.attempt - 1)?;
            }
            return Ok(stale);
        }
        let counts = ask.mode == Mode::Count && !ask.increments.is_empty();
        // Even a first attempt may come after a later one, or after it was taken back.
        let known =
            if counts || ask.attempt > 0 { shard.recall(ask.request, ask.attempt) } else { Known::Nothing };
        match known {
            Known::Buried => return Err(StoreError::TakenBack),
            Known::Counted => {
                let used = shard.used(&ask.application, &ask.increments, at);
                return Ok(Outcome::Admitted { used, at });
            }
            Known::Nothing => {}
        }
        let used = shard.used(&ask.application, &ask.increments, at);
        if let Some(exceeded) = weir_core::counter::first_exceeded(&ask.increments, &used) {
            return Ok(Outcome::Refused { exceeded, used, at });
        }
        if !counts {
            return Ok(Outcome::Admitted { used, at });
        }
        let mut entry =
            LogEntry::counted(ask.request, ask.attempt, ask.application.clone(), &ask.increments, at);
        shard.note_replaced(&mut entry);
        let number = self.shared.log.append(&entry)?;
        shard.apply(number, &entry, at);
        Ok(Outcome::Admitted { used: shard.used(&ask.application, &ask.increments, at), at })
    }

    pub(crate) async fn cancel(
        &self,
        application: &ApplicationRef,
        request: RequestId,
        attempt: Option<u32>,
    ) -> Result<bool, StoreError> {
        let taken_back = self.take_back(application, request, attempt, attempt.unwrap_or(u32::MAX))?;
        self.persisted().await?;
        Ok(taken_back)
    }

    /// Attempts up to `last` that come later count nothing.
    fn take_back(
        &self,
        application: &ApplicationRef,
        request: RequestId,
        attempt: Option<u32>,
        last: u32,
    ) -> Result<bool, StoreError> {
        let at = now();
        let mut shard = self.shared.shards[shard_of(application)].lock();
        let was_counted = shard.was_counted(request, attempt);
        if was_counted {
            let entry = LogEntry::TakenBack { request, application: application.clone() };
            let number = self.shared.log.append(&entry)?;
            shard.apply(number, &entry, at);
        }
        shard.bury(request, last, at);
        Ok(was_counted)
    }

    pub(crate) async fn report(&self, report: Report) -> Result<bool, StoreError> {
        let counted = self.count_report(report)?;
        self.persisted().await?;
        Ok(counted)
    }

    /// Each shard counts its part under the same id, as in Redis.
    fn count_report(&self, report: Report) -> Result<bool, StoreError> {
        let at = now();
        let mut by_shard: std::collections::BTreeMap<usize, Vec<_>> = std::collections::BTreeMap::new();
        for entry in report.entries {
            by_shard.entry(shard_of(&entry.application)).or_default().push(entry);
        }
        let mut counted = false;
        for (place, entries) in by_shard {
            let mut shard = self.shared.shards[place].lock();
            if shard.was_reported(&report.idempotency_id, at) {
                continue;
            }
            let mut entry = LogEntry::reported(place, &report.idempotency_id, entries, at);
            shard.note_replaced(&mut entry);
            let number = self.shared.log.append(&entry)?;
            shard.apply(number, &entry, at);
            counted = true;
        }
        Ok(counted)
    }

    /// Waits for the disk where every answer has to be on it.
    async fn persisted(&self) -> Result<(), StoreError> {
        if self.shared.config.sync_interval_ms > 0 {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || shared.log.sync())
            .await
            .map_err(|error| StoreError::Log(std::io::Error::other(error)))?
            .map_err(StoreError::Log)
    }

    pub(crate) fn service(&self, id: &ServiceId) -> Option<Record> {
        self.shared.services.read().records.get(id).cloned()
    }

    pub(crate) fn services(&self) -> Vec<(ServiceId, Record)> {
        let services = self.shared.services.read();
        services.records.iter().map(|(id, record)| (id.clone(), record.clone())).collect()
    }

    pub(crate) fn application(&self, application: &ApplicationRef) -> Option<Record> {
        self.shared.shards[shard_of(application)].lock().record(application)
    }

    pub(crate) fn application_of_user_key(
        &self,
        service: &ServiceId,
        user_key: &KeyHash,
    ) -> Option<ApplicationId> {
        self.shared.services.read().user_keys.get(&(service.clone(), user_key.clone())).cloned()
    }

    pub(crate) fn revision(&self) -> u64 {
        self.shared.services.read().held.map_or(0, |(revision, _)| revision)
    }

    pub(crate) fn publish(&self, publication: Publication) -> Result<(), PublishError> {
        let _one_at_a_time = self.shared.maintenance.lock();
        if !ask::judge_revision(&publication, self.shared.services.read().held)? {
            return Ok(());
        }
        for change in self.application_changes(&publication) {
            let mut shard = self.shared.shards[shard_of(&change.application)].lock();
            let entry = LogEntry::Application(change);
            let number = self.shared.log.append(&entry)?;
            shard.apply(number, &entry, now());
            self.shared.services.write().index(&entry);
        }
        let mut services = self.shared.services.write();
        for change in ServiceChange::all(&publication, &services) {
            let entry = LogEntry::Service(change);
            self.shared.log.append(&entry)?;
            services.apply(&entry);
        }
        let entry = LogEntry::Revision { revision: publication.revision, digest: publication.digest() };
        self.shared.log.append(&entry)?;
        services.apply(&entry);
        Ok(())
    }

    fn application_changes(&self, publication: &Publication) -> Vec<entry::ApplicationChange> {
        let mut changes = Vec::new();
        let mut named = hashbrown::HashSet::new();
        for published in &publication.applications {
            named.insert(&published.application);
            let held = self.application(&published.application);
            if held.as_ref() != Some(&published.record) {
                changes.push(entry::ApplicationChange::put(published));
            }
        }
        let mut remove = |application: ApplicationRef| {
            changes.push(entry::ApplicationChange { application, record: None, user_key: None });
        };
        publication.removed_applications.iter().cloned().for_each(&mut remove);
        if publication.complete {
            for shard in &self.shared.shards {
                let held = shard.lock().published();
                held.into_iter().filter(|application| !named.contains(application)).for_each(&mut remove);
            }
        }
        changes
    }
}

/// Takes a request back when its caller leaves, or the disk fails, before it is answered.
struct Uncertain<'a> {
    store: &'a Embedded,
    application: ApplicationRef,
    ask: Option<(RequestId, u32)>,
}

impl Uncertain<'_> {
    fn answered(mut self) {
        self.ask = None;
    }
}

impl Drop for Uncertain<'_> {
    fn drop(&mut self) {
        let Some((request, attempt)) = self.ask else { return };
        if let Err(error) = self.store.take_back(&self.application, request, Some(attempt), attempt) {
            tracing::error!(error = %error, "cannot take back a request that was not answered");
        }
    }
}

impl Shared {
    /// One round of maintenance.
    fn keep(&self) {
        if let Err(error) = self.log.sync() {
            tracing::error!(error = %error, "cannot force the log of the embedded store to disk");
        }
        if self.log.bytes() < self.config.log_bytes_max {
            return;
        }
        let _one_at_a_time = self.maintenance.lock();
        if let Err(error) = checkpoint::write(&self.config.dir, &self.log, &self.shards, &self.services) {
            tracing::error!(error = %error, "cannot write the checkpoint of the embedded store");
        }
    }
}

fn replay(number: u64, entry: LogEntry, shards: &mut [Shard], services: &mut Services) {
    let at = entry.at();
    match &entry {
        LogEntry::Service(_) | LogEntry::Revision { .. } => services.apply(&entry),
        LogEntry::Application(change) => {
            shards[shard_of(&change.application)].apply(number, &entry, at);
            services.index(&entry);
        }
        LogEntry::Counted { shard, .. } => shards[*shard].apply(number, &entry, at),
        LogEntry::TakenBack { application, .. } => shards[shard_of(application)].apply(number, &entry, at),
    }
}
