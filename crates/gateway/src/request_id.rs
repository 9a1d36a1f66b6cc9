//! Ids of requests: 16 bytes that no other request of any gateway has.
//!
//! Half of an id is random and made once per process, the other half counts up: as unlikely to collide as
//! need be, and no system call per request. The listener counts a request once by it, logs show it in hex.

use std::sync::atomic::{AtomicU64, Ordering};

/// The id of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestId([u8; 16]);

impl RequestId {
    /// As the listener wants it.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// In hex, as clients and logs see it.
    pub(crate) fn hex(&self) -> [u8; 32] {
        let mut hex = [b'0'; 32];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        hex
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Makes ids.
pub(crate) struct RequestIds {
    prefix: [u8; 8],
    next: AtomicU64,
}

impl RequestIds {
    /// # Errors
    /// When the system has no random numbers.
    pub(crate) fn new() -> Result<Self, getrandom::Error> {
        let mut prefix = [0; 8];
        getrandom::fill(&mut prefix)?;
        Ok(Self { prefix, next: AtomicU64::new(0) })
    }

    /// A new id.
    pub(crate) fn next(&self) -> RequestId {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.prefix);
        id[8..].copy_from_slice(&count.to_be_bytes());
        RequestId(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_print_as_hex() {
        let ids = RequestIds { prefix: [0xab; 8], next: AtomicU64::new(1) };
        assert_eq!(&ids.next().hex(), b"abababababababab0000000000000001");
        assert_eq!(&ids.next().hex(), b"abababababababab0000000000000002");
    }
}
