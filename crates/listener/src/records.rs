//! Services and applications in memory, with the versions of the records they were read from.
//!
//! Nothing here expires: the store compares the versions in the step that counts and tells when one is old. What the
//! store does not have is never remembered, so a new application works at once.

mod applications;

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hashbrown::HashMap;
use parking_lot::RwLock;
use prost::Message;
use weir_core::credentials::CalledBy;
use weir_core::{
    Application, ApplicationId, ApplicationRef, KeyHash, KeyHasher, Presented, Secret, Service, ServiceId,
};
use weir_proto::v1;
use weir_store::{Record, Store, Subject, Version};

use crate::status::Failure;
use applications::Applications;

/// A record as read.
#[derive(Debug)]
pub(crate) struct Versioned<T> {
    pub(crate) value: T,
    pub(crate) version: Version,
}

/// An application's record as read, and what the store calls it.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) value: Application,
    pub(crate) version: Version,
    pub(crate) subject: Arc<Subject>,
    /// Since its last chance to stay.
    asked_about: AtomicBool,
}

impl Known {
    fn new(value: Application, version: Version) -> Self {
        let subject = Arc::new(Subject::new(value.reference.clone()));
        Self { value, version, subject, asked_about: AtomicBool::new(false) }
    }

    /// Something of every line of the cache that it takes.
    fn first_bytes(&self) -> u64 {
        let key = self.value.user_key.as_ref().map_or(0, |key| u64::from(key.digest[0]));
        self.version.0 ^ key ^ self.value.app_keys.len() as u64
    }

    /// Reads what a decision will need.
    fn fetch(&self) {
        black_box((self.subject.is_placed(), self.value.reference.application.as_str().as_bytes().first()));
    }
}

/// Somebody asks about an application.
fn hit(known: &Arc<Known>) -> Arc<Known> {
    // Mostly it is set already: reading does not take the line away from other cores.
    if !known.asked_about.load(Ordering::Relaxed) {
        known.asked_about.store(true, Ordering::Relaxed);
    }
    Arc::clone(known)
}

/// An application that a question names.
struct Sought<'a> {
    service: &'a Arc<Versioned<Service>>,
    name: Name,
}

/// What an application can be found by.
enum Name {
    UserKey(KeyHash),
    Reference(ApplicationRef),
}

impl Name {
    fn of(service: &Service, credentials: &Presented, hasher: &KeyHasher) -> Option<Self> {
        match credentials.called_by(service.credentials)? {
            CalledBy::UserKey(key) => Some(Self::UserKey(hasher.hash(key))),
            CalledBy::Id(id) => named(service, id).map(Self::Reference),
        }
    }

    fn user_key(self) -> Option<KeyHash> {
        match self {
            Self::UserKey(hash) => Some(hash),
            Self::Reference(_) => None,
        }
    }
}

/// An application that credentials lead to.
pub(crate) struct Found {
    pub(crate) application: Arc<Known>,
    /// The hash of the `user_key` that led to it.
    pub(crate) by: Option<KeyHash>,
}

/// The caches.
pub(crate) struct Records {
    store: Store,
    hasher: KeyHasher,
    /// As many as the catalog has services.
    services: RwLock<HashMap<ServiceId, Arc<Versioned<Service>>>>,
    applications: RwLock<Applications>,
}

impl Records {
    pub(crate) fn new(store: Store, hasher: KeyHasher, applications_max: usize) -> Self {
        let applications = RwLock::new(Applications::new(applications_max));
        Self { store, hasher, services: RwLock::default(), applications }
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

    /// The services and the applications that credentials name, as far as memory knows them; whether the credentials are
    /// good is not asked yet. Keys under an older secret are not looked for.
    ///
    /// Where there are many applications, reading them means waiting for memory. Here nothing depends on what was read
    /// for the question before, so it is waited for many of them at once.
    pub(crate) fn find_in_memory<'a>(
        &self,
        wanted: impl Iterator<Item = (&'a ServiceId, &'a Presented)>,
    ) -> Vec<Option<(Arc<Versioned<Service>>, Found)>> {
        let services = self.services.read();
        let seek = |(service, credentials): (&ServiceId, &Presented)| {
            let service = services.get(service)?;
            Some(Sought { service, name: Name::of(&service.value, credentials, &self.hasher)? })
        };
        let sought: Vec<Option<Sought<'_>>> = wanted.map(seek).collect();
        let applications = self.applications.read();
        applications.fetch(sought.iter().flatten().map(|sought| &sought.name));
        let look_up = |Sought { service, name }: &Sought<'_>| applications.find(&service.value.id, name);
        let known: Vec<Option<&Arc<Known>>> = sought.iter().map(|sought| look_up(sought.as_ref()?)).collect();
        known.iter().flatten().for_each(|known| known.fetch());
        let find = |(sought, known): (Option<Sought<'_>>, Option<_>)| {
            let Sought { service, name } = sought?;
            Some((Arc::clone(service), Found { application: hit(known?), by: name.user_key() }))
        };
        sought.into_iter().zip(known).map(find).collect()
    }

    /// The application that credentials name; whether they are good is not asked yet.
    pub(crate) async fn find(
        &self,
        service: &Service,
        credentials: &Presented,
    ) -> Result<Option<Found>, Failure> {
        match credentials.called_by(service.credentials) {
            None => Ok(None),
            Some(CalledBy::UserKey(key)) => self.find_by_user_key(service, key).await,
            Some(CalledBy::Id(id)) => {
                let Some(reference) = named(service, id) else { return Ok(None) };
                let application = self.application(&reference).await?;
                Ok(application.map(|application| Found { application, by: None }))
            }
        }
    }

    /// The application that has a `user_key`, under whichever secret it is hashed.
    pub(crate) async fn find_by_user_key(
        &self,
        service: &Service,
        key: &Secret,
    ) -> Result<Option<Found>, Failure> {
        for hash in self.hasher.hashes(key) {
            let name = Name::UserKey(hash);
            let known = self.applications.read().find(&service.id, &name).map(hit);
            if let Some(application) = known {
                return Ok(Some(Found { application, by: name.user_key() }));
            }
        }
        for hash in self.hasher.hashes(key) {
            if let Some(application) = self.store.application_of_user_key(&service.id, &hash).await? {
                let reference = ApplicationRef { service: service.id.clone(), application };
                let application = self.application(&reference).await?;
                return Ok(application.map(|application| Found { application, by: Some(hash) }));
            }
        }
        Ok(None)
    }

    /// An application, from memory where it is there.
    pub(crate) async fn application(
        &self,
        reference: &ApplicationRef,
    ) -> Result<Option<Arc<Known>>, Failure> {
        let known = self.applications.read().named(reference).map(hit);
        if known.is_some() {
            return Ok(known);
        }
        match self.store.application(reference).await? {
            Some(record) => Ok(Some(self.put_application(reference, &record)?)),
            None => Ok(None),
        }
    }

    /// Takes over what the store has instead of the versions of an application and its service that were judged by.
    pub(crate) fn renew_stale(
        &self,
        reference: &ApplicationRef,
        (known_application, known_service): (Option<Version>, Option<Version>),
        (record, service): (Option<Record>, Option<Version>),
    ) -> Result<(), Failure> {
        if service != known_service {
            self.forget_service(&reference.service);
        }
        if record.as_ref().map(|record| record.version) == known_application {
            return Ok(());
        }
        self.renew_application(reference, record.as_ref())
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
                self.applications.write().remove(reference);
                Ok(())
            }
        }
    }

    fn put_application(&self, reference: &ApplicationRef, record: &Record) -> Result<Arc<Known>, Failure> {
        let mut value = read_application(record)?;
        self.share_texts(&mut value, reference);
        let known = Arc::new(Known::new(value, record.version));
        self.applications.write().insert(Arc::clone(&known));
        Ok(known)
    }

    /// What many applications name alike is held once.
    fn share_texts(&self, application: &mut Application, reference: &ApplicationRef) {
        application.reference = reference.clone();
        if let Some(service) = self.services.read().get(&reference.service) {
            application.reference.service = service.value.id.clone();
            if let Some(plan) = service.value.plan(&application.plan) {
                application.plan = plan.id.clone();
            }
        }
        application.user_key = application.user_key.take().map(|hash| self.hasher.share(hash));
    }
}

/// The application of that id. A text that can be no id is no application's.
fn named(service: &Service, id: &str) -> Option<ApplicationRef> {
    let application = ApplicationId::parse(id).ok()?;
    Some(ApplicationRef { service: service.id.clone(), application })
}

/// Reads a service's record.
pub(crate) fn read_service(record: &Record) -> Result<Versioned<Service>, Failure> {
    let message = v1::Service::decode(&record.bytes[..]).map_err(undecodable)?;
    let value = Service::try_from(&message).map_err(Failure::Record)?;
    Ok(Versioned { value, version: record.version })
}

fn read_application(record: &Record) -> Result<Application, Failure> {
    let message = v1::Application::decode(&record.bytes[..]).map_err(undecodable)?;
    Application::try_from(&message).map_err(Failure::Record)
}

fn undecodable(error: prost::DecodeError) -> Failure {
    Failure::Record(weir_proto::FieldError::new("record", error))
}
