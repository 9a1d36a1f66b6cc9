//! HTTP/2 and gRPC: every connection carries many requests at a time, so each is sent as soon as it is due.
//!
//! Where the server allows fewer streams than are wanted, requests wait within the connection; that wait is part of their
//! latency.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::{Mutex, oneshot};
use tokio::time::timeout_at;
use tokio_util::task::TaskTracker;

use super::{Dialect, Queue, open_all, read};
use crate::answer::{Answer, Fault};
use crate::connect::Connector;
use crate::mix::CallKind;
use crate::random::Random;
use crate::tally::{Arrival, Meter};

type Sender = SendRequest<Full<Bytes>>;

/// A connection that is opened again when it has ended.
struct Line {
    connector: Connector,
    sender: Mutex<Sender>,
}

/// Sends until the queue has ended.
pub(super) async fn run(
    connectors: Vec<Connector>,
    queue: Queue,
    meter: &Arc<Meter>,
    ready: oneshot::Sender<io::Result<()>>,
) {
    let Some(lines) = open_all(&connectors, Line::open, ready).await else { return };
    let mut queue = queue.lock_owned().await;
    let exchanges = TaskTracker::new();
    for line in lines.iter().cycle() {
        let Some(arrival) = queue.recv().await else { break };
        // A connection that takes many is free whenever a request is due.
        if meter.sending(&arrival, arrival.at) {
            exchanges.spawn(Arc::clone(line).exchange(arrival, Arc::clone(meter)));
        }
    }
    exchanges.close();
    exchanges.wait().await;
}

impl Line {
    async fn open(connector: Connector) -> io::Result<Arc<Self>> {
        let sender = Mutex::new(connect(&connector).await?);
        Ok(Arc::new(Self { connector, sender }))
    }

    async fn exchange(self: Arc<Self>, arrival: Arrival, meter: Arc<Meter>) {
        let mut random = Random::of_request(meter.plan.seed, arrival.number);
        let choice = meter.plan.mix.choose(&mut random);
        let dialect = match meter.plan.mix.call(choice).kind {
            CallKind::Http { .. } => Dialect::Http,
            CallKind::Grpc(_) => Dialect::Grpc,
        };
        let request = meter.plan.mix.request(choice, &mut random, &self.connector, true);
        let deadline = arrival.at + meter.plan.limits.timeout;
        let answered = timeout_at(deadline.into(), self.send(request, dialect)).await;
        meter.record(&arrival, choice, answered.unwrap_or(Err(Fault::Timeout)));
    }

    /// A request that was not written, since the connection was ending, is sent once more over a new one.
    async fn send(&self, mut request: Request<Full<Bytes>>, dialect: Dialect) -> Result<Answer, Fault> {
        let mut is_second = false;
        loop {
            let mut sender = self.sender().await.map_err(|_| Fault::Connect)?;
            match sender.try_send_request(request).await {
                Ok(response) => return read(response, dialect).await,
                Err(mut error) => match error.take_message().filter(|_| !is_second) {
                    Some(unsent) => (request, is_second) = (unsent, true),
                    None => return Err(Fault::Broken),
                },
            }
        }
    }

    /// The connection's sender; one opens it anew while the others wait.
    async fn sender(&self) -> io::Result<Sender> {
        let mut sender = self.sender.lock().await;
        if sender.is_closed() {
            *sender = connect(&self.connector).await?;
        }
        Ok(sender.clone())
    }
}

async fn connect(connector: &Connector) -> io::Result<Sender> {
    let stream = connector.connect().await?;
    let opened = handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = opened.map_err(io::Error::other)?;
    // Its end shows in the sender.
    tokio::spawn(connection);
    Ok(sender)
}
