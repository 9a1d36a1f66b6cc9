//! Putting a catalog into the store: whole from a file, or change by change from the control plane.

use std::sync::Arc;

use prost::Message;
use tokio::sync::watch;
use weir_core::{Application, Catalog, Service};
use weir_proto::{FieldError, v1};
use weir_store::{Publication, PublishedApplication, Record, Store};

use crate::watch::{Seen, look};

pub use weir_store::PublishError;

/// Publishes catalogs; cheap to copy.
#[derive(Clone)]
pub struct CatalogHandle {
    pub(crate) store: Store,
    pub(crate) seen: Arc<watch::Sender<Seen>>,
}

/// What was put in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// The store's revision now.
    pub revision: u64,
    /// How many services it has.
    pub services: usize,
    /// How many applications it has.
    pub applications: usize,
}

impl CatalogHandle {
    /// Replaces everything by a catalog. The same again changes nothing.
    ///
    /// # Errors
    /// When the store holds a higher revision, this one with other content, or is away.
    pub async fn publish(&self, catalog: &Catalog) -> Result<Published, PublishError> {
        let publication = Publication {
            revision: catalog.revision,
            complete: true,
            services: catalog.services.iter().map(|s| (s.id.clone(), service_record(s))).collect(),
            applications: catalog.applications.iter().map(published).collect(),
            ..Publication::default()
        };
        let published = Published {
            revision: catalog.revision,
            services: catalog.services.len(),
            applications: catalog.applications.len(),
        };
        self.put(publication).await?;
        Ok(published)
    }

    /// Applies a publication and lets gateways know at once.
    pub(crate) async fn put(&self, publication: Publication) -> Result<(), PublishError> {
        self.store.publish(publication).await?;
        look(&self.store, &self.seen).await;
        Ok(())
    }
}

fn service_record(service: &Service) -> Record {
    Record::new(v1::Service::from(service).encode_to_vec())
}

fn published(application: &Application) -> PublishedApplication {
    PublishedApplication {
        application: application.reference.clone(),
        record: Record::new(v1::Application::from(application).encode_to_vec()),
        user_key: application.user_key.clone(),
    }
}

/// The publication that a message of the control plane asks for.
///
/// # Errors
/// The first change that cannot be.
pub(crate) fn read_publication(message: &v1::PublishRequest) -> Result<Publication, FieldError> {
    let mut publication = Publication { revision: message.revision, ..Publication::default() };
    for (place, change) in message.changes.iter().enumerate() {
        read_change(&mut publication, change).map_err(|e| e.within(&format!("changes[{place}]")))?;
    }
    Ok(publication)
}

fn read_change(publication: &mut Publication, change: &v1::CatalogChange) -> Result<(), FieldError> {
    use v1::catalog_change::Change;
    let problem = |field: &str, error: weir_core::id::IdError| FieldError::new(field, error);
    match change.change.as_ref().ok_or_else(|| FieldError::new("change", "is missing or unknown"))? {
        Change::PutService(message) => {
            let service = Service::try_from(message).map_err(|e| e.within("put_service"))?;
            publication.services.push((service.id.clone(), service_record(&service)));
        }
        Change::RemoveService(id) => {
            publication.removed_services.push(id.parse().map_err(|e| problem("remove_service", e))?);
        }
        Change::PutApplication(message) => {
            let application = Application::try_from(message).map_err(|e| e.within("put_application"))?;
            publication.applications.push(published(&application));
        }
        Change::RemoveApplication(name) => {
            let text = format!("{}/{}", name.service_id, name.app_id);
            publication
                .removed_applications
                .push(text.parse().map_err(|e| problem("remove_application", e))?);
        }
    }
    Ok(())
}
