//! How an application proves itself: three modes, one per service.
//!
//! The gateway extracts them from a request, other clients send them in their calls. Nothing here says
//! whether they are good; see [`crate::authenticate`].

use crate::secret::Secret;

/// Longest user key, `app_id` or `app_key`.
pub const CREDENTIAL_BYTES_MAX: usize = 4096;

/// The credential mode of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CredentialKind {
    /// One secret that also names the application.
    #[default]
    UserKey,
    /// A public `app_id` with a secret `app_key`.
    AppIdAndKey,
    /// A client id that an OpenID Connect issuer vouches for.
    ClientId,
}

/// Credentials as presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// For [`CredentialKind::UserKey`].
    UserKey(Secret),
    /// For [`CredentialKind::AppIdAndKey`]; an application without keys needs no `app_key`.
    AppIdAndKey {
        /// Names the application; as sent, so perhaps not an id at all.
        app_id: String,
        /// One of the application's keys.
        app_key: Option<Secret>,
    },
    /// For [`CredentialKind::ClientId`]: the application id, already proven by a verified token.
    ClientId(String),
}

impl Credentials {
    /// The mode they belong to.
    pub fn kind(&self) -> CredentialKind {
        match self {
            Self::UserKey(_) => CredentialKind::UserKey,
            Self::AppIdAndKey { .. } => CredentialKind::AppIdAndKey,
            Self::ClientId(_) => CredentialKind::ClientId,
        }
    }
}
