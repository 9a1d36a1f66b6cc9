//! Tokens as credentials: what an OpenID Connect issuer signed is checked here, without asking anybody.
//!
//! A service of that kind has a [`Door`]. It looks a token up among those that were good a moment ago; a new one is
//! read, its signature verified by the issuer's keys ([`issuer`]), its claims judged by core, and the application is whom
//! the claims name. What is not good is never remembered, so made-up tokens cost their verification and no memory.

mod fetch;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod issuer;
mod keys;
mod reach;
mod remembered;
mod token;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use weir_core::credentials::CREDENTIAL_BYTES_MAX;
use weir_core::oidc::{Oidc, SigningAlgorithm, TOKEN_BYTES_MAX, TokenFault};
use weir_core::policy::condition::ClaimValues;
use weir_core::{Credentials, Denial};

pub(crate) use self::issuer::Issuers;
pub use self::issuer::OidcConfig;
use self::issuer::{Issuer, Known};
use self::remembered::{Remembered, Tokens};
use self::token::Token;
use crate::meters::TokenMeters;

/// Why a token opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closed {
    /// It is not good.
    Fault(TokenFault),
    /// The issuer's keys are not known: nobody can say whether it is good.
    IssuerAway,
}

impl From<TokenFault> for Closed {
    fn from(fault: TokenFault) -> Self {
        Self::Fault(fault)
    }
}

impl Closed {
    /// As a refusal of the service; `None`: it is none.
    pub(crate) fn denial(self) -> Option<Denial> {
        match self {
            Self::Fault(fault) => Some(Denial::TokenInvalid(fault)),
            Self::IssuerAway => None,
        }
    }
}

/// Where a service's tokens are checked.
pub(crate) struct Door {
    wanted: Oidc,
    issuer: Arc<Issuer>,
    tokens: Tokens,
    /// Which claims policies ask for.
    claims: Arc<[String]>,
    meters: TokenMeters,
}

/// Whose a token is, and what it says of what policies ask.
pub(crate) type Shown = (Credentials, Option<Arc<ClaimValues>>);

/// Most of a token's claims that is remembered with it; one that says more is verified each time.
const CLAIMS_BYTES_MAX: usize = 1_024;

impl Door {
    pub(crate) fn new(service: &str, wanted: Oidc, claims: Arc<[String]>, issuers: &Issuers) -> Self {
        let issuer = issuers.of(&wanted.issuer);
        Self { wanted, issuer, tokens: Tokens::new(), claims, meters: TokenMeters::of(service) }
    }

    /// The application that a token names which was good a moment ago.
    pub(crate) fn remembered(&self, token: &str) -> Option<Shown> {
        let (client_id, claims) =
            self.tokens.find(&remembered::digest(token), self.issuer.generation(), now_s())?;
        self.meters.remembered.increment(1);
        Some((Credentials::ClientId(client_id), claims))
    }

    /// The application that a token names.
    ///
    /// # Errors
    /// When it opens nothing.
    pub(crate) async fn check(&self, token: &str) -> Result<Shown, Closed> {
        let now_s = now_s();
        match self.judge(token, now_s).await {
            Ok(good) => {
                let shown = (Credentials::ClientId(good.client_id.clone()), good.claims.clone());
                if good.claims.as_ref().is_none_or(|claims| claims.bytes() <= CLAIMS_BYTES_MAX) {
                    self.tokens.put(remembered::digest(token), good, now_s);
                }
                self.meters.verified.increment(1);
                Ok(shown)
            }
            Err(closed) => {
                self.meters.refused.increment(1);
                Err(closed)
            }
        }
    }

    async fn judge(&self, text: &str, now_s: i64) -> Result<Remembered, Closed> {
        if text.len() > TOKEN_BYTES_MAX {
            return Err(TokenFault::TooLong.into());
        }
        let token = Token::read(text).ok_or(TokenFault::Unreadable)?;
        let algorithm: SigningAlgorithm = token.algorithm.parse().map_err(|_| TokenFault::Algorithm)?;
        // What can be seen without a key is looked at first: it asks nobody for keys.
        let claims = token.claims().ok_or(TokenFault::Unreadable)?;
        self.wanted.judge(&claims.judged(), now_s)?;
        let client_id = claims.client_id(&self.wanted.client_id_claim);
        let client_id = client_id.filter(|id| id.len() <= CREDENTIAL_BYTES_MAX);
        let client_id = client_id.ok_or(TokenFault::ClientIdMissing)?;
        let mut known = self.issuer.known().await.ok_or(Closed::IssuerAway)?;
        let knows = |known: &Known| {
            self.allows(known, algorithm) && known.keys.find(token.key_id.as_deref(), algorithm).is_some()
        };
        if !knows(&known) {
            // It may be a new key, or a new way of signing.
            known = self.issuer.renewed(known.generation).await.unwrap_or(known);
        }
        if !self.allows(&known, algorithm) {
            return Err(TokenFault::Algorithm.into());
        }
        let key = known.keys.find(token.key_id.as_deref(), algorithm).ok_or(TokenFault::KeyUnknown)?;
        if !key.verify(algorithm, token.signed.as_bytes(), &token.signature) {
            return Err(TokenFault::Signature.into());
        }
        let until_s = claims.expires_s().saturating_add(self.wanted.leeway_s.into());
        let asked = |name: &String| (name.clone(), claims.values(name));
        let claims = (!self.claims.is_empty())
            .then(|| Arc::new(ClaimValues::new(self.claims.iter().map(asked).collect())));
        Ok(Remembered { client_id, claims, until_s, generation: known.generation })
    }

    fn allows(&self, known: &Known, algorithm: SigningAlgorithm) -> bool {
        let pinned =
            if self.wanted.algorithms.is_empty() { &known.algorithms } else { &self.wanted.algorithms };
        pinned.contains(&algorithm)
    }
}

fn now_s() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX)
}
