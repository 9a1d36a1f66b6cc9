//! What the store is asked and what it answers, the same for both stores.

use std::sync::{Arc, OnceLock};

use sha2::{Digest, Sha256};
use weir_core::{ApplicationRef, Increment, KeyHash, RequestId, ServiceId, Timestamp};

/// Tells one state of a record from another: equal versions mean equal content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version(pub u64);

/// Something of the catalog: what it says is the listener's business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Of these bytes.
    pub version: Version,
    /// The content.
    pub bytes: Arc<[u8]>,
}

impl Record {
    /// A record of some content.
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Self {
        let bytes = bytes.into();
        let digest = Sha256::digest(&bytes);
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        Self { version: Version(u64::from_be_bytes(first)), bytes }
    }
}

/// Whose counters an ask is about. Made once for an application and shared, for one store: the embedded store
/// remembers in it where they are.
#[derive(Debug, Clone)]
pub struct Subject {
    application: ApplicationRef,
    account: OnceLock<usize>,
}

impl Subject {
    /// An application of a store.
    pub fn new(application: ApplicationRef) -> Self {
        Self { application, account: OnceLock::new() }
    }

    /// Whether it is known where its counters are. Reading that ahead is all this is for.
    pub fn is_placed(&self) -> bool {
        self.account.get().is_some()
    }

    /// Its account, as `find` finds it the first time that there is one.
    pub(crate) fn account(&self, find: impl FnOnce(&ApplicationRef) -> Option<usize>) -> Option<usize> {
        if let Some(account) = self.account.get() {
            return Some(*account);
        }
        let found = find(&self.application)?;
        Some(*self.account.get_or_init(|| found))
    }
}

impl std::ops::Deref for Subject {
    type Target = ApplicationRef;

    fn deref(&self) -> &ApplicationRef {
        &self.application
    }
}

impl PartialEq for Subject {
    fn eq(&self, other: &Self) -> bool {
        self.application == other.application
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.application.fmt(f)
    }
}

/// Whether an ask changes counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Decides and counts: authrep.
    Count,
    /// Only decides: authorize.
    Check,
}

/// One request to decide.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Unique to the request.
    pub request: RequestId,
    /// 0 the first time. A request counts once, however many attempts come and in whichever order; what is counted
    /// belongs to the latest attempt.
    pub attempt: u32,
    /// Whose counters.
    pub application: Arc<Subject>,
    /// The application's record that the caller judged by.
    pub application_version: Version,
    /// The service's record that the caller judged by.
    pub service_version: Version,
    /// All of them, or none. Empty: only the versions are compared.
    pub increments: Vec<Increment>,
    /// Whether to count.
    pub mode: Mode,
}

/// The answer to an [`Ask`]. `used` holds, for each ceiling of the increments in order, what its counter holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All increments fit; in [`Mode::Count`] they are counted and `used` holds the values after.
    Admitted {
        /// One value per ceiling.
        used: Vec<u64>,
        /// What is out on lease, likewise; empty: nothing.
        held: Vec<u64>,
        /// The moment whose windows were counted in.
        at: Timestamp,
    },
    /// One did not fit; nothing is counted.
    Refused {
        /// Which ceiling refused, by its place among all.
        exceeded: usize,
        /// One value per ceiling, as they stand.
        used: Vec<u64>,
        /// What is out on lease, likewise; empty: nothing.
        held: Vec<u64>,
        /// The moment whose windows were looked at.
        at: Timestamp,
    },
    /// The caller judged by old records; nothing was decided.
    Stale {
        /// The application's record now; `None` when it is gone.
        application: Option<Record>,
        /// The service's version now; `None` when it is gone.
        service: Option<Version>,
    },
}

/// What a gateway says of one of its leases.
#[derive(Debug, Clone)]
pub struct LeaseAsk {
    /// Whose counters.
    pub application: Arc<Subject>,
    /// The application's record that the caller judged by.
    pub application_version: Version,
    /// The service's record that the caller judged by.
    pub service_version: Version,
    /// What is said, and what a unit of each line adds. A last word is taken whatever the versions.
    pub message: weir_core::lease::ledger::Ask,
}

/// The answer to a [`LeaseAsk`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseOutcome {
    /// The ledger's.
    Answered {
        /// For the holder.
        reply: weir_core::lease::Reply,
        /// One life of the store.
        incarnation: u64,
    },
    /// The caller judged by old records; nothing was done.
    Stale {
        /// The application's record now; `None` when it is gone.
        application: Option<Record>,
        /// The service's version now; `None` when it is gone.
        service: Option<Version>,
    },
}

/// Usage of one application.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Whose counters.
    pub application: ApplicationRef,
    /// What happened. Ceilings only say which periods are counted.
    pub increments: Vec<Increment>,
    /// When; `None`: now.
    pub at: Option<Timestamp>,
}

/// Usage that has happened.
#[derive(Debug, Clone)]
pub struct Report {
    /// Names the report: the same within ten minutes is counted once, within an hour where it gives back.
    /// Empty: every one counts.
    pub idempotency_id: Vec<u8>,
    /// It takes away what was counted before: only what is added, and no counter falls below 0.
    pub gives_back: bool,
    /// What happened.
    pub entries: Vec<Entry>,
}

/// An application to put in place.
#[derive(Debug, Clone)]
pub struct PublishedApplication {
    /// Which.
    pub application: ApplicationRef,
    /// Its record.
    pub record: Record,
    /// The key it can be found by.
    pub user_key: Option<KeyHash>,
}

/// A change of the catalog.
#[derive(Debug, Clone, Default)]
pub struct Publication {
    /// Rises with every change.
    pub revision: u64,
    /// Whether what is not named goes away.
    pub complete: bool,
    /// New or changed services.
    pub services: Vec<(ServiceId, Record)>,
    /// New or changed applications.
    pub applications: Vec<PublishedApplication>,
    /// Services to remove, when not `complete`.
    pub removed_services: Vec<ServiceId>,
    /// Applications to remove, when not `complete`.
    pub removed_applications: Vec<ApplicationRef>,
}

impl Publication {
    /// Tells two contents of one revision apart.
    pub(crate) fn digest(&self) -> u64 {
        let mut digest = Sha256::new();
        for (id, record) in &self.services {
            digest.update(format!("{id}={:x};", record.version.0));
        }
        for published in &self.applications {
            digest.update(format!("{}={:x};", published.application, published.record.version.0));
        }
        for id in &self.removed_services {
            digest.update(format!("-{id};"));
        }
        for application in &self.removed_applications {
            digest.update(format!("-{application};"));
        }
        let mut first = [0; 8];
        first.copy_from_slice(&digest.finalize()[..8]);
        u64::from_be_bytes(first)
    }
}

/// What a store that holds `held` (revision and digest) does with a publication.
pub(crate) fn judge_revision(
    publication: &Publication,
    held: Option<(u64, u64)>,
) -> Result<bool, crate::PublishError> {
    match held {
        Some((revision, _)) if publication.revision < revision => {
            Err(crate::PublishError::Older { held: revision, offered: publication.revision })
        }
        Some((revision, digest)) if publication.revision == revision => {
            if digest == publication.digest() {
                Ok(false)
            } else {
                Err(crate::PublishError::OtherContent { revision })
            }
        }
        _ => Ok(true),
    }
}
