//! Numbers that look random and come again with the same seed.
//!
//! The schedule draws its gaps from one, each request its choices from one of its own, so that what the thousandth
//! request is does not depend on who sent the others, and a run can be repeated. SplitMix64: a few instructions, and good
//! enough to spread load. Not for secrets.

/// A sequence of numbers.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

/// 2^64 divided by the golden ratio: consecutive states lie far apart.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Random {
    /// The sequence of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The sequence that belongs to one request of a run.
    pub(crate) fn of_request(seed: u64, number: u64) -> Self {
        Self(mixed(seed ^ mixed(number)))
    }

    /// Any number.
    pub(crate) fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mixed(self.0)
    }

    /// From 0 up to, not including, `end`, which is at least 1.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        let wide = u128::from(self.any()) * u128::from(end);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// The gap to the next arrival where arrivals are independent of each other, 1 on average.
    pub(crate) fn gap(&mut self) -> f64 {
        // 53 bits are all that a double holds; the added 1 keeps the logarithm finite.
        let unit = ((self.any() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        -unit.ln()
    }
}

fn mixed(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_again() {
        let draw = |seed| {
            let mut random = Random::new(seed);
            [random.any(), random.any()]
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert_ne!(Random::of_request(7, 1).any(), Random::of_request(7, 2).any());
    }

    #[test]
    fn all_values_come_up_alike() {
        let mut counts = [0_u32; 10];
        for number in 0..100_000 {
            counts[usize::try_from(Random::of_request(1, number).below(10)).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    }

    #[test]
    fn gaps_are_one_on_average() {
        let mut random = Random::new(3);
        let sum: f64 = (0..100_000).map(|_| random.gap()).sum();
        assert!((0.99..1.01).contains(&(sum / 100_000.0)), "{sum}");
    }
}
