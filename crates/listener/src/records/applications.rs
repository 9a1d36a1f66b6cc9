//! A bounded number of applications, found by name and by `user_key`.
//!
//! Both tables hold pointers alone: an application is compared with itself, so a key leads nowhere else than its
//! record says. When room is needed, the oldest goes that nobody asked about since its last chance.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hashbrown::{DefaultHashBuilder, HashTable};
use weir_core::{ApplicationRef, KeyHash, ServiceId};

use super::{Known, Name};

/// How many get another chance before one has to go.
const CHANCES: usize = 16;

pub(super) struct Applications {
    max: usize,
    by_name: HashTable<Arc<Known>>,
    by_user_key: HashTable<Arc<Known>>,
    /// The oldest first. What was replaced or removed stays in line until its turn comes.
    line: VecDeque<Arc<Known>>,
    hashing: DefaultHashBuilder,
}

impl Applications {
    /// At most so many, one at least.
    pub(super) fn new(max: usize) -> Self {
        Self {
            max: max.max(1),
            by_name: HashTable::new(),
            by_user_key: HashTable::new(),
            line: VecDeque::new(),
            hashing: DefaultHashBuilder::default(),
        }
    }

    pub(super) fn find(&self, service: &ServiceId, name: &Name) -> Option<&Arc<Known>> {
        match name {
            Name::UserKey(hash) => self.of_user_key(service, hash),
            Name::Reference(reference) => self.named(reference),
        }
    }

    /// Reads all that names may lead to, so that memory is waited for once, and not at one name after the other.
    pub(super) fn fetch<'a>(&self, names: impl Iterator<Item = &'a Name>) {
        let mut candidates: Vec<&Known> = Vec::with_capacity(names.size_hint().0);
        for name in names {
            let found = match name {
                Name::UserKey(hash) => self.by_user_key.iter_hash(hash_of_key(hash)),
                Name::Reference(reference) => self.by_name.iter_hash(self.hashing.hash_one(reference)),
            };
            candidates.extend(found.map(|known| &**known));
        }
        black_box(candidates.iter().fold(0, |all, known| all ^ known.first_bytes()));
    }

    pub(super) fn named(&self, reference: &ApplicationRef) -> Option<&Arc<Known>> {
        self.by_name.find(self.hashing.hash_one(reference), |known| is(known, reference))
    }

    fn of_user_key(&self, service: &ServiceId, hash: &KeyHash) -> Option<&Arc<Known>> {
        let is_key = |known: &Arc<Known>| {
            let application = &known.value;
            application.user_key.as_ref() == Some(hash) && application.reference.service == *service
        };
        self.by_user_key.find(hash_of_key(hash), is_key)
    }

    /// Puts an application in the place of what was known of it.
    pub(super) fn insert(&mut self, known: Arc<Known>) {
        self.remove(&known.value.reference);
        self.make_room();
        let hashing = &self.hashing;
        let of_name = |known: &Arc<Known>| hashing.hash_one(&known.value.reference);
        self.by_name.insert_unique(of_name(&known), Arc::clone(&known), of_name);
        if known.value.user_key.is_some() {
            let of_key = |known: &Arc<Known>| known.value.user_key.as_ref().map_or(0, hash_of_key);
            self.by_user_key.insert_unique(of_key(&known), Arc::clone(&known), of_key);
        }
        self.line.push_back(known);
    }

    pub(super) fn remove(&mut self, reference: &ApplicationRef) {
        let hash = self.hashing.hash_one(reference);
        let found = self.by_name.find_entry(hash, |known| is(known, reference));
        let Ok(found) = found else { return };
        let (known, _) = found.remove();
        self.remove_user_key(&known);
    }

    fn remove_user_key(&mut self, known: &Arc<Known>) {
        let Some(key) = &known.value.user_key else { return };
        if let Ok(found) = self.by_user_key.find_entry(hash_of_key(key), |other| Arc::ptr_eq(other, known)) {
            found.remove();
        }
    }

    fn make_room(&mut self) {
        let mut chances = CHANCES;
        while self.line.len() >= self.max {
            let Some(known) = self.line.pop_front() else { return };
            if chances > 0 && known.asked_about.swap(false, Ordering::Relaxed) {
                chances -= 1;
                self.line.push_back(known);
                continue;
            }
            let hash = self.hashing.hash_one(&known.value.reference);
            if let Ok(found) = self.by_name.find_entry(hash, |other| Arc::ptr_eq(other, &known)) {
                found.remove();
                self.remove_user_key(&known);
            }
        }
    }
}

fn is(known: &Known, reference: &ApplicationRef) -> bool {
    known.value.reference == *reference
}

/// An HMAC is as good as random to all who do not know the server's secret.
fn hash_of_key(hash: &KeyHash) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&hash.digest[..8]);
    u64::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use weir_core::{Application, ApplicationState};
    use weir_store::Version;

    use super::*;

    fn key(name: &str) -> KeyHash {
        let mut digest = [0; 32];
        digest[..name.len()].copy_from_slice(name.as_bytes());
        KeyHash { secret_id: "1".into(), digest }
    }

    fn reference(name: &str) -> ApplicationRef {
        format!("api/{name}").parse().unwrap()
    }

    fn known(name: &str, user_key: Option<&str>, version: u64) -> Arc<Known> {
        let value = Application {
            reference: reference(name),
            state: ApplicationState::Active,
            plan: "gold".parse().unwrap(),
            user_key: user_key.map(key),
            app_keys: vec![],
            referrer_filters: vec![],
            redirect_url: None,
        };
        Arc::new(Known::new(value, Version(version)))
    }

    /// Who a key leads to, and in which version.
    fn of_key(applications: &Applications, text: &str) -> String {
        let found = applications.of_user_key(&"api".parse().unwrap(), &key(text));
        found.map_or("nobody".into(), |k| format!("{} {}", k.value.reference.application, k.version.0))
    }

    #[test]
    fn a_key_leads_to_whose_record_has_it() {
        let mut applications = Applications::new(10);
        applications.insert(known("a", Some("k1"), 1));
        applications.insert(known("b", Some("k2"), 1));
        assert_eq!(of_key(&applications, "k1"), "a 1");
        applications.insert(known("a", Some("k3"), 2));
        assert_eq!([of_key(&applications, "k1"), of_key(&applications, "k3")], ["nobody", "a 2"]);
        applications.insert(known("b", Some("k1"), 2));
        assert_eq!([of_key(&applications, "k1"), of_key(&applications, "k2")], ["b 2", "nobody"]);
        applications.remove(&reference("a"));
        assert_eq!(of_key(&applications, "k3"), "nobody");
        assert!(applications.named(&reference("a")).is_none());
        let other_service = applications.of_user_key(&"other".parse().unwrap(), &key("k1"));
        assert!(other_service.is_none(), "keys are a service's");
    }

    #[test]
    fn there_are_never_more_than_allowed() {
        let mut applications = Applications::new(3);
        for name in ["a", "b", "c"] {
            applications.insert(known(name, Some(name), 1));
        }
        applications.insert(known("a", Some("a"), 2));
        assert!(applications.named(&reference("c")).is_some());
        for name in ["d", "e", "f", "g"] {
            applications.insert(known(name, None, 1));
            assert!(applications.line.len() <= 3 && applications.by_name.len() <= 3);
            assert!(applications.by_user_key.len() <= applications.by_name.len());
        }
        assert_eq!(of_key(&applications, "b"), "nobody");
        assert!(applications.named(&reference("g")).is_some(), "the newest");
    }
}
