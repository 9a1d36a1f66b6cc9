//! The end of the log: what memory holds already and the file does not.
//!
//! Steps are appended here, in the order in which they happen; the log writes all that has come together with one
//! `write(2)`, and only then any of it is answered.

use super::bytes::Reader;

/// Length and CRC-32 in front of what is written together.
pub(super) const FRAME_HEAD_BYTES: usize = 8;

const LENGTH_BYTES: usize = 4;

pub(super) struct Tail {
    /// A frame whose head is not filled in; empty when there is nothing to write.
    frame: Vec<u8>,
    /// Number of the next entry.
    pub(super) next: u64,
}

impl Tail {
    pub(super) fn new(next: u64) -> Self {
        Self { frame: vec![], next }
    }

    /// Appends an entry; returns its number and the bytes of it.
    pub(super) fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> (u64, &[u8]) {
        if self.frame.is_empty() {
            self.frame.resize(FRAME_HEAD_BYTES, 0);
        }
        let begin = self.frame.len();
        self.frame.extend_from_slice(&[0; LENGTH_BYTES]);
        write(&mut self.frame);
        let entry = begin + LENGTH_BYTES;
        // An entry of 4 GiB would need a report of as much: messages are bounded far below.
        let length = u32::try_from(self.frame.len() - entry).unwrap_or(u32::MAX);
        self.frame[begin..entry].copy_from_slice(&length.to_le_bytes());
        self.next += 1;
        (self.next - 1, &self.frame[entry..])
    }

    pub(super) fn bytes(&self) -> usize {
        self.frame.len()
    }

    /// Hands over what is to be written and goes on with an empty frame.
    pub(super) fn take(&mut self, empty: Vec<u8>) -> Vec<u8> {
        std::mem::replace(&mut self.frame, empty)
    }

    /// Takes back what could not be written; what came meanwhile follows it.
    pub(super) fn put_back(&mut self, mut frame: Vec<u8>) {
        frame.extend_from_slice(self.frame.get(FRAME_HEAD_BYTES..).unwrap_or_default());
        self.frame = frame;
    }
}

/// The entries of a frame without its head; `None` for one that is cut short.
pub(super) fn entries(body: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    let mut from = Reader(body);
    std::iter::from_fn(move || {
        if from.is_empty() {
            return None;
        }
        let entry = from.array().and_then(|length| from.take(u32::from_le_bytes(length) as usize));
        if entry.is_none() {
            from = Reader(&[]);
        }
        Some(entry)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(tail: &mut Tail, text: &str) -> u64 {
        let (number, bytes) = tail.append(|out| out.extend_from_slice(text.as_bytes()));
        assert_eq!(bytes, text.as_bytes());
        number
    }

    fn texts(frame: &[u8]) -> Vec<Option<&str>> {
        entries(&frame[FRAME_HEAD_BYTES..])
            .map(|entry| entry.map(|e| std::str::from_utf8(e).unwrap()))
            .collect()
    }

    #[test]
    fn what_could_not_be_written_comes_first() {
        let mut tail = Tail::new(5);
        assert_eq!([append(&mut tail, "a"), append(&mut tail, "b")], [5, 6]);
        let frame = tail.take(vec![]);
        assert_eq!(tail.bytes(), 0);
        assert_eq!(append(&mut tail, "c"), 7);
        tail.put_back(frame);
        assert_eq!(append(&mut tail, "d"), 8);
        let frame = tail.take(vec![]);
        assert_eq!(texts(&frame), [Some("a"), Some("b"), Some("c"), Some("d")]);
        assert_eq!(texts(&frame[..frame.len() - 1]).last(), Some(&None), "cut short");
    }
}
