//! How a caller of the listener shows that it may ask about a service.
//!
//! The listener makes it from a call. Whether it holds is judged by the same snapshot of the service as everything
//! else, so a key or token that was taken away does not open anything on the next call.

use crate::denial::Denial;
use crate::key_hash::KeyHash;
use crate::service::Service;

/// What a caller shows. Hashes are one for each secret that keys may be hashed under.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Proof {
    /// A gateway's token, which the listener itself knows and has checked.
    #[default]
    Gateway,
    /// A `provider_key`.
    ProviderKey(Vec<KeyHash>),
    /// A `provider_key` alone: it opens its provider's default service.
    DefaultOf(Vec<KeyHash>),
    /// A `service_token`.
    ServiceToken(Vec<KeyHash>),
}

impl Proof {
    /// Whether it holds for a service.
    ///
    /// # Errors
    /// When it does not.
    pub fn check(&self, service: &Service) -> Result<(), Denial> {
        let (shown, known, denial) = match self {
            Self::Gateway => return Ok(()),
            Self::DefaultOf(_) if !service.is_default => return Err(Denial::ProviderKeyInvalid),
            Self::ProviderKey(hashes) | Self::DefaultOf(hashes) => {
                (hashes, &service.provider.keys, Denial::ProviderKeyInvalid)
            }
            Self::ServiceToken(hashes) => (hashes, &service.tokens, Denial::ServiceTokenInvalid),
        };
        if shown.iter().any(|hash| known.contains(hash)) { Ok(()) } else { Err(denial) }
    }
}
