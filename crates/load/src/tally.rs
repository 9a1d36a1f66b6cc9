//! What a thread that sends writes down about each request, and hands over in slices of time while it runs.
//!
//! One meter for each thread, behind a lock that is free nearly always: the coordinator takes it a few times a second.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::answer::{Admission, Answer, Class, Fault};
use crate::counts::Counts;
use crate::latency::Latencies;
use crate::mix::Choice;
use crate::plan::Plan;

/// A request that is due.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    /// Counts from 0 through the run.
    pub(crate) number: u64,
    pub(crate) stage: usize,
    /// When it is due; latency counts from here.
    pub(crate) at: Instant,
}

/// What a stage's requests came to.
#[derive(Debug, Clone, Default)]
pub(crate) struct StageTally {
    /// Answers of class ok.
    pub(crate) latency_ok: Latencies,
    /// Other answers, and waits that ended with the time-out.
    pub(crate) latency_rest: Latencies,
    /// From due, and from when a connection was free, to sent: the delay that is this program's own.
    pub(crate) late: Latencies,
    /// Requests for which no connection was free when they were due.
    pub(crate) waited: u64,
    /// Given up before a connection was free.
    pub(crate) not_sent: u64,
    pub(crate) counts: Counts,
    /// Answers that came while the stage ran, to whichever stage's requests.
    pub(crate) answered_meanwhile: u64,
}

/// What the requests of one call came to.
#[derive(Debug, Clone, Default)]
pub(crate) struct CallTally {
    pub(crate) latency: Latencies,
    pub(crate) counts: Counts,
}

/// How many requests were admitted, and how many may have been.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Admitted {
    pub(crate) certain: u64,
    pub(crate) unclear: u64,
}

/// What ended in one slice of time.
#[derive(Debug, Clone, Default)]
pub(crate) struct SliceTally {
    pub(crate) latency: Latencies,
    /// In the order of [`Class::ALL`].
    pub(crate) classes: [u64; 4],
    pub(crate) no_answer: u64,
}

/// All that one thread has written down, or all threads together.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) stages: Vec<StageTally>,
    pub(crate) calls: Vec<CallTally>,
    pub(crate) admitted: HashMap<Choice, Admitted>,
    slice: SliceTally,
}

/// Where a thread writes.
pub(crate) struct Meter {
    pub(crate) plan: Arc<Plan>,
    tally: Mutex<Tally>,
    /// Set once all connections are open.
    start: Arc<OnceLock<Instant>>,
    stage_ends: Vec<Duration>,
    in_flight: Arc<AtomicUsize>,
    /// How long the thread has wanted a core so far.
    pub(crate) cpu_ns: AtomicU64,
}

impl Meter {
    pub(crate) fn new(
        plan: &Arc<Plan>,
        start: &Arc<OnceLock<Instant>>,
        in_flight: &Arc<AtomicUsize>,
    ) -> Self {
        let mut end = Duration::ZERO;
        let ends = plan.stages.iter().map(|stage| {
            end += stage.length;
            end
        });
        Self {
            tally: Mutex::new(Tally::new(plan)),
            start: Arc::clone(start),
            stage_ends: ends.collect(),
            in_flight: Arc::clone(in_flight),
            cpu_ns: AtomicU64::new(0),
            plan: Arc::clone(plan),
        }
    }

    /// Notes that a request is sent now over a connection that has been free since `free`; `false`: its time is over, it
    /// must not be sent any more.
    pub(crate) fn sending(&self, arrival: &Arrival, free: Instant) -> bool {
        let now = Instant::now();
        let in_time = now < arrival.at + self.plan.limits.timeout;
        let mut tally = self.tally.lock();
        let stage = &mut tally.stages[arrival.stage];
        stage.late.record(now.saturating_duration_since(arrival.at.max(free)));
        stage.waited += u64::from(free > arrival.at);
        if !in_time {
            stage.not_sent += 1;
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
        in_time
    }

    /// Notes what became of a request.
    pub(crate) fn record(&self, arrival: &Arrival, choice: Choice, outcome: Result<Answer, Fault>) {
        let now = Instant::now();
        let latency = now.saturating_duration_since(arrival.at);
        let elapsed = now.saturating_duration_since(*self.start.get().unwrap_or(&now));
        let meanwhile = self.stage_ends.partition_point(|end| *end <= elapsed);
        let expected = &self.plan.mix.call(choice).expected;
        let is_unexpected = outcome.is_ok_and(|answer| !expected.covers(answer));
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        let mut tally = self.tally.lock();
        tally.stages[arrival.stage].record(outcome, latency, is_unexpected);
        tally.calls[choice.call as usize].record(outcome, latency, is_unexpected);
        tally.slice.record(outcome, latency);
        if let (Ok(_), Some(stage)) = (outcome, tally.stages.get_mut(meanwhile)) {
            stage.answered_meanwhile += 1;
        }
        if self.plan.compares_counters {
            tally.admitted.entry(choice).or_default().record(outcome);
        }
    }

    /// What ended since the last call.
    pub(crate) fn take_slice(&self) -> SliceTally {
        std::mem::take(&mut self.tally.lock().slice)
    }

    /// Adds everything but the slices to the tally of all.
    pub(crate) fn add_to(&self, all: &mut Tally) {
        all.add(&self.tally.lock());
    }
}

impl Tally {
    /// Nothing yet.
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            stages: vec![StageTally::default(); plan.stages.len()],
            calls: vec![CallTally::default(); plan.mix.calls().count()],
            ..Self::default()
        }
    }

    fn add(&mut self, other: &Self) {
        self.stages.iter_mut().zip(&other.stages).for_each(|(mine, others)| mine.add(others));
        self.calls.iter_mut().zip(&other.calls).for_each(|(mine, others)| mine.add(others));
        for (choice, admitted) in &other.admitted {
            let mine = self.admitted.entry(*choice).or_default();
            mine.certain += admitted.certain;
            mine.unclear += admitted.unclear;
        }
    }
}

impl StageTally {
    fn record(&mut self, outcome: Result<Answer, Fault>, latency: Duration, is_unexpected: bool) {
        match outcome {
            Ok(answer) if answer.class() == Class::Ok => self.latency_ok.record(latency),
            // Somebody waited as long as that, and would have longer.
            Ok(_) | Err(Fault::Timeout) => self.latency_rest.record(latency),
            Err(_) => {}
        }
        self.counts.record(outcome, is_unexpected);
    }

    fn add(&mut self, other: &Self) {
        self.latency_ok.add(&other.latency_ok);
        self.latency_rest.add(&other.latency_rest);
        self.late.add(&other.late);
        self.waited += other.waited;
        self.not_sent += other.not_sent;
        self.counts.add(&other.counts);
        self.answered_meanwhile += other.answered_meanwhile;
    }
}

impl CallTally {
    fn record(&mut self, outcome: Result<Answer, Fault>, latency: Duration, is_unexpected: bool) {
        if matches!(outcome, Ok(_) | Err(Fault::Timeout)) {
            self.latency.record(latency);
        }
        self.counts.record(outcome, is_unexpected);
    }

    fn add(&mut self, other: &Self) {
        self.latency.add(&other.latency);
        self.counts.add(&other.counts);
    }
}

impl SliceTally {
    fn record(&mut self, outcome: Result<Answer, Fault>, latency: Duration) {
        match outcome {
            Ok(answer) => {
                self.classes[answer.class() as usize] += 1;
                self.latency.record(latency);
            }
            Err(fault) => {
                self.no_answer += 1;
                if fault == Fault::Timeout {
                    self.latency.record(latency);
                }
            }
        }
    }

    /// Takes in what another thread has.
    pub(crate) fn add(&mut self, other: &Self) {
        self.latency.add(&other.latency);
        self.no_answer += other.no_answer;
        self.classes.iter_mut().zip(other.classes).for_each(|(mine, others)| *mine += others);
    }
}

impl Admitted {
    fn record(&mut self, outcome: Result<Answer, Fault>) {
        match outcome.map(Answer::admission) {
            Ok(Admission::Admitted) => self.certain += 1,
            Ok(Admission::Refused) | Err(Fault::Connect) => {}
            Ok(Admission::Unclear) | Err(Fault::Broken | Fault::Timeout) => self.unclear += 1,
        }
    }
}
