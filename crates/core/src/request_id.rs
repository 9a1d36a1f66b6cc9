//! Ids of requests: 16 bytes that no other request of any gateway or listener has.
//!
//! Half of an id is random and made once per process, by the role that asks for ids; the other half counts up. That is
//! as unlikely to collide as need be, costs no system call per request, and ids of one process follow each other, so
//! that a store can keep them together. A request counts once by it; clients and logs see it in hex.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Names one request: made by the caller, unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub [u8; 16]);

impl RequestId {
    /// In hex, as clients and logs see it.
    pub fn hex(&self) -> [u8; 32] {
        let mut hex = [b'0'; 32];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        hex
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.hex().iter().try_for_each(|digit| write!(f, "{}", char::from(*digit)))
    }
}

/// Makes ids.
#[derive(Debug)]
pub struct RequestIds {
    prefix: [u8; 8],
    next: AtomicU64,
}

impl RequestIds {
    /// Of a process that has these random bytes for its own.
    pub fn new(prefix: [u8; 8]) -> Self {
        Self { prefix, next: AtomicU64::new(0) }
    }

    /// A new id.
    pub fn next(&self) -> RequestId {
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
        let ids = RequestIds::new([0xab; 8]);
        assert_eq!(ids.next().to_string(), "abababababababab0000000000000000");
        assert_eq!(&ids.next().hex(), b"abababababababab0000000000000001");
    }
}
