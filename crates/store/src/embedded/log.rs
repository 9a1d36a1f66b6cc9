//! The log: what happened since the checkpoint, one framed entry after the other.
//!
//! Files are called `log-<number of their first entry>`. A frame is length, CRC-32 and the entry, little-endian. An
//! entry is written with one `write(2)`, so a kill leaves at most one torn frame at the end, which was never answered
//! and is cut off at the next start.

use std::fs::{File, OpenOptions};
use std::io::{Error, Read, Result, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::entry::LogEntry;
use crate::StoreError;

const FRAME_HEAD_BYTES: usize = 8;

/// Longest entry; a longer length is a broken frame.
const ENTRY_BYTES_MAX: usize = 64 << 20;

pub(super) struct Log {
    dir: PathBuf,
    writer: Mutex<Writer>,
    /// Written since the last sync.
    unsynced: AtomicBool,
    /// One sync at a time: who waits for it finds its own entries on disk as well.
    syncing: Mutex<()>,
}

struct Writer {
    file: File,
    /// Number of the next entry.
    next: u64,
    bytes: u64,
    /// Set once a failed write could not be undone: nothing may follow it.
    broken: bool,
    buffer: Vec<u8>,
}

impl Log {
    /// Opens the log of a folder and hands every entry in it to `replay`. Numbers go on from the last entry, at least
    /// from `next_at_least`.
    pub(super) fn open(
        dir: &Path,
        next_at_least: u64,
        mut replay: impl FnMut(u64, LogEntry),
    ) -> Result<Self> {
        let mut next = next_at_least.max(1);
        let mut last = None;
        let files = files(dir)?;
        for (place, (first, path)) in files.iter().enumerate() {
            let mut file = OpenOptions::new().read(true).write(true).open(path)?;
            let (count, whole_bytes) = read_frames(&mut file, *first, &mut replay)?;
            let is_last = place + 1 == files.len();
            if file.metadata()?.len() > whole_bytes {
                if !is_last {
                    let text = format!("{} is damaged at byte {whole_bytes}", path.display());
                    return Err(Error::other(text));
                }
                tracing::warn!(file = %path.display(), offset = whole_bytes, "cut off a torn log entry");
                file.set_len(whole_bytes)?;
            }
            next = next.max(first + count);
            file.seek(SeekFrom::End(0))?;
            last = Some((file, whole_bytes));
        }
        let (file, bytes) = match last {
            Some(last) => last,
            None => (create(dir, next)?, 0),
        };
        let writer = Writer { file, next, bytes, broken: false, buffer: vec![] };
        Ok(Self {
            dir: dir.to_owned(),
            writer: Mutex::new(writer),
            unsynced: AtomicBool::new(false),
            syncing: Mutex::new(()),
        })
    }

    /// Writes an entry and returns its number.
    pub(super) fn append(&self, entry: &LogEntry) -> std::result::Result<u64, StoreError> {
        let mut writer = self.writer.lock();
        let number = writer.append(entry).map_err(StoreError::Log)?;
        self.unsynced.store(true, Ordering::Release);
        Ok(number)
    }

    /// Bytes in the current file.
    pub(super) fn bytes(&self) -> u64 {
        self.writer.lock().bytes
    }

    /// Forces what was written to disk.
    pub(super) fn sync(&self) -> Result<()> {
        let _one_at_a_time = self.syncing.lock();
        if !self.unsynced.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let file = self.writer.lock().file.try_clone()?;
        file.sync_data().inspect_err(|_| self.unsynced.store(true, Ordering::Release))
    }

    /// Begins a new file; returns the number of its first entry.
    pub(super) fn rotate(&self) -> Result<u64> {
        let mut writer = self.writer.lock();
        writer.file.sync_data()?;
        let next = writer.next;
        writer.file = create(&self.dir, next)?;
        writer.bytes = 0;
        Ok(next)
    }

    /// Removes the files in front of the one before `first`: that one is kept for what was counted in the last
    /// seconds, which no checkpoint holds.
    pub(super) fn remove_before(&self, first: u64) -> Result<()> {
        let older: Vec<_> = files(&self.dir)?.into_iter().filter(|(number, _)| *number < first).collect();
        for (_, path) in older.iter().rev().skip(1) {
            std::fs::remove_file(path)?;
        }
        Ok(())
    }
}

impl Writer {
    fn append(&mut self, entry: &LogEntry) -> Result<u64> {
        if self.broken {
            return Err(Error::other("an earlier write failed and could not be undone"));
        }
        self.buffer.clear();
        self.buffer.resize(FRAME_HEAD_BYTES, 0);
        entry.encode(&mut self.buffer);
        let (head, body) = self.buffer.split_at_mut(FRAME_HEAD_BYTES);
        let length = u32::try_from(body.len()).map_err(Error::other)?;
        head[..4].copy_from_slice(&length.to_le_bytes());
        head[4..].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
        if let Err(error) = self.file.write_all(&self.buffer) {
            let undone = self.file.set_len(self.bytes).and_then(|()| self.file.seek(SeekFrom::End(0)));
            self.broken = undone.is_err();
            return Err(error);
        }
        self.bytes += self.buffer.len() as u64;
        self.next += 1;
        Ok(self.next - 1)
    }
}

fn create(dir: &Path, first: u64) -> Result<File> {
    let path = dir.join(format!("log-{first:020}"));
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
    File::open(dir)?.sync_all()?;
    Ok(file)
}

/// The log's files, oldest first.
fn files(dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for found in std::fs::read_dir(dir)? {
        let path = found?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(first) = name.strip_prefix("log-").and_then(|number| number.parse().ok()) {
            files.push((first, path));
        }
    }
    files.sort();
    Ok(files)
}

/// Replays whole frames; returns how many there were and where they end.
fn read_frames(file: &mut File, first: u64, replay: &mut impl FnMut(u64, LogEntry)) -> Result<(u64, u64)> {
    let mut reader = std::io::BufReader::with_capacity(1 << 20, file);
    let (mut count, mut end) = (0, 0);
    let mut body = Vec::new();
    loop {
        let mut head = [0; FRAME_HEAD_BYTES];
        if reader.read_exact(&mut head).is_err() {
            break;
        }
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let crc = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        if length > ENTRY_BYTES_MAX {
            break;
        }
        body.resize(length, 0);
        if reader.read_exact(&mut body).is_err() || crc32fast::hash(&body) != crc {
            break;
        }
        let Some(entry) = LogEntry::decode(&body) else { break };
        replay(first + count, entry);
        count += 1;
        end += (FRAME_HEAD_BYTES + length) as u64;
    }
    Ok((count, end))
}
