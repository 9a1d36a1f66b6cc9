//! The thread that keeps the time: it hands out each request when it is due, whatever became of those before.
//!
//! A thread of its own, which sleeps: timers of the runtime that sends would be a millisecond coarse and late when it is
//! busy. What is due together goes out together. A request for which there is no room is counted, never waited for: that
//! is what makes the loop open.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cpu;
use crate::schedule::Schedule;
use crate::tally::Arrival;

/// Longest sleep, so that an interruption is noticed.
const SLEEP_MAX: Duration = Duration::from_millis(20);
/// How often it is noted how long the thread wanted a core.
const CPU_NOTED_EVERY: Duration = Duration::from_millis(50);

/// What a stage's schedule came to.
#[derive(Debug, Default)]
pub(crate) struct Scheduled {
    /// Requests that were due.
    pub(crate) due: AtomicU64,
    /// Those among them for which there was no room.
    pub(crate) not_sent: AtomicU64,
}

/// What the pacer shares with the coordinator.
#[derive(Debug, Default)]
pub(crate) struct Paced {
    /// One for each stage.
    pub(crate) stages: Vec<Scheduled>,
    /// How long the thread has wanted a core so far.
    pub(crate) cpu_ns: AtomicU64,
    /// When the schedule was over or interrupted.
    pub(crate) ended: OnceLock<Instant>,
}

/// The thread's work.
pub(crate) struct Pacer {
    pub(crate) schedule: Schedule,
    pub(crate) start: Instant,
    /// The threads that send, dealt to in turn.
    pub(crate) workers: Vec<mpsc::Sender<Arrival>>,
    pub(crate) in_flight: Arc<AtomicUsize>,
    pub(crate) in_flight_max: usize,
    pub(crate) paced: Arc<Paced>,
    pub(crate) stop: CancellationToken,
}

impl Pacer {
    /// Runs to the end of the schedule, or until told to stop.
    pub(crate) fn run(mut self) {
        sleep_exactly();
        let mut noted = self.start;
        let mut number = 0;
        while let Some(due) = self.schedule.next() {
            let at = self.start + due.offset;
            let now = self.wait_until(at);
            if self.stop.is_cancelled() {
                break;
            }
            self.hand_out(Arrival { number, stage: due.stage, at });
            number += 1;
            if now.saturating_duration_since(noted) >= CPU_NOTED_EVERY {
                noted = now;
                self.paced.cpu_ns.store(cpu::wanted_ns(), Ordering::Relaxed);
            }
        }
        let ended = self.wait_until(self.start + self.schedule.length());
        let _ = self.paced.ended.set(ended);
    }

    /// Sleeps; says when it is now.
    fn wait_until(&self, at: Instant) -> Instant {
        loop {
            let now = Instant::now();
            if now >= at || self.stop.is_cancelled() {
                return now;
            }
            std::thread::sleep((at - now).min(SLEEP_MAX));
        }
    }

    fn hand_out(&self, arrival: Arrival) {
        let stage = &self.paced.stages[arrival.stage];
        stage.due.fetch_add(1, Ordering::Relaxed);
        let worker = usize::try_from(arrival.number % self.workers.len() as u64).unwrap_or_default();
        if self.in_flight.load(Ordering::Relaxed) < self.in_flight_max {
            self.in_flight.fetch_add(1, Ordering::Relaxed);
            if self.workers[worker].try_send(arrival).is_ok() {
                return;
            }
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
        stage.not_sent.fetch_add(1, Ordering::Relaxed);
    }
}

/// Lets the kernel wake this thread on time: by default it may be 50 microseconds late, to save power.
fn sleep_exactly() {
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
}
