//! One queue per shard: while a call is in flight, what arrives meanwhile travels together in the next.
//!
//! A lone request pays no waiting time. A batch that fails may or may not have been executed; the next batch
//! has a higher number, after which Redis refuses the lost one, and asks again as a retry whatever still has a
//! caller. What has none is taken back. So an unknown outcome is always found out, and never counts twice.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::ConnectionManager;
use tokio::sync::oneshot;
use weir_core::Timestamp;

use super::batch::{Answer, Operation, RETRY_PAUSE, command, read_answers, together};
use super::connect::Functions;
use crate::config::RedisConfig;
use crate::{StoreError, key};

/// Most operations in one call: bounds how long Redis is busy with it.
const BATCH_OPERATIONS_MAX: usize = 256;

/// Most operations waiting in all shards together.
const WAITING_MAX: usize = 65_536;

/// Pause between two log lines about clocks that differ.
const CLOCK_LOG_PAUSE_MS: i64 = 1_000;

type Reply = Result<(Answer, Timestamp), StoreError>;

struct Pending {
    operation: Operation,
    caller: Caller,
}

enum Caller {
    Waits(oneshot::Sender<Reply>),
    /// Left; what it had counted is to be taken back.
    Gone,
}

/// The queue of one shard.
pub(super) struct ShardQueue {
    lane: Arc<Lane>,
}

struct Lane {
    shard: usize,
    connection: ConnectionManager,
    functions: Functions,
    /// Names this process: a new one each start, so that numbers begin at 1.
    writer: String,
    response_timeout: Duration,
    /// Operations waiting in all shards.
    waiting: Arc<AtomicUsize>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Pending>,
    running: bool,
    last_number: u64,
}

impl ShardQueue {
    pub(super) fn new(
        shard: usize,
        connection: ConnectionManager,
        functions: Functions,
        config: &RedisConfig,
        waiting: Arc<AtomicUsize>,
    ) -> Self {
        let mut random = [0; 8];
        getrandom::fill(&mut random).expect("the system gives random bytes");
        Self {
            lane: Arc::new(Lane {
                shard,
                connection,
                functions,
                writer: format!("{:016x}", u64::from_ne_bytes(random)),
                response_timeout: Duration::from_millis(config.response_timeout_ms),
                waiting,
                state: Mutex::default(),
            }),
        }
    }

    /// Puts an operation into the next batch. The future is the caller's interest in it: dropped, what was
    /// counted is taken back.
    pub(super) fn ask(&self, operation: Operation) -> impl Future<Output = Reply> + Send + use<> {
        let (sender, receiver) = oneshot::channel();
        let accepted = self.lane.push(Pending { operation, caller: Caller::Waits(sender) });
        async move {
            accepted?;
            receiver.await.unwrap_or(Err(StoreError::Away(None)))
        }
    }
}

impl Lane {
    fn push(self: &Arc<Self>, pending: Pending) -> Result<(), StoreError> {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
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
        let mut batch = Vec::new();
        while batch.len() < BATCH_OPERATIONS_MAX {
            let next = state.waiting.pop_front();
            self.waiting.fetch_sub(next.is_some().into(), Ordering::Relaxed);
            match next {
                Some(pending) if pending.is_pointless() => {}
                Some(pending) => batch.push(pending),
                None => break,
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
        let operations: Vec<&Operation> = batch.iter().map(|pending| &pending.operation).collect();
        let groups = together(&operations);
        let call = command(&self.functions.step, self.shard, &self.writer, number, at, &groups);
        metrics::counter!("weir_store_calls_total").increment(1);
        match self.call(&call).await {
            Ok(value) => match read_answers(value, &groups) {
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
                    log_clock_skew(skew_ms, at);
                    return Some(batch.into_iter().map(|pending| pending.refuse_clock(skew_ms)).collect());
                }
                None => {
                    metrics::counter!("weir_store_failures_total").increment(1);
                    tracing::debug!(error = %error, shard = self.shard, "redis did not answer");
                    return Some(batch);
                }
            },
        }
        None
    }

    async fn call(&self, call: &redis::Cmd) -> redis::RedisResult<redis::Value> {
        let mut connection = self.connection.clone();
        let answer = call.query_async(&mut connection);
        match tokio::time::timeout(self.response_timeout, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        }
    }

    fn answer(&self, batch: Vec<Pending>, answers: Vec<Answer>, at: Timestamp) {
        let mut taken_back = Vec::new();
        for (pending, answer) in batch.into_iter().zip(answers) {
            let Caller::Waits(caller) = pending.caller else { continue };
            let admitted = matches!(answer, Answer::Admitted { .. });
            let unheard = caller.send(Ok((answer, at))).is_err();
            if let (true, Some(operation)) = (unheard && admitted, pending.operation.undo()) {
                taken_back.push(Pending { operation, caller: Caller::Gone });
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
                self.waiting.fetch_add(1, Ordering::Relaxed);
                state.waiting.push_front(again);
            }
        }
    }
}

impl Pending {
    /// Nobody waits, and it was not sent yet: a retry may have been.
    fn is_pointless(&self) -> bool {
        match &self.caller {
            Caller::Waits(caller) => caller.is_closed() && !self.operation.looked_up,
            Caller::Gone => false,
        }
    }

    /// Tells the caller; what remains is only whether an earlier attempt has to be taken back.
    fn refuse_clock(self, skew_ms: i64) -> Self {
        let Caller::Waits(caller) = self.caller else { return self };
        // A caller that left needs no answer.
        let _ = caller.send(Err(StoreError::Clock(skew_ms)));
        let (closed, _) = oneshot::channel();
        Self { operation: self.operation, caller: Caller::Waits(closed) }
    }

    fn again(mut self) -> Option<Self> {
        match &self.caller {
            Caller::Gone => Some(self),
            Caller::Waits(caller) if !caller.is_closed() => {
                self.operation.looked_up = true;
                Some(self)
            }
            Caller::Waits(_) => {
                let operation = self.operation.undo()?;
                Some(Self { operation, caller: Caller::Gone })
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

/// Once a second at most, however many shards and batches find out.
fn log_clock_skew(skew_ms: i64, now: Timestamp) {
    static LOGGED: AtomicI64 = AtomicI64::new(0);
    let last = LOGGED.load(Ordering::Relaxed);
    if now.unix_ms() - last >= CLOCK_LOG_PAUSE_MS
        && LOGGED.compare_exchange(last, now.unix_ms(), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    {
        tracing::error!(skew_ms, "clock of redis and this machine differ; nothing is decided");
    }
}

fn clock_skew_ms(error: &redis::RedisError) -> Option<i64> {
    (error.code() == Some("WEIRCLOCK")).then(|| error.detail().and_then(|text| text.trim().parse().ok()))?
}
