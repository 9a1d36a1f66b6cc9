//! Numbers, bytes and texts as log and checkpoint hold them: LEB128, and lengths in front.

/// Appends a number, seven bits a byte.
pub(super) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

/// Appends bytes behind their length.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends what may be missing; nothing and an empty text read alike.
pub(super) fn put_optional(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    put_number(out, bytes.is_some().into());
    put_bytes(out, bytes.unwrap_or_default());
}

/// Reads from the front; whatever is not there is `None`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    /// A number of a smaller type.
    pub(super) fn small<T: TryFrom<u64>>(&mut self) -> Option<T> {
        self.number()?.try_into().ok()
    }

    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.small()?;
        self.take(length)
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    /// As many as a number in front says.
    pub(super) fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let length: usize = self.small()?;
        // Each takes a byte at least: a length that cannot be is refused before memory is asked for.
        if length > self.0.len() {
            return None;
        }
        let mut list = Vec::with_capacity(length);
        for _ in 0..length {
            list.push(read(self)?);
        }
        Some(list)
    }

    pub(super) fn optional(&mut self) -> Option<Option<&'a [u8]>> {
        let present = self.number()?;
        let bytes = self.bytes()?;
        Some((present == 1).then_some(bytes))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let mut out = vec![];
        for number in [0, 127, 128, 1 << 53, u64::MAX] {
            put_number(&mut out, number);
        }
        put_bytes(&mut out, b"abc");
        put_optional(&mut out, None);
        put_optional(&mut out, Some(b""));
        let mut reader = Reader(&out);
        for number in [0, 127, 128, 1 << 53, u64::MAX] {
            assert_eq!(reader.number(), Some(number));
        }
        assert_eq!(reader.text(), Some("abc"));
        assert_eq!(reader.optional(), Some(None));
        assert_eq!(reader.optional(), Some(Some(&b""[..])));
        assert!(reader.is_empty());
        assert_eq!(reader.number(), None);
    }

    #[test]
    fn what_is_not_there_is_not_read() {
        for bytes in [&[][..], &[0x80], &[0xff; 11]] {
            assert_eq!(Reader(bytes).number(), None, "{bytes:?}");
        }
        assert_eq!(Reader(&[3, 1, 2]).bytes(), None);
        assert_eq!(Reader(&[1, 0xff]).text(), None);
        assert_eq!(Reader(&[0x80, 2]).small::<u8>(), None);
    }
}
