//! The log: what happened since the checkpoint, one frame after the other.
//!
//! Files are called `log-<number of their first entry>`. A frame is what was written with one `write(2)`: length,
//! CRC-32 and entries, little-endian. So a kill leaves at most one torn frame at the end, of which nothing was
//! answered and which is cut off at the next start.

use std::fs::{File, OpenOptions};
use std::io::{Error, Read, Result, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::Book;
use super::tail::{FRAME_HEAD_BYTES, entries};

/// What a file begins with.
const MAGIC: &[u8; 8] = b"WEIRLOG2";

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
    bytes: u64,
    /// Set once a failed write could not be undone: nothing may follow it.
    broken: bool,
    /// Whose memory the next frame uses.
    spare: Vec<u8>,
}

/// Replays the log of a folder: every frame's entries, with the number of each. Returns the log and the number of the
/// next entry, which is at least `next`.
pub(super) fn open(
    dir: &Path,
    mut next: u64,
    mut replay: impl FnMut(u64, &[u8]) -> Option<()>,
) -> Result<(Log, u64)> {
    let mut last = None;
    let files = files(dir)?;
    for (place, (first, path)) in files.iter().enumerate() {
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        let is_last = place + 1 == files.len();
        let (count, whole_bytes) = read_frames(path, &mut file, *first, &mut replay)?;
        if file.metadata()?.len() > whole_bytes {
            if !is_last {
                return Err(Error::other(format!("{} is damaged at byte {whole_bytes}", path.display())));
            }
            tracing::warn!(file = %path.display(), offset = whole_bytes, "cut off a torn log entry");
            file.set_len(whole_bytes)?;
        }
        next = next.max(first + count);
        last = Some((file, whole_bytes));
    }
    let file = match last {
        Some((mut file, bytes)) => {
            file.seek(SeekFrom::End(0))?;
            if bytes == 0 {
                file.write_all(MAGIC)?;
            }
            file
        }
        None => create(dir, next)?,
    };
    let bytes = file.metadata()?.len();
    let writer = Writer { file, bytes, broken: false, spare: vec![] };
    let log = Log {
        dir: dir.to_owned(),
        writer: Mutex::new(writer),
        unsynced: AtomicBool::new(false),
        syncing: Mutex::new(()),
    };
    Ok((log, next))
}

impl Log {
    /// Writes what has come: afterwards it may be answered. What cannot be written stays where it was.
    pub(super) fn write(&self, book: &Mutex<Book>) -> Result<()> {
        let mut writer = self.writer.lock();
        let spare = std::mem::take(&mut writer.spare);
        let frame = book.lock().tail.take(spare);
        self.write_frame(&mut writer, frame, book)
    }

    fn write_frame(&self, writer: &mut Writer, mut frame: Vec<u8>, book: &Mutex<Book>) -> Result<()> {
        if !frame.is_empty() {
            if let Err(error) = writer.write(&mut frame) {
                book.lock().tail.put_back(frame);
                return Err(error);
            }
            self.unsynced.store(true, Ordering::Release);
            frame.clear();
        }
        writer.spare = frame;
        Ok(())
    }

    /// Writes to another file from now on, as if nothing had failed; returns the one so far.
    #[cfg(test)]
    pub(super) fn swap_file(&self, file: File) -> File {
        let mut writer = self.writer.lock();
        writer.broken = false;
        std::mem::replace(&mut writer.file, file)
    }

    /// Bytes in the current file.
    pub(super) fn bytes(&self) -> u64 {
        self.writer.lock().bytes
    }

    /// Writes what has come and forces it to disk.
    pub(super) fn sync(&self, book: &Mutex<Book>) -> Result<()> {
        self.write(book)?;
        let _one_at_a_time = self.syncing.lock();
        if !self.unsynced.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let file = self.writer.lock().file.try_clone()?;
        file.sync_data().inspect_err(|_| self.unsynced.store(true, Ordering::Release))
    }

    /// Begins a new file; returns the number of its first entry.
    pub(super) fn rotate(&self, book: &Mutex<Book>) -> Result<u64> {
        let mut writer = self.writer.lock();
        let spare = std::mem::take(&mut writer.spare);
        let (frame, next) = {
            let mut book = book.lock();
            (book.tail.take(spare), book.tail.next)
        };
        self.write_frame(&mut writer, frame, book)?;
        writer.file.sync_data()?;
        writer.file = create(&self.dir, next)?;
        writer.bytes = MAGIC.len() as u64;
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
    fn write(&mut self, frame: &mut [u8]) -> Result<()> {
        if self.broken {
            return Err(Error::other("an earlier write failed and could not be undone"));
        }
        fill_head(frame)?;
        if let Err(error) = self.file.write_all(frame) {
            let undone = self.file.set_len(self.bytes).and_then(|()| self.file.seek(SeekFrom::End(0)));
            self.broken = undone.is_err();
            return Err(error);
        }
        self.bytes += frame.len() as u64;
        Ok(())
    }
}

/// Puts length and CRC-32 in front of what a frame holds.
pub(super) fn fill_head(frame: &mut [u8]) -> Result<()> {
    let (head, body) = frame.split_at_mut(FRAME_HEAD_BYTES);
    let length = u32::try_from(body.len()).map_err(Error::other)?;
    head[..4].copy_from_slice(&length.to_le_bytes());
    head[4..].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
    Ok(())
}

fn create(dir: &Path, first: u64) -> Result<File> {
    let path = dir.join(format!("log-{first:020}"));
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
    file.write_all(MAGIC)?;
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

/// Replays whole frames; returns how many entries there were and where the frames end.
fn read_frames(
    path: &Path,
    file: &mut File,
    first: u64,
    replay: &mut impl FnMut(u64, &[u8]) -> Option<()>,
) -> Result<(u64, u64)> {
    let mut reader = std::io::BufReader::with_capacity(1 << 20, file);
    let mut magic = vec![];
    reader.by_ref().take(MAGIC.len() as u64).read_to_end(&mut magic)?;
    if !MAGIC.starts_with(&magic) {
        return Err(Error::other(format!("{} is of another version", path.display())));
    }
    if magic.len() < MAGIC.len() {
        return Ok((0, 0));
    }
    let (mut count, mut end) = (0, MAGIC.len() as u64);
    let mut body = Vec::new();
    while read_frame(&mut reader, &mut body) {
        for entry in entries(&body) {
            let replayed = entry.and_then(|entry| replay(first + count, entry));
            if replayed.is_none() {
                // Its checksum is right, so this is no torn write.
                return Err(Error::other(format!("{} is damaged at byte {end}", path.display())));
            }
            count += 1;
        }
        end += (FRAME_HEAD_BYTES + body.len()) as u64;
    }
    Ok((count, end))
}

/// Reads what a frame holds; false when it is not whole.
pub(super) fn read_frame(reader: &mut impl Read, body: &mut Vec<u8>) -> bool {
    let mut head = [0; FRAME_HEAD_BYTES];
    if reader.read_exact(&mut head).is_err() {
        return false;
    }
    let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
    let crc = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    body.clear();
    // Memory grows with what is there, whatever the length says.
    let read = reader.by_ref().take(length.into()).read_to_end(body);
    read.is_ok_and(|bytes| bytes == length as usize) && crc32fast::hash(body) == crc
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::ledger::Ledger;
    use crate::embedded::tail::Tail;

    #[test]
    fn what_cannot_be_written_is_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        let (log, next) = open(dir.path(), 1, |_, _| Some(())).unwrap();
        let book = Mutex::new(Book { ledger: Ledger::default(), tail: Tail::new(next) });
        let append = || book.lock().tail.append(|out| out.push(9)).0;
        append();
        let good = std::mem::replace(&mut log.writer.lock().file, File::create("/dev/full").unwrap());
        assert!(log.write(&book).is_err());
        append();
        assert!(log.write(&book).is_err(), "a broken file takes nothing more");
        *log.writer.lock() = Writer { file: good, bytes: 8, broken: false, spare: vec![] };
        log.write(&book).unwrap();
        let mut numbers = vec![];
        let replay = |number, entry: &[u8]| {
            assert_eq!(entry, [9]);
            numbers.push(number);
            Some(())
        };
        let (_, next) = open(dir.path(), 1, replay).unwrap();
        assert_eq!((numbers, next), (vec![1, 2], 3));
    }
}
