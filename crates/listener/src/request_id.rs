//! Ids for requests that come without one, so that the store can find out whether a lost batch counted them.
//!
//! Half of an id is random and made once per process, the other half counts up: the store keeps ids that follow each
//! other together.

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
