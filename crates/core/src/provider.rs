//! A company that offers APIs, as far as the data plane has to know it: by its keys.
//!
//! Every service carries its provider, so that the store's one comparison of versions covers a provider's keys, too.

use crate::key_hash::KeyHash;

/// Most `provider_key`s of one provider at a time: enough to rotate.
pub const PROVIDER_KEYS_MAX: usize = 5;

/// One company that offers APIs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Provider {
    /// Its name; unique in the installation.
    pub name: String,
    /// Hashes of its `provider_key`s, at most [`PROVIDER_KEYS_MAX`]: each opens 3scale's API for all its services.
    pub keys: Vec<KeyHash>,
}
