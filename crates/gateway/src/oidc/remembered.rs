//! Tokens that were good a moment ago, by their digests: no token is kept.

use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;
use ring::digest::{SHA256, digest as sha2};
use weir_core::policy::condition::ClaimValues;

/// Parts that are locked one by one.
const PARTS: usize = 16;
/// Most tokens in one part: 10,000 of a service.
const PART_MAX: usize = 10_000 / PARTS;

/// SHA-256 of a token.
pub(super) type Digest = [u8; 32];

pub(super) fn digest(token: &str) -> Digest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(sha2(&SHA256, token.as_bytes()).as_ref());
    bytes
}

/// What a good token said.
#[derive(Clone)]
pub(super) struct Remembered {
    pub(super) client_id: String,
    /// Of what policies ask for; `None`: they ask for nothing.
    pub(super) claims: Option<Arc<ClaimValues>>,
    /// In seconds since 1970, leeway included.
    pub(super) until_s: i64,
    /// Of the issuer's keys that it was verified by.
    pub(super) generation: u64,
}

/// The good tokens of a service.
pub(super) struct Tokens([Mutex<HashMap<Digest, Remembered>>; PARTS]);

impl Tokens {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }

    fn part(&self, digest: &Digest) -> &Mutex<HashMap<Digest, Remembered>> {
        &self.0[usize::from(digest[0]) % PARTS]
    }

    /// Whose it is and what it says, if it is good still and by the same keys.
    pub(super) fn find(
        &self,
        digest: &Digest,
        generation: u64,
        now_s: i64,
    ) -> Option<(String, Option<Arc<ClaimValues>>)> {
        let part = self.part(digest).lock();
        let found = part.get(digest)?;
        let is_good = found.until_s > now_s && found.generation == generation;
        is_good.then(|| (found.client_id.clone(), found.claims.clone()))
    }

    /// Remembers one. In a full part those go that are good no more, or else any.
    pub(super) fn put(&self, digest: Digest, remembered: Remembered, now_s: i64) {
        let mut part = self.part(&digest).lock();
        if part.len() >= PART_MAX {
            let generation = remembered.generation;
            part.retain(|_, found| found.until_s > now_s && found.generation == generation);
        }
        if part.len() >= PART_MAX {
            let any = part.keys().next().copied();
            any.and_then(|any| part.remove(&any));
        }
        part.insert(digest, remembered);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remembered(until_s: i64, generation: u64) -> Remembered {
        Remembered { client_id: "app".into(), claims: None, until_s, generation }
    }

    #[test]
    fn tokens_are_forgotten_in_time() {
        let tokens = Tokens::new();
        tokens.put(digest("a"), remembered(10, 1), 0);
        assert_eq!(tokens.find(&digest("a"), 1, 9).map(|found| found.0).as_deref(), Some("app"));
        assert_eq!(tokens.find(&digest("a"), 1, 10), None);
        assert_eq!(tokens.find(&digest("a"), 2, 9), None);
        assert_eq!(tokens.find(&digest("b"), 1, 9), None);
    }

    #[test]
    fn there_is_a_most_of_them() {
        let tokens = Tokens::new();
        for number in 0..20_000 {
            tokens.put(digest(&number.to_string()), remembered(10, 1), 0);
        }
        let count: usize = tokens.0.iter().map(|part| part.lock().len()).sum();
        assert!((9_000..=10_000).contains(&count), "{count}");
        assert!(tokens.find(&digest("19999"), 1, 0).is_some(), "the newest is among them");
    }
}
