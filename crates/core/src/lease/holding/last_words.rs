//! What is left to be said of leases that nothing is spent from any more.
//!
//! A last word is repeated until it is heard. Then it is kept until the ledger has shown that it lived on for a while:
//! after a fail-over, which may have forgotten what was heard last, all of them are said again.

use std::collections::VecDeque;

use crate::lease::{LeaseId, Message};

/// After this long without an answer it is said again.
pub(super) const ANSWER_MS: u64 = 1_000;
/// A fail-over of the ledger forgets what is younger, at most.
const FORGETTABLE_MS: u64 = 5_000;
/// Most of them that are kept after they were heard.
const HEARD_MAX: usize = 64;

#[derive(Debug)]
struct LastWord<T> {
    tag: T,
    message: Message,
    is_said: bool,
    /// When it was said last, until that is answered.
    asked_at: Option<u64>,
    heard_at: Option<u64>,
}

impl<T> LastWord<T> {
    fn is_due(&self, lived_at: u64, now: u64) -> bool {
        let waits = self.asked_at.is_some_and(|asked| now < asked + ANSWER_MS);
        let is_sure = |heard: u64| now < heard + FORGETTABLE_MS || lived_at >= heard + FORGETTABLE_MS;
        !waits && !self.heard_at.is_some_and(is_sure)
    }
}

/// The last words of one application's leases, the oldest first.
#[derive(Debug)]
pub(super) struct LastWords<T> {
    words: VecDeque<LastWord<T>>,
    /// The ledger has not failed over until then, as far as is known.
    lived_at: u64,
}

impl<T> LastWords<T> {
    pub(super) fn new() -> Self {
        Self { words: VecDeque::new(), lived_at: 0 }
    }

    pub(super) fn add(&mut self, tag: T, message: Message) {
        self.words.push_back(LastWord { tag, message, is_said: false, asked_at: None, heard_at: None });
    }

    /// How many were not heard yet.
    pub(super) fn unheard(&self) -> usize {
        self.words.iter().filter(|word| word.heard_at.is_none()).count()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    pub(super) fn tags(&self) -> impl Iterator<Item = &T> {
        self.words.iter().map(|word| &word.tag)
    }

    /// The word about a lease, as long as nobody may have heard it.
    pub(super) fn unsaid(&mut self, id: LeaseId) -> Option<(&T, &mut Message)> {
        let word = self.words.iter_mut().find(|word| word.message.id == id && !word.is_said)?;
        Some((&word.tag, &mut word.message))
    }

    pub(super) fn due(&mut self, now: u64) -> impl Iterator<Item = Message> {
        let lived_at = self.lived_at;
        self.words.iter_mut().filter(move |word| word.is_due(lived_at, now)).map(move |word| {
            (word.is_said, word.asked_at) = (true, Some(now));
            word.message.round += 1;
            word.message.clone()
        })
    }

    /// One of them was heard. `false`: none of them, or an earlier saying.
    pub(super) fn heard(&mut self, id: LeaseId, round: u32, now: u64) -> bool {
        let is_it = |word: &&mut LastWord<T>| word.message.id == id && word.message.round == round;
        let Some(word) = self.words.iter_mut().find(is_it) else { return false };
        let Some(asked_at) = word.asked_at.take() else { return false };
        word.heard_at.get_or_insert(now);
        self.lived(asked_at);
        true
    }

    /// An answer came from the same life of the ledger to what was asked then.
    pub(super) fn lived(&mut self, asked_at: u64) {
        self.lived_at = self.lived_at.max(asked_at);
    }

    /// All may have been forgotten.
    pub(super) fn forgotten(&mut self) {
        for word in &mut self.words {
            (word.asked_at, word.heard_at) = (None, None);
        }
    }

    /// Answers on their way do not come any more.
    pub(super) fn unanswered(&mut self) {
        self.words.iter_mut().for_each(|word| word.asked_at = None);
    }

    /// One that needs not be said again.
    pub(super) fn retire(&mut self) -> Option<T> {
        let heard = self.words.iter().filter(|word| word.heard_at.is_some()).count();
        let is_over = |word: &LastWord<T>| {
            word.heard_at.is_some_and(|at| heard > HEARD_MAX || self.lived_at >= at + FORGETTABLE_MS)
        };
        let at = self.words.iter().position(is_over)?;
        self.words.remove(at).map(|word| word.tag)
    }
}
