//! The queue of all shards: while a call is in flight, what arrives meanwhile travels together in the next.
//!
//! What a caller asks together stays together: one entry, one answer. A lone request pays no waiting time. A batch that
//! fails may or may not have been executed; the next batch has a higher number, after which Redis refuses the lost one,
//! and asks again as a retry whatever still has a caller. What has none is taken back. So an unknown outcome is always
//! found out, and never counts twice.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::ConnectionManager;
use tokio::sync::oneshot;
use weir_core::Timestamp;

use super::answer::Answer;
use super::batch::{Batch, Operation};
use super::connect::Functions;
use crate::config::RedisConfig;
use crate::{StoreError, key};

/// Most operations in one call, and so of one entry: bounds how long Redis is busy with it.
pub(super) const BATCH_OPERATIONS_MAX: usize = 256;

/// Pause before a batch whose predecessor failed is sent.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// Most operations that wait.
const WAITING_MAX: usize = 65_536;

/// Pause between two log lines about the same trouble.
const LOG_PAUSE_MS: i64 = 1_000;

/// Answers to the operations of an entry, and the moment of their windows.
pub(super) type Reply = Result<(Vec<Answer>, Timestamp), StoreError>;

struct Pending {
    operations: Vec<Operation>,
    caller: Caller,
}

enum Caller {
    Waits(oneshot::Sender<Reply>),
    /// Left; what it had counted is to be taken back.
    Gone,
}

/// The queue. One for all shards of a Redis: a call costs as much as several of its operations do.
pub(super) struct Queue {
    lane: Arc<Lane>,
}

struct Lane {
    connection: ConnectionManager,
    functions: Functions,
    /// Names this process: a new one each start, so that numbers begin at 1.
    writer: String,
    response_timeout: Duration,
    /// How many have to have a batch before it is answered.
    replicas: u32,
    /// Operations that wait.
    waiting: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Pending>,
    running: bool,
    last_number: u64,
}

impl Queue {
    pub(super) fn new(connection: ConnectionManager, functions: Functions, config: &RedisConfig) -> Self {
        let mut random = [0; 8];
        getrandom::fill(&mut random).expect("the system gives random bytes");
        Self {
            lane: Arc::new(Lane {
                connection,
                functions,
                writer: format!("{:016x}", u64::from_ne_bytes(random)),
                response_timeout: Duration::from_millis(config.response_timeout_ms),
                replicas: config.replicas,
                waiting: AtomicUsize::new(0),
                state: Mutex::default(),
            }),
        }
    }

    /// Puts operations into the next batch. The future is the caller's interest in them: dropped, what was
    /// counted is taken back.
    pub(super) fn ask(&self, operations: Vec<Operation>) -> impl Future<Output = Reply> + Send + use<> {
        debug_assert!(operations.len() <= BATCH_OPERATIONS_MAX);
        let (sender, receiver) = oneshot::channel();
        let accepted = self.lane.push(Pending { operations, caller: Caller::Waits(sender) });
        async move {
            accepted?;
            receiver.await.unwrap_or(Err(StoreError::Away(None)))
        }
    }
}

impl Lane {
    fn push(self: &Arc<Self>, pending: Pending) -> Result<(), StoreError> {
        let more = pending.operations.len();
        if self.waiting.fetch_add(more, Ordering::Relaxed) + more > WAITING_MAX {
            self.waiting.fetch_sub(more, Ordering::Relaxed);
            return Err(StoreError::Busy);
        }
        let mut state = self.state.lock();
        state.waiting.push_back(pending);
        if !state.running {
            state.running = true;
            tokio::spawn(Arc::clone(self).run());
        }
        Ok(())
    }

    async fn run(self: Arc<Self>) {
        while let Some((number, batch)) = self.next_batch() {
            let failed = self.send(number, batch).await;
            if let Some(batch) = failed {
                self.put_back(batch);
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }

    /// Takes what waits; drops what nobody waits for and was never sent. `None` ends the run.
    fn next_batch(&self) -> Option<(u64, Vec<Pending>)> {
        let mut state = self.state.lock();
        let (mut batch, mut operations) = (Vec::new(), 0);
        while let Some(pending) = state.waiting.pop_front() {
            let more = pending.operations.len();
            if operations + more > BATCH_OPERATIONS_MAX && !batch.is_empty() {
                state.waiting.push_front(pending);
                break;
            }
            self.waiting.fetch_sub(more, Ordering::Relaxed);
            if !pending.is_pointless() {
                operations += more;
                batch.push(pending);
            }
        }
        if batch.is_empty() {
            state.running = false;
            return None;
        }
        state.last_number += 1;
        Some((state.last_number, batch))
    }

    /// Sends a batch and answers its callers; gives it back when its outcome is unknown.
    async fn send(&self, number: u64, batch: Vec<Pending>) -> Option<Vec<Pending>> {
        let at = key::now();
        let divided = Batch::new(batch.iter().flat_map(|pending| &pending.operations));
        let call = divided.command(&self.functions.step, &self.writer, number, at);
        metrics::counter!("weir_store_calls_total").increment(1);
        match self.call(&call).await {
            Ok(value) => match divided.read_answers(value) {
                Ok(answers) => self.answer(batch, answers, at),
                Err(error) => refuse(batch, &error),
            },
            Err(error) if Functions::missing(&error) => {
                tracing::warn!("redis has lost the functions; loading them again");
                let mut connection = self.connection.clone();
                if let Err(error) = self.functions.load(&mut connection).await {
                    tracing::error!(error = %error, "cannot load the functions into redis");
                }
                return Some(batch);
            }
            Err(error) if is_final(&error) => refuse(batch, &StoreError::Answer(error.to_string())),
            Err(error) => match clock_skew_ms(&error) {
                Some(skew_ms) => {
                    if CLOCK_LOG.is_time(at) {
                        tracing::error!(
                            skew_ms,
                            "clock of redis and this machine differ; nothing is decided"
                        );
                    }
                    return Some(batch.into_iter().map(|pending| pending.refuse_clock(skew_ms)).collect());
                }
                None => {
                    metrics::counter!("weir_store_failures_total").increment(1);
                    tracing::debug!(error = %error, "redis did not answer");
                    return Some(batch);
                }
            },
        }
        None
    }

    async fn call(&self, call: &redis::Cmd) -> redis::RedisResult<redis::Value> {
        match tokio::time::timeout(self.response_timeout, self.call_replicated(call)).await {
            Ok(answer) => answer,
            Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        }
    }

    /// Every batch writes its number, so what replicas have of this one they have of all before, over whichever
    /// connection these went.
    async fn call_replicated(&self, call: &redis::Cmd) -> redis::RedisResult<redis::Value> {
        let mut connection = self.connection.clone();
        if self.replicas == 0 {
            return call.query_async(&mut connection).await;
        }
        let mut pipe = redis::pipe();
        // The other half of the time is for the call.
        pipe.add_command(call.clone())
            .add_command(wait_for_replicas(self.replicas, self.response_timeout / 2));
        pipe.ignore_errors();
        let answers: (redis::RedisResult<redis::Value>, redis::RedisResult<u32>) =
            pipe.query_async(&mut connection).await?;
        let (answer, acknowledged) = (answers.0?, answers.1?);
        if acknowledged < self.replicas {
            metrics::counter!("weir_store_unreplicated_total").increment(1);
            if UNREPLICATED_LOG.is_time(key::now()) {
                let wanted = self.replicas;
                tracing::error!(acknowledged, wanted, "too few replicas of redis answer; nothing is decided");
            }
            return Err(unreplicated());
        }
        Ok(answer)
    }

    fn answer(&self, batch: Vec<Pending>, answers: Vec<Answer>, at: Timestamp) {
        let (mut answers, mut taken_back) = (answers.into_iter(), Vec::new());
        for Pending { operations, caller } in batch {
            let answers: Vec<Answer> = answers.by_ref().take(operations.len()).collect();
            let Caller::Waits(caller) = caller else { continue };
            let Err(Ok((answers, _))) = caller.send(Ok((answers, at))) else { continue };
            let admitted = operations.iter().zip(answers).filter(|(_, answer)| answer.is_admission());
            let operations: Vec<_> = admitted.filter_map(|(operation, _)| operation.undo()).collect();
            if !operations.is_empty() {
                taken_back.push(Pending { operations, caller: Caller::Gone });
            }
        }
        self.put_back(taken_back);
    }

    /// Puts operations of unknown outcome in front of what waits: asks as retries, those without a caller as
    /// cancels. Not bounded by the queue's maximum, since they were within it before.
    fn put_back(&self, batch: Vec<Pending>) {
        let mut state = self.state.lock();
        for pending in batch.into_iter().rev() {
            if let Some(again) = pending.again() {
                self.waiting.fetch_add(again.operations.len(), Ordering::Relaxed);
                state.waiting.push_front(again);
            }
        }
    }
}

impl Pending {
    /// Nobody waits, and it was not sent yet: a retry may have been.
    fn is_pointless(&self) -> bool {
        match &self.caller {
            Caller::Waits(caller) => {
                caller.is_closed() && !self.operations.iter().any(|operation| operation.looked_up)
            }
            Caller::Gone => false,
        }
    }

    /// Tells the caller; what remains is only whether an earlier attempt has to be taken back.
    fn refuse_clock(self, skew_ms: i64) -> Self {
        let Caller::Waits(caller) = self.caller else { return self };
        // A caller that left needs no answer.
        let _ = caller.send(Err(StoreError::Clock(skew_ms)));
        let (closed, _) = oneshot::channel();
        Self { operations: self.operations, caller: Caller::Waits(closed) }
    }

    fn again(mut self) -> Option<Self> {
        match &self.caller {
            Caller::Gone => Some(self),
            Caller::Waits(caller) if !caller.is_closed() => {
                self.operations.iter_mut().for_each(|operation| operation.looked_up = true);
                Some(self)
            }
            Caller::Waits(_) => {
                let operations: Vec<_> = self.operations.iter().filter_map(Operation::undo).collect();
                (!operations.is_empty()).then_some(Self { operations, caller: Caller::Gone })
            }
        }
    }
}

fn refuse(batch: Vec<Pending>, error: &StoreError) {
    tracing::error!(error = %error, "redis answered something unexpected");
    for pending in batch {
        if let Caller::Waits(caller) = pending.caller {
            // A caller that left needs no answer: nothing was counted for it.
            let _ = caller.send(Err(StoreError::Answer(error.to_string())));
        }
    }
}

/// Whether Redis refused the call itself, so that asking again would end the same way.
fn is_final(error: &redis::RedisError) -> bool {
    error.kind() == redis::ErrorKind::Server(redis::ServerErrorKind::ResponseError)
}

/// Asks how many replicas have what a connection has written so far, once enough do or the time is over.
pub(super) fn wait_for_replicas(replicas: u32, timeout: Duration) -> redis::Cmd {
    let mut wait = redis::cmd("WAIT");
    // 0 would be for ever.
    wait.arg(replicas).arg(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1));
    wait
}

/// It was done, but a fail-over may forget it: its outcome is not known.
pub(super) fn unreplicated() -> redis::RedisError {
    std::io::Error::other("too few replicas have it").into()
}

/// When a line was logged that is not worth more than one a second, however many batches find out.
struct LogPause(AtomicI64);

static CLOCK_LOG: LogPause = LogPause(AtomicI64::new(0));
static UNREPLICATED_LOG: LogPause = LogPause(AtomicI64::new(0));

impl LogPause {
    fn is_time(&self, now: Timestamp) -> bool {
        let last = self.0.load(Ordering::Relaxed);
        now.unix_ms() - last >= LOG_PAUSE_MS
            && self.0.compare_exchange(last, now.unix_ms(), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

fn clock_skew_ms(error: &redis::RedisError) -> Option<i64> {
    (error.code() == Some("WEIRCLOCK")).then(|| error.detail().and_then(|text| text.trim().parse().ok()))?
}
