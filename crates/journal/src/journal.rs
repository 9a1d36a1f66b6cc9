//! The open journal: which slots are free, and what concerns the file as a whole.
//!
//! The gateway keeps one and claims a slot per lease. The list of free slots is in memory alone, behind a lock that is
//! held for a push or a pop.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;

use crate::map::Map;
use crate::slot::{COUNTERS_MAX, RECORD_BYTES_MAX, Slot};

/// An open journal; clones are the same one. The file stays locked until all of them and all slots are dropped.
#[derive(Clone)]
pub struct Journal {
    pub(crate) shared: Arc<Shared>,
}

/// What the journal and its slots have in common.
pub(crate) struct Shared {
    pub(crate) map: Map,
    pub(crate) slots: u32,
    /// Which run of the kernel this is.
    pub(crate) kernel: [u64; 2],
    /// The last in the list is claimed next.
    pub(crate) free: Mutex<Vec<u32>>,
    /// Of the next claim. Begins at random, so that no two runs share any.
    pub(crate) sequence: AtomicU64,
}

/// Why there is no slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// Every slot is claimed.
    #[error("all {0} slots of the journal are claimed")]
    Full(u32),
    /// More than [`RECORD_BYTES_MAX`].
    #[error("a record of {0} bytes does not fit into a slot, which has room for {RECORD_BYTES_MAX}")]
    RecordTooLong(usize),
    /// More than [`COUNTERS_MAX`].
    #[error("{0} counters do not fit into a slot, which has {COUNTERS_MAX}")]
    TooManyCounters(usize),
}

impl Journal {
    /// Takes a free slot for a record, with counters that begin at 0. When it returns, the record survives a kill.
    ///
    /// # Errors
    ///
    /// When there is no free slot, or when the record or the counters do not fit into one.
    pub fn claim(&self, record: &[u8], counters: usize) -> Result<Slot, ClaimError> {
        if record.len() > RECORD_BYTES_MAX {
            return Err(ClaimError::RecordTooLong(record.len()));
        }
        if counters > COUNTERS_MAX {
            return Err(ClaimError::TooManyCounters(counters));
        }
        let free = self.shared.free.lock().pop();
        let number = free.ok_or(ClaimError::Full(self.shared.slots))?;
        Ok(Slot::claim(&self.shared, number, record, counters))
    }

    /// Waits until everything added so far is on disk. Blocks the thread: not for one that serves requests.
    ///
    /// # Errors
    ///
    /// Those of `msync(2)`: the disk failed, and what was added may not survive a power cut.
    pub fn sync(&self) -> io::Result<()> {
        self.shared.map.sync()
    }

    /// How many slots are claimed, among them those that an earlier run left and those that were dropped unreleased.
    pub fn depth(&self) -> usize {
        self.capacity() - self.shared.free.lock().len()
    }

    /// How many slots there are.
    pub fn capacity(&self) -> usize {
        self.shared.slots as usize
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("depth", &self.depth()).field("capacity", &self.capacity()).finish()
    }
}
