//! OpenID Connect: what a service asks of a token, and whether a token's claims say so.
//!
//! Signatures are the gateway's part; here is what can be judged by looking. (Reference: gateway, section 3; OpenID
//! Connect Core 1.0, section 2; RFC 7519 and RFC 9068.)

/// Longest token that is looked at, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 << 10;
/// Most audiences of one service.
pub const AUDIENCES_MAX: usize = 16;

/// What a service asks of the tokens that its callers show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oidc {
    /// URL of the issuer, as its tokens name it; its keys are found by discovery below it.
    pub issuer: String,
    /// Whom tokens have to be for: one of these. Empty: anybody, as long as they say for whom.
    pub audiences: Vec<String>,
    /// The claim that names the application. Default `azp`.
    pub client_id_claim: String,
    /// By which algorithms tokens may be signed. Empty: by those that the issuer's own configuration names.
    pub algorithms: Vec<SigningAlgorithm>,
    /// How far clocks may differ. Default 60 s.
    pub leeway_s: u32,
}

impl Oidc {
    /// With the defaults.
    pub fn of(issuer: &str) -> Self {
        Self {
            issuer: issuer.to_owned(),
            audiences: vec![],
            client_id_claim: "azp".into(),
            algorithms: vec![],
            leeway_s: 60,
        }
    }

    /// Judges claims at a time in seconds since 1970.
    ///
    /// # Errors
    /// The first thing that is wrong with them.
    pub fn judge(&self, claims: &Claims<'_>, now_s: i64) -> Result<(), TokenFault> {
        let leeway = i64::from(self.leeway_s);
        if claims.issuer.is_none_or(|issuer| !is_same_issuer(issuer, &self.issuer)) {
            return Err(TokenFault::Issuer);
        }
        let is_for = |wanted: &String| claims.audiences.contains(&wanted.as_str());
        if claims.audiences.is_empty() || !(self.audiences.is_empty() || self.audiences.iter().any(is_for)) {
            return Err(TokenFault::Audience);
        }
        if claims.expires_s.is_none_or(|end| end.saturating_add(leeway) <= now_s) {
            return Err(TokenFault::Expired);
        }
        if claims.not_before_s.is_some_and(|begin| begin.saturating_sub(leeway) > now_s) {
            return Err(TokenFault::NotYetValid);
        }
        // Tokens that tell users who they are, or get new ones, open no API.
        if claims.kind.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
            return Err(TokenFault::Kind);
        }
        Ok(())
    }
}

/// Whether two issuers are the same but for a slash at the end.
pub fn is_same_issuer(one: &str, other: &str) -> bool {
    one.strip_suffix('/').unwrap_or(one) == other.strip_suffix('/').unwrap_or(other)
}

/// What a token says.
#[derive(Debug, Clone, Default)]
pub struct Claims<'a> {
    /// `iss`.
    pub issuer: Option<&'a str>,
    /// `aud`, one or several.
    pub audiences: Vec<&'a str>,
    /// `exp`, since 1970.
    pub expires_s: Option<i64>,
    /// `nbf`, since 1970.
    pub not_before_s: Option<i64>,
    /// `typ`, as Keycloak tells tokens apart.
    pub kind: Option<&'a str>,
}

/// How a token may be signed. With a shared secret none may: whoever can check such a token can make one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SigningAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// ECDSA with P-384 and SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

impl SigningAlgorithm {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
    ];

    /// As tokens name it: `RS256`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }
}

/// Not an algorithm that is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is none of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 and EdDSA")]
pub struct SigningAlgorithmError;

impl std::str::FromStr for SigningAlgorithm {
    type Err = SigningAlgorithmError;
    fn from_str(text: &str) -> Result<Self, SigningAlgorithmError> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == text).ok_or(SigningAlgorithmError)
    }
}

/// What is wrong with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFault {
    /// Longer than [`TOKEN_BYTES_MAX`].
    TooLong,
    /// Not a signed JSON Web Token.
    Unreadable,
    /// Signed by an algorithm that the issuer does not use.
    Algorithm,
    /// Signed by a key that the issuer does not have.
    KeyUnknown,
    /// The signature is not that key's.
    Signature,
    /// Another issuer's, or nobody's.
    Issuer,
    /// For somebody else, or nobody.
    Audience,
    /// Too old, or without an end.
    Expired,
    /// Too young.
    NotYetValid,
    /// Made for something else than calling APIs.
    Kind,
    /// Without the claim that names the application.
    ClientIdMissing,
}

impl TokenFault {
    /// The stable code.
    pub fn code(self) -> &'static str {
        match self {
            Self::TooLong => "token_too_long",
            Self::Unreadable => "token_unreadable",
            Self::Algorithm => "token_algorithm_invalid",
            Self::KeyUnknown => "token_key_unknown",
            Self::Signature => "token_signature_invalid",
            Self::Issuer => "token_issuer_invalid",
            Self::Audience => "token_audience_invalid",
            Self::Expired => "token_expired",
            Self::NotYetValid => "token_not_yet_valid",
            Self::Kind => "token_kind_invalid",
            Self::ClientIdMissing => "token_client_id_missing",
        }
    }

    /// A sentence for people.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::TooLong => "The token is too long.",
            Self::Unreadable => "The token cannot be read.",
            Self::Algorithm => "The token is signed in a way that its issuer does not use.",
            Self::KeyUnknown => "The token is signed by a key that its issuer does not have.",
            Self::Signature => "The token's signature is not valid.",
            Self::Issuer => "The token is another issuer's.",
            Self::Audience => "The token is for somebody else.",
            Self::Expired => "The token has expired.",
            Self::NotYetValid => "The token is not valid yet.",
            Self::Kind => "The token is not one for calling APIs.",
            Self::ClientIdMissing => "The token does not say whose application it is.",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: i64 = 1_795_456_805;

    fn good() -> Claims<'static> {
        Claims {
            issuer: Some("https://id.test/realm"),
            audiences: vec!["mail", "other"],
            expires_s: Some(NOW_S + 10),
            ..Claims::default()
        }
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Claims<'static>), expected: Result<(), TokenFault>) {
        let oidc =
            Oidc { audiences: vec!["mail".into(), "post".into()], ..Oidc::of("https://id.test/realm/") };
        let mut claims = good();
        change(&mut claims);
        assert_eq!(oidc.judge(&claims, NOW_S), expected, "{claims:?}");
    }

    #[test]
    fn claims_are_judged_with_leeway() {
        check(|_| {}, Ok(()));
        check(|c| c.issuer = Some("https://id.test/realm/"), Ok(()));
        check(|c| c.issuer = Some("https://id.test/real"), Err(TokenFault::Issuer));
        check(|c| c.issuer = None, Err(TokenFault::Issuer));
        check(|c| c.audiences = vec!["post"], Ok(()));
        check(|c| c.audiences = vec!["nobody"], Err(TokenFault::Audience));
        check(|c| c.audiences = vec![], Err(TokenFault::Audience));
        check(|c| c.expires_s = Some(NOW_S - 59), Ok(()));
        check(|c| c.expires_s = Some(NOW_S - 60), Err(TokenFault::Expired));
        check(|c| c.expires_s = None, Err(TokenFault::Expired));
        check(|c| c.expires_s = Some(i64::MAX), Ok(()));
        check(|c| c.not_before_s = Some(NOW_S + 60), Ok(()));
        check(|c| c.not_before_s = Some(NOW_S + 61), Err(TokenFault::NotYetValid));
        check(|c| c.kind = Some("Bearer"), Ok(()));
        check(|c| c.kind = Some("ID"), Err(TokenFault::Kind));
    }

    #[test]
    fn without_audiences_a_token_still_has_to_name_one() {
        let oidc = Oidc::of("https://id.test/realm");
        assert_eq!(oidc.judge(&Claims { audiences: vec!["anybody"], ..good() }, NOW_S), Ok(()));
        assert_eq!(oidc.judge(&Claims { audiences: vec![], ..good() }, NOW_S), Err(TokenFault::Audience));
    }

    #[test]
    fn shared_secrets_are_no_signatures() {
        for text in ["HS256", "none", "rs256", ""] {
            assert!(text.parse::<SigningAlgorithm>().is_err(), "{text}");
        }
        assert!(SigningAlgorithm::ALL.iter().all(|a| a.as_str().parse() == Ok(*a)));
    }
}
