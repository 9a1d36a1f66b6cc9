//! What a run came to: plain data, for tables, pages, thresholds and the comparison with counters.
//!
//! Made once, when the last request has ended. Durations are as measured, from the time a request was due.

use std::sync::atomic::Ordering;
use std::time::Duration;

use hashbrown::HashMap;

use crate::counts::Counts;
use crate::latency::Latencies;
use crate::mix::Choice;
use crate::pacer::Paced;
use crate::plan::{Plan, Stage};
use crate::tally::{Admitted, StageTally, Tally};

/// All of a run.
#[derive(Debug)]
pub struct Outcome {
    /// In the order of the plan; those that were never begun are left out.
    pub stages: Vec<StageOutcome>,
    /// In the order of the mix.
    pub calls: Vec<CallOutcome>,
    /// How the run went, slice by slice.
    pub slices: Vec<Slice>,
    /// Whether it was ended before its time.
    pub is_interrupted: bool,
    /// By caller and call, where counters are to be compared.
    pub(crate) admitted: HashMap<Choice, Admitted>,
}

/// What one stage came to. Its requests are those that were due in it.
#[derive(Debug, Clone)]
pub struct StageOutcome {
    /// As it was planned.
    pub stage: Stage,
    /// How long it took: less than planned when it was interrupted.
    pub length: Duration,
    /// Requests that were due.
    pub due: u64,
    /// Those among them that were never sent: too many were in flight, or none of the connections became free in time.
    pub not_sent: u64,
    /// Those that were sent and then cut off by an interruption.
    pub cut_off: u64,
    /// Answers that came during the stage, per second.
    pub achieved_rate: f64,
    /// Of all answers, and of waits that ended with the time-out.
    pub latency: Latencies,
    /// Of answers below 400 alone.
    pub latency_ok: Latencies,
    /// Answers, and requests without one.
    pub counts: Counts,
    /// How late requests were sent by this program's own fault.
    pub late: Latencies,
    /// Requests that had to wait for a free connection.
    pub waited: u64,
    /// Share of the time in which the busiest of this program's threads ran or waited for a core: at 1 it is the limit.
    pub busiest_thread: f64,
}

/// What the requests of one call came to.
#[derive(Debug, Clone)]
pub struct CallOutcome {
    /// What the mix calls it.
    pub name: String,
    /// Of all answers, and of waits that ended with the time-out.
    pub latency: Latencies,
    /// Answers, and requests without one.
    pub counts: Counts,
}

/// A slice of time: what ended in it, whenever it was due.
#[derive(Debug, Clone)]
pub struct Slice {
    /// When it ended, from the start of the run.
    pub end: Duration,
    /// How long it was.
    pub length: Duration,
    /// Which stage its middle lies in.
    pub stage: usize,
    /// Requests per second that were intended in its middle; 0 after the last stage.
    pub rate: f64,
    /// Requests that became due.
    pub due: u64,
    /// Those among them that were never sent, since too many were in flight.
    pub not_sent: u64,
    /// Requests that were due and had not ended, at its end.
    pub in_flight: usize,
    /// Answers, in the order of [`crate::Class::ALL`].
    pub classes: [u64; 4],
    /// Requests that ended without an answer.
    pub no_answer: u64,
    /// Half of the answers took no longer.
    pub p50: Duration,
    /// 99 of 100 took no longer.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
    /// Share of the time in which the busiest of this program's threads ran or waited for a core: at 1 it is the limit.
    pub busiest_thread: f64,
}

impl Slice {
    /// How many answers came.
    pub fn answered(&self) -> u64 {
        self.classes.iter().sum()
    }

    /// Answers per second.
    pub fn answered_rate(&self) -> f64 {
        self.answered() as f64 / self.length.as_secs_f64().max(1e-9)
    }
}

impl StageOutcome {
    /// Requests per second that were intended, on average.
    pub fn intended_rate(&self) -> f64 {
        f64::midpoint(f64::from(self.stage.from), f64::from(self.stage.to))
    }

    /// How many were sent.
    pub fn sent(&self) -> u64 {
        self.due - self.not_sent
    }
}

impl Outcome {
    /// Answers, and requests without one, of all stages.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.stages.iter().for_each(|stage| counts.add(&stage.counts));
        counts
    }

    /// Latencies of all stages but warm-ups.
    pub fn latency(&self) -> Latencies {
        let mut latency = Latencies::default();
        let judged = self.stages.iter().filter(|stage| !stage.stage.is_warm_up);
        judged.for_each(|stage| latency.add(&stage.latency));
        latency
    }

    /// How late requests were sent by this program's own fault, in all stages.
    pub fn late(&self) -> Latencies {
        let mut late = Latencies::default();
        self.stages.iter().for_each(|stage| late.add(&stage.late));
        late
    }
}

/// What is known when the last request has ended.
pub(crate) struct Observed<'a> {
    pub(crate) tally: Tally,
    pub(crate) paced: &'a Paced,
    /// How long the schedule ran.
    pub(crate) length: Duration,
    pub(crate) slices: Vec<Slice>,
    pub(crate) is_interrupted: bool,
}

/// Makes the outcome of it.
pub(crate) fn of(plan: &Plan, observed: Observed<'_>) -> Outcome {
    let Observed { tally, paced, length: end, slices, is_interrupted } = observed;
    let calls = plan.mix.calls().zip(tally.calls).map(|(call, tally)| CallOutcome {
        name: call.name.clone(),
        latency: tally.latency,
        counts: tally.counts,
    });
    let mut begun = Duration::ZERO;
    let mut stages = Vec::new();
    for (at, (planned, tally)) in plan.stages.iter().zip(tally.stages).enumerate() {
        let due = paced.stages[at].due.load(Ordering::Relaxed);
        let not_sent = paced.stages[at].not_sent.load(Ordering::Relaxed);
        let ended_early = is_interrupted && end < begun + planned.length;
        let length = if ended_early { end.saturating_sub(begun) } else { planned.length };
        let busiest_thread = busiest_thread(&slices, at);
        if due > 0 || !ended_early {
            stages.push(stage(planned, length, (due, not_sent), tally, busiest_thread));
        }
        begun += planned.length;
    }
    Outcome { stages, calls: calls.collect(), slices, is_interrupted, admitted: tally.admitted }
}

fn stage(
    planned: &Stage,
    length: Duration,
    (due, no_room): (u64, u64),
    tally: StageTally,
    busiest_thread: f64,
) -> StageOutcome {
    let not_sent = no_room + tally.not_sent;
    let ended = not_sent + tally.counts.answered() + tally.counts.no_answer();
    let mut latency = tally.latency_rest;
    latency.add(&tally.latency_ok);
    StageOutcome {
        stage: planned.clone(),
        length,
        due,
        not_sent,
        cut_off: due.saturating_sub(ended),
        achieved_rate: tally.answered_meanwhile as f64 / length.as_secs_f64().max(1e-9),
        latency,
        latency_ok: tally.latency_ok,
        counts: tally.counts,
        late: tally.late,
        waited: tally.waited,
        busiest_thread,
    }
}

/// Weighted by length, since the slices of a stage need not be equally long.
fn busiest_thread(slices: &[Slice], stage: usize) -> f64 {
    let of_stage = slices.iter().filter(|slice| slice.stage == stage && slice.rate > 0.0);
    let (busy, all) = of_stage.fold((0.0, 0.0), |(busy, all), slice| {
        let length = slice.length.as_secs_f64();
        (busy + slice.busiest_thread * length, all + length)
    });
    if all > 0.0 { busy / all } else { 0.0 }
}
