//! Keys of applications: in the clear or as `hmac:<secret id>:<hex>`, in memory always as hashes.
//!
//! Problems name the key's place, never the key.

use std::collections::HashSet;
use std::sync::Arc;

use weir_core::{KeyHash, KeyHasher, Secret};

use crate::report::{Located, Report};

/// Longest key in bytes.
const KEY_BYTES_MAX: usize = 255;

/// How keys become hashes, and which hashes can ever match.
#[derive(Debug)]
pub(crate) struct KeyHashing {
    hasher: KeyHasher,
    /// `None`: not known here, so every hash may do.
    secret_ids: Option<HashSet<Arc<str>>>,
}

impl KeyHashing {
    /// Under the listener's secrets; a hash under any other is a problem.
    pub(crate) fn under(hasher: KeyHasher) -> Self {
        let secret_ids = hasher.hashes(&Secret::new("")).map(|hash| hash.secret_id).collect();
        Self { hasher, secret_ids: Some(secret_ids) }
    }

    /// For a catalog that is only looked at: its hashes are good for nothing but comparing with each other.
    pub(crate) fn for_check() -> Self {
        Self { hasher: KeyHasher::new(("check", &Secret::new("check")), &[]), secret_ids: None }
    }

    /// The hash of a key as written; says so when it is no good.
    pub(super) fn read(&self, report: &Report<'_>, kind: &str, text: Located<&str>) -> Option<KeyHash> {
        let problem = if text.value.starts_with("hmac:") {
            match text.value.parse::<KeyHash>() {
                Ok(hash) if self.secret_ids.as_ref().is_none_or(|ids| ids.contains(&hash.secret_id)) => {
                    return Some(hash);
                }
                Ok(hash) => {
                    format!("is a hash under the secret {:?}, which is not known here", hash.secret_id)
                }
                Err(error) => error.to_string(),
            }
        } else if text.value.is_empty() {
            "is empty".into()
        } else if text.value.len() > KEY_BYTES_MAX {
            format!("is longer than {KEY_BYTES_MAX} bytes")
        } else if text.value.contains(|c: char| c.is_whitespace() || c.is_control()) {
            "has a blank or control character".into()
        } else {
            return Some(self.hasher.hash(&Secret::new(text.value)));
        };
        report.error(text.place, format!("{kind} {problem}"));
        None
    }
}
