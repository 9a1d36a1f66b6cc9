//! Keyed hashes of keys: what the data plane stores instead of a `user_key` or `app_key`.
//!
//! HMAC-SHA-256 under a server secret. Each hash names its secret, so that a new secret can be brought in
//! while hashes under the old one still open the door. Written `hmac:<secret id>:<64 hex digits>`.
//!
//! Passwords are another matter: people choose them, so they need a slow hash; keys are long and random.

use std::fmt;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::secret::Secret;

/// Hash of a key under a named secret.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct KeyHash {
    /// Which secret made it.
    pub secret_id: Arc<str>,
    /// The HMAC-SHA-256.
    pub digest: [u8; 32],
}

/// A text that is not `hmac:<secret id>:<64 hex digits>`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is not a key hash: hmac:<secret id>:<64 hex digits>")]
pub struct KeyHashError;

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hmac:{}:", self.secret_id)?;
        self.digest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hmac:{}:***", self.secret_id)
    }
}

impl std::str::FromStr for KeyHash {
    type Err = KeyHashError;
    fn from_str(text: &str) -> Result<Self, KeyHashError> {
        let (secret_id, hex) =
            text.strip_prefix("hmac:").and_then(|rest| rest.split_once(':')).ok_or(KeyHashError)?;
        let mut digest = [0; 32];
        if secret_id.is_empty() || hex.len() != 64 || !hex.is_ascii() {
            return Err(KeyHashError);
        }
        for (byte, pair) in digest.iter_mut().zip(hex.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| KeyHashError)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| KeyHashError)?;
        }
        Ok(Self { secret_id: secret_id.into(), digest })
    }
}

/// Makes and checks key hashes: the server secrets, the current one first.
#[derive(Clone)]
pub struct KeyHasher {
    secrets: Vec<(Arc<str>, Hmac<Sha256>)>,
}

impl fmt::Debug for KeyHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.secrets.iter().map(|(id, _)| id)).finish()
    }
}

impl KeyHasher {
    /// From the current secret and older ones that hashes may still be under.
    pub fn new(current: (&str, &Secret), older: &[(&str, &Secret)]) -> Self {
        let keyed = |(id, secret): &(&str, &Secret)| {
            // HMAC takes keys of any length: the error case does not exist.
            let mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes());
            (Arc::from(*id), mac.expect("HMAC takes keys of any length"))
        };
        Self { secrets: std::iter::once(&current).chain(older).map(keyed).collect() }
    }

    /// The hash of a key under the current secret.
    pub fn hash(&self, key: &Secret) -> KeyHash {
        let (secret_id, mac) = &self.secrets[0];
        KeyHash { secret_id: secret_id.clone(), digest: digest(mac, key) }
    }

    /// The hashes of a key under every secret, the current one first.
    pub fn hashes(&self, key: &Secret) -> impl Iterator<Item = KeyHash> {
        self.secrets.iter().map(|(id, mac)| KeyHash { secret_id: id.clone(), digest: digest(mac, key) })
    }

    /// The same hash with the id of its secret shared with all others.
    pub fn share(&self, hash: KeyHash) -> KeyHash {
        match self.secrets.iter().find(|(id, _)| *id == hash.secret_id) {
            Some((id, _)) => KeyHash { secret_id: Arc::clone(id), ..hash },
            None => hash,
        }
    }

    /// Whether a hash is this key's, compared in constant time. False when its secret is not known.
    pub fn matches(&self, key: &Secret, hash: &KeyHash) -> bool {
        let Some((_, mac)) = self.secrets.iter().find(|(id, _)| *id == hash.secret_id) else {
            return false;
        };
        digest(mac, key).ct_eq(&hash.digest).into()
    }
}

fn digest(mac: &Hmac<Sha256>, key: &Secret) -> [u8; 32] {
    let mut mac = mac.clone();
    mac.update(key.expose().as_bytes());
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_survive_a_change_of_secret() {
        let (old, new, key) = (Secret::new("old"), Secret::new("new"), Secret::new("key"));
        let before = KeyHasher::new(("1", &old), &[]);
        let after = KeyHasher::new(("2", &new), &[("1", &old)]);
        let stored = before.hash(&key);
        assert!(after.matches(&key, &stored));
        assert!(!after.matches(&Secret::new("other"), &stored));
        assert!(!before.matches(&key, &after.hash(&key)), "a secret that is not known");
    }

    #[test]
    fn the_hash_is_plain_hmac_sha_256() {
        // RFC 4231, test case 2.
        let hasher = KeyHasher::new(("k", &Secret::new("Jefe")), &[]);
        let hash = hasher.hash(&Secret::new("what do ya want for nothing?"));
        let text = "hmac:k:5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hash.to_string(), text);
        assert_eq!(text.parse::<KeyHash>().unwrap(), hash);
        assert_eq!(format!("{hash:?}"), "hmac:k:***");
    }

    #[test]
    fn other_texts_are_no_hash() {
        for text in ["", "hmac:k:", "hmac::00", "sha:k:00", &format!("hmac:k:{}", "zz".repeat(32))] {
            assert_eq!(text.parse::<KeyHash>(), Err(KeyHashError), "{text}");
        }
    }
}
