//! Finds a request's credentials where the service's provider wants them, and nowhere else.
//!
//! Gateway and listener call it once the service is known. An empty `user_key` or `app_id` is a missing one; an
//! `app_key` must be there but may be empty. Bytes that are no UTF-8 are replaced, so such a key finds no
//! application.
//!
//! Whether credentials are good is the listener's business.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::arguments::{Arguments, without};
use crate::credentials::{CREDENTIAL_BYTES_MAX, CredentialKind, Credentials};
use crate::denial::Denial;
use crate::proxy::{CredentialLocation, CredentialNames, Proxy};
use crate::secret::Secret;

/// The credentials of a request, whose headers come as names and values.
///
/// # Errors
/// [`Denial::CredentialsMissing`] when one that the service's mode needs is not there.
pub fn credentials<'h>(
    kind: CredentialKind,
    proxy: &Proxy,
    headers: impl Iterator<Item = (&'h [u8], &'h [u8])> + Clone,
    arguments: Arguments<'_>,
) -> Result<Credentials, Denial> {
    let found = match proxy.credential_location {
        CredentialLocation::Query => from_arguments(kind, &proxy.credential_names, arguments),
        CredentialLocation::Headers => from_headers(kind, &proxy.credential_names, headers),
        CredentialLocation::Authorization => from_authorization(kind, headers),
    };
    found.ok_or(Denial::CredentialsMissing)
}

/// The token that a request shows: where the service wants it, else as `Authorization: Bearer` (RFC 6750).
///
/// # Errors
/// [`Denial::CredentialsMissing`] when there is none.
pub fn token<'h>(
    proxy: &Proxy,
    headers: impl Iterator<Item = (&'h [u8], &'h [u8])> + Clone,
    arguments: Arguments<'_>,
) -> Result<Cow<'h, str>, Denial> {
    let name = &proxy.credential_names.access_token;
    let found = match proxy.credential_location {
        CredentialLocation::Query => arguments.credential(name),
        CredentialLocation::Headers => header(name, headers.clone()),
        CredentialLocation::Authorization => None,
    };
    let found = found.filter(|token| !token.is_empty()).map(Cow::Owned);
    found.or_else(|| bearer(headers).map(Cow::Borrowed)).ok_or(Denial::CredentialsMissing)
}

/// Whether a request shows anything where its credentials are looked for, be it enough or not.
pub fn shows_any<'h>(
    kind: CredentialKind,
    proxy: &Proxy,
    headers: impl Iterator<Item = (&'h [u8], &'h [u8])> + Clone,
    arguments: Arguments<'_>,
) -> bool {
    let CredentialNames { user_key, app_id, app_key, access_token } = &proxy.credential_names;
    let names: &[&String] = match kind {
        CredentialKind::UserKey => &[user_key],
        CredentialKind::AppIdAndKey => &[app_id, app_key],
        CredentialKind::ClientId => &[access_token],
    };
    let is_in_authorization =
        kind == CredentialKind::ClientId || proxy.credential_location == CredentialLocation::Authorization;
    let mut fields = headers.clone();
    let is_there = |name: &&String| match proxy.credential_location {
        CredentialLocation::Query => {
            arguments.credential_or_empty(name).is_some_and(|value| !value.is_empty())
        }
        CredentialLocation::Headers => header(name, headers.clone()).is_some_and(|value| !value.is_empty()),
        CredentialLocation::Authorization => false,
    };
    names.iter().any(is_there)
        || (is_in_authorization && fields.any(|(name, _)| name.eq_ignore_ascii_case(b"authorization")))
}

/// Refuses credentials longer than [`CREDENTIAL_BYTES_MAX`]: no application has such, and no message room for them.
///
/// # Errors
/// As for any credentials that lead to nobody.
pub fn check_length(credentials: &Credentials) -> Result<(), Denial> {
    let is_long = |text: &str| text.len() > CREDENTIAL_BYTES_MAX;
    match credentials {
        Credentials::UserKey(key) if is_long(key.expose()) => Err(Denial::UserKeyInvalid),
        Credentials::AppIdAndKey { app_id, .. } if is_long(app_id) => Err(Denial::ApplicationNotFound),
        Credentials::AppIdAndKey { app_key: Some(key), .. } if is_long(key.expose()) => {
            Err(Denial::ApplicationKeyInvalid)
        }
        Credentials::ClientId(id) | Credentials::Anonymous(id) if is_long(id) => {
            Err(Denial::ApplicationNotFound)
        }
        _ => Ok(()),
    }
}

/// A query or form without credentials; `None`: they stay, or there are none.
pub fn stripped(proxy: &Proxy, text: &[u8]) -> Option<Vec<u8>> {
    if !proxy.strip_credentials || proxy.credential_location != CredentialLocation::Query {
        return None;
    }
    let CredentialNames { user_key, app_id, app_key, access_token } = &proxy.credential_names;
    match proxy.oidc {
        Some(_) => without(text, &[access_token]),
        None => without(text, &[user_key, app_id, app_key]),
    }
}

/// The names of the headers that credentials are looked for in; see [`same_header`].
pub fn credential_headers(proxy: &Proxy) -> impl Iterator<Item = &str> {
    let CredentialNames { user_key, app_id, app_key, access_token } = &proxy.credential_names;
    let is_in_headers = proxy.credential_location == CredentialLocation::Headers;
    let names = match (&proxy.oidc, proxy.credential_location) {
        // A token may always come so.
        (Some(_), _) => [Some("authorization"), is_in_headers.then_some(access_token.as_str()), None],
        (None, CredentialLocation::Query) => [None, None, None],
        (None, CredentialLocation::Authorization) => [Some("authorization"), None, None],
        (None, CredentialLocation::Headers) => [user_key, app_id, app_key].map(|name| Some(name.as_str())),
    };
    names.into_iter().flatten()
}

fn from_arguments(
    kind: CredentialKind,
    names: &CredentialNames,
    arguments: Arguments<'_>,
) -> Option<Credentials> {
    match kind {
        CredentialKind::UserKey => user_key(&arguments.credential(&names.user_key)?),
        CredentialKind::AppIdAndKey => {
            pair(&arguments.credential(&names.app_id)?, &arguments.credential_or_empty(&names.app_key)?)
        }
        CredentialKind::ClientId => None,
    }
}

fn from_headers<'h>(
    kind: CredentialKind,
    names: &CredentialNames,
    headers: impl Iterator<Item = (&'h [u8], &'h [u8])> + Clone,
) -> Option<Credentials> {
    let value = |name: &str| header(name, headers.clone());
    match kind {
        CredentialKind::UserKey => user_key(&value(&names.user_key)?),
        CredentialKind::AppIdAndKey => pair(&value(&names.app_id)?, &value(&names.app_key)?),
        CredentialKind::ClientId => None,
    }
}

fn header<'h>(name: &str, mut headers: impl Iterator<Item = (&'h [u8], &'h [u8])>) -> Option<String> {
    let (_, value) = headers.find(|(found, _)| same_header(found, name.as_bytes()))?;
    Some(String::from_utf8_lossy(value).into_owned())
}

/// The scheme of an `Authorization` header, and what is behind it.
fn authorization<'h>(mut headers: impl Iterator<Item = (&'h [u8], &'h [u8])>) -> Option<(&'h str, &'h str)> {
    let (_, value) = headers.find(|(name, _)| name.eq_ignore_ascii_case(b"authorization"))?;
    let (scheme, rest) = visible(value)?.trim().split_once(' ')?;
    Some((scheme, rest.trim()))
}

fn bearer<'h>(headers: impl Iterator<Item = (&'h [u8], &'h [u8])>) -> Option<&'h str> {
    let (scheme, token) = authorization(headers)?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

fn from_authorization<'h>(
    kind: CredentialKind,
    headers: impl Iterator<Item = (&'h [u8], &'h [u8])>,
) -> Option<Credentials> {
    let (scheme, rest) = authorization(headers)?;
    let is = |name: &str| scheme.eq_ignore_ascii_case(name);
    match kind {
        CredentialKind::UserKey if is("bearer") => user_key(rest),
        CredentialKind::UserKey if is("basic") => {
            let (user, password) = basic(rest)?;
            user_key(if user.is_empty() { &password } else { &user })
        }
        CredentialKind::AppIdAndKey if is("basic") => {
            let (user, password) = basic(rest)?;
            pair(&user, &password)
        }
        // A client id needs a token that was verified, see `token`.
        _ => None,
    }
}

/// A value as text, if it has nothing but visible ASCII, blanks and tabs.
fn visible(value: &[u8]) -> Option<&str> {
    let is_seen = value.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
    if is_seen { std::str::from_utf8(value).ok() } else { None }
}

/// User and password; the first colon parts them.
fn basic(encoded: &str) -> Option<(String, String)> {
    let padding = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let engine = GeneralPurpose::new(&base64::alphabet::STANDARD, padding);
    let decoded = engine.decode(encoded).ok()?;
    let text = String::from_utf8_lossy(&decoded);
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

fn user_key(key: &str) -> Option<Credentials> {
    (!key.is_empty()).then(|| Credentials::UserKey(Secret::new(key)))
}

fn pair(app_id: &str, app_key: &str) -> Option<Credentials> {
    (!app_id.is_empty())
        .then(|| Credentials::AppIdAndKey { app_id: app_id.to_owned(), app_key: Some(Secret::new(app_key)) })
}

/// Whether two header names are the same to a credential: `-` and `_` are one, and so are both cases.
pub fn same_header(one: &[u8], other: &[u8]) -> bool {
    let plain = |b: u8| if b == b'_' { b'-' } else { b.to_ascii_lowercase() };
    one.len() == other.len() && one.iter().zip(other).all(|(a, b)| plain(*a) == plain(*b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use CredentialKind::{AppIdAndKey, ClientId, UserKey};
    use CredentialLocation::{Authorization, Headers, Query};

    #[track_caller]
    fn check(kind: CredentialKind, place: CredentialLocation, names: [&str; 3], sent: &str, expected: &str) {
        let [user_key, app_id, app_key] = names.map(str::to_owned);
        let proxy = Proxy {
            credential_location: place,
            credential_names: CredentialNames { user_key, app_id, app_key, ..CredentialNames::default() },
            ..Proxy::default()
        };
        let mut headers: Vec<(&[u8], &[u8])> = Vec::new();
        let mut query = "";
        for part in sent.split('|').filter(|part| !part.is_empty()) {
            match part.strip_prefix('?') {
                Some(text) => query = text,
                None => {
                    let (name, value) = part.split_once(": ").unwrap();
                    headers.push((name.as_bytes(), value.as_bytes()));
                }
            }
        }
        let found = match credentials(kind, &proxy, headers.iter().copied(), Arguments { query, form: b"" }) {
            Ok(Credentials::UserKey(key)) => key.expose().to_owned(),
            Ok(Credentials::AppIdAndKey { app_id, app_key }) => {
                format!("{app_id} / {}", app_key.unwrap().expose())
            }
            Ok(Credentials::ClientId(id) | Credentials::Anonymous(id)) => id,
            Err(denial) => denial.code().to_owned(),
        };
        assert_eq!(found, expected, "{sent}");
    }

    const NAMES: [&str; 3] = ["user_key", "app_id", "app_key"];
    const MISSING: &str = "credentials_missing";

    #[test]
    fn long_credentials_are_nobodys() {
        let long = "k".repeat(CREDENTIAL_BYTES_MAX + 1);
        let key = |length: usize| Credentials::UserKey(Secret::new(&long[..length]));
        assert_eq!(check_length(&key(CREDENTIAL_BYTES_MAX)), Ok(()));
        assert_eq!(check_length(&key(CREDENTIAL_BYTES_MAX + 1)), Err(Denial::UserKeyInvalid));
        let pair = |app_id: &str, app_key: &str| Credentials::AppIdAndKey {
            app_id: app_id.to_owned(),
            app_key: Some(Secret::new(app_key)),
        };
        assert_eq!(check_length(&pair(&long, "k")), Err(Denial::ApplicationNotFound));
        assert_eq!(check_length(&pair("i", &long)), Err(Denial::ApplicationKeyInvalid));
    }

    #[test]
    fn from_the_query() {
        check(UserKey, Query, NAMES, "?a=1&user_key=k", "k");
        check(UserKey, Query, ["api-key", "", ""], "?api-key=k", "k");
        check(UserKey, Query, NAMES, "?user_key=", MISSING);
        check(UserKey, Query, NAMES, "user_key: k", MISSING);
        check(AppIdAndKey, Query, NAMES, "?app_id=i&app_key=s", "i / s");
        check(AppIdAndKey, Query, NAMES, "?app_id=i&app_key=", "i / ");
        check(AppIdAndKey, Query, NAMES, "?app_id=i", MISSING);
        check(AppIdAndKey, Query, NAMES, "?app_id=&app_key=s", MISSING);
        check(AppIdAndKey, Query, NAMES, "?app_id=i|app_key: s", MISSING);
        check(AppIdAndKey, Query, NAMES, "?user_key=k", MISSING);
    }

    #[test]
    fn from_headers() {
        check(UserKey, Headers, ["X-API-Key", "", ""], "x-api-KEY: k", "k");
        check(UserKey, Headers, ["api-key", "", ""], "api_key: k", "k");
        check(UserKey, Headers, NAMES, "?user_key=k", MISSING);
        check(UserKey, Headers, NAMES, "user_key: a:b&c=d?e#f", "a:b&c=d?e#f");
        check(AppIdAndKey, Headers, NAMES, "app_id: i d&x=1|app-key: %41+", "i d&x=1 / %41+");
        check(AppIdAndKey, Headers, NAMES, "app-id: i", MISSING);
    }

    #[test]
    fn tokens() {
        #[track_caller]
        fn check(place: CredentialLocation, header: &str, query: &str, expected: Option<&str>) {
            let proxy = Proxy { credential_location: place, ..Proxy::default() };
            let headers = header.split_once(": ").map(|(name, value)| (name.as_bytes(), value.as_bytes()));
            let found = token(&proxy, headers.into_iter(), Arguments { query, form: b"" });
            assert_eq!(found.ok().as_deref(), expected, "{header} {query}");
        }
        check(Query, "", "access_token=a.b.c", Some("a.b.c"));
        check(Query, "access_token: a.b.c", "", None);
        check(Query, "Authorization: Bearer a.b.c", "access_token=", Some("a.b.c"));
        check(Query, "Authorization: Bearer a.b.c", "access_token=d", Some("d"));
        check(Headers, "access-token: a.b.c", "access_token=d", Some("a.b.c"));
        check(Headers, "Authorization: bearer  a.b.c", "", Some("a.b.c"));
        check(Authorization, "Authorization: Bearer a.b.c", "access_token=d", Some("a.b.c"));
        check(Authorization, "Authorization: Basic azo=", "access_token=d", None);
    }

    #[test]
    fn from_authorization() {
        let check = |kind, sent: &str, expected| {
            check(kind, Authorization, NAMES, &format!("Authorization: {sent}"), expected);
        };
        check(UserKey, "Basic azo=", "k");
        check(UserKey, "basic   azo=", "k");
        check(UserKey, "Basic azo", "k");
        check(UserKey, "Basic azppZ25vcmVk", "k");
        check(UserKey, "Basic OnBhc3M=", "pass");
        check(UserKey, "Basic aw==", MISSING);
        check(UserKey, "Basic %%%", MISSING);
        check(UserKey, "Bearer k.k-k", "k.k-k");
        check(UserKey, "bearer k", "k");
        check(UserKey, "Digest k", MISSING);
        check(UserKey, "Bearer", MISSING);
        check(AppIdAndKey, "Basic aTpz", "i / s");
        check(AppIdAndKey, "Basic aTpzOnQ=", "i / s:t");
        check(AppIdAndKey, "Basic aTo=", "i / ");
        check(AppIdAndKey, "Bearer i", MISSING);
        check(ClientId, "Bearer i", MISSING);
    }
}
