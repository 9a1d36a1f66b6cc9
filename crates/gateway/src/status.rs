//! Whether the gateway can serve, for whoever decides to send it traffic.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A view on a gateway that may outlive it.
#[derive(Debug, Clone, Default)]
pub struct Status(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    is_loaded: AtomicBool,
    is_draining: AtomicBool,
}

impl Status {
    /// Whether new requests should come here.
    ///
    /// # Errors
    /// Says why not: no configuration is there yet, or the gateway is about to stop.
    pub fn ready(&self) -> Result<(), String> {
        if self.0.is_draining.load(Ordering::Relaxed) {
            return Err("the gateway is stopping".into());
        }
        if !self.is_loaded() {
            return Err("no configuration has been loaded yet".into());
        }
        Ok(())
    }

    pub(crate) fn is_loaded(&self) -> bool {
        self.0.is_loaded.load(Ordering::Relaxed)
    }

    pub(crate) fn loaded(&self) {
        self.0.is_loaded.store(true, Ordering::Relaxed);
    }

    pub(crate) fn draining(&self) {
        self.0.is_draining.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_between_loading_and_draining() {
        let status = Status::default();
        assert!(status.ready().is_err());
        status.loaded();
        assert_eq!(status.ready(), Ok(()));
        status.clone().draining();
        assert!(status.ready().is_err());
    }
}
