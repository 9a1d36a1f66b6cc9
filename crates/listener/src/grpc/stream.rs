//! AuthRepStream: many questions on one stream, answered as they are decided.
//!
//! One task per stream works on all of its questions at once, up to a bound; answers that are ready together travel in
//! one message. When the stream breaks, the task ends and with it every question in work, which takes back what the
//! store may have counted; an answer that can no longer be handed over is taken back as well.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};
use weir_core::Decision;
use weir_proto::v1;
use weir_proto::v1::stream_answer::Answer;
use weir_proto::v1::stream_ask::Ask;
use weir_store::Write;

use super::authorization::{cancel, decision, read_auth_rep};
use crate::config::GatewayToken;
use crate::engine::{Question, Verdict};
use crate::server::Shared;
use crate::status::Failure;

/// Most questions in one message.
const ASKS_MAX: usize = 1_024;
/// Messages that wait for the socket; then the stream's task waits too.
const ANSWERS_WAITING_MAX: usize = 16;
/// With so many questions no further message is taken up to be decided together with them.
const TOGETHER_MAX: usize = 256;
/// With so many answers a message takes up no more; it has fewer than three times as many.
const ANSWERS_MAX: usize = 1_024;

/// The answers of one stream.
pub(crate) struct Answers(mpsc::Receiver<Result<v1::AuthRepStreamResponse, Status>>);

impl tokio_stream::Stream for Answers {
    type Item = Result<v1::AuthRepStreamResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

/// An answer, and the question when it counted something.
struct Done {
    answer: v1::StreamAnswer,
    counted: Option<Question>,
}

/// What has to be answered.
enum Work {
    /// Questions that came in one message.
    Together {
        correlation_ids: Vec<u64>,
        questions: Vec<Question>,
    },
    /// A question that takes several steps.
    Alone {
        correlation_id: u64,
        question: Box<Question>,
        deadline: Instant,
    },
    Cancel {
        correlation_id: u64,
        message: v1::CancelRequest,
    },
    Lease {
        correlation_id: u64,
        message: v1::LeaseRequest,
    },
}

/// Starts answering a stream.
pub(super) fn answer(
    shared: Arc<Shared>,
    gateway: Arc<GatewayToken>,
    asks: Streaming<v1::AuthRepStreamRequest>,
) -> Answers {
    let (sender, receiver) = mpsc::channel(ANSWERS_WAITING_MAX);
    let near = Arc::new(Near { shared, holder: gateway.id.as_str().into(), gateway });
    tokio::spawn(work(near, asks, sender));
    Answers(receiver)
}

/// What answering needs to know.
struct Near {
    shared: Arc<Shared>,
    gateway: Arc<GatewayToken>,
    /// The gateway's name, as leases have it.
    holder: Arc<str>,
}

async fn work(
    near: Arc<Near>,
    asks: Streaming<v1::AuthRepStreamRequest>,
    sender: mpsc::Sender<Result<v1::AuthRepStreamResponse, Status>>,
) {
    let mut asks = Asks { stream: asks, end: None };
    let Near { shared, gateway, .. } = &*near;
    let (mut in_work, mut unanswered) = (FuturesUnordered::new(), 0);
    let mut open = true;
    let mut holds_leases = false;
    while open || !in_work.is_empty() {
        // One message may be longer than there is room.
        let room = shared.config.stream_requests_max.saturating_sub(unanswered);
        let (ready, waiting) = tokio::select! {
            message = asks.next(room), if open && room > 0 => {
                let message = match message {
                    Ok(Some(message)) => message,
                    Ok(None) => {
                        open = false;
                        continue;
                    }
                    Err(status) => {
                        tracing::debug!(%status, gateway = %gateway.id, "a stream broke");
                        // A message that cannot be read is told; a broken connection hears nothing.
                        let _ = sender.send(Err(status)).await;
                        return;
                    }
                };
                unanswered += message.len();
                let (ready, waiting) = begin(shared, gateway, message).await;
                if !holds_leases && waiting.iter().any(|work| matches!(work, Work::Lease { .. })) {
                    holds_leases = true;
                    shared.engine.recalls.join(gateway, &sender);
                }
                (ready, waiting)
            }
            Some(first) = in_work.next() => {
                let (mut ready, mut waiting): (Vec<Done>, Vec<Work>) = first;
                while ready.len() < ANSWERS_MAX {
                    let Some(Some((done, more))) = in_work.next().now_or_never() else { break };
                    ready.extend(done);
                    waiting.extend(more);
                }
                (ready, waiting)
            }
            () = shared.stop.cancelled(), if open => {
                open = false;
                continue;
            }
            () = sender.closed() => return,
        };
        unanswered -= ready.len();
        in_work.extend(waiting.into_iter().map(|work| carry_out(&near, work)));
        if !ready.is_empty() && !hand_over(shared, &sender, ready).await {
            return;
        }
    }
}

/// The questions of a stream.
struct Asks {
    stream: Streaming<v1::AuthRepStreamRequest>,
    /// It has ended, well or not, behind what was given out last.
    end: Option<Result<(), Status>>,
}

impl Asks {
    /// The next message, together with those behind it that have come already: what is decided together costs less, and
    /// waits for memory together. No further message is taken up for more than there is room. `None`: there are no more.
    async fn next(&mut self, room: usize) -> Result<Option<Vec<v1::StreamAsk>>, Status> {
        if let Some(end) = self.end.take() {
            return end.map(|()| None);
        }
        let Some(first) = self.stream.message().await? else { return Ok(None) };
        let mut asks = read_message(first)?;
        while asks.len() < room.min(TOGETHER_MAX) {
            let Some(next) = self.stream.message().now_or_never() else { break };
            match next.and_then(|next| next.map(read_message).transpose()) {
                Ok(Some(more)) => asks.extend(more),
                Ok(None) => self.end = Some(Ok(())),
                Err(status) => self.end = Some(Err(status)),
            }
            if self.end.is_some() {
                break;
            }
        }
        Ok(Some(asks))
    }
}

/// What one message asks, checked.
fn read_message(message: v1::AuthRepStreamRequest) -> Result<Vec<v1::StreamAsk>, Status> {
    if message.asks.len() > ASKS_MAX {
        return Err(Status::invalid_argument(format!("asks: has more than {ASKS_MAX}")));
    }
    Ok(message.asks)
}

/// Answers what can be answered at once; the rest has to wait.
async fn begin(shared: &Shared, gateway: &GatewayToken, asks: Vec<v1::StreamAsk>) -> (Vec<Done>, Vec<Work>) {
    let (mut correlation_ids, mut questions, mut ready, mut waiting) = (vec![], vec![], vec![], vec![]);
    for v1::StreamAsk { correlation_id, ask } in asks {
        match ask {
            Some(Ask::AuthRep(message)) => match read_auth_rep(gateway, &message) {
                Ok(question) => {
                    correlation_ids.push(correlation_id);
                    questions.push(question);
                }
                Err(failure) => ready.push(Done::failed(correlation_id, failure)),
            },
            Some(Ask::Cancel(message)) => waiting.push(Work::Cancel { correlation_id, message }),
            Some(Ask::Lease(message)) => waiting.push(Work::Lease { correlation_id, message }),
            None => ready.push(Done::failed(correlation_id, Failure::Unknown("what the stream asks"))),
        }
    }
    if questions.is_empty() {
        return (ready, waiting);
    }
    if shared.engine.is_in_memory() {
        let (done, more) = decide(shared, correlation_ids, questions).await;
        ready.extend(done);
        waiting.extend(more);
    } else {
        waiting.push(Work::Together { correlation_ids, questions });
    }
    (ready, waiting)
}

/// Decides the questions of a message together; some may take more than that.
async fn decide(
    shared: &Shared,
    correlation_ids: Vec<u64>,
    questions: Vec<Question>,
) -> (Vec<Done>, Vec<Work>) {
    let (mut ready, mut waiting) = (Vec::with_capacity(questions.len()), vec![]);
    let deadline = shared.engine.deadline();
    let verdicts = shared.engine.decide_together(&questions, Write::Now, deadline).await;
    for ((correlation_id, question), verdict) in correlation_ids.into_iter().zip(questions).zip(verdicts) {
        match verdict {
            Some(verdict) => ready.push(Done::decided(correlation_id, question, verdict)),
            None => waiting.push(Work::Alone { correlation_id, question: Box::new(question), deadline }),
        }
    }
    (ready, waiting)
}

/// Puts answers on the stream; when it is gone, takes back what they counted.
async fn hand_over(
    shared: &Arc<Shared>,
    sender: &mpsc::Sender<Result<v1::AuthRepStreamResponse, Status>>,
    ready: Vec<Done>,
) -> bool {
    let (answers, counted): (Vec<_>, Vec<_>) =
        ready.into_iter().map(|done| (done.answer, done.counted)).unzip();
    if sender.send(Ok(v1::AuthRepStreamResponse { answers })).await.is_ok() {
        return true;
    }
    for question in counted.into_iter().flatten() {
        let Question { service, credentials, request, attempt, .. } = &question;
        let taken_back = shared.engine.cancel(service, credentials, *request, Some(*attempt)).await;
        if let Err(failure) = taken_back {
            failure.log();
        }
    }
    false
}

/// What is answered then, and what still has to be.
async fn carry_out(near: &Near, work: Work) -> (Vec<Done>, Vec<Work>) {
    let Near { shared, gateway, .. } = near;
    let done = match work {
        Work::Together { correlation_ids, questions } => {
            return decide(shared, correlation_ids, questions).await;
        }
        Work::Alone { correlation_id, question, deadline } => {
            let verdict = shared.engine.settle(&question, deadline).await;
            Done::decided(correlation_id, *question, verdict)
        }
        Work::Cancel { correlation_id, message } => match cancel(shared, gateway, &message).await {
            Ok(done) => Done::answered(correlation_id, Answer::Cancelled(done), None),
            Err(failure) => Done::failed(correlation_id, failure),
        },
        Work::Lease { correlation_id, message } => match lease(near, &message).await {
            Ok(reply) => Done::answered(correlation_id, Answer::Lease(reply), None),
            Err(failure) => Done::failed(correlation_id, failure),
        },
    };
    (vec![done], vec![])
}

async fn lease(near: &Near, request: &v1::LeaseRequest) -> Result<v1::LeaseReply, Failure> {
    let (application, message) = request.read()?;
    near.gateway.check(&application.service)?;
    let (answer, incarnation) = near.shared.engine.lease(&near.holder, &application, &message).await?;
    Ok(v1::LeaseReply::new(&answer, incarnation))
}

impl Done {
    fn answered(correlation_id: u64, answer: Answer, counted: Option<Question>) -> Self {
        Self { answer: v1::StreamAnswer { correlation_id, answer: Some(answer) }, counted }
    }

    fn decided(correlation_id: u64, question: Question, verdict: Result<Verdict, Failure>) -> Self {
        match verdict {
            Ok(verdict) => {
                let counted = matches!(verdict.decision, Decision::Allow(_)).then_some(question);
                Self::answered(correlation_id, Answer::Decision(decision(&verdict)), counted)
            }
            Err(failure) => Self::failed(correlation_id, failure),
        }
    }

    fn failed(correlation_id: u64, failure: Failure) -> Self {
        failure.log();
        let failure = v1::Failure { code: failure.code().into(), message: failure.to_string() };
        Self::answered(correlation_id, Answer::Failure(failure), None)
    }
}
