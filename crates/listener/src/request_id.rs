//! Ids for calls whose caller gives none, or none that could be trusted.
//!
//! As gateways make them: half of an id is random and made once per process, the other half counts up, so ids of a
//! listener follow each other and the store keeps them together. What a client calls its request does not matter here:
//! two requests of the same name would count once.

use std::sync::atomic::{AtomicU64, Ordering};

use weir_store::RequestId;

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

/// An id as clients and logs see it.
pub(crate) fn hex(id: RequestId) -> String {
    format!("{:032x}", u128::from_be_bytes(id.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_print_as_hex() {
        let ids = RequestIds { prefix: [0x0b; 8], next: AtomicU64::new(1) };
        assert_eq!(hex(ids.next()), "0b0b0b0b0b0b0b0b0000000000000001");
        assert_eq!(hex(ids.next()), "0b0b0b0b0b0b0b0b0000000000000002");
    }
}
