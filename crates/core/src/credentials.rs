//! How an application proves itself: three modes, one per service.
//!
//! The gateway extracts them from a request and so knows the mode; calls of 3scale's API name whatever they have, and
//! the service says what of it counts. Nothing here says whether they are good; see [`crate::authenticate`].

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
    /// For any mode: the application that the service's policy `anonymous` names. The call showed none.
    Anonymous(String),
}

impl Credentials {
    /// The mode they belong to; `None`: any.
    pub fn kind(&self) -> Option<CredentialKind> {
        match self {
            Self::UserKey(_) => Some(CredentialKind::UserKey),
            Self::AppIdAndKey { .. } => Some(CredentialKind::AppIdAndKey),
            Self::ClientId(_) => Some(CredentialKind::ClientId),
            Self::Anonymous(_) => None,
        }
    }
}

/// What a call of 3scale's API names (reference: Service Management API, section 1.2).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parameters {
    /// Names the application where the service's mode is [`CredentialKind::UserKey`].
    pub user_key: Option<Secret>,
    /// Names it in the other two modes.
    pub app_id: Option<String>,
    /// One of the application's keys. Sent but empty is another thing than not sent.
    pub app_key: Option<Secret>,
    /// What a call of the OAuth endpoints asks beside; `None`: it is none.
    pub oauth: Option<OauthCall>,
}

/// What a call of 3scale's OAuth endpoints asks beside the key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OauthCall {
    /// Must be the application's; `None`: is not asked about.
    pub redirect: Option<Redirect>,
}

/// A redirect URL, by the parameter that named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redirect {
    /// `redirect_url`.
    Url(String),
    /// `redirect_uri`.
    Uri(String),
}

/// What an application is asked to be authenticated by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presented {
    /// Of one mode.
    Credentials(Credentials),
    /// The service's mode decides.
    Parameters(Parameters),
    /// Nothing: somebody who may asks about the application with this id.
    Nothing(String),
}

impl From<Credentials> for Presented {
    fn from(credentials: Credentials) -> Self {
        Self::Credentials(credentials)
    }
}

/// What an application is looked up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CalledBy<'a> {
    /// The key that is its own alone.
    UserKey(&'a Secret),
    /// Its id; as sent, so perhaps not an id at all.
    Id(&'a str),
}

impl Presented {
    /// What names the application in a service of that mode; `None`: nothing does.
    pub fn called_by(&self, kind: CredentialKind) -> Option<CalledBy<'_>> {
        match (self, kind) {
            (Self::Credentials(Credentials::UserKey(key)), _) => Some(CalledBy::UserKey(key)),
            (
                Self::Credentials(
                    Credentials::AppIdAndKey { app_id: id, .. }
                    | Credentials::ClientId(id)
                    | Credentials::Anonymous(id),
                ),
                _,
            ) => Some(CalledBy::Id(id)),
            (Self::Parameters(named), CredentialKind::UserKey) => {
                named.user_key.as_ref().map(CalledBy::UserKey)
            }
            (Self::Nothing(id), _) => Some(CalledBy::Id(id)),
            (Self::Parameters(named), _) => named.app_id.as_deref().map(CalledBy::Id),
        }
    }
}
