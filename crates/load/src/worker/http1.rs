//! HTTP/1.1: each connection carries one request at a time and takes the next one that is due.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use super::{Dialect, Queue, open_all, read};
use crate::answer::{Answer, Fault};
use crate::connect::Connector;
use crate::plan::Protocol;
use crate::random::Random;
use crate::tally::{Arrival, Meter};

type Sender = SendRequest<Full<Bytes>>;

/// A connection that is opened again when it has ended.
struct Line {
    connector: Connector,
    sender: Option<Sender>,
}

/// Sends until the queue has ended.
pub(super) async fn run(
    connectors: Vec<Connector>,
    queue: Queue,
    meter: &Arc<Meter>,
    ready: oneshot::Sender<io::Result<()>>,
) {
    let Some(lines) = open_all(&connectors, Line::open, ready).await else { return };
    let mut working = JoinSet::new();
    for line in lines {
        working.spawn(line.work(Arc::clone(&queue), Arc::clone(meter)));
    }
    working.join_all().await;
}

impl Line {
    async fn open(connector: Connector) -> io::Result<Self> {
        let sender = Some(connect(&connector).await?);
        Ok(Self { connector, sender })
    }

    async fn work(mut self, queue: Queue, meter: Arc<Meter>) {
        loop {
            let free = Instant::now();
            let Some(arrival) = queue.lock().await.recv().await else { return };
            if meter.sending(&arrival, free) {
                self.exchange(&arrival, &meter).await;
            }
        }
    }

    async fn exchange(&mut self, arrival: &Arrival, meter: &Meter) {
        let mut random = Random::of_request(meter.plan.seed, arrival.number);
        let choice = meter.plan.mix.choose(&mut random);
        let (mix, connector) = (&meter.plan.mix, &self.connector);
        let (request, dialect) = match meter.plan.protocol {
            Protocol::Authrep { has_body } => (mix.authrep(choice, connector, has_body), Dialect::Authrep),
            _ => (mix.request(choice, &mut random, connector, false), Dialect::Http),
        };
        let deadline = arrival.at + meter.plan.limits.timeout;
        // On time-out the connection is dropped: its answer may still be on the way.
        let answered = timeout_at(deadline.into(), self.send(request, dialect)).await;
        meter.record(arrival, choice, answered.unwrap_or(Err(Fault::Timeout)));
    }

    /// A request that was not written, since the connection had ended, is sent over a new one.
    async fn send(&mut self, mut request: Request<Full<Bytes>>, dialect: Dialect) -> Result<Answer, Fault> {
        loop {
            let kept = self.sender.take().filter(|sender| !sender.is_closed());
            let was_kept = kept.is_some();
            let mut sender = match kept {
                Some(sender) => sender,
                None => connect(&self.connector).await.map_err(|_| Fault::Connect)?,
            };
            if sender.ready().await.is_err() && was_kept {
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(response) => {
                    let answer = read(response, dialect).await?;
                    self.sender = Some(sender);
                    return Ok(answer);
                }
                Err(mut error) => match error.take_message().filter(|_| was_kept) {
                    Some(unsent) => request = unsent,
                    None => return Err(Fault::Broken),
                },
            }
        }
    }
}

async fn connect(connector: &Connector) -> io::Result<Sender> {
    let stream = connector.connect().await?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // Its end shows in the sender.
    tokio::spawn(connection);
    Ok(sender)
}
