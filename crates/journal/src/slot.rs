//! One slot: the record of a lease and what was spent of it.
//!
//! The owner of a lease holds it and adds from any thread. Everything but the counters is written once, before the slot
//! is published by one store of its state; so at a kill it is either claimed and whole, or free.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::journal::Shared;
use crate::map::WORD_BYTES;
use crate::open::HEAD_WORDS;
use crate::sealed::{add, number, seal, unseal};

/// How many counters a slot has room for.
pub const COUNTERS_MAX: usize = 18;

/// How long a record can be.
pub const RECORD_BYTES_MAX: usize = (SLOT_WORDS - RECORD) * WORD_BYTES;

/// A slot.
pub(crate) const SLOT_WORDS: usize = 128;

// Where its parts begin, in words.
const STATE: usize = 0;
const SEQUENCE: usize = 1;
const LENGTHS: usize = 2;
const CRC: usize = 3;
const KERNEL: usize = 4;
const COUNTERS: usize = 6;
const RECORD: usize = COUNTERS + COUNTERS_MAX;

const FREE: u64 = 0;
const CLAIMED: u64 = u64::from_ne_bytes(*b"CLAIMED!");

/// A claimed slot. Dropped without [`Slot::release`] it stays claimed, and is handed out when the journal is opened
/// next.
pub struct Slot {
    shared: Arc<Shared>,
    number: u32,
    record_bytes: usize,
    counters: usize,
    /// What the counters are sealed with, each with its index added.
    key: u64,
}

/// What a slot was found to be at start.
pub(crate) enum Found {
    Free,
    Left { slot: Slot, counts: Vec<u64> },
    Corrupt,
}

impl Slot {
    /// Fills a free slot and publishes it. Record and counters have to fit.
    pub(crate) fn claim(shared: &Arc<Shared>, number: u32, record: &[u8], counters: usize) -> Self {
        let words = words_of(shared, number);
        let sequence = shared.sequence.fetch_add(1, Ordering::Relaxed);
        for (at, content) in [
            (SEQUENCE, sequence),
            (LENGTHS, record.len() as u64 | (counters as u64) << 32),
            (KERNEL, shared.kernel[0]),
            (KERNEL + 1, shared.kernel[1]),
        ] {
            words[at].store(content, Ordering::Relaxed);
        }
        for (word, bytes) in words[RECORD..].iter().zip(record.chunks(WORD_BYTES)) {
            let mut whole = [0; WORD_BYTES];
            whole[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_ne_bytes(whole), Ordering::Relaxed);
        }
        let crc = crc_of(words, number, record.len());
        words[CRC].store(crc, Ordering::Relaxed);
        let slot = Self {
            shared: Arc::clone(shared),
            number,
            record_bytes: record.len(),
            counters,
            key: counter_key(crc),
        };
        for index in 0..counters {
            words[COUNTERS + index].store(seal(0, slot.counter_key(index)), Ordering::Relaxed);
        }
        words[STATE].store(CLAIMED, Ordering::Release);
        slot
    }

    /// What is there of an earlier run.
    pub(crate) fn find(shared: &Arc<Shared>, number: u32) -> Found {
        let words = words_of(shared, number);
        match words[STATE].load(Ordering::Acquire) {
            FREE => Found::Free,
            CLAIMED => Self::read(shared, number, words)
                .map_or(Found::Corrupt, |(slot, counts)| Found::Left { slot, counts }),
            _ => Found::Corrupt,
        }
    }

    /// A claimed slot and its counts, when all of its parts agree.
    fn read(shared: &Arc<Shared>, number: u32, words: &[AtomicU64]) -> Option<(Self, Vec<u64>)> {
        let lengths = words[LENGTHS].load(Ordering::Relaxed);
        let record_bytes = usize::try_from(lengths & u64::from(u32::MAX)).ok()?;
        let counters = usize::try_from(lengths >> 32).ok()?;
        if record_bytes > RECORD_BYTES_MAX || counters > COUNTERS_MAX {
            return None;
        }
        let crc = crc_of(words, number, record_bytes);
        if words[CRC].load(Ordering::Relaxed) != crc {
            return None;
        }
        let slot = Self { shared: Arc::clone(shared), number, record_bytes, counters, key: counter_key(crc) };
        let count =
            |index: usize| unseal(words[COUNTERS + index].load(Ordering::Relaxed), slot.counter_key(index));
        let counts = (0..counters).map(count).collect::<Option<_>>()?;
        Some((slot, counts))
    }

    /// Empties a slot of which nothing can be used.
    pub(crate) fn clear(shared: &Shared, number: u32) {
        words_of(shared, number)[STATE].store(FREE, Ordering::Release);
    }

    /// Adds to a counter; it stays at [`COUNT_MAX`](crate::COUNT_MAX) once it is there.
    ///
    /// # Panics
    ///
    /// When the slot was claimed with fewer counters.
    pub fn add(&self, counter: usize, by: u64) {
        self.change(counter, |word, key| add(word, by, key));
    }

    /// Takes back what was added for a call that did not go on after all; the counter stops at 0.
    ///
    /// # Panics
    ///
    /// When the slot was claimed with fewer counters.
    pub fn take_back(&self, counter: usize, by: u64) {
        self.change(counter, |word, key| seal(number(word).saturating_sub(by), key));
    }

    /// What was added to a counter.
    ///
    /// # Panics
    ///
    /// When the slot was claimed with fewer counters.
    pub fn count(&self, counter: usize) -> u64 {
        number(self.counter(counter).load(Ordering::Relaxed))
    }

    /// The record, as it was claimed with.
    pub fn record(&self) -> Vec<u8> {
        let words = &words_of(&self.shared, self.number)[RECORD..];
        let bytes = words.iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes());
        bytes.take(self.record_bytes).collect()
    }

    /// Frees the slot: what it says has been settled.
    pub fn release(self) {
        Self::clear(&self.shared, self.number);
        self.shared.free.lock().push(self.number);
    }

    /// Whether another run of the kernel than this one saw it claimed.
    pub(crate) fn machine_restarted(&self) -> bool {
        let words = words_of(&self.shared, self.number);
        [KERNEL, KERNEL + 1].map(|at| words[at].load(Ordering::Relaxed)) != self.shared.kernel
    }

    fn change(&self, counter: usize, next: impl Fn(u64, u64) -> u64) {
        let key = self.counter_key(counter);
        // Relaxed is enough: all that reads it again is a count, or a process that begins after this one ended.
        self.counter(counter).update(Ordering::Relaxed, Ordering::Relaxed, |word| next(word, key));
    }

    fn counter(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.counters, "counter {index} of a slot with {}", self.counters);
        &words_of(&self.shared, self.number)[COUNTERS + index]
    }

    fn counter_key(&self, index: usize) -> u64 {
        self.key + index as u64
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<u64> = (0..self.counters).map(|index| self.count(index)).collect();
        f.debug_struct("Slot").field("number", &self.number).field("counts", &counts).finish()
    }
}

fn words_of(shared: &Shared, number: u32) -> &[AtomicU64] {
    &shared.map.words()[HEAD_WORDS + number as usize * SLOT_WORDS..][..SLOT_WORDS]
}

/// Of all but the counters, which change, and the state.
fn crc_of(words: &[AtomicU64], number: u32, record_bytes: usize) -> u64 {
    let record = &words[RECORD..][..record_bytes.div_ceil(WORD_BYTES)];
    let parts = words[SEQUENCE..CRC].iter().chain(&words[KERNEL..COUNTERS]).chain(record);
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&u64::from(number).to_ne_bytes());
    parts.for_each(|word| hasher.update(&word.load(Ordering::Relaxed).to_ne_bytes()));
    hasher.finalize().into()
}

/// All bits of the CRC have a part in the 16 that count.
fn counter_key(crc: u64) -> u64 {
    crc ^ crc >> 16
}
