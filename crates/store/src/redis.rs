//! The store in Redis 7 or later, shared by all listeners.
//!
//! Decisions travel as batches over a connection of their own (see [`queue`]), records are read one by one over another;
//! the catalog is written over checked-out connections of a pool, where pipelines are long and rare. The rules run
//! in Redis as a function library, [`FUNCTIONS`].
//!
//! A Redis that may lose or evict counters is refused at start.

mod answer;
mod batch;
mod catalog;
mod connect;
mod errors;
mod events;
mod lease;
mod queue;
mod recalls;

use std::sync::Arc;

use weir_core::{ApplicationRef, Timestamp};

use crate::config::RedisConfig;
use crate::key;
use crate::{
    Ask, Entry, IDEMPOTENCY_ID_BYTES_MAX, LeaseAsk, LeaseOutcome, OpenError, Outcome, Report, RequestId,
    StoreError,
};
use answer::Answer;
use batch::{Operation, PRESUMED_MAX};
use queue::{BATCH_OPERATIONS_MAX, Queue, Reply};

/// Parts of the ledger; part of the layout. So few, since what a part costs in a call is shared by its operations.
pub(crate) const SHARDS: usize = 4;

fn shard_of(application: &ApplicationRef) -> usize {
    key::shard_of(application) % SHARDS
}

fn shard_of_text(text: &str) -> usize {
    key::shard_of_text(text) % SHARDS
}

/// The function library, one text for decisions and catalog.
pub(crate) const FUNCTIONS: &str = concat!(
    include_str!("redis/counters.lua"),
    include_str!("redis/events.lua"),
    include_str!("redis/leases.lua"),
    include_str!("redis/functions.lua")
);

/// A store in Redis.
#[derive(Clone)]
pub struct Redis {
    shared: Arc<Shared>,
}

struct Shared {
    client: redis::Client,
    pool: deadpool_redis::Pool,
    reader: redis::aio::ConnectionManager,
    functions: connect::Functions,
    queue: Queue,
    /// How many have to have what is answered.
    replicas: u32,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redis")
    }
}

impl Redis {
    /// Connects, checks that this Redis keeps what it is given, and loads the functions.
    pub(crate) async fn open(config: RedisConfig) -> Result<Self, OpenError> {
        metrics::describe_counter!("weir_store_calls_total", "Calls to Redis, each a batch of decisions");
        metrics::describe_counter!("weir_store_failures_total", "Calls to Redis whose outcome was unknown");
        metrics::describe_counter!(
            "weir_store_unreplicated_total",
            "Calls to Redis that too few replicas acknowledged in time"
        );
        let opened = connect::open(&config).await?;
        let queue = Queue::new(opened.decider, opened.functions.clone(), &config);
        let shared = Shared {
            client: opened.client,
            pool: opened.pool,
            reader: opened.reader,
            functions: opened.functions,
            queue,
            replicas: config.replicas,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Decides requests in their order.
    pub(crate) async fn apply_all(&self, asks: &Arc<Vec<Ask>>) -> Vec<Result<Outcome, StoreError>> {
        let operations = (0..asks.len()).map(|place| Operation::ask(asks, place)).collect();
        let mut outcomes = Vec::with_capacity(asks.len());
        for reply in self.ask(operations) {
            match reply.await {
                Ok((answers, at)) => outcomes.extend(answers.into_iter().map(|answer| outcome(answer, at))),
                // Those of later entries are taken back, since nobody waits for them then.
                Err(error) => {
                    outcomes.resize_with(asks.len(), || Err(error.again()));
                    break;
                }
            }
        }
        outcomes
    }

    /// Puts operations in the queue.
    fn ask(&self, mut operations: Vec<Operation>) -> Vec<impl Future<Output = Reply> + Send + use<>> {
        let mut replies = Vec::with_capacity(1);
        while !operations.is_empty() {
            let later = operations.split_off(operations.len().min(BATCH_OPERATIONS_MAX));
            replies.push(self.shared.queue.ask(operations));
            operations = later;
        }
        replies
    }

    async fn one(&self, operation: Operation) -> Result<Answer, StoreError> {
        let (mut answers, _) = self.shared.queue.ask(vec![operation]).await?;
        answers.pop().ok_or_else(|| StoreError::Answer("nothing".into()))
    }

    pub(crate) async fn lease(&self, ask: LeaseAsk) -> Result<LeaseOutcome, StoreError> {
        match self.one(Operation::lease(ask)).await? {
            Answer::Heard { reply, incarnation } => Ok(LeaseOutcome::Answered { reply, incarnation }),
            Answer::Stale { application, service } => Ok(LeaseOutcome::Stale { application, service }),
            other => Err(StoreError::Answer(format!("{other:?} to a message about a lease"))),
        }
    }

    pub(crate) async fn presume_due(&self) -> Result<(), StoreError> {
        let mut shards: Vec<usize> = (0..SHARDS).collect();
        // What is presumed is not due any more, so there is an end to this.
        while !shards.is_empty() {
            let operations = shards.iter().map(|shard| Operation::presume(*shard)).collect();
            let (answers, _) = self.shared.queue.ask(operations).await?;
            for (shard, answer) in shards.iter().zip(&answers) {
                if let Answer::Presumed { lent, .. } = answer {
                    crate::tell_lent(*shard, *lent);
                }
            }
            let is_full = |answer: &Answer| matches!(answer, Answer::Presumed { applications, .. } if *applications == PRESUMED_MAX);
            shards = shards.into_iter().zip(&answers).filter(|(_, a)| is_full(a)).map(|(s, _)| s).collect();
        }
        Ok(())
    }

    pub(crate) async fn cancel(
        &self,
        application: &ApplicationRef,
        request: RequestId,
        attempt: Option<u32>,
    ) -> Result<bool, StoreError> {
        match self.one(Operation::cancel(application, request, attempt)).await? {
            Answer::TakenBack(taken_back) => Ok(taken_back),
            other => Err(StoreError::Answer(format!("{other:?} to a cancel"))),
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
        let parts = by_part.into_iter();
        let operations: Vec<Operation> = parts
            .map(|(part, entries)| {
                Operation::report(part, &report.idempotency_id, report.gives_back, entries)
            })
            .collect();
        let mut counted = false;
        for reply in self.ask(operations) {
            for answer in reply.await?.0 {
                match answer {
                    Answer::Reported(part) => counted |= part,
                    other => return Err(StoreError::Answer(format!("{other:?} to a report"))),
                }
            }
        }
        Ok(counted)
    }
}

fn outcome(answer: Answer, at: Timestamp) -> Result<Outcome, StoreError> {
    match answer {
        Answer::Admitted { used, held } => Ok(Outcome::Admitted { used, held, at }),
        Answer::Refused { exceeded, used, held } => Ok(Outcome::Refused { exceeded, used, held, at }),
        Answer::Stale { application, service } => Ok(Outcome::Stale { application, service }),
        Answer::Buried => Err(StoreError::TakenBack),
        other => Err(StoreError::Answer(format!("{other:?} to an ask"))),
    }
}
