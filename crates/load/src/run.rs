//! A run from its first connection to its last answer.
//!
//! All connections are opened first, so that the first second is like the others. Then the pacer keeps the time, the
//! workers send, and the coordinator here looks at their meters a few times a second. An interruption ends the schedule;
//! what is in flight has a moment to end.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::connect::Connector;
use crate::outcome::{self, Observed, Outcome, Slice};
use crate::pacer::{Paced, Pacer, Scheduled};
use crate::plan::Plan;
use crate::schedule::Schedule;
use crate::tally::{Meter, SliceTally, Tally};
use crate::worker::{Job, Worker};

/// From the last connection to the first request.
const LEAD: Duration = Duration::from_millis(20);
/// How long requests in flight may take to end after an interruption.
const GRACE: Duration = Duration::from_secs(2);
/// Lengths of slices to choose from.
const SLICE_LENGTHS_MS: [u64; 9] = [100, 200, 500, 1_000, 2_000, 5_000, 15_000, 60_000, 300_000];
/// Most slices of a run's scheduled time: a day has no more of the longest.
const SLICES_MAX: u128 = 288;

/// Why a run did not begin.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A target takes no connection.
    #[error("cannot connect to {targets}")]
    Connect {
        /// All targets of the run.
        targets: String,
        /// Why.
        source: io::Error,
    },
    /// It was interrupted while connections were being opened.
    #[error("interrupted before anything was sent")]
    Interrupted,
    /// A thread could not be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

/// What is shown while a run goes on.
#[derive(Debug)]
pub struct Live<'a> {
    /// The slice of time that has just ended.
    pub slice: &'a Slice,
    /// Of how many stages.
    pub stages: usize,
    /// How long all of them take.
    pub length: Duration,
}

/// Sends what a plan says, and shows each slice of time as it ends. `stop` interrupts it.
///
/// # Errors
/// When nothing was sent: a target takes no connection, or it was interrupted before.
pub async fn run(
    plan: Plan,
    stop: CancellationToken,
    mut show: impl FnMut(&Live<'_>),
) -> Result<Outcome, RunError> {
    let plan = Arc::new(plan);
    let shared = Shared::new(&plan, &stop);
    let mut workers = Vec::new();
    for number in 0..plan.limits.threads {
        workers.push(shared.worker(number)?);
    }
    for worker in &mut workers {
        tokio::select! {
            opened = &mut worker.ready => {
                let opened = opened.unwrap_or_else(|_| Err(io::Error::other("its thread ended")));
                opened.map_err(|source| shared.no_connection(source))?;
            }
            () = stop.cancelled() => {
                shared.cut.cancel();
                return Err(RunError::Interrupted);
            }
        }
    }
    let start = Instant::now() + LEAD;
    let _ = shared.start.set(start);
    let meters: Vec<Arc<Meter>> = workers.iter().map(|worker| Arc::clone(&worker.meter)).collect();
    let (arrivals, done): (Vec<_>, Vec<_>) =
        workers.into_iter().map(|worker| (worker.arrivals, worker.done)).unzip();
    let pacer = Pacer {
        schedule: Schedule::new(plan.stages.clone(), plan.arrivals, plan.seed),
        start,
        workers: arrivals,
        in_flight: Arc::clone(&shared.in_flight),
        in_flight_max: plan.limits.in_flight_max,
        paced: Arc::clone(&shared.paced),
        stop: stop.clone(),
    };
    std::thread::Builder::new()
        .name("weir-load-pacer".into())
        .spawn(move || pacer.run())
        .map_err(RunError::Thread)?;
    let all_done = async {
        for one in done {
            // A thread that panicked is done, too.
            let _ = one.await;
        }
    };
    let ending = shared.until_over(all_done);
    let mut watch = Watch::new(&shared, &meters, start);
    let slices = watch.until(ending, &mut show).await;
    let mut tally = Tally::new(&plan);
    meters.iter().for_each(|meter| meter.add_to(&mut tally));
    let observed = Observed {
        tally,
        paced: &shared.paced,
        length: shared.paced.ended.get().map_or(plan.length(), |end| end.saturating_duration_since(start)),
        slices,
        is_interrupted: stop.is_cancelled(),
    };
    Ok(outcome::of(&plan, observed))
}

/// What all parts of a run share.
struct Shared {
    plan: Arc<Plan>,
    start: Arc<OnceLock<Instant>>,
    in_flight: Arc<AtomicUsize>,
    paced: Arc<Paced>,
    stop: CancellationToken,
    /// Ends what is in flight.
    cut: CancellationToken,
    run_id: u64,
}

impl Shared {
    fn new(plan: &Arc<Plan>, stop: &CancellationToken) -> Self {
        let stages = plan.stages.iter().map(|_| Scheduled::default()).collect();
        let mut run_id = [0; 8];
        // Without random bytes, the time does: runs of one listener do not begin in the same nanosecond.
        if getrandom::fill(&mut run_id).is_err() {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            run_id = u64::try_from(now.as_nanos()).unwrap_or_default().to_be_bytes();
        }
        Self {
            plan: Arc::clone(plan),
            start: Arc::default(),
            in_flight: Arc::default(),
            paced: Arc::new(Paced { stages, ..Paced::default() }),
            stop: stop.clone(),
            cut: CancellationToken::new(),
            run_id: u64::from_be_bytes(run_id),
        }
    }

    /// Starts a thread with its share of the connections.
    fn worker(&self, number: usize) -> Result<Worker, RunError> {
        let plan = &self.plan;
        let connectors: Result<Vec<Connector>, io::Error> = (0..plan.limits.connections)
            .filter(|connection| connection % plan.limits.threads == number)
            .map(|connection| Connector::new(plan, &plan.targets[connection % plan.targets.len()]))
            .collect();
        let job = Job {
            connectors: connectors.map_err(|source| self.no_connection(source))?,
            meter: Arc::new(Meter::new(plan, &self.start, &self.in_flight)),
            run_id: self.run_id,
            cut: self.cut.clone(),
        };
        Worker::start(job, plan.limits.in_flight_max).map_err(RunError::Thread)
    }

    fn no_connection(&self, source: io::Error) -> RunError {
        self.cut.cancel();
        let targets: Vec<&str> = self.plan.targets.iter().map(|target| target.authority.as_str()).collect();
        RunError::Connect { targets: targets.join(", "), source }
    }

    /// Until all requests have ended, or an interruption's grace is over.
    async fn until_over(&self, all_done: impl Future<Output = ()>) {
        let grace = async {
            self.stop.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::pin!(all_done);
        tokio::select! {
            () = &mut all_done => {}
            () = grace => {
                self.cut.cancel();
                all_done.await;
            }
        }
    }
}

/// Looks at the meters, slice by slice.
struct Watch<'a> {
    shared: &'a Shared,
    meters: &'a [Arc<Meter>],
    start: Instant,
    last: Instant,
    cpu_ns: Vec<u64>,
    due: u64,
    not_sent: u64,
}

impl<'a> Watch<'a> {
    fn new(shared: &'a Shared, meters: &'a [Arc<Meter>], start: Instant) -> Self {
        let mut watch = Self { shared, meters, start, last: start, cpu_ns: vec![], due: 0, not_sent: 0 };
        watch.cpu_ns = watch.cpu_now();
        watch
    }

    async fn until(&mut self, end: impl Future<Output = ()>, show: &mut impl FnMut(&Live<'_>)) -> Vec<Slice> {
        let length = slice_length(self.shared.plan.length());
        let mut slices = Vec::new();
        let mut next = self.start + length;
        tokio::pin!(end);
        loop {
            let is_over = tokio::select! {
                () = &mut end => true,
                () = tokio::time::sleep_until(next.into()) => false,
            };
            // After a late look the slice is longer, so that the next one is not shorter.
            while next < Instant::now() + length / 2 {
                next += length;
            }
            let slice = self.take();
            // The last one may be too short to say anything of rates.
            if !is_over || slice.answered() + slice.no_answer > 0 {
                show(&Live {
                    slice: &slice,
                    stages: self.shared.plan.stages.len(),
                    length: self.shared.plan.length(),
                });
                slices.push(slice);
            }
            if is_over {
                return slices;
            }
        }
    }

    fn take(&mut self) -> Slice {
        let mut tally = SliceTally::default();
        self.meters.iter().for_each(|meter| tally.add(&meter.take_slice()));
        let now = Instant::now();
        let length = now.saturating_duration_since(self.last);
        let (mut due, mut not_sent) = (0, 0);
        for stage in &self.shared.paced.stages {
            due += stage.due.load(Ordering::Relaxed);
            not_sent += stage.not_sent.load(Ordering::Relaxed);
        }
        let middle = (self.last + length / 2).saturating_duration_since(self.start);
        let (stage, rate) = stage_at(&self.shared.plan, middle);
        let slice = Slice {
            end: now.saturating_duration_since(self.start),
            length,
            stage,
            rate,
            due: due - self.due,
            not_sent: not_sent - self.not_sent,
            in_flight: self.shared.in_flight.load(Ordering::Relaxed),
            classes: tally.classes,
            no_answer: tally.no_answer,
            p50: tally.latency.percentile(50.0),
            p99: tally.latency.percentile(99.0),
            max: tally.latency.max(),
            busiest_thread: self.busiest_thread(length),
        };
        (self.due, self.not_sent, self.last) = (due, not_sent, now);
        slice
    }

    /// For which share of the time since the last call the busiest of our threads wanted a core.
    fn busiest_thread(&mut self, length: Duration) -> f64 {
        let now = self.cpu_now();
        let spent = now.iter().zip(&self.cpu_ns).map(|(now, before)| now.saturating_sub(*before)).max();
        self.cpu_ns = now;
        Duration::from_nanos(spent.unwrap_or_default()).as_secs_f64() / length.as_secs_f64().max(1e-9)
    }

    fn cpu_now(&self) -> Vec<u64> {
        let workers = self.meters.iter().map(|meter| meter.cpu_ns.load(Ordering::Relaxed));
        workers.chain([self.shared.paced.cpu_ns.load(Ordering::Relaxed)]).collect()
    }
}

fn slice_length(run: Duration) -> Duration {
    let ms = SLICE_LENGTHS_MS.into_iter().find(|ms| run.as_millis() <= u128::from(*ms) * SLICES_MAX);
    Duration::from_millis(ms.unwrap_or(300_000))
}

/// Which stage an instant belongs to, and its rate then; after the last one, no rate.
fn stage_at(plan: &Plan, elapsed: Duration) -> (usize, f64) {
    let mut begun = Duration::ZERO;
    for (at, stage) in plan.stages.iter().enumerate() {
        if elapsed < begun + stage.length {
            return (at, stage.rate_at(elapsed - begun));
        }
        begun += stage.length;
    }
    (plan.stages.len() - 1, 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_short_and_few() {
        for (run_s, expected_ms) in
            [(1, 100), (28, 100), (29, 200), (288, 1_000), (3_600, 15_000), (86_400, 300_000)]
        {
            assert_eq!(slice_length(Duration::from_secs(run_s)).as_millis(), expected_ms, "{run_s} s");
        }
    }
}
