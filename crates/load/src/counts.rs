//! How often each answer came, and how often none did.
//!
//! Kept for each stage and each call while a run goes on, and reported as it is.

use std::collections::BTreeMap;

use crate::answer::{Answer, Class, Fault};

/// Answers and their absence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// How often each came.
    pub answers: BTreeMap<Answer, u64>,
    /// In the order of [`Fault::ALL`].
    pub faults: [u64; 3],
    /// Answers among them that were not expected.
    pub unexpected: u64,
}

impl Counts {
    /// Takes one in.
    pub(crate) fn record(&mut self, outcome: Result<Answer, Fault>, is_unexpected: bool) {
        match outcome {
            Ok(answer) => *self.answers.entry(answer).or_default() += 1,
            Err(fault) => self.faults[fault as usize] += 1,
        }
        self.unexpected += u64::from(is_unexpected);
    }

    /// Takes in what another one holds.
    pub(crate) fn add(&mut self, other: &Self) {
        for (answer, n) in &other.answers {
            *self.answers.entry(*answer).or_default() += n;
        }
        self.faults.iter_mut().zip(other.faults).for_each(|(mine, others)| *mine += others);
        self.unexpected += other.unexpected;
    }

    /// How many answers there were.
    pub fn answered(&self) -> u64 {
        self.answers.values().sum()
    }

    /// How many of a class.
    pub fn of(&self, class: Class) -> u64 {
        self.answers.iter().filter(|(answer, _)| answer.class() == class).map(|(_, n)| n).sum()
    }

    /// How many requests had no answer.
    pub fn no_answer(&self) -> u64 {
        self.faults.iter().sum()
    }

    /// How many had none, or one that was not expected.
    pub fn errors(&self) -> u64 {
        self.no_answer() + self.unexpected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up() {
        let mut counts = Counts::default();
        for (outcome, is_unexpected) in [
            (Ok(Answer::Http(200)), false),
            (Ok(Answer::Http(201)), false),
            (Ok(Answer::Http(429)), false),
            (Ok(Answer::Http(502)), true),
            (Err(Fault::Timeout), false),
        ] {
            counts.record(outcome, is_unexpected);
        }
        let mut twice = counts.clone();
        twice.add(&counts);
        assert_eq!((twice.answered(), twice.no_answer(), twice.errors()), (8, 2, 4));
        assert_eq!(Class::ALL.map(|class| twice.of(class)), [4, 2, 0, 2]);
        assert_eq!(twice.faults, [0, 0, 2]);
    }
}
