//! Load in bounds: so many connections, each sending one request after the other until told enough.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// What a load came to: status → how often; 0 = the connection broke before an answer.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tally(pub BTreeMap<u16, u64>);

impl Tally {
    /// How many answers had this status.
    pub fn of(&self, status: u16) -> u64 {
        self.0.get(&status).copied().unwrap_or_default()
    }

    /// How many answers there were.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

/// Longer than any time-out of a gateway: who waits so long would wait for ever.
const ANSWER_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(150);

/// A load that runs.
pub struct Load {
    enough: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    /// Those that were 503.
    unavailable: Arc<AtomicU64>,
    tasks: JoinSet<Tally>,
}

impl Load {
    /// Starts `connections` connections spread over the addresses; all of them together send at most `requests_max`
    /// requests of GET `target` to host `api.test`.
    pub fn start(addresses: &[SocketAddr], connections: usize, requests_max: u64, target: &str) -> Self {
        let enough = Arc::new(AtomicBool::new(false));
        let (answered, unavailable) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let left = Arc::new(AtomicU64::new(requests_max));
        let mut tasks = JoinSet::new();
        for (_, address) in (0..connections).zip(addresses.iter().cycle()) {
            let sender = Sender {
                address: *address,
                target: target.to_owned(),
                left: Arc::clone(&left),
                enough: Arc::clone(&enough),
                answered: Arc::clone(&answered),
                unavailable: Arc::clone(&unavailable),
            };
            tasks.spawn(sender.run());
        }
        Self { enough, answered, unavailable, tasks }
    }

    /// How many answers have come so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::SeqCst)
    }

    /// Waits until this many more answers have come.
    pub async fn answers(&self, more: u64) {
        let wanted = self.answered() + more;
        crate::wait::until_async("answers to come", || async { (self.answered() >= wanted).then_some(()) })
            .await;
    }

    /// Waits until this many more calls were answered 503.
    pub async fn refusals(&self, more: u64) {
        let refused = || self.unavailable.load(Ordering::SeqCst);
        let wanted = refused() + more;
        crate::wait::until_async("calls to be refused", || async { (refused() >= wanted).then_some(()) })
            .await;
    }

    /// Lets every request in flight end and sends no more.
    pub async fn stop(self) -> Tally {
        self.enough.store(true, Ordering::SeqCst);
        self.finish().await
    }

    /// Waits until all requests are sent and answered.
    ///
    /// # Panics
    /// When a connection's task does.
    pub async fn finish(mut self) -> Tally {
        let mut all = Tally::default();
        while let Some(tally) = self.tasks.join_next().await {
            for (status, count) in tally.expect("a connection's task ends well").0 {
                *all.0.entry(status).or_default() += count;
            }
        }
        all
    }
}

struct Sender {
    address: SocketAddr,
    target: String,
    left: Arc<AtomicU64>,
    enough: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    unavailable: Arc<AtomicU64>,
}

impl Sender {
    async fn run(self) -> Tally {
        let mut tally = Tally::default();
        let mut connection = None;
        while !self.enough.load(Ordering::SeqCst) {
            let take = |left: u64| left.checked_sub(1);
            if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_err() {
                break;
            }
            let answer = tokio::time::timeout(ANSWER_TIMEOUT, self.send(&mut connection));
            let answer = answer.await.unwrap_or_else(|_| panic!("{} never answered a call", self.address));
            let status = match answer {
                Ok(status) => status,
                Err(_) => {
                    connection = None;
                    0
                }
            };
            *tally.0.entry(status).or_default() += 1;
            self.unavailable.fetch_add((status == 503).into(), Ordering::SeqCst);
            self.answered.fetch_add(1, Ordering::SeqCst);
        }
        tally
    }

    async fn send(&self, connection: &mut Option<http1::SendRequest<Full<Bytes>>>) -> anyhow::Result<u16> {
        let mut sender = match connection.take() {
            Some(sender) if !sender.is_closed() => sender,
            _ => {
                let stream = TcpStream::connect(self.address).await?;
                let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
                tokio::spawn(driver);
                sender
            }
        };
        sender.ready().await?;
        let request = Request::get(&self.target).header("host", "api.test").body(Full::<Bytes>::default())?;
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        response.into_body().collect().await?;
        *connection = Some(sender);
        Ok(status)
    }
}
