//! Decisions: what gateways ask listeners, over the same kind of stream and batched the same way.
//!
//! One stream for each connection. What is due together travels in one message, a lone question waits for nobody. When a
//! stream ends, its open questions have no answer, and the next ones open another.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Request, Status, Streaming};
use weir_proto::v1::authorization_client::AuthorizationClient;
use weir_proto::v1::stream_answer::Answer as StreamAnswer;
use weir_proto::v1::{AuthRepStreamRequest, AuthRepStreamResponse, StreamAsk, stream_ask};

use super::{Queue, open_all};
use crate::answer::{Answer, Fault, Verdict};
use crate::connect::Connector;
use crate::mix::Choice;
use crate::random::Random;
use crate::tally::{Arrival, Meter};
use crate::usage::bearer;

/// Most questions in one message: the contract's.
const ASKS_PER_MESSAGE: usize = 1_024;
/// Messages that may wait for the connection's flow control.
const MESSAGES_AHEAD: usize = 4;
/// How often questions are looked at whose time may be over.
const SWEEP_EVERY: Duration = Duration::from_millis(20);

type Outbound = mpsc::Sender<AuthRepStreamRequest>;
type Inbound = Streaming<AuthRepStreamResponse>;

/// Asks until the queue has ended.
pub(super) async fn run(
    connectors: Vec<Connector>,
    queue: Queue,
    meter: &Arc<Meter>,
    run_id: u64,
    ready: oneshot::Sender<io::Result<()>>,
) {
    let open = |connector| {
        let line = Line { connector, queue: Arc::clone(&queue), meter: Arc::clone(meter), run_id };
        async move {
            let stream = line.open().await.map_err(io::Error::other)?;
            Ok((line, stream))
        }
    };
    let Some(lines) = open_all(&connectors, open, ready).await else { return };
    let mut working = JoinSet::new();
    for (line, stream) in lines {
        working.spawn(line.work(stream));
    }
    working.join_all().await;
}

/// A stream that is opened again when it has ended.
struct Line {
    connector: Connector,
    queue: Queue,
    meter: Arc<Meter>,
    run_id: u64,
}

/// How a stream ended.
enum End {
    /// Nothing more will be due.
    Over,
    Broken,
}

impl Line {
    async fn work(self, first: (Outbound, Inbound)) {
        let mut stream = Some(first);
        loop {
            if let Some((outbound, inbound)) = stream.take() {
                let mut session = Session { line: &self, outbound, pending: HashMap::new(), next_id: 1 };
                if let End::Over = session.run(inbound).await {
                    return;
                }
                session.forget_all();
            }
            match self.open().await {
                Ok(opened) => stream = Some(opened),
                Err(_) if self.is_over_without_stream().await => return,
                Err(_) => {}
            }
        }
    }

    /// Gives up what is due next, so that there are never more attempts to connect than questions.
    async fn is_over_without_stream(&self) -> bool {
        let mut batch = Vec::new();
        let count = take(&self.queue, &mut batch).await;
        for arrival in batch {
            if self.meter.sending(&arrival, arrival.at) {
                self.meter.record(&arrival, self.choose(&arrival), Err(Fault::Connect));
            }
        }
        count == 0
    }

    async fn open(&self) -> Result<(Outbound, Inbound), Status> {
        // Whatever the connector does: tonic would insist on TLS of its own.
        let address = format!("http://{}", self.connector.authority());
        let endpoint = Endpoint::from_shared(address).map_err(|error| Status::internal(error.to_string()))?;
        let channel = endpoint.connect_with_connector_lazy(self.connector.clone());
        let (outbound, messages) = mpsc::channel(MESSAGES_AHEAD);
        let mut request = Request::new(ReceiverStream::new(messages));
        if let Some(token) = self.meter.plan.token.as_ref().and_then(bearer) {
            request.metadata_mut().insert("authorization", token);
        }
        let mut client = AuthorizationClient::new(channel);
        let opening = tokio::time::timeout(self.meter.plan.limits.timeout, client.auth_rep_stream(request));
        let opened = opening.await.map_err(|_| Status::deadline_exceeded("the stream did not open"))??;
        Ok((outbound, opened.into_inner()))
    }

    fn choose(&self, arrival: &Arrival) -> Choice {
        let mut random = Random::of_request(self.meter.plan.seed, arrival.number);
        self.meter.plan.mix.choose(&mut random)
    }

    fn ask(&self, arrival: &Arrival, choice: Choice) -> stream_ask::Ask {
        let request_id = [self.run_id.to_be_bytes(), arrival.number.to_be_bytes()].concat();
        stream_ask::Ask::AuthRep(self.meter.plan.mix.question(choice, request_id))
    }
}

/// One stream's life.
struct Session<'a> {
    line: &'a Line,
    outbound: Outbound,
    pending: HashMap<u64, (Arrival, Choice)>,
    next_id: u64,
}

impl Session<'_> {
    async fn run(&mut self, mut inbound: Inbound) -> End {
        let queue = Arc::clone(&self.line.queue);
        let outbound = self.outbound.clone();
        let mut batch = Vec::with_capacity(ASKS_PER_MESSAGE);
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        let mut is_open = true;
        while is_open || !batch.is_empty() || !self.pending.is_empty() {
            tokio::select! {
                count = take(&queue, &mut batch), if is_open && batch.is_empty() => is_open = count > 0,
                permit = outbound.reserve(), if !batch.is_empty() => match permit {
                    Ok(permit) => {
                        let message = self.message(&mut batch);
                        if !message.asks.is_empty() {
                            permit.send(message);
                        }
                    }
                    Err(_) => return self.broken(&batch),
                },
                message = inbound.message() => match message {
                    Ok(Some(message)) => self.deliver(message),
                    Ok(None) | Err(_) => return self.broken(&batch),
                },
                _ = sweep.tick() => self.forget_late(),
            }
        }
        End::Over
    }

    /// What was not sent has no answer either.
    fn broken(&mut self, batch: &[Arrival]) -> End {
        for arrival in batch {
            let choice = self.line.choose(arrival);
            if self.line.meter.sending(arrival, arrival.at) {
                self.line.meter.record(arrival, choice, Err(Fault::Broken));
            }
        }
        End::Broken
    }

    fn message(&mut self, batch: &mut Vec<Arrival>) -> AuthRepStreamRequest {
        let mut asks = Vec::with_capacity(batch.len());
        for arrival in batch.drain(..) {
            if self.line.meter.sending(&arrival, arrival.at) {
                let choice = self.line.choose(&arrival);
                let ask = Some(self.line.ask(&arrival, choice));
                asks.push(StreamAsk { correlation_id: self.next_id, ask });
                self.pending.insert(self.next_id, (arrival, choice));
                self.next_id += 1;
            }
        }
        AuthRepStreamRequest { asks }
    }

    fn deliver(&mut self, message: AuthRepStreamResponse) {
        for answer in message.answers {
            let Some((arrival, choice)) = self.pending.remove(&answer.correlation_id) else { continue };
            let verdict = match answer.answer {
                Some(StreamAnswer::Decision(decision)) => {
                    decision.denial.map_or(Verdict::ALLOWED, |denial| Verdict::denied(&denial.code))
                }
                Some(StreamAnswer::Failure(failure)) => Verdict::failed(failure.code),
                Some(_) | None => Verdict::failed(0),
            };
            self.line.meter.record(&arrival, choice, Ok(Answer::Decision(verdict)));
        }
    }

    fn forget_late(&mut self) {
        let (now, timeout) = (Instant::now(), self.line.meter.plan.limits.timeout);
        let late = self.pending.extract_if(|_, (arrival, _)| now >= arrival.at + timeout);
        for (_, (arrival, choice)) in late {
            self.line.meter.record(&arrival, choice, Err(Fault::Timeout));
        }
    }

    /// The stream is gone: none of them will have an answer.
    fn forget_all(&mut self) {
        for (_, (arrival, choice)) in self.pending.drain() {
            self.line.meter.record(&arrival, choice, Err(Fault::Broken));
        }
    }
}

/// Waits until something is due and takes all of it; 0: nothing more will be.
async fn take(queue: &Queue, batch: &mut Vec<Arrival>) -> usize {
    queue.lock().await.recv_many(batch, ASKS_PER_MESSAGE).await
}
