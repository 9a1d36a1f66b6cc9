//! Which credentials listeners have accepted, and for whom. In memory only.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hashbrown::{DefaultHashBuilder, HashTable};
use parking_lot::Mutex;
use weir_core::{Credentials, ServiceId, StatusSet};

use super::Application;
use crate::backend::Question;

/// Parts that are locked one by one, so that workers seldom meet.
const PARTS: usize = 64;
/// Most credentials in one part; beyond them those that were not asked for lately go.
const PART_MAX: usize = 4_096;
/// Longest referrer that is remembered; with a longer one a listener is asked each time.
const REFERRER_BYTES_MAX: usize = 256;
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
    /// Answers with which the plan has a call for nothing.
    pub(super) free_answers: Option<Arc<StatusSet>>,
}

struct Entry {
    service: ServiceId,
    credentials: Credentials,
    /// `None`: with any referrer.
    referrer: Option<Option<String>>,
    accepted: Accepted,
    heard_at_ms: u64,
}

/// With which referrer credentials are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Referrer<'a> {
    Any,
    /// With this one, or with none.
    Only(Option<&'a str>),
}

/// Credentials that are good.
pub(super) struct Known {
    parts: Box<[Mutex<HashTable<Entry>>]>,
    hashing: DefaultHashBuilder,
    /// Some are accepted with their referrer only.
    has_referrers: AtomicBool,
}

impl Known {
    pub(super) fn new() -> Self {
        Self {
            parts: (0..PARTS).map(|_| Mutex::default()).collect(),
            hashing: DefaultHashBuilder::default(),
            has_referrers: AtomicBool::new(false),
        }
    }

    /// Who comes with these, as far as is known.
    pub(super) fn find(&self, question: &Question<'_>, now_ms: u64) -> Option<Accepted> {
        let seek = |referrer| {
            let hash = self.hash(&question.service.id, question.credentials, referrer);
            let mut part = self.part(hash).lock();
            let entry = part.find_mut(hash, |entry| entry.is_for(question, referrer))?;
            entry.heard_at_ms = now_ms;
            Some(entry.accepted.clone())
        };
        seek(Referrer::Any).or_else(|| {
            // Most services ask nobody where a call comes from.
            let has_any = self.has_referrers.load(Ordering::Relaxed);
            if has_any { seek(Referrer::Only(question.referrer)) } else { None }
        })
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
            false => Referrer::Only(question.referrer),
        };
        if !for_any_referrer {
            if question.referrer.is_some_and(|referrer| referrer.len() > REFERRER_BYTES_MAX) {
                return;
            }
            self.has_referrers.store(true, Ordering::Relaxed);
        }
        let hash = self.hash(&question.service.id, question.credentials, referrer);
        let mut part = self.part(hash).lock();
        if let Some(known) = part.find_mut(hash, |entry| entry.is_for(question, referrer)) {
            (known.accepted, known.heard_at_ms) = (accepted, now_ms);
            return;
        }
        if part.len() >= PART_MAX {
            // Somebody has to go; who that is matters little, since a listener knows them all.
            let long_ago = now_ms.saturating_sub(FORGOTTEN_MS / 10);
            let mut left = PART_MAX / 16;
            part.retain(|entry| {
                let goes = entry.heard_at_ms < long_ago || left > 0;
                left -= usize::from(goes && left > 0);
                !goes
            });
        }
        let entry = Entry {
            service: question.service.id.clone(),
            credentials: question.credentials.clone(),
            referrer: match referrer {
                Referrer::Any => None,
                Referrer::Only(referrer) => Some(referrer.map(str::to_owned)),
            },
            accepted,
            heard_at_ms: now_ms,
        };
        part.insert_unique(hash, entry, |entry| {
            self.hash(&entry.service, &entry.credentials, entry.referrer())
        });
    }

    /// A listener has refused them.
    pub(super) fn forget(&self, question: &Question<'_>) {
        for referrer in [Referrer::Any, Referrer::Only(question.referrer)] {
            let hash = self.hash(&question.service.id, question.credentials, referrer);
            let mut part = self.part(hash).lock();
            if let Ok(known) = part.find_entry(hash, |entry| entry.is_for(question, referrer)) {
                known.remove();
            }
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

    fn hash(&self, service: &ServiceId, credentials: &Credentials, referrer: Referrer<'_>) -> u64 {
        let mut hasher = self.hashing.build_hasher();
        service.as_str().hash(&mut hasher);
        match credentials {
            Credentials::UserKey(key) => key.expose().hash(&mut hasher),
            Credentials::AppIdAndKey { app_id, app_key } => {
                app_id.hash(&mut hasher);
                app_key.as_ref().map(|key| key.expose()).hash(&mut hasher);
            }
            Credentials::ClientId(id) | Credentials::Anonymous(id) => id.hash(&mut hasher),
        }
        referrer.hash(&mut hasher);
        hasher.finish()
    }
}

impl Entry {
    fn referrer(&self) -> Referrer<'_> {
        match &self.referrer {
            None => Referrer::Any,
            Some(referrer) => Referrer::Only(referrer.as_deref()),
        }
    }

    fn is_for(&self, question: &Question<'_>, referrer: Referrer<'_>) -> bool {
        self.service == question.service.id
            && self.credentials == *question.credentials
            && self.referrer() == referrer
    }
}
