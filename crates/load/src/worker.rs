//! A thread that sends: a runtime of its own, its share of the connections, and the meter it writes to.
//!
//! Threads share nothing but the count of what is in flight, so that two send nearly twice as much as one. How a request
//! travels is the protocol's file below; what all of them do alike is here.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{HeaderMap, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::answer::{Answer, Fault};
use crate::connect::Connector;
use crate::cpu;
use crate::plan::Protocol;
use crate::tally::{Arrival, Meter};

mod decisions;
mod http1;
mod http2;

/// How often it is noted how long the thread wanted a core.
const CPU_NOTED_EVERY: Duration = Duration::from_millis(50);
/// Longest time that opening a connection may take.
const OPENING_MAX: Duration = Duration::from_secs(10);
/// Most connections that are being opened at a time.
const CONNECTING_MAX: usize = 64;

/// Requests that are due, shared by the connections of a thread: whichever is free takes the next.
type Queue = Arc<Mutex<mpsc::Receiver<Arrival>>>;

/// What a thread is told.
pub(crate) struct Job {
    /// One for each connection.
    pub(crate) connectors: Vec<Connector>,
    pub(crate) meter: Arc<Meter>,
    /// Different for each run, so that a listener does not take a request for one of an earlier run.
    pub(crate) run_id: u64,
    /// Ends the work in the middle.
    pub(crate) cut: CancellationToken,
}

/// A running thread.
pub(crate) struct Worker {
    /// Where requests go that are due; it ends when this is gone and all of them have ended.
    pub(crate) arrivals: mpsc::Sender<Arrival>,
    pub(crate) meter: Arc<Meter>,
    /// Told once all connections are open.
    pub(crate) ready: oneshot::Receiver<io::Result<()>>,
    /// Told at the end.
    pub(crate) done: oneshot::Receiver<()>,
}

impl Worker {
    /// Starts one; `queue_max` bounds what may wait for its connections.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(crate) fn start(job: Job, queue_max: usize) -> io::Result<Self> {
        let (arrivals, queue) = mpsc::channel(queue_max);
        let (ready_sender, ready) = oneshot::channel();
        let (done_sender, done) = oneshot::channel();
        let meter = Arc::clone(&job.meter);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("weir-load".into()).spawn(move || {
            runtime.block_on(job.run(Arc::new(Mutex::new(queue)), ready_sender));
            // Nobody may be waiting any more.
            let _ = done_sender.send(());
        })?;
        Ok(Self { arrivals, meter, ready, done })
    }
}

impl Job {
    async fn run(self, queue: Queue, ready: oneshot::Sender<io::Result<()>>) {
        let Self { connectors, meter, run_id, cut } = self;
        let work = async {
            match meter.plan.protocol {
                Protocol::Http1 | Protocol::Authrep { .. } => {
                    http1::run(connectors, queue, &meter, ready).await;
                }
                Protocol::Http2 => http2::run(connectors, queue, &meter, ready).await,
                Protocol::Decisions => decisions::run(connectors, queue, &meter, run_id, ready).await,
            }
        };
        tokio::select! {
            () = work => {}
            () = cut.cancelled() => {}
            () = note_cpu(&meter) => {}
        }
        meter.cpu_ns.store(cpu::wanted_ns(), Ordering::Relaxed);
    }
}

async fn note_cpu(meter: &Meter) {
    loop {
        tokio::time::sleep(CPU_NOTED_EVERY).await;
        meter.cpu_ns.store(cpu::wanted_ns(), Ordering::Relaxed);
    }
}

/// Opens all connections, some at a time, and tells whether that went well; `None`: it did not.
async fn open_all<T, F>(
    connectors: &[Connector],
    open: impl Fn(Connector) -> F,
    ready: oneshot::Sender<io::Result<()>>,
) -> Option<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = io::Result<T>> + Send + 'static,
{
    let mut opened = Vec::with_capacity(connectors.len());
    for some in connectors.chunks(CONNECTING_MAX) {
        let within = |connector| {
            let opening = tokio::time::timeout(OPENING_MAX, open(connector));
            async { opening.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) }
        };
        let mut opening: JoinSet<io::Result<T>> = some.iter().cloned().map(within).collect();
        while let Some(one) = opening.join_next().await {
            match one.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
                Ok(one) => opened.push(one),
                Err(error) => {
                    // A run that was given up does not ask any more.
                    let _ = ready.send(Err(error));
                    return None;
                }
            }
        }
    }
    ready.send(Ok(())).ok().map(|()| opened)
}

/// How an answer says what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    /// By its status.
    Http,
    /// By its trailers.
    Grpc,
    /// By its status, and a header with the reason of a refusal.
    Authrep,
}

/// Reads an answer to its end: latency counts to there.
async fn read(response: Response<Incoming>, dialect: Dialect) -> Result<Answer, Fault> {
    let (status, is_grpc) = (response.status().as_u16(), dialect == Dialect::Grpc);
    let reason = response.headers().get("3scale-rejection-reason").filter(|_| dialect == Dialect::Authrep);
    let reason = reason.map(|reason| Answer::rejected(reason.as_bytes()));
    let mut code = grpc_code(response.headers());
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Fault::Broken)?;
        code = frame.trailers_ref().and_then(grpc_code).or(code);
    }
    match code {
        Some(code) if is_grpc && status == 200 => Ok(code),
        // Trailers are missing.
        None if is_grpc && status == 200 => Err(Fault::Broken),
        _ => Ok(reason.filter(|_| status == 409).unwrap_or(Answer::Http(status))),
    }
}

fn grpc_code(headers: &HeaderMap) -> Option<Answer> {
    headers.get("grpc-status").map(|value| Answer::grpc(value.as_bytes()))
}
