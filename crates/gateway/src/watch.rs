//! Follows the configuration: from a listener's `Watch` stream, or from disk when none answers.
//!
//! The first listener that answers is followed until its stream ends, then the next one is tried. Each stream
//! begins with everything, so nothing is missed between two. A configuration from disk is replaced by the first
//! one that a listener tells.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tonic::{Code, Status as RpcStatus};
use tracing::{error, info, warn};
use weir_core::Environment;
use weir_proto::v1::watch_response::Event;
use weir_proto::v1::{self, WatchRequest};

use crate::listener::{Backoff, CONNECT_TIMEOUT, Listener};
use crate::snapshot::{Changes, Loader};
use crate::state;
use crate::status::Status;

/// How long a listener may take before the configuration on disk is used.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pause between two writings of the configuration to disk.
const KEEP_PAUSE: Duration = Duration::from_secs(1);

/// Follows the configuration of one environment.
pub(crate) struct Watch {
    pub(crate) listeners: Vec<Listener>,
    pub(crate) environment: Environment,
    pub(crate) loader: Mutex<Loader>,
    pub(crate) state_dir: Option<PathBuf>,
    pub(crate) status: Status,
    /// There is something new to keep on disk.
    pub(crate) changed: Arc<Notify>,
}

impl Watch {
    /// Follows for ever.
    pub(crate) async fn follow(&self) {
        tokio::join!(self.follow_listeners(), self.fall_back(), self.keep());
    }

    async fn follow_listeners(&self) {
        let mut backoff = Backoff::default();
        let mut reported = None;
        for listener in self.listeners.iter().cycle() {
            let mut was_synced = false;
            let status = match self.follow_one(listener, &mut was_synced).await {
                Ok(()) => RpcStatus::unavailable("the listener ended the stream"),
                Err(status) => status,
            };
            if was_synced {
                backoff.reset();
                reported = None;
            }
            if reported.replace(status.code()) != Some(status.code()) {
                report(listener, &status);
            }
            sleep(backoff.next()).await;
        }
    }

    async fn follow_one(&self, listener: &Listener, was_synced: &mut bool) -> Result<(), RpcStatus> {
        let environment = v1::Environment::from(self.environment).into();
        let mut client = listener.gateways();
        let opening = client.watch(listener.signed(WatchRequest { environment }));
        let opened = timeout(CONNECT_TIMEOUT * 2, opening).await;
        let opened = opened.map_err(|_| RpcStatus::deadline_exceeded("the stream did not open in time"))?;
        let mut stream = opened?.into_inner();
        let mut changes = Changes { is_complete: true, ..Changes::default() };
        while let Some(message) = stream.message().await? {
            match message.event {
                Some(Event::Put(service)) => {
                    changes.services.insert(service.id.clone(), Some(service));
                }
                Some(Event::Removed(id)) => {
                    changes.services.insert(id, None);
                }
                Some(Event::Synced(synced)) => {
                    self.put_into_force(std::mem::take(&mut changes), synced.revision);
                    *was_synced = true;
                    self.changed.notify_one();
                }
                // What a newer listener tells and this gateway does not know.
                None => {}
            }
        }
        Ok(())
    }

    fn put_into_force(&self, changes: Changes, revision: u64) {
        self.loader.lock().apply(changes, revision);
        self.status.loaded();
    }

    /// Uses the configuration on disk when no listener told one in time.
    async fn fall_back(&self) {
        let Some(folder) = self.state_dir.clone() else { return };
        sleep(PATIENCE).await;
        if self.status.is_loaded() {
            return;
        }
        let read = tokio::task::spawn_blocking(move || state::read(&folder)).await;
        match read.map_err(std::io::Error::other).and_then(|read| read) {
            Ok((services, revision)) if !self.status.is_loaded() => {
                info!(revision, "no listener answers: starting from the configuration on disk");
                let services = services.into_iter().map(|service| (service.id.clone(), Some(service)));
                let changes = Changes { is_complete: true, services: services.collect() };
                self.put_into_force(changes, revision);
            }
            Ok(_) => {}
            Err(problem) => warn!(%problem, "no listener answers, and there is no configuration on disk"),
        }
    }

    /// Writes what is in force to disk, at most once a second.
    async fn keep(&self) {
        let Some(folder) = self.state_dir.clone() else { return };
        loop {
            self.changed.notified().await;
            let (services, revision) = self.loader.lock().in_force();
            let folder = folder.clone();
            let written =
                tokio::task::spawn_blocking(move || state::write(&folder, services, revision)).await;
            if let Err(problem) = written.map_err(std::io::Error::other).and_then(|written| written) {
                error!(%problem, "the configuration cannot be kept on disk");
            }
            sleep(KEEP_PAUSE).await;
        }
    }
}

fn report(listener: &Listener, status: &RpcStatus) {
    let (listener, code, message) = (&listener.address, status.code(), status.message());
    if matches!(code, Code::Unauthenticated | Code::PermissionDenied) {
        error!(listener, ?code, message, "the listener does not take this gateway's token");
    } else {
        warn!(listener, ?code, message, "no configuration from a listener");
    }
}
