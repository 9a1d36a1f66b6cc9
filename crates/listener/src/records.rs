//! Services and applications in memory, with the versions of the records they were read from.
//!
//! Nothing here expires: the store compares the versions in the step that counts and tells when one is old. What the
//! store does not have is never remembered, so a new application works at once.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use prost::Message;
use quick_cache::sync::Cache;
use weir_core::{Application, ApplicationId, ApplicationRef, KeyHash, Service, ServiceId};
use weir_proto::v1;
use weir_store::{Record, Store, Version};

use crate::status::Failure;

/// A record as read.
#[derive(Debug)]
pub(crate) struct Versioned<T> {
    pub(crate) value: T,
    pub(crate) version: Version,
}

/// The caches.
pub(crate) struct Records {
    store: Store,
    /// As many as the catalog has services.
    services: RwLock<HashMap<ServiceId, Arc<Versioned<Service>>>>,
    applications: Cache<ApplicationRef, Arc<Versioned<Application>>>,
    /// Hints: the application's own record decides.
    user_keys: Cache<(ServiceId, KeyHash), ApplicationId>,
}

impl Records {
    pub(crate) fn new(store: Store, applications_max: usize) -> Self {
        Self {
            store,
            services: RwLock::default(),
            applications: Cache::new(applications_max),
            user_keys: Cache::new(applications_max),
        }
    }

    /// A service, from memory where it is there.
    pub(crate) async fn service(&self, id: &ServiceId) -> Result<Option<Arc<Versioned<Service>>>, Failure> {
        if let Some(service) = self.services.read().get(id) {
            return Ok(Some(Arc::clone(service)));
        }
        let Some(record) = self.store.service(id).await? else { return Ok(None) };
        let service = Arc::new(read_service(&record)?);
        self.services.write().insert(id.clone(), Arc::clone(&service));
        Ok(Some(service))
    }

    /// Reads a service again; whether its record is another than that of a version.
    pub(crate) async fn renew_service(&self, id: &ServiceId, version: Version) -> Result<bool, Failure> {
        let unchanged = self.store.service(id).await?.is_some_and(|record| record.version == version);
        if !unchanged {
            self.forget_service(id);
        }
        Ok(!unchanged)
    }

    /// Forgets a service, so that it is read again.
    pub(crate) fn forget_service(&self, id: &ServiceId) {
        self.services.write().remove(id);
    }

    /// An application, from memory where it is there.
    pub(crate) async fn application(
        &self,
        reference: &ApplicationRef,
    ) -> Result<Option<Arc<Versioned<Application>>>, Failure> {
        if let Some(application) = self.applications.get(reference) {
            return Ok(Some(application));
        }
        match self.store.application(reference).await? {
            Some(record) => Ok(Some(self.put_application(reference, &record)?)),
            None => Ok(None),
        }
    }

    /// Takes over an application's new record; `None`: it is gone.
    pub(crate) fn renew_application(
        &self,
        reference: &ApplicationRef,
        record: Option<&Record>,
    ) -> Result<(), Failure> {
        match record {
            Some(record) => self.put_application(reference, record).map(|_| ()),
            None => {
                self.applications.remove(reference);
                Ok(())
            }
        }
    }

    fn put_application(
        &self,
        reference: &ApplicationRef,
        record: &Record,
    ) -> Result<Arc<Versioned<Application>>, Failure> {
        let application = Arc::new(read_application(record)?);
        self.applications.insert(reference.clone(), Arc::clone(&application));
        Ok(application)
    }

    /// The application that a `user_key` probably belongs to.
    pub(crate) async fn application_of_user_key(
        &self,
        service: &ServiceId,
        hash: &KeyHash,
    ) -> Result<Option<ApplicationId>, Failure> {
        let key = (service.clone(), hash.clone());
        if let Some(found) = self.user_keys.get(&key) {
            return Ok(Some(found));
        }
        let found = self.store.application_of_user_key(service, hash).await?;
        if let Some(id) = &found {
            self.user_keys.insert(key, id.clone());
        }
        Ok(found)
    }

    /// Forgets whom a `user_key` belonged to; returns whether it was remembered.
    pub(crate) fn forget_user_key(&self, service: &ServiceId, hash: &KeyHash) -> bool {
        self.user_keys.remove(&(service.clone(), hash.clone())).is_some()
    }
}

/// Reads a service's record.
pub(crate) fn read_service(record: &Record) -> Result<Versioned<Service>, Failure> {
    let message = v1::Service::decode(&record.bytes[..]).map_err(undecodable)?;
    let value = Service::try_from(&message).map_err(Failure::Record)?;
    Ok(Versioned { value, version: record.version })
}

fn read_application(record: &Record) -> Result<Versioned<Application>, Failure> {
    let message = v1::Application::decode(&record.bytes[..]).map_err(undecodable)?;
    let value = Application::try_from(&message).map_err(Failure::Record)?;
    Ok(Versioned { value, version: record.version })
}

fn undecodable(error: prost::DecodeError) -> Failure {
    Failure::Record(weir_proto::FieldError::new("record", error))
}
