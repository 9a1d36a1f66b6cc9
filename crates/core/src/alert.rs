//! How far a limit is used, in the steps at which a provider wants to hear of it.
//!
//! The steps are those of 3scale ("utilization bins"; reference: Service Management API, section 4). The store finds
//! the crossing in the step that counts.

/// All steps, in per cent of a limit.
pub const ALERT_BINS: [u16; 8] = [50, 80, 90, 100, 120, 150, 200, 300];

/// Which steps a provider wants to hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AlertBins(u8);

impl AlertBins {
    /// All of them.
    pub const ALL: Self = Self(u8::MAX);
    /// None of them.
    pub const NONE: Self = Self(0);

    /// These steps; `None` where one is not of [`ALERT_BINS`].
    pub fn of(percents: impl IntoIterator<Item = u64>) -> Option<Self> {
        let mut bins = Self::NONE;
        for percent in percents {
            bins.0 |= 1 << ALERT_BINS.iter().position(|bin| u64::from(*bin) == percent)?;
        }
        Some(bins)
    }

    /// The steps in per cent, ascending.
    pub fn percents(self) -> impl Iterator<Item = u16> {
        ALERT_BINS
            .into_iter()
            .enumerate()
            .filter(move |(place, _)| self.0 & (1 << place) != 0)
            .map(|(_, bin)| bin)
    }

    /// One bit for each of [`ALERT_BINS`], the lowest for the first.
    pub fn bits(self) -> u8 {
        self.0
    }
}

/// 3scale's backend has none at first, its admin portal switches on all: who moves over expects these.
impl Default for AlertBins {
    fn default() -> Self {
        Self::ALL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_those_of_the_field() {
        let percents =
            |bins: &[u64]| AlertBins::of(bins.iter().copied()).map(|b| b.percents().collect::<Vec<_>>());
        assert_eq!(percents(&[]), Some(vec![]));
        assert_eq!(percents(&[300, 50, 50]), Some(vec![50, 300]));
        assert_eq!(percents(&[50, 51]), None);
        assert_eq!(AlertBins::of(ALERT_BINS.map(u64::from)), Some(AlertBins::ALL));
    }
}
