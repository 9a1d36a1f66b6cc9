//! When each request is due: stage after stage, at a steady or a rising rate, evenly or at random.
//!
//! The pacer walks it. What is due after t seconds of a stage is the area under its rate; the n-th arrival is where that
//! area reaches n, or, at random, where it reaches the sum of n independent gaps. So one inversion serves constant rates
//! and ramps, and a ramp has no steps in it.
//!
//! It reads no clock: times are offsets from the start of the run.

use std::time::Duration;

use crate::plan::{Arrivals, Stage};
use crate::random::Random;

/// A request's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Due {
    /// Which stage it belongs to.
    pub(crate) stage: usize,
    /// After the start of the run.
    pub(crate) offset: Duration,
}

/// All times of a run, in order.
pub(crate) struct Schedule {
    stages: Vec<Stage>,
    arrivals: Arrivals,
    random: Random,
    stage: usize,
    begun: Duration,
    /// How much of the stage's area lies behind.
    area: f64,
}

/// What rounding may take from an area of whole requests.
const ROUNDING: f64 = 1e-6;

impl Schedule {
    /// The same times for the same seed.
    pub(crate) fn new(stages: Vec<Stage>, arrivals: Arrivals, seed: u64) -> Self {
        let mut schedule =
            Self { stages, arrivals, random: Random::new(seed), stage: 0, begun: Duration::ZERO, area: 0.0 };
        schedule.enter();
        schedule
    }

    /// How long all stages take together.
    pub(crate) fn length(&self) -> Duration {
        self.stages.iter().map(|stage| stage.length).sum()
    }

    /// The first arrival of an even schedule is at the stage's start, of a random one a gap later.
    fn enter(&mut self) {
        self.area = match self.arrivals {
            Arrivals::Uniform => 0.0,
            Arrivals::Poisson => self.random.gap(),
        };
    }

    fn is_over(&self, stage: &Stage) -> bool {
        match self.arrivals {
            Arrivals::Uniform => self.area + 1.0 > stage.area() + ROUNDING,
            Arrivals::Poisson => self.area >= stage.area(),
        }
    }
}

impl Iterator for Schedule {
    type Item = Due;

    fn next(&mut self) -> Option<Due> {
        loop {
            let stage = self.stages.get(self.stage)?;
            if !self.is_over(stage) {
                let due = Due { stage: self.stage, offset: self.begun + stage.reaches(self.area) };
                self.area += match self.arrivals {
                    Arrivals::Uniform => 1.0,
                    Arrivals::Poisson => self.random.gap(),
                };
                return Some(due);
            }
            self.begun += stage.length;
            self.stage += 1;
            self.enter();
        }
    }
}

impl Stage {
    /// How many requests are due in it, on average.
    fn area(&self) -> f64 {
        (f64::from(self.from) + f64::from(self.to)) / 2.0 * self.length.as_secs_f64()
    }

    /// When that many are: the root of `from * t + slope / 2 * t^2 = area`, in the form that does not cancel.
    fn reaches(&self, area: f64) -> Duration {
        let (from, to) = (f64::from(self.from), f64::from(self.to));
        let slope = (to - from) / self.length.as_secs_f64();
        let root = (from * from + 2.0 * slope * area).max(0.0).sqrt();
        if area <= 0.0 {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64(2.0 * area / (from + root)).unwrap_or(self.length).min(self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(from: u32, to: u32, ms: u64) -> Stage {
        Stage { from, to, length: Duration::from_millis(ms), is_warm_up: false }
    }

    /// How many are due in each stage, and the offsets in ms of the first few.
    #[track_caller]
    fn check(stages: &[Stage], counts: &[usize], first_ms: &[u128]) {
        let due: Vec<Due> = Schedule::new(stages.to_vec(), Arrivals::Uniform, 1).collect();
        let counted: Vec<usize> =
            (0..stages.len()).map(|at| due.iter().filter(|due| due.stage == at).count()).collect();
        assert_eq!(counted, counts);
        let offsets: Vec<u128> = due.iter().take(first_ms.len()).map(|due| due.offset.as_millis()).collect();
        assert_eq!(offsets, first_ms);
        assert!(due.windows(2).all(|pair| pair[0].offset <= pair[1].offset), "out of order");
    }

    #[test]
    fn constant_rates_are_even_and_exact() {
        check(&[stage(1_000, 1_000, 1_000)], &[1_000], &[0, 1, 2]);
        check(&[stage(10, 10, 1_500)], &[15], &[0, 100, 200]);
        check(&[stage(3, 3, 100)], &[0], &[]);
        check(&[stage(1, 1, 1_000), stage(100, 100, 100)], &[1, 10], &[0, 1_000, 1_010]);
    }

    #[test]
    fn ramps_gather_speed() {
        // Half of what a constant rate of 100 gives, and the n-th is due at the root of n.
        check(&[stage(0, 100, 2_000)], &[100], &[0, 200, 282, 346, 400]);
        check(&[stage(100, 0, 2_000)], &[100], &[0, 10, 20]);
        check(&[stage(50, 100, 1_000)], &[75], &[0, 19]);
    }

    #[test]
    fn random_arrivals_keep_the_rate_and_come_again_with_the_seed() {
        let draw = |seed| Schedule::new(vec![stage(10_000, 10_000, 2_000)], Arrivals::Poisson, seed);
        let due: Vec<Due> = draw(5).collect();
        assert!((19_500..20_500).contains(&due.len()), "{}", due.len());
        assert!(draw(5).eq(draw(5)));
        assert!(!draw(5).eq(draw(6)));
        // In independent arrivals the count of a slice varies as much as it is: variance = mean.
        let mut slices = vec![0_f64; 200];
        for one in &due {
            let slice = usize::try_from(one.offset.as_millis() / 10).unwrap();
            slices[slice] += 1.0;
        }
        let variance = slices.iter().map(|count| (count - 100.0).powi(2)).sum::<f64>() / 200.0;
        assert!((60.0..150.0).contains(&variance), "{variance}");
    }
}
