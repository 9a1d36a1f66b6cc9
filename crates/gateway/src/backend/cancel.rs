//! Takes back requests whose decision never reached the gateway, so that a client who was refused is not counted.
//!
//! The queue is bounded. What is in it is sent again until a listener acknowledges it; what no longer fits is
//! dropped, counted and logged, and stays counted for its application.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::{sleep, timeout};
use tonic::Code;
use tracing::{error, warn};
use weir_proto::v1::stream_answer::Answer;
use weir_proto::v1::{CancelRequest, stream_ask};

use super::Links;
use super::link::Ask;
use crate::listener::Backoff;
use crate::meters::{self, Bound};

/// Most that are sent at a time.
const BATCH: usize = 512;
/// Longest wait for an acknowledgement before it is sent again.
const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_secs(2);

/// A request to be taken back.
#[derive(Clone)]
pub(crate) struct Cancel {
    pub(crate) request: CancelRequest,
    /// Where it was asked last: there a taking-back cannot overtake it.
    pub(crate) link: usize,
}

/// The queue.
pub(crate) struct Cancels {
    queue: Mutex<VecDeque<Cancel>>,
    max: usize,
    filled: Notify,
    emptied: Notify,
}

impl Cancels {
    /// An empty queue for at most `max`.
    pub(crate) fn new(max: usize) -> Self {
        Self { queue: Mutex::default(), max, filled: Notify::new(), emptied: Notify::new() }
    }

    /// Queues a taking-back.
    pub(crate) fn push(&self, cancel: Cancel) {
        let mut queue = self.queue.lock();
        if queue.len() >= self.max {
            drop(queue);
            meters::bound_hit(Bound::Cancels);
            meters::cancels_dropped().increment(1);
            warn!(
                service.id = cancel.request.service_id,
                "too many takings-back wait; a refused request stays counted"
            );
            return;
        }
        queue.push_back(cancel);
        meters::cancels_waiting().increment(1);
        drop(queue);
        self.filled.notify_one();
    }

    /// Sends what is queued, for ever.
    pub(crate) async fn run(&self, links: &Links) {
        let mut backoff = Backoff::default();
        loop {
            let batch: Vec<_> = self.queue.lock().iter().take(BATCH).cloned().collect();
            if batch.is_empty() {
                self.emptied.notify_waiters();
                self.filled.notified().await;
                continue;
            }
            let done = join_all(batch.iter().map(|cancel| acknowledge(links, cancel))).await;
            let is_progress = self.finish(batch, &done);
            if is_progress {
                backoff.reset();
            } else {
                sleep(backoff.next()).await;
            }
        }
    }

    /// Ends once nothing is queued.
    pub(crate) async fn drained(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.queue.lock().is_empty() {
                return;
            }
            emptied.await;
        }
    }

    /// Takes what is done off the queue's front; whether any of it was.
    fn finish(&self, batch: Vec<Cancel>, done: &[bool]) -> bool {
        let mut queue = self.queue.lock();
        let sent = batch.len().min(queue.len());
        queue.drain(..sent);
        for (cancel, _) in batch.into_iter().zip(done).rev().filter(|(_, done)| !**done) {
            queue.push_front(cancel);
        }
        let finished = done.iter().filter(|done| **done).count();
        meters::cancels_waiting().decrement(finished as f64);
        done.contains(&true)
    }
}

/// Whether a taking-back needs not be sent again.
async fn acknowledge(links: &Links, cancel: &Cancel) -> bool {
    let Some(link) = links.preferring(cancel.link) else { return false };
    let (answer, answered) = oneshot::channel();
    if !link.ask(Ask { ask: stream_ask::Ask::Cancel(cancel.request.clone()), answer }) {
        return false;
    }
    match timeout(ACKNOWLEDGE_TIMEOUT, answered).await {
        Ok(Ok(Answer::Cancelled(_))) => true,
        Ok(Ok(Answer::Failure(failure))) => is_final(&failure, cancel),
        Ok(_) | Err(_) => false,
    }
}

/// Whether a failure will be the same however often it is asked.
fn is_final(failure: &weir_proto::v1::Failure, cancel: &Cancel) -> bool {
    let code = Code::from_i32(failure.code);
    let is_final = matches!(code, Code::InvalidArgument | Code::NotFound | Code::Unimplemented);
    if is_final {
        error!(service.id = cancel.request.service_id, ?code, "a listener refuses to take a request back");
    }
    is_final
}
