//! Asks the listeners whether a request may go on, so that it is counted once, or not at all.
//!
//! The pipeline calls [`Authoriser::authorise`]. A request asks the first listener with an open stream; when its
//! answer does not come, it asks the next one under the same request id while time remains. Who is told in the end
//! that nobody decided is taken back ([`cancel`]), and so is a client that leaves before the decision.
//!
//! It fails closed: there is no way out of here with an admission but a decision that says so.

mod cancel;
pub(crate) mod link;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tracing::error;
use weir_core::{ApplicationRef, Credentials, Decision, Denial, RequestId, StatusSet, Timestamp, Usage};
use weir_proto::v1::stream_answer::Answer;
use weir_proto::v1::{self, AuthRepRequest, CancelRequest, stream_ask};

use crate::config::Config;
use crate::leases::{Decided, Here, Leases, Ticket};
use crate::listener::{Backoff, Listener};
use crate::meters::{self, Bound, Outcome, OutcomeMeters};
use crate::service::Service;
use cancel::{Cancel, Cancels};
use link::{Ask, Link, State};

/// How long an answer that is no longer waited for may still come.
const LATE_ANSWER_WAIT: Duration = Duration::from_secs(10);

/// A call to be decided on.
pub(crate) struct Question<'a> {
    pub(crate) id: RequestId,
    pub(crate) service: &'a Service,
    pub(crate) credentials: &'a Credentials,
    pub(crate) usage: &'a Usage,
    /// The page that makes the call, if the client tells.
    pub(crate) referrer: Option<&'a str>,
    /// The span that waits for the decision.
    pub(crate) trace: Option<v1::TraceContext>,
}

impl Question<'_> {
    fn ask(&self, attempt: u32) -> AuthRepRequest {
        AuthRepRequest {
            request_id: self.id.0.to_vec(),
            attempt,
            service_id: self.service.id.to_string(),
            credentials: Some(self.credentials.into()),
            usage: v1::UsageEntry::list(self.usage),
            referrer: self.referrer.map(str::to_owned),
            trace_context: self.trace.clone(),
        }
    }

    /// Takes back one attempt, or all.
    fn cancel(&self, attempt: Option<u32>) -> CancelRequest {
        CancelRequest {
            service_id: self.service.id.to_string(),
            credentials: Some(self.credentials.into()),
            request_id: self.id.0.to_vec(),
            attempt,
        }
    }
}

/// When a listener decided, and what it said besides.
pub(crate) struct Heard {
    pub(crate) at: Timestamp,
    /// Whose the credentials are; `None`: nobody's, or nobody needs to know.
    pub(crate) application: Option<ApplicationRef>,
    /// Answers with which the plan has an admitted call for nothing.
    pub(crate) free_answers: Option<Arc<StatusSet>>,
}

/// What a listener said.
pub(crate) enum Verdict {
    /// It said what it thinks.
    Decided(Decision, Heard),
    /// Something that is not understood here: a refusal.
    Unclear,
    /// Too many wait already, or no listener takes the question.
    Unavailable,
    /// No listener answered in time.
    Away,
}

/// Asks listeners.
pub(crate) struct Authoriser {
    links: Arc<Links>,
    cancels: Arc<Cancels>,
    /// How many wait for a decision.
    waiting: AtomicUsize,
    waiting_max: usize,
    patience: Duration,
    leases: Arc<Leases>,
    meters: OutcomeMeters,
}

impl Authoriser {
    /// Opens a stream to each listener for one worker; they end with `stop`.
    pub(crate) fn start(
        config: &Config,
        listeners: &[Listener],
        worker: usize,
        leases: Arc<Leases>,
        stop: &CancellationToken,
    ) -> Self {
        // Every worker has its part of what may wait.
        let part = |max: usize| max.div_ceil(config.workers.max(1));
        let waiting_max = part(config.authorisations_waiting_max);
        // The streams of one worker stand for those of all.
        let meter = || (worker == 0).then(meters::listeners_up);
        let links = Arc::new(Links::open(listeners, |listener, changed| {
            Link::open(listener, waiting_max, changed, meter(), None, stop.clone())
        }));
        let cancels = Arc::new(Cancels::new(part(config.cancels_waiting_max)));
        tokio::spawn({
            let (links, cancels, stop) = (Arc::clone(&links), Arc::clone(&cancels), stop.clone());
            async move {
                tokio::select! {
                    () = cancels.run(&links) => {}
                    () = stop.cancelled() => {}
                }
            }
        });
        Self {
            links,
            cancels,
            waiting: AtomicUsize::new(0),
            waiting_max,
            patience: Duration::from_millis(config.authorise_timeout_ms),
            leases,
            meters: OutcomeMeters::new(),
        }
    }

    /// Decides on a call in memory, where this gateway holds a lease for it.
    pub(crate) fn decide_here(&self, question: &Question<'_>) -> Option<Decided> {
        self.leases.decide(question)
    }

    /// Lets a call pass that nobody decided on, of a service that chose so.
    pub(crate) fn pass_undecided(&self, question: &Question<'_>) -> Option<Here> {
        self.leases.pass_undecided(question)
    }

    /// Has a listener decide on a call that waits since `begun`; counts it when, and only when, the verdict admits it.
    pub(crate) async fn authorise(&self, question: &Question<'_>, begun: std::time::Instant) -> Verdict {
        let Some(_place) = self.place() else {
            meters::bound_hit(Bound::Authorisations);
            self.meters.count(Outcome::Unavailable);
            return Verdict::Unavailable;
        };
        let deadline = Instant::from_std(begun) + self.patience;
        let mut doubt = Doubt::new(&self.cancels, question);
        let verdict = match self.ask_until(deadline, &mut doubt).await {
            Ok(decision) => doubt.settle(&decision, &self.leases),
            Err(Silence::Hopeless) => Verdict::Unavailable,
            Err(Silence::Away) => Verdict::Away,
        };
        self.meters.count(match &verdict {
            Verdict::Decided(Decision::Allow(_), _) => Outcome::Allowed,
            Verdict::Decided(Decision::Deny(Denial::LimitsExceeded(_)), _) => Outcome::LimitsExceeded,
            Verdict::Decided(Decision::Deny(_), _) | Verdict::Unclear => Outcome::Denied,
            Verdict::Unavailable | Verdict::Away => Outcome::Unavailable,
        });
        verdict
    }

    /// A place among those who wait; `None`: all are taken.
    fn place(&self) -> Option<Place<'_>> {
        let place = Place(&self.waiting);
        (self.waiting.fetch_add(1, Ordering::Relaxed) < self.waiting_max).then_some(place)
    }

    /// Takes back a call that was admitted and is refused after all.
    pub(crate) fn take_back(&self, question: &Question<'_>, ticket: Option<&Ticket>) {
        match ticket {
            Some(ticket @ (Ticket::Lease(..) | Ticket::Outage(_))) => {
                self.leases.give_back(ticket, question.usage, question.usage);
            }
            Some(Ticket::Listener(..)) | None => {
                let mut doubt = Doubt::new(&self.cancels, question);
                // Any listener will do: the decision has been heard.
                doubt.asked = Some(self.links.choose(doubt.affinity, None).unwrap_or(0));
            }
        }
    }

    /// Books what the answer to an admitted call changes of what it cost.
    pub(crate) fn book(&self, ticket: Option<&Ticket>, used: &Usage, given_back: &Usage, extra: &Usage) {
        let Some(ticket) = ticket else { return };
        if !given_back.is_empty() {
            self.leases.give_back(ticket, used, given_back);
        }
        if !extra.is_empty() {
            self.leases.count_besides(ticket, extra);
        }
    }

    /// Ends once nothing waits to be taken back.
    pub(crate) async fn drained(&self) {
        self.cancels.drained().await;
    }

    /// Asks one listener after the other.
    async fn ask_until(&self, deadline: Instant, doubt: &mut Doubt<'_>) -> Result<v1::Decision, Silence> {
        let mut last = None;
        let mut pause = Backoff::default();
        for attempt in 1.. {
            let next = self.links.next(doubt.affinity, last, deadline, self.patience).await;
            let link = next.ok_or(Silence::Away)?;
            match self.ask_once(link, deadline, doubt).await {
                Reply::Decision(decision) => return Ok(decision),
                Reply::Hopeless => return Err(Silence::Hopeless),
                Reply::Again => {}
            }
            doubt.attempt += 1;
            last = Some(link);
            // Every listener was asked: they need a moment.
            if attempt >= self.links.links.len() {
                let wait = Instant::now() + pause.next();
                if wait >= deadline {
                    break;
                }
                sleep_until(wait).await;
            }
        }
        Err(Silence::Away)
    }

    async fn ask_once(&self, link: usize, deadline: Instant, doubt: &mut Doubt<'_>) -> Reply {
        let (answer, answered) = oneshot::channel();
        let ask = stream_ask::Ask::AuthRep(doubt.question.ask(doubt.attempt));
        let near = &self.links.links[link];
        if !near.ask(Ask { ask, answer }) {
            return Reply::Again;
        }
        doubt.open = Some(answered);
        let before = doubt.asked.replace(link);
        let until = if self.links.best(doubt.affinity, Some(link)).is_some() {
            // Leaves the other half for another listener.
            let now = Instant::now();
            now + deadline.saturating_duration_since(now) / 2
        } else {
            deadline
        };
        let Some(answered) = &mut doubt.open else { return Reply::Again };
        let Ok(answer) = timeout_at(until, answered).await else {
            near.mark_slow();
            doubt.give_up_waiting();
            return Reply::Again;
        };
        doubt.open = None;
        match answer {
            Ok(Answer::Decision(decision)) => Reply::Decision(decision),
            Ok(Answer::Failure(failure)) => doubt.failed(&failure, before),
            Ok(_) | Err(_) => Reply::Again,
        }
    }
}

/// One of those who wait.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A number for credentials, the same at every gateway of this version. It is no secret's hash: only which listener.
fn affinity(credentials: &Credentials) -> u64 {
    let name = match credentials {
        Credentials::UserKey(key) => key.expose(),
        Credentials::AppIdAndKey { app_id, .. } => app_id,
        Credentials::ClientId(id) | Credentials::Anonymous(id) => id,
    };
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

/// Why nobody decided.
enum Silence {
    /// No listener answered in time.
    Away,
    /// None takes the question, whenever it is asked.
    Hopeless,
}

/// Whether a failure says that no listener takes the question.
pub(crate) fn is_hopeless(code: Code) -> bool {
    matches!(
        code,
        Code::Unauthenticated | Code::PermissionDenied | Code::InvalidArgument | Code::Unimplemented
    )
}

/// What became of one attempt.
#[allow(clippy::large_enum_variant, reason = "made once a question, and taken apart at once")]
enum Reply {
    Decision(v1::Decision),
    /// Another attempt may help.
    Again,
    /// None will.
    Hopeless,
}

/// Most messages about leases that wait for a stream.
const LEASE_MESSAGES_MAX: usize = 65_536;

/// All streams.
pub(crate) struct Links {
    links: Vec<Link>,
    changes: watch::Receiver<()>,
}

impl Links {
    /// Streams for what is said of leases; recalls come to `recalls`.
    pub(crate) fn for_leases(
        listeners: &[Listener],
        recalls: &mpsc::Sender<v1::LeaseRecall>,
        stop: &CancellationToken,
    ) -> Self {
        Self::open(listeners, |listener, changed| {
            Link::open(listener, LEASE_MESSAGES_MAX, changed, None, Some(recalls.clone()), stop.clone())
        })
    }

    /// A stream to each listener, which tells when it opens or closes.
    fn open(listeners: &[Listener], open: impl Fn(Listener, Arc<watch::Sender<()>>) -> Link) -> Self {
        let (changed, changes) = watch::channel(());
        let changed = Arc::new(changed);
        let open = |listener: &Listener| open(listener.clone(), Arc::clone(&changed));
        Self { links: listeners.iter().map(open).collect(), changes }
    }

    /// Whether any stream is open.
    pub(crate) fn is_any_up(&self) -> bool {
        (0..self.links.len()).any(|at| self.is_up(at))
    }

    /// The stream for an application's leases; `None`: none is open.
    pub(crate) fn lease_link(&self, application: &ApplicationRef) -> Option<&Link> {
        let mut hasher = DefaultHasher::new();
        application.hash(&mut hasher);
        self.best(hasher.finish(), None)
    }

    /// A link that is up, but for one. Callers spread over all of them by their affinity: the same credentials keep
    /// asking the same listener, whose memory knows them and whose batches they then share.
    pub(crate) fn best(&self, affinity: u64, but: Option<usize>) -> Option<&Link> {
        self.choose(affinity, but).map(|at| &self.links[at])
    }

    /// The link a request was asked on if it is up, else another one.
    fn preferring(&self, at: usize) -> Option<&Link> {
        if self.is_up(at) { self.links.get(at) } else { self.best(0, None) }
    }

    fn choose(&self, affinity: u64, but: Option<usize>) -> Option<usize> {
        let all = 0..self.links.len();
        spread(affinity, all.clone().filter(|at| self.may_ask(*at, but) && !self.links[*at].is_slow()))
            // Those that did not answer in time come last.
            .or_else(|| spread(affinity, all.filter(|at| self.may_ask(*at, but))))
    }

    fn may_ask(&self, at: usize, but: Option<usize>) -> bool {
        self.is_up(at) && Some(at) != but
    }

    fn is_up(&self, at: usize) -> bool {
        self.links[at].is_up()
    }

    /// The link to ask now: any but the last one, else that one again. When none is up, waits for one until the
    /// deadline; not when all have been away for so long that waiting was in vain for others before.
    async fn next(
        &self,
        affinity: u64,
        last: Option<usize>,
        deadline: Instant,
        patience: Duration,
    ) -> Option<usize> {
        let choose = || self.choose(affinity, last).or_else(|| self.choose(affinity, None));
        if let Some(found) = choose() {
            return Some(found);
        }
        let mut changes = self.changes.clone();
        loop {
            changes.borrow_and_update();
            if let Some(found) = choose() {
                return Some(found);
            }
            let is_fresh = |link: &Link| match link.state() {
                State::Up => true,
                State::Down(since) => since.elapsed() < patience,
            };
            if !self.links.iter().any(is_fresh) {
                return None;
            }
            timeout_at(deadline, changes.changed()).await.ok()?.ok()?;
        }
    }
}

/// One of some places, chosen by a number: always the same while they are the same.
fn spread(affinity: u64, places: impl Iterator<Item = usize> + Clone) -> Option<usize> {
    let count = places.clone().count() as u64;
    let chosen = affinity.checked_rem(count)?;
    places.into_iter().nth(usize::try_from(chosen).ok()?)
}

/// Whether a request may be counted without anybody knowing. Dropped in doubt, the request is taken back.
struct Doubt<'a> {
    cancels: &'a Arc<Cancels>,
    question: &'a Question<'a>,
    attempt: u32,
    /// From the credentials: which listener is asked.
    affinity: u64,
    /// Where the answer to the latest attempt comes, while it is waited for.
    open: Option<oneshot::Receiver<Answer>>,
    /// The link of the attempt whose outcome is not known, the latest one.
    asked: Option<usize>,
}

impl<'a> Doubt<'a> {
    fn new(cancels: &'a Arc<Cancels>, question: &'a Question<'a>) -> Self {
        let affinity = affinity(question.credentials);
        Self { cancels, question, attempt: 0, affinity, open: None, asked: None }
    }

    /// The answer of this attempt is no longer waited for. Should it come late and say that the attempt was counted,
    /// that one attempt is taken back; a later one may be in use.
    fn give_up_waiting(&mut self) {
        let (Some(answered), Some(link)) = (self.open.take(), self.asked) else { return };
        let cancel = Cancel { request: self.question.cancel(Some(self.attempt)), link };
        let cancels = Arc::clone(self.cancels);
        // Without a runtime the process is ending, and its streams with it: the listener takes back by itself.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            if let Ok(Ok(Answer::Decision(late))) = timeout(LATE_ANSWER_WAIT, answered).await
                && late.denial.is_none()
            {
                cancels.push(cancel);
            }
        });
    }

    /// UNAVAILABLE is a promise that nothing stays counted, but of a listener that may die before it keeps it; other
    /// failures come before anything is counted, and leave in doubt only what was asked `before`.
    fn failed(&mut self, failure: &v1::Failure, before: Option<usize>) -> Reply {
        if failure.code != Code::Unavailable as i32 {
            self.asked = before;
        }
        let code = Code::from_i32(failure.code);
        match code {
            code if is_hopeless(code) => {
                let (service, message) = (self.question.service.id.as_str(), &failure.message);
                error!(service.id = service, ?code, message, "a listener does not take what it was asked");
                Reply::Hopeless
            }
            _ => Reply::Again,
        }
    }

    /// Somebody decided, which ends all doubt; unless the decision cannot be read.
    fn settle(mut self, decision: &v1::Decision, leases: &Arc<Leases>) -> Verdict {
        let is_counted = decision.denial.is_none();
        match Decision::try_from(decision) {
            Ok(decision_read) => {
                self.asked = None;
                let verdict = Verdict::Decided(decision_read, Heard::read(self.question.service, decision));
                leases.heard(self.question, &verdict, decision);
                verdict
            }
            Err(problem) => {
                error!(service.id = self.question.service.id.as_str(), %problem, "a decision cannot be read: refused");
                self.asked = self.asked.filter(|_| is_counted);
                Verdict::Unclear
            }
        }
    }
}

impl Heard {
    fn read(service: &Service, decision: &v1::Decision) -> Self {
        // What cannot be read makes nothing free.
        let free_answers = decision.read_free_answers().unwrap_or_default().map(Arc::new);
        let of = |id| ApplicationRef { service: service.id.clone(), application: id };
        // Most calls cost what they cost, whatever the answer.
        let is_needed = free_answers.is_some()
            || service.may_cost_otherwise()
            || service.policies.is_some()
            || decision.denial.is_some();
        let application = is_needed.then(|| decision.application_id.parse().ok()).flatten().map(of);
        Self { at: Timestamp::from_unix_ms(decision.decided_at_unix_ms), application, free_answers }
    }
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        self.give_up_waiting();
        let Some(link) = self.asked else { return };
        self.cancels.push(Cancel { request: self.question.cancel(None), link });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_spread_over_what_is_up_and_stay_where_they_are() {
        assert_eq!(spread(7, [].into_iter()), None);
        assert_eq!(spread(7, [4].into_iter()), Some(4));
        let places = || [0, 2, 3].into_iter();
        let chosen: Vec<_> = (0..6).map(|affinity| spread(affinity, places()).unwrap()).collect();
        assert_eq!(chosen, [0, 2, 3, 0, 2, 3]);
    }

    #[test]
    fn the_same_credentials_have_the_same_affinity() {
        let pair = |app_id: &str, key: &str| Credentials::AppIdAndKey {
            app_id: app_id.into(),
            app_key: Some(weir_core::Secret::new(key)),
        };
        assert_eq!(affinity(&pair("a", "one")), affinity(&pair("a", "two")));
        assert_ne!(affinity(&pair("a", "one")), affinity(&pair("b", "one")));
    }
}
