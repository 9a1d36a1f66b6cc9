//! Who opened the journal: each process that does is a boot, listed in the file's head until it is closed.
//!
//! A gateway's leases are known by its boot. At start it closes the earlier ones, and what it may say of leases that
//! left no record depends on whether all records were kept. Where that is in doubt it stays so, however often the
//! process is killed before it has closed them.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::map::WORD_BYTES;

/// How many boots are remembered.
pub const BOOTS_MAX: usize = 16;

/// Of an entry: order, id, kernel, CRC.
const ENTRY_WORDS: usize = 6;
const CRC: usize = 5;

/// Of the table.
pub(crate) const TABLE_WORDS: usize = BOOTS_MAX * ENTRY_WORDS;

/// No kernel has this boot id.
const UNKNOWN_KERNEL: BootId = BootId([0; 16]);

/// One opening of a journal; random, so that no two share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BootId(pub [u8; 16]);

impl BootId {
    pub(crate) fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    pub(crate) fn words(self) -> [u64; 2] {
        let (words, _) = self.0.as_chunks::<WORD_BYTES>();
        [u64::from_ne_bytes(words[0]), u64::from_ne_bytes(words[1])]
    }

    pub(crate) fn of_words(words: [u64; 2]) -> Self {
        let mut bytes = [0; 16];
        bytes[..WORD_BYTES].copy_from_slice(&words[0].to_ne_bytes());
        bytes[WORD_BYTES..].copy_from_slice(&words[1].to_ne_bytes());
        Self(bytes)
    }
}

/// A boot that is not closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EarlierBoot {
    /// What its leases are known by.
    pub id: BootId,
    /// All that it spent and did not settle is left: the machine did not restart since it began, and no slot was
    /// corrupt. Otherwise a lease of which nothing is left may have been spent all the same.
    pub all_kept: bool,
}

/// The boots in the file's head. Each entry is whole by its CRC, so a kill at any moment leaves a readable table.
pub(crate) struct Boots<'a>(pub(crate) &'a [AtomicU64]);

#[derive(Clone, Copy)]
struct Entry {
    place: usize,
    order: u64,
    id: BootId,
    kernel: BootId,
}

impl Boots<'_> {
    /// All that are listed, the oldest first, seen from a run of the given kernel.
    pub(crate) fn earlier(&self, kernel: BootId) -> Vec<EarlierBoot> {
        let boot = |entry: Entry| EarlierBoot { id: entry.id, all_kept: entry.kernel == kernel };
        self.entries().into_iter().map(boot).collect()
    }

    /// Lists one more. Where there is no room, the oldest without records goes, or else the oldest.
    pub(crate) fn add(&self, id: BootId, kernel: BootId, has_records: impl Fn(BootId) -> bool) {
        let entries = self.entries();
        let vacant = (0..BOOTS_MAX).find(|place| entries.iter().all(|entry| entry.place != *place));
        let dropped = || entries.iter().find(|entry| !has_records(entry.id)).or(entries.first());
        let place = vacant.or_else(|| Some(dropped()?.place)).unwrap_or(0);
        let order = entries.last().map_or(1, |youngest| youngest.order.saturating_add(1));
        self.write(Entry { place, order, id, kernel });
    }

    /// Makes all that are listed look like boots of an unknown kernel, since records of theirs are lost.
    pub(crate) fn doubt(&self) {
        for entry in self.entries() {
            self.write(Entry { kernel: UNKNOWN_KERNEL, ..entry });
        }
    }

    /// Forgets one.
    pub(crate) fn remove(&self, id: BootId) {
        for entry in self.entries().into_iter().filter(|entry| entry.id == id) {
            // No CRC has bits up there.
            self.entry(entry.place)[CRC].store(u64::MAX, Ordering::Release);
        }
    }

    /// The oldest first.
    fn entries(&self) -> Vec<Entry> {
        let mut entries: Vec<Entry> = (0..BOOTS_MAX).filter_map(|place| self.read(place)).collect();
        entries.sort_by_key(|entry| entry.order);
        entries
    }

    fn read(&self, place: usize) -> Option<Entry> {
        let entry = self.entry(place);
        let word = |at: usize| entry[at].load(Ordering::Acquire);
        let content = [word(0), word(1), word(2), word(3), word(4)];
        let [order, id_low, id_high, kernel_low, kernel_high] = content;
        let id = BootId::of_words([id_low, id_high]);
        let kernel = BootId::of_words([kernel_low, kernel_high]);
        (word(CRC) == crc(content)).then_some(Entry { place, order, id, kernel })
    }

    fn write(&self, Entry { place, order, id, kernel }: Entry) {
        let [id_low, id_high] = id.words();
        let [kernel_low, kernel_high] = kernel.words();
        let content = [order, id_low, id_high, kernel_low, kernel_high];
        let entry = self.entry(place);
        for (word, content) in entry.iter().zip(content) {
            word.store(content, Ordering::Relaxed);
        }
        entry[CRC].store(crc(content), Ordering::Release);
    }

    fn entry(&self, place: usize) -> &[AtomicU64] {
        &self.0[place * ENTRY_WORDS..][..ENTRY_WORDS]
    }
}

/// CRC-32 of words.
pub(crate) fn crc(words: impl IntoIterator<Item = u64>) -> u64 {
    let mut hasher = crc32fast::Hasher::new();
    for word in words {
        hasher.update(&word.to_ne_bytes());
    }
    hasher.finalize().into()
}
