//! The stream to one listener: kept open, shared by all requests, answered in any order.
//!
//! One task owns the stream. It puts everything that is ready into one message, so that under load many requests
//! cost one, and a lone request waits for nobody. When the stream ends, whoever waits on it learns that the
//! outcome is unknown; the task opens the next one, waiting a little longer each time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hashbrown::HashMap;
use metrics::Gauge;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};
use tracing::{error, info, warn};
use weir_proto::v1::stream_answer::Answer;
use weir_proto::v1::{self, AuthRepStreamRequest, AuthRepStreamResponse, StreamAsk, stream_ask};

use crate::listener::{Backoff, CONNECT_TIMEOUT, Listener};

/// Most asks in one message: the contract's.
const ASKS_PER_MESSAGE: usize = 1024;
/// Messages that may wait for the connection's flow control.
const MESSAGES_AHEAD: usize = 4;

/// Something to ask, and where the answer goes. Dropped unanswered: the outcome is unknown.
pub(crate) struct Ask {
    pub(crate) ask: stream_ask::Ask,
    pub(crate) answer: oneshot::Sender<Answer>,
}

/// The near end of a stream.
pub(crate) struct Link {
    asks: mpsc::Sender<Ask>,
    state: watch::Receiver<State>,
    /// The same in short: every request asks.
    is_up: Arc<AtomicBool>,
    /// Until when others are preferred, milliseconds after `started`.
    slow_until_ms: AtomicU64,
    started: Instant,
}

/// Whether a stream is open.
#[derive(Debug, Clone, Copy)]
pub(crate) enum State {
    Up,
    /// Since when there is none.
    Down(Instant),
}

impl Link {
    /// Starts the task that keeps the stream open; it ends when told to. With a meter it is counted while it is open,
    /// and says in the log what becomes of it.
    pub(crate) fn open(
        listener: Listener,
        waiting_max: usize,
        changed: Arc<watch::Sender<()>>,
        meter: Option<Gauge>,
        recalls: Option<mpsc::Sender<v1::LeaseRecall>>,
        stop: CancellationToken,
    ) -> Self {
        let (asks, waiting) = mpsc::channel(waiting_max.max(1));
        let (state_sender, state) = watch::channel(State::Down(Instant::now()));
        let is_up = Arc::new(AtomicBool::new(false));
        let keeper = Keeper {
            listener,
            waiting,
            state: state_sender,
            is_up: Arc::clone(&is_up),
            changed,
            meter,
            recalls,
            pending_max: waiting_max,
        };
        tokio::spawn(async move {
            tokio::select! {
                () = keeper.keep() => {}
                () = stop.cancelled() => {}
            }
        });
        Self { asks, state, is_up, slow_until_ms: AtomicU64::new(0), started: Instant::now() }
    }

    /// Whether a stream is open.
    pub(crate) fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Acquire)
    }

    /// Whether a stream is open, and if not, since when.
    pub(crate) fn state(&self) -> State {
        *self.state.borrow()
    }

    /// Hands over something to ask; `false`: as much waits as may.
    pub(crate) fn ask(&self, ask: Ask) -> bool {
        self.asks.try_send(ask).is_ok()
    }

    /// It did not answer in time: others are preferred for a second.
    pub(crate) fn mark_slow(&self) {
        let until = self.started.elapsed() + Duration::from_secs(1);
        self.slow_until_ms.store(u64::try_from(until.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether others are to be preferred.
    pub(crate) fn is_slow(&self) -> bool {
        let until_ms = self.slow_until_ms.load(Ordering::Relaxed);
        until_ms > 0 && self.started.elapsed() < Duration::from_millis(until_ms)
    }
}

/// Owns the far end's side of a link.
struct Keeper {
    listener: Listener,
    waiting: mpsc::Receiver<Ask>,
    state: watch::Sender<State>,
    is_up: Arc<AtomicBool>,
    /// Told whenever any link goes up or down.
    changed: Arc<watch::Sender<()>>,
    meter: Option<Gauge>,
    /// Where recalls go.
    recalls: Option<mpsc::Sender<v1::LeaseRecall>>,
    pending_max: usize,
}

impl Keeper {
    async fn keep(mut self) {
        let mut backoff = Backoff::default();
        let mut reported = None;
        loop {
            match open(&self.listener).await {
                Ok((outbound, inbound)) => {
                    reported = None;
                    self.tell(State::Up);
                    if let Some(meter) = &self.meter {
                        info!(listener = self.listener.address, "connected to a listener");
                        meter.increment(1);
                    }
                    let mut session = Session::new(outbound, self.recalls.clone(), self.pending_max);
                    let ended = session.run(&mut self.waiting, inbound).await;
                    if let Some(meter) = &self.meter {
                        meter.decrement(1);
                    }
                    self.tell(State::Down(Instant::now()));
                    if self.waiting.is_closed() {
                        return;
                    }
                    if session.was_answered {
                        backoff.reset();
                    }
                    self.report(&ended, &mut reported);
                }
                Err(status) => self.report(&status, &mut reported),
            }
            // What waited was meant for the stream that is gone.
            while self.waiting.try_recv().is_ok() {}
            sleep(backoff.next()).await;
        }
    }

    fn tell(&self, state: State) {
        self.is_up.store(matches!(state, State::Up), Ordering::Release);
        self.state.send_replace(state);
        self.changed.send_replace(());
    }

    /// Logs why there is no stream, once per reason.
    fn report(&self, status: &Status, reported: &mut Option<Code>) {
        if reported.replace(status.code()) == Some(status.code()) || self.meter.is_none() {
            return;
        }
        let (listener, code, message) = (&self.listener.address, status.code(), status.message());
        if matches!(code, Code::Unauthenticated | Code::PermissionDenied) {
            error!(listener, ?code, message, "the listener does not take this gateway's token");
        } else {
            warn!(listener, ?code, message, "no stream to a listener");
        }
    }
}

type Outbound = mpsc::Sender<AuthRepStreamRequest>;

async fn open(listener: &Listener) -> Result<(Outbound, Streaming<AuthRepStreamResponse>), Status> {
    let (outbound, messages) = mpsc::channel(MESSAGES_AHEAD);
    let mut client = listener.authorization();
    let opening = client.auth_rep_stream(listener.signed(ReceiverStream::new(messages)));
    let opened = timeout(CONNECT_TIMEOUT * 2, opening).await;
    let stream = opened.map_err(|_| Status::deadline_exceeded("the stream did not open in time"))??;
    Ok((outbound, stream.into_inner()))
}

/// One stream's life.
struct Session {
    outbound: Outbound,
    recalls: Option<mpsc::Sender<v1::LeaseRecall>>,
    pending: HashMap<u64, oneshot::Sender<Answer>>,
    pending_max: usize,
    next_id: u64,
    was_answered: bool,
}

impl Session {
    fn new(outbound: Outbound, recalls: Option<mpsc::Sender<v1::LeaseRecall>>, pending_max: usize) -> Self {
        Self { outbound, recalls, pending: HashMap::new(), pending_max, next_id: 1, was_answered: false }
    }

    /// Asks and answers until the stream ends; says why it did.
    async fn run(
        &mut self,
        waiting: &mut mpsc::Receiver<Ask>,
        mut inbound: Streaming<AuthRepStreamResponse>,
    ) -> Status {
        let mut batch = Vec::with_capacity(ASKS_PER_MESSAGE);
        let outbound = self.outbound.clone();
        loop {
            // Answers are read even while nothing can be sent: the listener may wait for just that.
            tokio::select! {
                permit = outbound.reserve(), if !batch.is_empty() => match permit {
                    Ok(permit) => {
                        let message = self.message(&mut batch);
                        if !message.asks.is_empty() {
                            permit.send(message);
                        }
                    }
                    Err(_) => return Status::unavailable("the stream was closed"),
                },
                count = waiting.recv_many(&mut batch, ASKS_PER_MESSAGE), if batch.is_empty() => {
                    if count == 0 {
                        return Status::cancelled("the gateway stops");
                    }
                }
                message = inbound.message() => match message {
                    Ok(Some(message)) => self.deliver(message),
                    Ok(None) => return Status::unavailable("the listener ended the stream"),
                    Err(status) => return status,
                },
            }
        }
    }

    fn message(&mut self, batch: &mut Vec<Ask>) -> AuthRepStreamRequest {
        self.forget_abandoned();
        let mut asks = Vec::with_capacity(batch.len());
        for Ask { ask, answer } in batch.drain(..) {
            // Nobody waits any more: then it need not be asked. A taking-back sees to what was asked before.
            if answer.is_closed() {
                continue;
            }
            asks.push(StreamAsk { correlation_id: self.next_id, ask: Some(ask) });
            self.pending.insert(self.next_id, answer);
            self.next_id += 1;
        }
        AuthRepStreamRequest { asks }
    }

    fn deliver(&mut self, message: AuthRepStreamResponse) {
        self.was_answered = true;
        for answer in message.answers {
            if let (Some(Answer::Recall(recall)), Some(recalls)) = (&answer.answer, &self.recalls) {
                // One that does not fit is made good by the end of the lease.
                let _ = recalls.try_send(recall.clone());
                continue;
            }
            let waiting = self.pending.remove(&answer.correlation_id);
            if let (Some(waiting), Some(answer)) = (waiting, answer.answer) {
                // It may have given up meanwhile.
                let _ = waiting.send(answer);
            }
        }
    }

    /// A listener that never answers must not make the table grow.
    fn forget_abandoned(&mut self) {
        if self.pending.len() >= self.pending_max.max(ASKS_PER_MESSAGE) {
            self.pending.retain(|_, waiting| !waiting.is_closed());
        }
    }
}
