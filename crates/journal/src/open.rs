//! Opening: from a path to a journal that only this process has, and what earlier ones left in it.
//!
//! A new file becomes valid in steps, each of which leaves one that can be opened: the head without slots, then
//! the blocks, then the number of slots. A file grows in the same way. What is not understood is never written to.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::retry_on_intr;

use crate::journal::{Journal, Shared};
use crate::map::{Map, WORD_BYTES};
use crate::sealed::{seal, unseal};
use crate::slot::{Found, SLOT_WORDS, Slot};

/// How many slots a journal can have: a file of 1 GiB.
pub const SLOTS_MAX: u32 = 1 << 20;

/// Before the first slot.
pub(crate) const HEAD_WORDS: usize = 512;

const HEAD_BYTES: u64 = words_to_bytes(HEAD_WORDS);
const SLOT_BYTES: u64 = words_to_bytes(SLOT_WORDS);

const MAGIC: &[u8; 7] = b"WEIRJNL";
const VERSION: u8 = b'1';

/// Where the number of slots is, in bytes, and what it is sealed with.
const SLOTS_AT: u64 = 8;
const SLOTS_KEY: u64 = 0x510f;

const KERNEL_BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// An open journal and what was in it.
#[derive(Debug)]
pub struct Opened {
    /// For this run.
    pub journal: Journal,
    /// What earlier runs did not release: to be settled.
    pub left: Vec<Left>,
    /// What cannot be read.
    pub corrupt: Vec<Corrupt>,
}

/// A record that an earlier run did not release.
#[derive(Debug)]
pub struct Left {
    /// As it was claimed with.
    pub record: Vec<u8>,
    /// What was added, per counter.
    pub counts: Vec<u64>,
    /// It was claimed under another run of the kernel: more may have been added than is found here.
    pub machine_restarted: bool,
    /// To be released when it is settled.
    pub slot: Slot,
}

/// A slot whose parts do not agree. It was freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Corrupt {
    /// Where the slot begins in the file, in bytes.
    pub offset: u64,
}

/// Why a journal cannot be opened. What was in the file is still there.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open, or this one.
    #[error("another process has the journal {} open", .0.display())]
    InUse(PathBuf),
    /// The file is something else.
    #[error("{} is no journal", .0.display())]
    NoJournal(PathBuf),
    /// Another version of Weir wrote it.
    #[error("the journal {} has a layout that this version does not know: {:?}", path.display(), char::from(*version))]
    Version {
        /// The file.
        path: PathBuf,
        /// As it stands there.
        version: u8,
    },
    /// It cannot be told how many slots there are.
    #[error("the head of the journal {} is damaged; move the file away to begin with an empty one", .0.display())]
    DamagedHead(PathBuf),
    /// Some of the slots are missing.
    #[error(
        "the journal {} was cut short: it has {bytes} of {expected_bytes} bytes; move the file away to begin with an \
        empty one",
        path.display()
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// What its head says.
        expected_bytes: u64,
    },
    /// More than [`SLOTS_MAX`] were asked for.
    #[error("a journal can have {SLOTS_MAX} slots; {0} are too many")]
    TooManySlots(u32),
    /// The system refused something, a full disk among them.
    #[error("cannot {doing} {}", path.display())]
    System {
        /// What was tried.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Journal {
    /// Opens the journal at a path, or creates it, with at least so many slots. A file that has more keeps them.
    ///
    /// # Errors
    ///
    /// When the file is in use, is no journal of this version, is damaged, or has no room on its disk.
    pub fn open(path: impl AsRef<Path>, slots: u32) -> Result<Opened, OpenError> {
        let path = path.as_ref();
        if slots > SLOTS_MAX {
            return Err(OpenError::TooManySlots(slots));
        }
        let file = locked(path)?;
        let kernel = kernel_run().map_err(system("read", Path::new(KERNEL_BOOT_ID)))?;
        let sequence = getrandom::u64().map_err(io::Error::other);
        let sequence = sequence.map_err(system("find a random number for", path))?;
        let slots = prepare(&file, path, slots)?;
        let bytes = usize::try_from(bytes(slots)).expect("SLOTS_MAX keeps it in the address space");
        let map = Map::new(file, bytes).map_err(system("map", path))?;
        let sequence = AtomicU64::new(sequence);
        let shared = Arc::new(Shared { map, slots, kernel, free: Mutex::default(), sequence });
        Ok(look_through(&shared))
    }
}

/// The file, which this process alone has until it drops it.
fn locked(path: &Path) -> Result<File, OpenError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path).map_err(system("open the journal", path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
        Err(TryLockError::Error(source)) => Err(system("lock the journal", path)(source)),
    }
}

/// Makes sure that the file is a journal with so many slots, all of them on disk, and says how many there are.
fn prepare(file: &File, path: &Path, wanted: u32) -> Result<u32, OpenError> {
    let held = match head(file, path)? {
        Some(slots) => slots,
        None => create(file, path).map_err(system("write the head of the journal", path))?,
    };
    let slots = held.max(wanted);
    retry_on_intr(|| fallocate(file, FallocateFlags::empty(), 0, bytes(slots)))
        .map_err(|e| system("allocate all blocks of the journal", path)(e.into()))?;
    if slots > held {
        grow(file, slots).map_err(system("grow the journal", path))?;
    }
    Ok(slots)
}

/// How many slots the head says there are. None: the file was not made yet.
fn head(file: &File, path: &Path) -> Result<Option<u32>, OpenError> {
    let mut head = Vec::new();
    file.take(HEAD_BYTES).read_to_end(&mut head).map_err(system("read the journal", path))?;
    let length = file.metadata().map_err(system("read the journal", path))?.len();
    // A power cut while it is made may leave zeros.
    if length <= HEAD_BYTES && head.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let Some((version, rest)) = head.strip_prefix(MAGIC).and_then(<[u8]>::split_first) else {
        return Err(OpenError::NoJournal(path.to_owned()));
    };
    if *version != VERSION {
        return Err(OpenError::Version { path: path.to_owned(), version: *version });
    }
    let truncated =
        |expected_bytes| OpenError::Truncated { path: path.to_owned(), bytes: length, expected_bytes };
    if length < HEAD_BYTES {
        return Err(truncated(HEAD_BYTES));
    }
    let word = rest.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes));
    let slots = word.and_then(|word| u32::try_from(unseal(word, SLOTS_KEY)?).ok());
    let slots = slots.filter(|slots| *slots <= SLOTS_MAX);
    let slots = slots.ok_or_else(|| OpenError::DamagedHead(path.to_owned()))?;
    if length < bytes(slots) { Err(truncated(bytes(slots))) } else { Ok(Some(slots)) }
}

/// Writes the head of a journal without slots: 0.
fn create(file: &File, path: &Path) -> io::Result<u32> {
    let mut head = vec![0; WORD_BYTES * HEAD_WORDS];
    head[..MAGIC.len()].copy_from_slice(MAGIC);
    head[MAGIC.len()] = VERSION;
    head[WORD_BYTES..2 * WORD_BYTES].copy_from_slice(&seal(0, SLOTS_KEY).to_ne_bytes());
    file.write_all_at(&head, 0)?;
    file.sync_all()?;
    // The name has to survive a power cut, too.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()?;
    Ok(0)
}

/// Says that the file has so many slots, once that is true on disk.
fn grow(file: &File, slots: u32) -> io::Result<()> {
    file.sync_all()?;
    file.write_all_at(&seal(slots.into(), SLOTS_KEY).to_ne_bytes(), SLOTS_AT)
}

/// Sorts the slots into free, left and corrupt.
fn look_through(shared: &Arc<Shared>) -> Opened {
    let (mut left, mut corrupt, mut free) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..shared.slots {
        match Slot::find(shared, number) {
            Found::Free => free.push(number),
            Found::Left { slot, counts } => {
                let (record, machine_restarted) = (slot.record(), slot.machine_restarted());
                left.push(Left { record, counts, machine_restarted, slot });
            }
            Found::Corrupt => corrupt.push(number),
        }
    }
    corrupt.iter().for_each(|number| Slot::clear(shared, *number));
    free.extend(&corrupt);
    // The last in the list is claimed first: those in use are close together, on few pages.
    free.reverse();
    *shared.free.lock() = free;
    Opened {
        journal: Journal { shared: Arc::clone(shared) },
        left,
        corrupt: corrupt.into_iter().map(|number| Corrupt { offset: bytes(number) }).collect(),
    }
}

/// Of a journal with so many slots; also where the next one begins.
fn bytes(slots: u32) -> u64 {
    HEAD_BYTES + u64::from(slots) * SLOT_BYTES
}

const fn words_to_bytes(words: usize) -> u64 {
    (words * WORD_BYTES) as u64
}

/// Which run of the kernel this is.
fn kernel_run() -> io::Result<[u64; 2]> {
    let text = std::fs::read_to_string(KERNEL_BOOT_ID)?;
    let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
    let number = u128::from_str_radix(&digits, 16).map_err(io::Error::other)?;
    let bytes = number.to_be_bytes();
    let (words, _) = bytes.as_chunks();
    Ok([words[0], words[1]].map(u64::from_ne_bytes))
}

fn system(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::System { doing, path: path.to_owned(), source }
}
