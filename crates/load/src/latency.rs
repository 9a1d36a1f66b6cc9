//! A histogram of lengths of time (HDR: three significant digits at every size).
//!
//! In microseconds, growing with what it is given, so that a quiet run costs little memory. Percentiles are the usual
//! ones: the smallest recorded value that at least so many per cent of all values do not exceed.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Lengths of time.
#[derive(Debug, Clone)]
pub struct Latencies {
    histogram: Histogram<u64>,
    /// The histogram itself would round it up.
    longest: Duration,
}

/// Digits that are kept of each value.
const DIGITS: u8 = 3;
/// Nothing takes longer than a day, however wrong a clock is: bounds the memory.
const LONGEST_US: u64 = 86_400_000_000;

impl Default for Latencies {
    fn default() -> Self {
        let histogram = Histogram::new(DIGITS).expect("three digits are a valid precision");
        Self { histogram, longest: Duration::ZERO }
    }
}

impl Latencies {
    /// Takes one in.
    pub(crate) fn record(&mut self, length: Duration) {
        let us = u64::try_from(length.as_micros()).unwrap_or(u64::MAX);
        self.histogram.record(us.clamp(1, LONGEST_US)).expect("it grows to what is recorded");
        self.longest = self.longest.max(length);
    }

    /// Takes in what another one holds.
    pub(crate) fn add(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("it grows to what is added");
        self.longest = self.longest.max(other.longest);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The value that this many per cent do not exceed; 0 when there are none.
    pub fn percentile(&self, percent: f64) -> Duration {
        // 99.9 per cent of 1,000 are 999 values, but a little more than that in floating point.
        let quantile = percent / 100.0 * (1.0 - 1e-12);
        Duration::from_micros(self.histogram.value_at_quantile(quantile)).min(self.longest)
    }

    /// The longest; 0 when there are none.
    pub fn max(&self) -> Duration {
        self.longest
    }

    /// The average; 0 when there are none.
    pub fn mean(&self) -> Duration {
        Duration::from_secs_f64((self.histogram.mean() / 1e6).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(latencies: &Latencies, percent: f64) -> f64 {
        latencies.percentile(percent).as_secs_f64() * 1e3
    }

    #[test]
    fn percentiles_are_the_values_that_so_many_do_not_exceed() {
        let mut latencies = Latencies::default();
        for n in 1..=1_000 {
            latencies.record(Duration::from_millis(n));
        }
        for (percent, expected) in
            [(50.0, 500.0), (90.0, 900.0), (99.0, 990.0), (99.9, 999.0), (100.0, 1_000.0)]
        {
            let found = ms(&latencies, percent);
            assert!((found / expected - 1.0).abs() < 0.001, "p{percent}: {found}");
        }
        assert_eq!(latencies.count(), 1_000);
        assert!((latencies.mean().as_secs_f64() - 0.5005).abs() < 0.001);
    }

    #[test]
    fn one_slow_answer_shows_at_the_top_only() {
        let mut latencies = Latencies::default();
        (0..99).for_each(|_| latencies.record(Duration::from_millis(1)));
        latencies.record(Duration::from_secs(10));
        assert!(ms(&latencies, 99.0) < 1.01);
        assert!(ms(&latencies, 99.1) > 9_900.0);
        assert_eq!(ms(&latencies, 100.0), latencies.max().as_secs_f64() * 1e3);
    }

    #[test]
    fn histograms_add_up() {
        let (mut one, mut other) = (Latencies::default(), Latencies::default());
        assert_eq!(one.percentile(99.0), Duration::ZERO);
        one.record(Duration::from_micros(5));
        other.record(Duration::from_secs(100));
        one.add(&other);
        assert_eq!((one.count(), ms(&one, 1.0)), (2, 0.005));
        assert_eq!(one.max(), Duration::from_secs(100));
    }
}
