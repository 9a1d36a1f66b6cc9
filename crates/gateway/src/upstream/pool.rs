//! The connections to one upstream, and their bounds.
//!
//! A pool holds so many [`Place`]s: each request in flight takes one, whichever HTTP it speaks, and so does a
//! tunnel. When all are taken, a bounded number of requests wait for one, as long as they would wait for a
//! connection. Services that share an origin share its pool, also across configuration changes, so that warm
//! connections stay.
//!
//! An idle connection is kept for less than the five seconds after which common servers close theirs, since a
//! request that meets the closing would fail; the one used last goes first.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::UpstreamError;
use super::connect::{Connector, Protocol};
use super::http1::Connection;
use super::http2::Shared;
use super::url::Origin;
use crate::meters::PoolMeters;
use crate::workers;

/// How long a connection may idle.
const IDLE_MAX: Duration = Duration::from_secs(4);

/// Bounds of each pool.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PoolLimits {
    /// Most requests in flight.
    pub(crate) in_flight_max: usize,
    /// Most requests that wait for one of these to end.
    pub(crate) waiting_max: usize,
    /// Most idle connections.
    pub(crate) idle_max: usize,
    /// Threads among which idle connections are divided.
    pub(crate) workers: usize,
}

/// The pools of a gateway.
pub(crate) struct Pools {
    limits: PoolLimits,
    by_origin: Mutex<HashMap<Key, Weak<Pool>>>,
}

/// An origin, and which identity goes there.
type Key = (Origin, Option<String>);

impl Pools {
    pub(crate) fn new(limits: PoolLimits) -> Self {
        Self { limits, by_origin: Mutex::default() }
    }

    /// The pool of an origin, which ends with the last service that uses it; `connector` is the one of the `identity`.
    pub(crate) fn of(
        &self,
        origin: &Origin,
        connector: &Arc<Connector>,
        identity: Option<&str>,
    ) -> Arc<Pool> {
        let mut pools = self.by_origin.lock();
        let key = (origin.clone(), identity.map(str::to_owned));
        if let Some(pool) = pools.get(&key).and_then(Weak::upgrade) {
            return pool;
        }
        pools.retain(|_, pool| pool.strong_count() > 0);
        let pool = Arc::new(Pool {
            meters: PoolMeters::of(&origin.to_string()),
            origin: origin.clone(),
            connector: Arc::clone(connector),
            places: Arc::new(Semaphore::new(self.limits.in_flight_max.min(Semaphore::MAX_PERMITS))),
            waiting: AtomicUsize::new(0),
            limits: self.limits,
            slots: (0..self.limits.workers.max(1)).map(|_| Slot::default()).collect(),
        });
        pools.insert(key, Arc::downgrade(&pool));
        pool
    }

    /// Closes what has idled for too long, until `end`.
    pub(crate) async fn sweep(&self, end: CancellationToken) {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        while end.run_until_cancelled(ticks.tick()).await.is_some() {
            let pools: Vec<_> = self.by_origin.lock().values().filter_map(Weak::upgrade).collect();
            for pool in pools {
                pool.close_idle();
            }
        }
    }
}

/// The connections to one upstream.
pub(crate) struct Pool {
    origin: Origin,
    connector: Arc<Connector>,
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    limits: PoolLimits,
    /// For each worker.
    slots: Box<[Slot]>,
    meters: PoolMeters,
}

/// What one worker keeps open.
#[derive(Default)]
struct Slot {
    /// The one used last is at the back.
    idle: Mutex<VecDeque<Idle>>,
    shared: Shared,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

impl Pool {
    /// A place for a request, perhaps after a wait.
    ///
    /// # Errors
    /// `Busy` when too many wait, or this one has waited for too long.
    pub(super) async fn place(&self, within: Duration) -> Result<Place, UpstreamError> {
        if let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(self.taken(permit));
        }
        // Waiting and connecting are rare, and their futures large.
        Box::pin(self.wait_for_place(within)).await
    }

    async fn wait_for_place(&self, within: Duration) -> Result<Place, UpstreamError> {
        let _waiting = Waiting::begin(self).ok_or(UpstreamError::Busy)?;
        match timeout(within, Arc::clone(&self.places).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(self.taken(permit)),
            _ => Err(UpstreamError::Busy),
        }
    }

    fn taken(&self, permit: OwnedSemaphorePermit) -> Place {
        self.meters.in_flight.increment(1);
        Place { _permit: permit, in_flight: self.meters.in_flight.clone() }
    }

    /// A connection for HTTP/1: an idle one, or a new one.
    ///
    /// # Errors
    /// What failed.
    pub(super) async fn lease(
        self: &Arc<Self>,
        place: Place,
        within: Duration,
    ) -> Result<Lease, UpstreamError> {
        let connection = match self.take_idle() {
            Some(connection) => connection,
            None => Connection::new(Box::pin(self.connect(Protocol::Http1, within)).await?),
        };
        Ok(Lease { connection, place, pool: Arc::clone(self) })
    }

    /// A new connection.
    pub(super) async fn connect(
        &self,
        protocol: Protocol,
        within: Duration,
    ) -> Result<super::connect::Stream, UpstreamError> {
        let connected = self.connector.connect(&self.origin, protocol, within).await;
        self.meters.connected(connected.is_ok());
        connected
    }

    /// The connections that several requests of this worker share.
    pub(super) fn shared(&self) -> &Shared {
        &self.slot().shared
    }

    fn slot(&self) -> &Slot {
        &self.slots[workers::current() % self.slots.len()]
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.slot().idle.lock();
        while let Some(mut last) = idle.pop_back() {
            self.meters.idle.decrement(1);
            if last.since.elapsed() < IDLE_MAX && last.connection.is_usable() {
                return Some(last.connection);
            }
        }
        None
    }

    fn put_idle(&self, connection: Connection) {
        let mut idle = self.slot().idle.lock();
        if idle.len() < self.limits.idle_max.div_ceil(self.slots.len()) {
            idle.push_back(Idle { connection, since: Instant::now() });
            self.meters.idle.increment(1);
        }
    }

    fn close_idle(&self) {
        for slot in &self.slots {
            let mut idle = slot.idle.lock();
            while idle.front().is_some_and(|first| first.since.elapsed() >= IDLE_MAX) {
                idle.pop_front();
                self.meters.idle.decrement(1);
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let left: usize = self.slots.iter_mut().map(|slot| slot.idle.get_mut().len()).sum();
        self.meters.idle.decrement(left as f64);
    }
}

/// One of the requests that wait.
struct Waiting<'a>(&'a Pool);

impl<'a> Waiting<'a> {
    /// `None`: too many wait already.
    fn begin(pool: &'a Pool) -> Option<Self> {
        let waiting = pool.waiting.fetch_add(1, Ordering::Relaxed);
        pool.meters.waiting.increment(1);
        let this = Self(pool);
        (waiting < pool.limits.waiting_max).then_some(this)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        self.0.meters.waiting.decrement(1);
    }
}

/// A request's place among those in flight.
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
    in_flight: metrics::Gauge,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.in_flight.decrement(1);
    }
}

/// A connection for one exchange.
pub(super) struct Lease {
    pub(super) connection: Connection,
    place: Place,
    pool: Arc<Pool>,
}

impl Lease {
    /// The connection can be used again.
    pub(super) fn give_back(self) {
        self.pool.put_idle(self.connection);
    }

    /// The connection goes on without the pool, but keeps its place.
    pub(super) fn keep(self) -> (Connection, Place) {
        (self.connection, self.place)
    }
}
