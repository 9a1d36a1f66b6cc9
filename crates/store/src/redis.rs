//! The store in Redis 7 or later, shared by all listeners.
//!
//! Decisions travel as batches of one shard over a few multiplexed connections (see [`queue`]); the catalog is
//! read and written over checked-out connections of a pool, where pipelines are long and rare. The rules run
//! in Redis as a function library, [`FUNCTIONS`].
//!
//! A Redis that may lose or evict counters is refused at start.

mod batch;
mod catalog;
mod connect;
mod queue;

use std::sync::Arc;

use weir_core::ApplicationRef;
use weir_core::lease::ledger::Lease;

use crate::config::RedisConfig;
use crate::key;
use crate::{
    Ask, Entry, IDEMPOTENCY_ID_BYTES_MAX, LeaseAsk, LeaseOutcome, OpenError, Outcome, Report, RequestId,
    StoreError,
};
use batch::{Answer, Operation};
use queue::ShardQueue;

/// Parts of the ledger; part of the layout. So few, since what a call costs is shared by the operations that travel in
/// it: with many shards nearly every call carries one.
pub(crate) const SHARDS: usize = 4;

fn shard_of(application: &ApplicationRef) -> usize {
    key::shard_of(application) % SHARDS
}

fn shard_of_text(text: &str) -> usize {
    key::shard_of_text(text) % SHARDS
}

/// The function library, one text for decisions and catalog.
pub(crate) const FUNCTIONS: &str = include_str!("redis/functions.lua");

/// A store in Redis.
#[derive(Clone)]
pub struct Redis {
    shared: Arc<Shared>,
}

struct Shared {
    pool: deadpool_redis::Pool,
    reader: redis::aio::ConnectionManager,
    functions: connect::Functions,
    queues: Vec<ShardQueue>,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redis")
    }
}

impl Redis {
    /// Connects, checks that this Redis keeps what it is given, and loads the functions.
    pub(crate) async fn open(config: RedisConfig) -> Result<Self, OpenError> {
        metrics::describe_counter!("weir_store_calls_total", "Calls to Redis, each a batch of one shard");
        metrics::describe_counter!("weir_store_failures_total", "Calls to Redis whose outcome was unknown");
        let opened = connect::open(&config).await?;
        let waiting = Arc::default();
        let queues = (0..SHARDS)
            .map(|shard| {
                let connection = opened.connections[shard % opened.connections.len()].clone();
                ShardQueue::new(shard, connection, opened.functions.clone(), &config, Arc::clone(&waiting))
            })
            .collect();
        let reader = opened.connections[0].clone();
        let shared = Shared { pool: opened.pool, reader, functions: opened.functions, queues };
        Ok(Self { shared: Arc::new(shared) })
    }

    pub(crate) async fn apply(&self, ask: Ask) -> Result<Outcome, StoreError> {
        let queue = &self.shared.queues[shard_of(&ask.application)];
        match queue.ask(Operation::ask(ask)).await? {
            (Answer::Admitted { used }, at) => Ok(Outcome::Admitted { used, held: vec![], at }),
            (Answer::Refused { exceeded, used }, at) => {
                Ok(Outcome::Refused { exceeded, used, held: vec![], at })
            }
            (Answer::Stale { application, service }, _) => Ok(Outcome::Stale { application, service }),
            (Answer::Buried, _) => Err(StoreError::TakenBack),
            (other, _) => Err(StoreError::Answer(format!("{other:?} to an ask"))),
        }
    }

    pub(crate) async fn lease(&self, _ask: LeaseAsk) -> Result<LeaseOutcome, StoreError> {
        Err(StoreError::Answer("leases".into()))
    }

    pub(crate) async fn leases(&self, _application: &ApplicationRef) -> Result<Vec<Lease>, StoreError> {
        Ok(vec![])
    }

    pub(crate) async fn presume_due(&self) -> Result<(), StoreError> {
        Ok(())
    }

    pub(crate) async fn cancel(
        &self,
        application: &ApplicationRef,
        request: RequestId,
        attempt: Option<u32>,
    ) -> Result<bool, StoreError> {
        let queue = &self.shared.queues[shard_of(application)];
        match queue.ask(Operation::cancel(request, attempt)).await? {
            (Answer::TakenBack(taken_back), _) => Ok(taken_back),
            (other, _) => Err(StoreError::Answer(format!("{other:?} to a cancel"))),
        }
    }

    /// A report is counted in the parts that the embedded store has, too, each under the id and its number: so both
    /// agree on what an id names, and sending a report again completes it.
    pub(crate) async fn report(&self, report: Report) -> Result<bool, StoreError> {
        debug_assert!(report.idempotency_id.len() <= IDEMPOTENCY_ID_BYTES_MAX);
        let mut by_part: std::collections::BTreeMap<usize, Vec<Entry>> = std::collections::BTreeMap::new();
        for entry in report.entries {
            by_part.entry(key::shard_of(&entry.application)).or_default().push(entry);
        }
        let parts: Vec<_> = by_part
            .into_iter()
            .map(|(part, entries)| {
                let operation = Operation::report(part, &report.idempotency_id, entries);
                self.shared.queues[part % SHARDS].ask(operation)
            })
            .collect();
        let mut counted = false;
        for part in parts {
            match part.await? {
                (Answer::Reported(part), _) => counted |= part,
                (other, _) => return Err(StoreError::Answer(format!("{other:?} to a report"))),
            }
        }
        Ok(counted)
    }
}
