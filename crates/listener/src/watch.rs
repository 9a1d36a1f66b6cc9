//! What gateways are told: the services of the store, looked at again whenever the catalog's revision changes.
//!
//! One task asks the store for its revision a few times a second, whoever published; every `Watch` stream follows the
//! snapshot it leaves here.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::iter::repeat;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use weir_core::{KeyHash, Service, ServiceId};
use weir_store::Store;

use crate::records::{Versioned, read_service};
use crate::status::{Failure, chain};

/// Longest wait for the store's answer about its revision.
const POLL_TIMEOUT: Duration = Duration::from_secs(2);

/// All services at one revision.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) revision: u64,
    pub(crate) services: BTreeMap<ServiceId, Arc<Versioned<Service>>>,
    /// By the keys of their providers.
    pub(crate) default_services: HashMap<KeyHash, ServiceId>,
}

/// What is known of the store.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// The last snapshot; `None` before the first catalog.
    pub(crate) snapshot: Option<Arc<Snapshot>>,
    /// Why the store could not be asked last time.
    pub(crate) trouble: Option<String>,
    /// The store's revision and the higher one seen before, while it has lost its catalog.
    pub(crate) lost: Option<(u64, u64)>,
}

/// Follows the store until stopped.
pub(crate) async fn follow(
    store: Store,
    seen: Arc<watch::Sender<Seen>>,
    poll: Duration,
    stop: CancellationToken,
) {
    loop {
        look(&store, &seen).await;
        if tokio::time::timeout(poll, stop.cancelled()).await.is_ok() {
            return;
        }
    }
}

/// Looks once.
pub(crate) async fn look(store: &Store, seen: &watch::Sender<Seen>) {
    let known = seen.borrow().snapshot.clone();
    let looked = tokio::time::timeout(POLL_TIMEOUT, read_changed(store, known.as_deref())).await;
    let (snapshot, failure) = match looked {
        Ok(Ok(Some(snapshot))) => (Some(Arc::new(snapshot)), None),
        Ok(Ok(None)) => (known, None),
        Ok(Err(failure)) => (known, Some(failure)),
        Err(_) => (known, Some(Failure::Timeout)),
    };
    let lost = match failure {
        Some(Failure::CatalogLost { held, known }) => Some((held, known)),
        _ => None,
    };
    let trouble = failure.map(|failure| chain(&failure));
    seen.send_if_modified(|seen| {
        // Somebody else may have looked meanwhile, and seen more.
        let newest = |one: &Option<Arc<Snapshot>>| one.as_ref().map_or(0, |snapshot| snapshot.revision);
        let snapshot =
            if newest(&seen.snapshot) > newest(&snapshot) { seen.snapshot.clone() } else { snapshot };
        let revision = |snapshot: &Option<Arc<Snapshot>>| snapshot.as_ref().map(|s| s.revision);
        let changed = revision(&seen.snapshot) != revision(&snapshot) || seen.trouble != trouble;
        if let (true, Some(trouble)) = (seen.trouble != trouble, &trouble) {
            tracing::warn!(reason = %trouble, "cannot read the catalog from the store");
        }
        *seen = Seen { snapshot, trouble, lost };
        changed
    });
}

async fn read_changed(store: &Store, known: Option<&Snapshot>) -> Result<Option<Snapshot>, Failure> {
    let revision = store.revision().await?;
    let known_revision = known.map_or(0, |known| known.revision);
    match revision.cmp(&known_revision) {
        Ordering::Equal => return Ok(None),
        // Emptied, or put back to an older state: gateways keep what they have.
        Ordering::Less => return Err(Failure::CatalogLost { held: revision, known: known_revision }),
        Ordering::Greater => {}
    }
    let mut services = BTreeMap::new();
    for (id, record) in store.services().await? {
        let unchanged =
            known.and_then(|known| known.services.get(&id)).filter(|s| s.version == record.version);
        let service = match unchanged {
            Some(service) => Arc::clone(service),
            None => Arc::new(read_service(&record)?),
        };
        services.insert(id, service);
    }
    let defaults = services.values().map(|service| &service.value).filter(|service| service.is_default);
    let keys = |service: &Service| service.provider.keys.clone().into_iter().zip(repeat(service.id.clone()));
    let default_services = defaults.flat_map(keys).collect();
    Ok(Some(Snapshot { revision, services, default_services }))
}
