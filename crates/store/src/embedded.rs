//! The store in this process: memory is the truth, a log makes it last, a checkpoint keeps the log short.
//!
//! Everything is under one lock, which is held for less than a microsecond a decision. Each step is appended to the
//! log with `write(2)` before it is answered, together with all that came meanwhile, so a killed process loses
//! nothing; the log is forced to disk at the configured moment, which is what a power cut can cost. The folder belongs
//! to one process at a time.
//!
//! Same algorithm as the functions in Redis; the contract suite runs over both.

mod account;
mod bytes;
mod checkpoint;
mod entry;
mod errors;
mod events;
mod leases;
mod ledger;
mod log;
mod recent;
mod tail;

use std::fs::File;
use std::io::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hashbrown::HashSet;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use weir_core::lease::ledger::Lease;
use weir_core::{ApplicationId, ApplicationRef, KeyHash, ServiceId};

use crate::config::EmbeddedConfig;
use crate::key::now;
use crate::recalls::{Hearers, Recall};
use crate::{
    Ask, LeaseAsk, LeaseOutcome, Mode, OpenError, Outcome, Publication, PublishError, Record, Report,
    RequestId, StoreError, ask,
};
use entry::Entry;
use ledger::Ledger;
use log::Log;
use tail::Tail;

/// A publication is written whenever so much of it has come together.
const PUBLISHED_BYTES: usize = 1 << 20;

/// When what was decided is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// At once: much was decided together.
    Now,
    /// When all tasks that are ready to run have had their turn: what they decide is written together with it, which
    /// saves most of the calls to the kernel where many ask at once. A lone request waits for nobody.
    WithOthers,
}

/// A store in a folder.
#[derive(Clone)]
pub struct Embedded {
    shared: Arc<Shared>,
}

struct Shared {
    config: EmbeddedConfig,
    book: Mutex<Book>,
    log: Log,
    /// The log could not be written last time: nothing is counted until it can.
    failing: AtomicBool,
    checkpoint_bytes: AtomicU64,
    recalls: Hearers,
    /// Serialises publications and checkpoints.
    maintenance: Mutex<()>,
    /// Held as long as the store: one process per folder.
    _lock: File,
    _background: DropGuard,
}

/// The ledger, and those of its steps that are not written yet.
struct Book {
    ledger: Ledger,
    tail: Tail,
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

        let (mut ledger, next) = checkpoint::load(&config.dir)
            .map_err(|error| OpenError::Checkpoint { dir: config.dir.clone(), problem: error.to_string() })?;
        ledger.leases.begin(now());
        let replay = |number, entry: &[u8]| ledger.apply(number, entry);
        let (log, next) = log::open(&config.dir, next, replay).map_err(folder)?;
        let stop = CancellationToken::new();
        let shared = Shared {
            book: Mutex::new(Book { ledger, tail: Tail::new(next) }),
            log,
            failing: AtomicBool::new(false),
            checkpoint_bytes: AtomicU64::new(checkpoint::bytes(&config.dir)),
            recalls: Hearers::default(),
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

    /// Decides requests in their order, as [`crate::Store::apply`] does one; all of them are written down together. Waits
    /// for nothing but its turn to write, and the disk where every answer has to be on it.
    pub(crate) async fn apply_all(&self, asks: &[Ask], write: Write) -> Vec<Result<Outcome, StoreError>> {
        if asks.is_empty() {
            return vec![];
        }
        let counting = asks.iter().filter(|ask| ask.mode == Mode::Count);
        let asked = counting.map(|ask| (ask.request, ask.attempt)).collect();
        let uncertain = Uncertain { store: self, asked };
        let outcomes = self.decide(asks);
        if write == Write::WithOthers {
            tokio::task::yield_now().await;
        }
        match self.persist().await {
            Ok(()) => {
                uncertain.answered();
                outcomes
            }
            Err(error) => refuse(asks, error),
        }
    }

    /// Decides requests in their order. None of it may be answered before [`Self::persist`] has returned.
    fn decide(&self, asks: &[Ask]) -> Vec<Result<Outcome, StoreError>> {
        if let Err(error) = self.shared.catch_up() {
            return refuse(asks, error);
        }
        let at = now();
        let mut book = self.shared.book.lock();
        let Book { ledger, tail } = &mut *book;
        ledger.fetch(asks);
        asks.iter().map(|ask| ledger.decide(ask, tail, at)).collect()
    }

    pub(crate) async fn lease(&self, ask: &LeaseAsk) -> Result<LeaseOutcome, StoreError> {
        self.shared.catch_up().map_err(StoreError::Log)?;
        let outcome = {
            let mut book = self.shared.book.lock();
            let Book { ledger, tail } = &mut *book;
            ledger.lease(ask, tail, now())
        };
        self.persist().await.map_err(StoreError::Log)?;
        Ok(outcome)
    }

    pub(crate) fn leases(&self, application: &ApplicationRef) -> Vec<Lease> {
        let book = self.shared.book.lock();
        book.ledger.find(application).map_or_else(Vec::new, |at| book.ledger.accounts[at].leases().to_vec())
    }

    pub(crate) async fn presume_due(&self) -> Result<(), StoreError> {
        self.shared.catch_up().map_err(StoreError::Log)?;
        {
            let mut book = self.shared.book.lock();
            let Book { ledger, tail } = &mut *book;
            ledger.presume_due(tail, now());
        }
        self.persist().await.map_err(StoreError::Log)
    }

    pub(crate) fn recall(&self, recalls: &[Recall]) {
        recalls.iter().for_each(|recall| self.shared.recalls.tell(recall));
    }

    pub(crate) fn recalls(&self) -> mpsc::Receiver<Recall> {
        self.shared.recalls.join()
    }

    pub(crate) async fn cancel(&self, request: RequestId, attempt: Option<u32>) -> Result<bool, StoreError> {
        let taken_back = self.take_back(request, attempt, attempt.unwrap_or(u32::MAX));
        self.persist().await.map_err(StoreError::Log)?;
        Ok(taken_back)
    }

    /// Attempts up to `last` that come later count nothing.
    fn take_back(&self, request: RequestId, attempt: Option<u32>, last: u32) -> bool {
        let mut book = self.shared.book.lock();
        let Book { ledger, tail } = &mut *book;
        ledger.take_back(request, attempt, last, tail, now())
    }

    pub(crate) async fn report(&self, report: Report) -> Result<bool, StoreError> {
        self.shared.catch_up().map_err(StoreError::Log)?;
        let counted = {
            let mut book = self.shared.book.lock();
            let Book { ledger, tail } = &mut *book;
            ledger.report(&report, tail, now())
        };
        self.persist().await.map_err(StoreError::Log)?;
        Ok(counted)
    }

    /// Whether every answer has to be on disk before it is given.
    pub(crate) fn forces_each(&self) -> bool {
        self.shared.config.sync_interval_ms == 0
    }

    /// Writes what was decided, and waits for the disk where every answer has to be on it.
    async fn persist(&self) -> Result<(), Error> {
        if !self.forces_each() {
            return self.shared.write();
        }
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || shared.sync()).await.map_err(Error::other)?
    }

    pub(crate) fn service(&self, id: &ServiceId) -> Option<Record> {
        self.shared.book.lock().ledger.services.get(id).cloned()
    }

    pub(crate) fn services(&self) -> Vec<(ServiceId, Record)> {
        let book = self.shared.book.lock();
        book.ledger.services.iter().map(|(id, record)| (id.clone(), record.clone())).collect()
    }

    pub(crate) fn application(&self, application: &ApplicationRef) -> Option<Record> {
        let book = self.shared.book.lock();
        let account = book.ledger.find(application)?;
        book.ledger.accounts[account].record.clone()
    }

    pub(crate) fn application_of_user_key(
        &self,
        service: &ServiceId,
        user_key: &KeyHash,
    ) -> Option<ApplicationId> {
        self.shared.book.lock().ledger.application_of_user_key(service, user_key)
    }

    pub(crate) fn revision(&self) -> u64 {
        self.shared.book.lock().ledger.held.map_or(0, |(revision, _)| revision)
    }

    pub(crate) fn publish(&self, publication: Publication) -> Result<(), PublishError> {
        self.shared.catch_up().map_err(StoreError::Log)?;
        let _one_at_a_time = self.shared.maintenance.lock();
        let held = self.shared.book.lock().ledger.held;
        if !ask::judge_revision(&publication, held)? {
            return Ok(());
        }
        let mut changed = self.put_applications(&publication)?;
        changed.extend(self.remove_applications(&publication)?);
        let mut book = self.shared.book.lock();
        let Book { ledger, tail } = &mut *book;
        let changed_services = ledger.put_services(&publication, tail);
        let (revision, digest) = (publication.revision, publication.digest());
        ledger.step(&Entry::Revision { revision, digest }, tail);
        drop(book);
        self.shared.write().map_err(StoreError::Log)?;
        self.recall(&Recall::of_changes(changed_services, changed));
        Ok(())
    }

    /// Returns which have changed.
    fn put_applications(&self, publication: &Publication) -> Result<Vec<ApplicationRef>, StoreError> {
        let mut changed = vec![];
        for published in &publication.applications {
            self.change(|ledger, tail| {
                let account = ledger.open(&published.application, tail);
                if ledger.accounts[account].record.as_ref() != Some(&published.record) {
                    let user_key = published.user_key.as_ref().map(KeyHash::to_string);
                    let (record, user_key) = (Some(&published.record.bytes[..]), user_key.as_deref());
                    ledger.step(&Entry::Application { account, record, user_key }, tail);
                    changed.push(published.application.clone());
                }
            })?;
        }
        Ok(changed)
    }

    /// Returns which are gone.
    fn remove_applications(&self, publication: &Publication) -> Result<Vec<ApplicationRef>, StoreError> {
        let find = |application| self.shared.book.lock().ledger.find(application);
        let gone: Vec<usize> = if publication.complete {
            let named = publication.applications.iter().filter_map(|published| find(&published.application));
            let named: HashSet<usize> = named.collect();
            let accounts = self.shared.book.lock().ledger.accounts.len();
            (0..accounts).filter(|account| !named.contains(account)).collect()
        } else {
            publication.removed_applications.iter().filter_map(find).collect()
        };
        let mut removed = vec![];
        for account in gone {
            self.change(|ledger, tail| {
                if ledger.accounts[account].record.is_some() {
                    ledger.step(&Entry::Application { account, record: None, user_key: None }, tail);
                    removed.extend(ledger.accounts[account].name.parse());
                }
            })?;
        }
        Ok(removed)
    }

    /// One change of a publication.
    fn change(&self, change: impl FnOnce(&mut Ledger, &mut Tail)) -> Result<(), StoreError> {
        let mut book = self.shared.book.lock();
        let Book { ledger, tail } = &mut *book;
        change(ledger, tail);
        let is_much = tail.bytes() >= PUBLISHED_BYTES;
        drop(book);
        if is_much { self.shared.write().map_err(StoreError::Log) } else { Ok(()) }
    }
}

/// Takes requests back when their caller leaves, or the disk fails, before they are answered.
struct Uncertain<'a> {
    store: &'a Embedded,
    asked: Vec<(RequestId, u32)>,
}

impl Uncertain<'_> {
    fn answered(mut self) {
        self.asked.clear();
    }
}

impl Drop for Uncertain<'_> {
    fn drop(&mut self) {
        for (request, attempt) in std::mem::take(&mut self.asked) {
            self.store.take_back(request, Some(attempt), attempt);
        }
    }
}

fn refuse(asks: &[Ask], error: Error) -> Vec<Result<Outcome, StoreError>> {
    let error = StoreError::Log(error);
    asks.iter().map(|_| Err(error.again())).collect()
}

impl Shared {
    /// Writes what could not be written last time. Comes before whatever adds to the log: as long as it fails, nothing
    /// may be added, or what waits to be written grows with every call.
    fn catch_up(&self) -> Result<(), Error> {
        if self.failing.load(Ordering::Acquire) { self.write() } else { Ok(()) }
    }

    fn write(&self) -> Result<(), Error> {
        self.noted(self.log.write(&self.book))
    }

    fn sync(&self) -> Result<(), Error> {
        self.noted(self.log.sync(&self.book))
    }

    fn noted(&self, written: Result<(), Error>) -> Result<(), Error> {
        if written.is_err() || self.failing.load(Ordering::Relaxed) {
            self.failing.store(written.is_err(), Ordering::Release);
        }
        written
    }

    /// One round of maintenance.
    fn keep(&self) {
        if let Err(error) = self.sync() {
            tracing::error!(error = %error, "cannot force the log of the embedded store to disk");
        }
        // A long checkpoint is not worth its while for a short log.
        let log_bytes_max = self.config.log_bytes_max.max(self.checkpoint_bytes.load(Ordering::Relaxed));
        if self.log.bytes() < log_bytes_max {
            return;
        }
        let _one_at_a_time = self.maintenance.lock();
        match checkpoint::write(&self.config.dir, &self.log, &self.book) {
            Ok(bytes) => self.checkpoint_bytes.store(bytes, Ordering::Relaxed),
            Err(error) => {
                tracing::error!(error = %error, "cannot write the checkpoint of the embedded store")
            }
        }
    }
}
