//! AuthRepStream: many questions on one stream, answered as they are decided.
//!
//! One task per stream works on all of its questions at once, up to a bound; answers that are ready together travel in
//! one message. When the stream breaks, the task ends and with it every question in work, which takes back what the
//! store may have counted; an answer that can no longer be handed over is taken back as well.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};
use weir_core::Decision;
use weir_proto::v1;
use weir_proto::v1::stream_answer::Answer;
use weir_proto::v1::stream_ask::Ask;

use super::authorization::{cancel, decision, read_auth_rep};
use crate::config::GatewayToken;
use crate::engine::Question;
use crate::server::Shared;
use crate::status::Failure;

/// Most questions in one message.
const ASKS_MAX: usize = 1_024;
/// Messages that wait for the socket; then the stream's task waits too.
const ANSWERS_WAITING_MAX: usize = 16;
/// Most answers in one message.
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

/// Starts answering a stream.
pub(super) fn answer(
    shared: Arc<Shared>,
    gateway: GatewayToken,
    asks: Streaming<v1::AuthRepStreamRequest>,
) -> Answers {
    let (sender, receiver) = mpsc::channel(ANSWERS_WAITING_MAX);
    tokio::spawn(work(shared, gateway, asks, sender));
    Answers(receiver)
}

async fn work(
    shared: Arc<Shared>,
    gateway: GatewayToken,
    mut asks: Streaming<v1::AuthRepStreamRequest>,
    sender: mpsc::Sender<Result<v1::AuthRepStreamResponse, Status>>,
) {
    let mut in_work = FuturesUnordered::new();
    let mut open = true;
    while open || !in_work.is_empty() {
        tokio::select! {
            message = asks.message(), if open && in_work.len() < shared.config.stream_requests_max => {
                match message {
                    Ok(Some(message)) if message.asks.len() <= ASKS_MAX => {
                        in_work.extend(message.asks.into_iter().map(|ask| one(&shared, &gateway, ask)));
                    }
                    Ok(Some(_)) => {
                        let status = Status::invalid_argument(format!("asks: has more than {ASKS_MAX}"));
                        // The stream ends either way.
                        let _ = sender.send(Err(status)).await;
                        return;
                    }
                    Ok(None) => open = false,
                    Err(status) => {
                        tracing::debug!(%status, gateway = %gateway.id, "a stream broke");
                        // A message that cannot be read is told; a broken connection hears nothing.
                        let _ = sender.send(Err(status)).await;
                        return;
                    }
                }
            }
            Some(first) = in_work.next() => {
                let mut ready = vec![first];
                while let (true, Some(Some(next))) = (ready.len() < ANSWERS_MAX, in_work.next().now_or_never()) {
                    ready.push(next);
                }
                if !hand_over(&shared, &sender, ready).await {
                    return;
                }
            }
            () = shared.stop.cancelled(), if open => open = false,
            () = sender.closed() => return,
        }
    }
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

async fn one(shared: &Shared, gateway: &GatewayToken, ask: v1::StreamAsk) -> Done {
    let correlation_id = ask.correlation_id;
    let worked = match ask.ask {
        Some(Ask::AuthRep(message)) => auth_rep(shared, gateway, &message).await,
        Some(Ask::Cancel(message)) => {
            cancel(shared, gateway, &message).await.map(|done| (Answer::Cancelled(done), None))
        }
        None => Err(Failure::Unknown("what the stream asks")),
    };
    let (answer, counted) = worked.unwrap_or_else(|failure| {
        failure.log();
        (Answer::Failure(v1::Failure { code: failure.code().into(), message: failure.to_string() }), None)
    });
    Done { answer: v1::StreamAnswer { correlation_id, answer: Some(answer) }, counted }
}

async fn auth_rep(
    shared: &Shared,
    gateway: &GatewayToken,
    message: &v1::AuthRepRequest,
) -> Result<(Answer, Option<Question>), Failure> {
    let question = read_auth_rep(gateway, message)?;
    let verdict = shared.engine.decide(&question).await?;
    let counted = matches!(verdict.decision, Decision::Allow(_)).then_some(question);
    Ok((Answer::Decision(decision(&verdict)), counted))
}
