//! Says to listeners what there is to say of leases, and hands in the answers: one task, on streams of its own.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use hashbrown::HashMap;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use tracing::{debug, error, info};
use weir_core::ApplicationRef;
use weir_core::lease::holding::Heard;
use weir_core::lease::{LeaseId, Message};
use weir_proto::LeaseAnswer;
use weir_proto::v1::stream_answer::Answer;
use weir_proto::v1::{self, stream_ask};

use super::{Application, Leases, clock, known};
use crate::backend::Links;
use crate::backend::link::Ask;
use crate::listener::Listener;

/// How often applications with leases are looked at.
const TICK: Duration = Duration::from_millis(20);
/// Applications that were used so lately are looked at, whether anything is held of them or not.
const ACTIVE_MS: u64 = 2_000;
/// Pause between two rounds of reporting what passed in an outage.
const REPORT_PAUSE_MS: u64 = 250;
/// How often what nobody needs any more is looked for.
const FORGET_PAUSE_MS: u64 = 10_000;

/// Keeps leases.
pub(super) struct Keeper {
    pub(super) leases: Arc<Leases>,
    pub(super) listeners: Vec<Listener>,
    pub(super) links: Links,
    pub(super) wanted: mpsc::Receiver<Arc<Application>>,
    pub(super) recalls: mpsc::Receiver<v1::LeaseRecall>,
}

/// What came of a message.
struct Outcome {
    application: Arc<Application>,
    id: LeaseId,
    round: u32,
    /// When it was said.
    begun: Instant,
    answer: Option<Answer>,
}

type Answers = FuturesUnordered<BoxFuture<'static, Outcome>>;

impl Keeper {
    /// Until the end of the gateway.
    pub(super) async fn keep(mut self) {
        let mut active: HashMap<ApplicationRef, Arc<Application>> = HashMap::new();
        let mut answers = Answers::new();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut reporting, mut reported_at): (Option<JoinHandle<()>>, u64) = (None, 0);
        let mut forgot_at = clock::now_ms();
        loop {
            tokio::select! {
                wanted = self.wanted.recv() => {
                    let Some(application) = wanted else { return };
                    application.is_wanted.store(false, Ordering::Release);
                    self.tend(&application, &answers);
                    active.insert(application.reference.clone(), application);
                }
                Some(heard) = answers.next(), if !answers.is_empty() => self.hear(heard, &answers),
                Some(recall) = self.recalls.recv() => self.recalled(&recall, &active, &answers),
                _ = tick.tick() => {
                    let (now, mut out) = (clock::now_ms(), 0);
                    active.retain(|_, application| {
                        self.tend(application, &answers);
                        let holding = &application.state.lock().holding;
                        out += holding.outstanding();
                        // There may have been no stream, or too little left, just now.
                        !holding.is_empty() || now < holding.used_at() + ACTIVE_MS
                    });
                    self.leases.tell(out);
                    let is_free = reporting.as_ref().is_none_or(JoinHandle::is_finished);
                    let is_due = is_free && now >= reported_at + REPORT_PAUSE_MS;
                    if is_due && !self.leases.outage.is_empty() && self.links.is_any_up() {
                        reported_at = now;
                        reporting = Some(self.report());
                    }
                    if now >= forgot_at + FORGET_PAUSE_MS {
                        forgot_at = now;
                        self.forget(now);
                    }
                }
            }
        }
    }

    /// Says what is due of an application.
    fn tend(&self, application: &Arc<Application>, answers: &Answers) {
        let now = clock::now_ms();
        let leases = &self.leases;
        let mut state = application.state.lock();
        if leases.stopping.load(Ordering::Relaxed) {
            state.holding.stop();
        }
        while let Some(tag) = state.holding.retire() {
            tag.release();
        }
        let Some(link) = self.links.lease_link(&application.reference) else { return };
        let messages = state.holding.due(now, |metrics| leases.open(&application.reference, metrics));
        drop(state);
        for message in messages {
            let (answer, answered) = oneshot::channel();
            let request = v1::LeaseRequest::new(&application.reference, &message);
            // What is not taken is said again a second later, as what is not answered.
            if !link.ask(Ask { ask: stream_ask::Ask::Lease(request), answer }) {
                continue;
            }
            leases.meters.messages.increment(1);
            let begun = Instant::now();
            let (application, Message { id, round, .. }) = (Arc::clone(application), message);
            answers.push(Box::pin(async move {
                Outcome { application, id, round, begun, answer: answered.await.ok() }
            }));
        }
    }

    fn hear(&self, Outcome { application, id, round, begun, answer }: Outcome, answers: &Answers) {
        let is_answered = answer.is_some();
        self.answered(&application, id, round, answer);
        // What is lost is said again at the next tick: said at once, it might be lost at once, again and again.
        if is_answered {
            self.leases.meters.answered.record(begun.elapsed().as_secs_f64());
            self.tend(&application, answers);
        }
    }

    fn answered(&self, application: &Arc<Application>, id: LeaseId, round: u32, answer: Option<Answer>) {
        let now = clock::now_ms();
        let mut state = application.state.lock();
        match read(answer.as_ref()) {
            Some((LeaseAnswer::Reply(reply, version), incarnation)) => {
                self.leases.incarnation.store(incarnation, Ordering::Relaxed);
                let is_granted = match state.holding.answered(id, round, reply, incarnation, now) {
                    Heard::Granted(tag, declared) => {
                        tag.declare(declared);
                        true
                    }
                    Heard::Refused(tag) => {
                        tag.release();
                        false
                    }
                    Heard::Nothing => false,
                };
                // Only with a grant that counts: one that comes late, or was asked for before they changed, may be of
                // older records.
                if is_granted && !state.holding.is_outdated() {
                    state.records_version = version;
                }
            }
            Some((LeaseAnswer::Denied(_), _)) => {
                // Nobody may use it any more: the next call hears why from a listener.
                state.records_version = 0;
                state.holding.refused(now);
            }
            None if answer.is_none() => state.holding.unheard(),
            None => {}
        }
    }

    fn recalled(
        &self,
        recall: &v1::LeaseRecall,
        active: &HashMap<ApplicationRef, Arc<Application>>,
        answers: &Answers,
    ) {
        if recall.records_changed {
            self.leases.meters.outdated.increment(1);
            for application in self.leases.outdated(&recall.service_id, &recall.app_id) {
                self.tend(&application, answers);
            }
            return;
        }
        let (Ok(service), Ok(id)) = (recall.service_id.parse(), recall.app_id.parse()) else { return };
        let reference = ApplicationRef { service, application: id };
        if let Some(application) = active.get(&reference) {
            self.leases.meters.recalled.increment(1);
            application.state.lock().holding.recalled(clock::now_ms());
            self.tend(application, answers);
        }
    }

    /// Reports what passed in an outage, beside all else.
    fn report(&self) -> JoinHandle<()> {
        let (leases, listeners) = (Arc::clone(&self.leases), self.listeners.clone());
        tokio::spawn(async move { leases.report(&listeners).await })
    }

    fn forget(&self, now: u64) {
        self.leases.known.forget_old(now);
        self.leases.applications.lock().retain(|_, application| {
            let holding = &application.state.lock().holding;
            !holding.is_empty() || now < holding.used_at() + 2 * known::FORGOTTEN_MS
        });
    }
}

/// `None`: nothing that helps.
fn read(answer: Option<&Answer>) -> Option<(LeaseAnswer, u64)> {
    match answer? {
        Answer::Lease(reply) => match reply.read() {
            Ok(answer) => Some((answer, reply.incarnation)),
            Err(problem) => {
                error!(%problem, "an answer about a lease cannot be read");
                None
            }
        },
        Answer::Failure(failure) => {
            debug!(
                code = failure.code,
                message = failure.message,
                "a listener did not take what was said of a lease"
            );
            None
        }
        _ => None,
    }
}

impl Leases {
    /// Gives everything back, and waits until it is heard.
    pub(crate) async fn drained(&self, deadline: Instant) {
        self.stopping.store(true, Ordering::Relaxed);
        let all: Vec<_> = self.applications.lock().values().cloned().collect();
        for application in all {
            self.want(&application);
        }
        let drained = async {
            loop {
                let emptied = self.emptied.notified();
                if self.applications.lock().values().all(|a| a.state.lock().holding.outstanding() == 0) {
                    return;
                }
                emptied.await;
            }
        };
        if timeout_at(deadline, drained).await.is_err() {
            info!("leases were still out; they are settled at the next start, or presumed used");
        }
    }

    /// Tells listeners what was counted here; what an application gets back, once all its leases are settled that have
    /// said their last word.
    async fn report(&self, listeners: &[Listener]) {
        let is_settled = |reference: &ApplicationRef| {
            let application = self.applications.lock().get(reference).cloned();
            application.is_none_or(|application| application.state.lock().holding.is_heard())
        };
        self.outage.report(listeners, is_settled).await;
    }

    /// Tells listeners what they have to be told yet, as far as they take it in time.
    pub(crate) async fn told(&self, listeners: &[Listener], deadline: Instant) {
        if timeout_at(deadline, self.report(listeners)).await.is_err() {
            info!("not all usage could be told; what is in the journal is told at the next start");
        }
    }

    fn tell(&self, out: usize) {
        self.meters.out.set(out as f64);
        self.meters.journal_depth.set(self.slots.depth() as f64);
        self.emptied.notify_waiters();
    }
}
