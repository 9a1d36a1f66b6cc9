//! Who waits to hear of recalls in this process.

use parking_lot::Mutex;
use tokio::sync::mpsc;
use weir_core::ApplicationRef;

/// Most recalls that wait for a hearer; further ones are lost to it.
pub(crate) const WAITING_MAX: usize = 1_024;

/// The hearers of a store in this process.
#[derive(Default)]
pub(crate) struct Hearers(Mutex<Vec<mpsc::Sender<ApplicationRef>>>);

impl Hearers {
    pub(crate) fn join(&self) -> mpsc::Receiver<ApplicationRef> {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let mut hearers = self.0.lock();
        hearers.retain(|hearer| !hearer.is_closed());
        hearers.push(sender);
        receiver
    }

    pub(crate) fn tell(&self, application: &ApplicationRef) {
        for hearer in &*self.0.lock() {
            // What is lost is made good by the end of the lease.
            let _ = hearer.try_send(application.clone());
        }
    }
}
