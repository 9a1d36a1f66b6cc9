//! The file as memory: the one place with `unsafe` code.
//!
//! The rest of the crate sees words that are read and written atomically, so threads may do so at any time, and the
//! kernel may write pages to disk meanwhile.

use std::fs::File;
use std::io;
use std::sync::atomic::AtomicU64;

use memmap2::{MmapOptions, MmapRaw};

/// Of a word.
pub(crate) const WORD_BYTES: usize = 8;

pub(crate) struct Map {
    raw: MmapRaw,
    /// Holds the lock.
    file: File,
}

impl Map {
    /// Of the first bytes of a locked file, all of which have to be there.
    pub(crate) fn new(file: File, bytes: usize) -> io::Result<Self> {
        let raw = MmapOptions::new().len(bytes).map_raw(&file)?;
        Ok(Self { raw, file })
    }

    /// The file's words.
    #[expect(unsafe_code, reason = "the kernel gives a pointer")]
    pub(crate) fn words(&self) -> &[AtomicU64] {
        let first = self.raw.as_mut_ptr().cast_const().cast::<AtomicU64>();
        // SAFETY: The map begins on a page, may be read and written, has `len` bytes and lives as long as `self`. Any
        // bytes are a valid `AtomicU64`. This process makes no other reference into the map. Other processes are kept
        // away by the lock; one that ignores it can change words, which an atomic allows for, or cut the file short,
        // which ends this process with a signal.
        unsafe { std::slice::from_raw_parts(first, self.raw.len() / WORD_BYTES) }
    }

    /// Waits until all that was written is on disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.raw.flush()
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // Closing the file is not enough while a process that this one starts still has a copy of it. Where unlocking
        // fails, the end of both has to do.
        let _ = self.file.unlock();
    }
}
