//! Which credentials listeners have accepted, and for whom. In memory only.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};
use parking_lot::Mutex;
use weir_core::{Credentials, ServiceId};

use super::Application;
use crate::backend::Question;

/// Parts that are locked one by one, so that workers seldom meet.
const PARTS: usize = 64;
/// Most credentials in one part; beyond them those that were not asked for lately go.
const PART_MAX: usize = 4_096;
/// Credentials that nobody came with for so long are forgotten.
pub(super) const FORGOTTEN_MS: u64 = 600_000;

/// Whose credentials are.
#[derive(Clone)]
pub(super) struct Accepted {
    pub(super) application: Arc<Application>,
    /// Of the records that they were accepted by.
    pub(super) records_version: u64,
    /// A key ends then.
    pub(super) until_ms: u64,
}

struct Entry {
    service: ServiceId,
    credentials: Credentials,
    referrer: Referrer,
    accepted: Accepted,
    heard_at_ms: u64,
}

/// With which referrer they were accepted.
#[derive(PartialEq, Eq)]
enum Referrer {
    Any,
    Only(Option<String>),
}

/// Credentials that are good.
pub(super) struct Known {
    parts: Box<[Mutex<HashTable<Entry>>]>,
    hashing: DefaultHashBuilder,
}

impl Known {
    pub(super) fn new() -> Self {
        Self { parts: (0..PARTS).map(|_| Mutex::default()).collect(), hashing: DefaultHashBuilder::default() }
    }

    /// Who comes with these, as far as is known.
    pub(super) fn find(&self, question: &Question<'_>) -> Option<Accepted> {
        let hash = self.hash(&question.service.id, question.credentials);
        let part = self.part(hash).lock();
        part.find(hash, |entry| entry.is_for(question)).map(|entry| entry.accepted.clone())
    }

    /// A listener has accepted them.
    pub(super) fn put(
        &self,
        question: &Question<'_>,
        accepted: Accepted,
        for_any_referrer: bool,
        now_ms: u64,
    ) {
        let referrer = match for_any_referrer {
            true => Referrer::Any,
            false => Referrer::Only(question.referrer.map(str::to_owned)),
        };
        let hash = self.hash(&question.service.id, question.credentials);
        let mut part = self.part(hash).lock();
        if part.len() >= PART_MAX {
            part.retain(|entry| now_ms < entry.heard_at_ms + FORGOTTEN_MS / 10);
        }
        if part.len() >= PART_MAX {
            return;
        }
        let entry = Entry {
            service: question.service.id.clone(),
            credentials: question.credentials.clone(),
            referrer,
            accepted,
            heard_at_ms: now_ms,
        };
        let is_it = |known: &Entry| known.is_same(&entry);
        if let Ok(known) = part.find_entry(hash, is_it) {
            known.remove();
        }
        part.insert_unique(hash, entry, |entry| self.hash(&entry.service, &entry.credentials));
    }

    /// A listener has refused them.
    pub(super) fn forget(&self, question: &Question<'_>) {
        let hash = self.hash(&question.service.id, question.credentials);
        let mut part = self.part(hash).lock();
        while let Ok(known) = part.find_entry(hash, |entry| entry.is_for(question)) {
            known.remove();
        }
    }

    /// Forgets what nobody came with for long.
    pub(super) fn forget_old(&self, now_ms: u64) {
        for part in &self.parts {
            part.lock().retain(|entry| now_ms < entry.heard_at_ms + FORGOTTEN_MS);
        }
    }

    fn part(&self, hash: u64) -> &Mutex<HashTable<Entry>> {
        // The table uses the lowest bits, and the highest seven.
        &self.parts[(hash >> 40) as usize % PARTS]
    }

    fn hash(&self, service: &ServiceId, credentials: &Credentials) -> u64 {
        let mut hasher = self.hashing.build_hasher();
        service.as_str().hash(&mut hasher);
        match credentials {
            Credentials::UserKey(key) => key.expose().hash(&mut hasher),
            Credentials::AppIdAndKey { app_id, app_key } => {
                app_id.hash(&mut hasher);
                app_key.as_ref().map(|key| key.expose()).hash(&mut hasher);
            }
            Credentials::ClientId(id) => id.hash(&mut hasher),
        }
        hasher.finish()
    }
}

impl Entry {
    fn is_for(&self, question: &Question<'_>) -> bool {
        self.service == question.service.id
            && self.credentials == *question.credentials
            && match &self.referrer {
                Referrer::Any => true,
                Referrer::Only(referrer) => referrer.as_deref() == question.referrer,
            }
    }

    fn is_same(&self, other: &Self) -> bool {
        self.service == other.service
            && self.credentials == other.credentials
            && self.referrer == other.referrer
    }
}
