//! Follows a catalog file: publishes it again whenever it changes, or on SIGHUP.
//!
//! A file that is wrong, or whose revision may not follow the one in force, is logged and nothing else: what is
//! published stays. A change is taken up once the file has kept still for one look, since editors and copies
//! write in pieces. When publishing fails for the store's sake it is tried again after a pause.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use weir_listener::CatalogHandle;

use crate::catalog::{self, CatalogFile, KeyHashing};
use crate::logging;
use crate::problem::{Checked, Problem, Reading};
use crate::report::Source;

/// How often the file is looked at: two looks make a change take effect within a second.
const LOOK_EVERY: Duration = Duration::from_millis(400);
/// The pause after a publication that failed.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// What tells one state of a file from another without reading it; `None`: it cannot be seen.
pub(crate) type Stamp = Option<(SystemTime, u64)>;

/// A file's present stamp.
pub(crate) fn stamp(path: &Path) -> Stamp {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// A catalog file and where it is published.
pub(crate) struct CatalogWatch {
    path: PathBuf,
    hashing: Arc<KeyHashing>,
    published: CatalogHandle,
    looks: Looks,
    retry_at: Option<Instant>,
    last_failure: String,
}

impl CatalogWatch {
    /// For a file that was published as it was at `stamp`.
    pub(crate) fn new(path: PathBuf, stamp: Stamp, hashing: KeyHashing, published: CatalogHandle) -> Self {
        let looks = Looks { taken: stamp, seen: stamp };
        let hashing = Arc::new(hashing);
        Self { path, hashing, published, looks, retry_at: None, last_failure: String::new() }
    }

    /// Follows the file until told to stop.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut hangup = match signal(SignalKind::hangup()) {
            Ok(hangup) => hangup,
            Err(error) => {
                tracing::error!("cannot receive SIGHUP, so the catalog file is not followed: {error}");
                return;
            }
        };
        loop {
            let asked = tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => false,
                _ = hangup.recv() => true,
            };
            let again = self.retry_at.is_some_and(|at| at <= Instant::now());
            if self.looks.due(stamp(&self.path)) || again || asked {
                self.reload().await;
            }
        }
    }

    async fn reload(&mut self) {
        self.retry_at = None;
        match self.read().await {
            Ok(Checked { value, warnings }) => {
                logging::log_all(&warnings);
                self.publish(value).await;
            }
            Err(problems) => {
                logging::log_all(&problems);
                tracing::error!("{}: not loaded, the catalog in force stays", self.path.display());
            }
        }
    }

    /// Reading and hashing a large catalog takes a while, so it has a thread to itself.
    async fn read(&self) -> Reading<CatalogFile> {
        let (path, hashing) = (self.path.clone(), self.hashing.clone());
        let file = path.display().to_string();
        let read = move || {
            let source = Source::load(&path).map_err(|problem| vec![problem])?;
            catalog::parse(&source, &hashing)
        };
        let read = tokio::task::spawn_blocking(read).await;
        read.unwrap_or_else(|error| Err(vec![Problem::of_file(&file, format!("cannot be read: {error}"))]))
    }

    async fn publish(&mut self, file: CatalogFile) {
        let (path, revision) = (self.path.display(), file.catalog.revision);
        match self.published.publish(&file.catalog).await {
            Ok(_) => {
                tracing::info!("{path}: revision {revision} published: {file}");
                self.last_failure.clear();
            }
            Err(error) => {
                let failure = format!("{:#}", anyhow::Error::new(error));
                // Said once, not at every try.
                if failure != self.last_failure {
                    tracing::error!("{path}: revision {revision} is not published: {failure}");
                }
                self.last_failure = failure;
                self.retry_at = Some(Instant::now() + RETRY_AFTER);
            }
        }
    }
}

/// Which states of the file were seen.
struct Looks {
    /// The one that was read last.
    taken: Stamp,
    /// The one of the last look.
    seen: Stamp,
}

impl Looks {
    /// Whether the file is to be read: it is another than the one read last, and has kept still for one look.
    fn due(&mut self, now: Stamp) -> bool {
        let still = now == self.seen;
        self.seen = now;
        let due = still && now != self.taken;
        if due {
            self.taken = now;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_read_once_it_has_kept_still() {
        let at = |bytes| Some((SystemTime::UNIX_EPOCH, bytes));
        let mut looks = Looks { taken: at(1), seen: at(1) };
        let found: Vec<bool> = [at(1), at(2), at(3), at(3), at(3), None, None, None, at(3), at(3)]
            .map(|now| looks.due(now))
            .into();
        assert_eq!(found, [false, false, false, true, false, false, true, false, false, true]);
    }
}
