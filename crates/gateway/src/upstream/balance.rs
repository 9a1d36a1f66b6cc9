//! Several addresses for one upstream, and which of them are well.
//!
//! Calls take turns among the addresses that are well. One is ill when too many of its calls in a row failed: then its
//! breaker is open for a while, until one call may try; or when it does not answer as it should to what it is asked from
//! time to time. If all are ill, calls are refused at once.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::{HOST, USER_AGENT};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use metrics::{Gauge, gauge};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};
use weir_core::policy::upstream_pool::{Probe, UpstreamPool};

use super::UpstreamError;
use super::connect::{Connector, Protocol};
use super::pool::{Pool, Pools};
use super::url::{BaseUrl, UrlError};
use crate::reply::Refusal;

/// The addresses of an upstream.
pub(crate) struct Balance {
    policy: UpstreamPool,
    addresses: Vec<Address>,
    turn: AtomicUsize,
}

struct Address {
    url: BaseUrl,
    pool: Arc<Pool>,
    health: Mutex<Health>,
    shown: Gauge,
    /// As it was told last.
    was_well: AtomicBool,
    /// Of answers to probes: good ones in a row, or bad ones.
    probed: Mutex<(u64, u64)>,
    failures: AtomicU64,
}

/// What is known of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Health {
    /// What probes say.
    is_probed_well: bool,
    breaker: BreakerState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BreakerState {
    Closed,
    Open {
        until: Instant,
    },
    /// One call tries; if it never ends, another one may at that time.
    Trying {
        until: Instant,
    },
}

/// A call's address, until it is known what became of it.
pub(crate) struct Turn {
    balance: Arc<Balance>,
    at: usize,
    /// Whether it was told what became of it.
    has_ended: bool,
}

impl Drop for Turn {
    /// The client left before anything was known.
    fn drop(&mut self) {
        if !self.has_ended {
            self.balance.learnt_nothing(self.at);
        }
    }
}

impl Balance {
    /// Of a policy's addresses; probes begin at once and end with it.
    ///
    /// # Errors
    /// When an address cannot be used.
    pub(crate) fn start(
        policy: &UpstreamPool,
        host: &str,
        connector: &Arc<Connector>,
        pools: &Pools,
        identity: Option<&str>,
    ) -> Result<Arc<Self>, UrlError> {
        let mut addresses = Vec::with_capacity(policy.addresses.len());
        for address in &policy.addresses {
            let url = BaseUrl::parse(address, Some(host))?;
            let shown = gauge!("weir_gateway_upstream_healthy", "upstream" => url.origin.to_string());
            shown.set(1.0);
            addresses.push(Address {
                pool: pools.of(&url.origin, connector, identity),
                url,
                health: Mutex::new(Health { is_probed_well: true, breaker: BreakerState::Closed }),
                shown,
                was_well: AtomicBool::new(true),
                probed: Mutex::default(),
                failures: AtomicU64::new(0),
            });
        }
        let balance = Arc::new(Self { policy: policy.clone(), addresses, turn: AtomicUsize::new(0) });
        if let (Some(probe), Ok(runtime)) = (&policy.probe, tokio::runtime::Handle::try_current()) {
            for at in 0..balance.addresses.len() {
                let (balance, connector) = (Arc::downgrade(&balance), Arc::clone(connector));
                runtime.spawn(ask_for_ever(balance, at, probe.clone(), connector));
            }
        }
        Ok(balance)
    }

    /// The next address that is well; `None`: all are ill.
    pub(crate) fn next(self: &Arc<Self>) -> Option<Turn> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let count = self.addresses.len();
        let at = (0..count).map(|by| (first.wrapping_add(by)) % count).find(|at| self.takes(*at, now))?;
        Some(Turn { balance: Arc::clone(self), at, has_ended: false })
    }

    fn takes(&self, at: usize, now: Instant) -> bool {
        let mut health = self.addresses[at].health.lock();
        if !health.is_probed_well {
            return false;
        }
        match health.breaker {
            BreakerState::Closed => true,
            BreakerState::Open { until } | BreakerState::Trying { until } if now >= until => {
                health.breaker = BreakerState::Trying { until: now + self.open_for() };
                true
            }
            BreakerState::Open { .. } | BreakerState::Trying { .. } => false,
        }
    }

    fn open_for(&self) -> Duration {
        Duration::from_millis(self.policy.breaker.open_ms)
    }

    /// A call to an address ended, well or not.
    fn called(&self, at: usize, is_well: bool) {
        let address = &self.addresses[at];
        if is_well {
            address.failures.store(0, Ordering::Relaxed);
            let mut health = address.health.lock();
            // What was sent before the breaker opened says nothing of now.
            if let BreakerState::Trying { .. } = health.breaker {
                health.breaker = BreakerState::Closed;
                address.tell(*health, "calls succeed again");
            }
            return;
        }
        let failures = address.failures.fetch_add(1, Ordering::Relaxed) + 1;
        let mut health = address.health.lock();
        let opens = match health.breaker {
            BreakerState::Closed => failures >= self.policy.breaker.failures,
            BreakerState::Trying { .. } => true,
            BreakerState::Open { .. } => false,
        };
        if opens {
            health.breaker = BreakerState::Open { until: Instant::now() + self.open_for() };
            address.tell(*health, "too many calls in a row failed");
        }
    }

    /// A call to an address said nothing of it: another one may try.
    fn learnt_nothing(&self, at: usize) {
        let mut health = self.addresses[at].health.lock();
        if let BreakerState::Trying { .. } = health.breaker {
            health.breaker = BreakerState::Open { until: Instant::now() };
        }
    }

    fn probed(&self, at: usize, probe: &Probe, is_well: bool) {
        let address = &self.addresses[at];
        let mut probed = address.probed.lock();
        let (good, bad) = &mut *probed;
        (*good, *bad) = if is_well { (*good + 1, 0) } else { (0, *bad + 1) };
        let mut health = address.health.lock();
        if !health.is_probed_well && *good >= probe.healthy_after {
            // What calls said before is old.
            *health = Health { is_probed_well: true, breaker: BreakerState::Closed };
            address.failures.store(0, Ordering::Relaxed);
            address.tell(*health, "it answers again as it should");
        } else if health.is_probed_well && *bad >= probe.unhealthy_after {
            health.is_probed_well = false;
            address.tell(*health, "it does not answer as it should");
        }
    }
}

impl Address {
    fn tell(&self, health: Health, why: &str) {
        let is_well = health.is_probed_well && health.breaker == BreakerState::Closed;
        if self.was_well.swap(is_well, Ordering::Relaxed) == is_well {
            return;
        }
        self.shown.set(if is_well { 1.0 } else { 0.0 });
        let upstream = self.url.origin.to_string();
        if is_well {
            info!(upstream, why, "an address of an upstream is well");
        } else {
            warn!(upstream, why, "an address of an upstream is ill");
        }
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.balance.addresses[self.at].url.origin)
    }
}

impl Turn {
    /// The connections there.
    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.balance.addresses[self.at].pool
    }

    /// The head of an answer with this status came, or none did.
    pub(crate) fn ended(mut self, status: Result<u16, &Refusal>) {
        self.has_ended = true;
        match status {
            Ok(status) => {
                self.balance.called(self.at, !self.balance.policy.breaker.statuses.contains(status));
            }
            Err(Refusal::Upstream(error)) if *error != UpstreamError::Busy => {
                self.balance.called(self.at, false);
            }
            // It was not sent, or the client failed.
            Err(_) => self.balance.learnt_nothing(self.at),
        }
    }
}

/// Asks an address from time to time whether it is well, for as long as somebody uses it.
async fn ask_for_ever(balance: Weak<Balance>, at: usize, probe: Probe, connector: Arc<Connector>) {
    let mut ticks = tokio::time::interval(Duration::from_millis(probe.interval_ms));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(url) = balance.upgrade().map(|balance| balance.addresses[at].url.clone()) else { return };
        let deadline = Instant::now() + Duration::from_millis(probe.timeout_ms);
        let is_well = timeout_at(deadline, ask(&url, &probe, &connector, deadline)).await;
        let Some(balance) = balance.upgrade() else { return };
        balance.probed(at, &probe, is_well.ok().flatten().unwrap_or(false));
    }
}

/// Whether the answer is good; `None`: there is none.
async fn ask(url: &BaseUrl, probe: &Probe, connector: &Connector, deadline: Instant) -> Option<bool> {
    let addresses = Connector::addresses(&url.origin).await.ok()?;
    let stream = connector.connect_at(&url.origin, &addresses, Protocol::Http1, deadline).await.ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    let request = Request::get(&probe.path)
        .header(HOST, &url.host)
        .header(USER_AGENT, "weir-gateway")
        .body(Empty::<Bytes>::new())
        .ok()?;
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(sender.send_request(request));
    let answer = tokio::select! {
        answer = &mut exchange => answer,
        // What came before it ended is there to be read.
        _ = &mut connection => exchange.await,
    };
    Some((200..400).contains(&answer.ok()?.status().as_u16()))
}
