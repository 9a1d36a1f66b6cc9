#![no_main]
//! What credentials are found in a request. The first line chooses mode and place by its first two bytes, the second
//! names `user_key`, `app_id` and `app_key`, the third is the query; header lines follow up to an empty one, then a body.
//!
//! A credential must be in the request, where the service wants it and under its name. Once credentials are taken out
//! for the upstream, none may be left.

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use libfuzzer_sys::fuzz_target;
use weir_core::CredentialKind::{AppIdAndKey, ClientId, UserKey};
use weir_core::proxy::CredentialLocation::{Authorization, Headers, Query};
use weir_core::proxy::CredentialNames;
use weir_core::{CredentialKind, Credentials, Proxy};
use weir_fuzz::{arguments, cut, ways};
use weir_gateway::fuzzing::{credentials, last_argument, read_form, strip_credentials, without};

fuzz_target!(|bytes: &[u8]| {
    let Some(call) = Call::read(bytes) else { return };
    let form = form(&call);
    let find = |headers: &HeaderMap, query: &str, form: &[u8]| {
        credentials(call.kind, &call.proxy, headers, query, form)
    };
    let headers = &call.head.headers;
    let found = find(headers, call.query, form);
    let alone = match call.proxy.credential_location {
        Query => find(&HeaderMap::new(), call.query, form),
        Headers | Authorization => find(headers, "", b""),
    };
    assert!(found == alone, "it comes from elsewhere");
    if let Some(found) = &found {
        assert!(call.places(form).iter().any(|place| place.has(found)), "it is not in the request");
    }
    last_arguments(&call, form);
    nothing_is_left(&call, form);
});

/// What is in the bytes.
struct Call<'a> {
    kind: CredentialKind,
    proxy: Proxy,
    head: Parts,
    query: &'a str,
    body: &'a [u8],
}

impl<'a> Call<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (choice, rest) = cut(bytes, b"\n")?;
        let (names, rest) = cut(rest, b"\n")?;
        let (query, mut rest) = cut(rest, b"\n")?;
        let [kind, location, ..] = choice else { return None };
        let mut names = std::str::from_utf8(names).ok()?.split(' ').map(str::to_owned);
        let mut name = || names.next().unwrap_or_default();
        let mut head = Request::new(()).into_parts().0;
        head.method = Method::POST;
        while let Some((line, behind)) = cut(rest, b"\n") {
            rest = behind;
            if line.is_empty() {
                break;
            }
            let Some((name, value)) = cut(line, b": ") else { continue };
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
                head.headers.append(name, value);
            }
        }
        let proxy = Proxy {
            credential_location: [Query, Headers, Authorization][usize::from(location % 3)],
            credential_names: CredentialNames {
                user_key: name(),
                app_id: name(),
                app_key: name(),
                ..CredentialNames::default()
            },
            strip_credentials: true,
            ..Proxy::default()
        };
        let kind = [UserKey, AppIdAndKey, ClientId][usize::from(kind % 3)];
        Some(Self { kind, proxy, head, query: std::str::from_utf8(query).ok()?, body: rest })
    }

    fn names(&self) -> [&str; 3] {
        let names = &self.proxy.credential_names;
        [&names.user_key, &names.app_id, &names.app_key]
    }

    /// All that the request says where credentials are looked for.
    fn places(&self, form: &[u8]) -> Vec<Place> {
        let headers = &self.head.headers;
        match self.proxy.credential_location {
            Query => {
                let is = |found: &[u8], name: &str| found.eq_ignore_ascii_case(name.as_bytes());
                let pairs = [arguments(self.query.as_bytes()), arguments(form)].concat();
                let values = |name| {
                    let named = pairs.iter().filter(|(found, _)| is(found, name));
                    named.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
                };
                vec![Place(self.names().map(values))]
            }
            Headers => {
                let plain = |name: &str| name.to_ascii_lowercase().replace('_', "-");
                let values = |name| {
                    let named = headers.iter().filter(|(found, _)| plain(found.as_str()) == plain(name));
                    named.map(|(_, value)| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
                };
                vec![Place(self.names().map(values))]
            }
            Authorization => headers.get_all(AUTHORIZATION).iter().flat_map(authorization).collect(),
        }
    }
}

/// What a place has by way of `user_key`, `app_id` and `app_key`.
struct Place([Vec<String>; 3]);

impl Place {
    fn has(&self, credentials: &Credentials) -> bool {
        let Self([user_keys, app_ids, app_keys]) = self;
        let is_in = |values: &[String], text: &str| values.iter().any(|value| value == text);
        match credentials {
            Credentials::UserKey(key) => !key.expose().is_empty() && is_in(user_keys, key.expose()),
            Credentials::AppIdAndKey { app_id, app_key: Some(key) } => {
                !app_id.is_empty() && is_in(app_ids, app_id) && is_in(app_keys, key.expose())
            }
            Credentials::AppIdAndKey { app_key: None, .. } | Credentials::ClientId(_) => false,
        }
    }
}

/// What an `Authorization` may mean.
fn authorization(value: &HeaderValue) -> Vec<Place> {
    let text = String::from_utf8_lossy(value.as_bytes()).trim().to_owned();
    let Some((scheme, rest)) = text.split_once(' ') else { return vec![] };
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return vec![Place([vec![rest.to_owned()], vec![], vec![]])];
    }
    let decoded = String::from_utf8_lossy(&plain_base64(rest)).into_owned();
    match decoded.split_once(':') {
        Some((user, password)) if scheme.eq_ignore_ascii_case("basic") => {
            let user_key = if user.is_empty() { password } else { user };
            vec![Place([user_key, user, password].map(|text| vec![text.to_owned()]))]
        }
        _ => vec![],
    }
}

/// Decodes whatever there is to decode.
fn plain_base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits: Vec<bool> = text
        .bytes()
        .filter_map(|byte| DIGITS.iter().position(|digit| *digit == byte))
        .flat_map(|value| (0..6).rev().map(move |bit| value >> bit & 1 == 1))
        .collect();
    let byte = |bits: &[bool]| bits.iter().fold(0, |byte, bit| byte << 1 | u8::from(*bit));
    bits.chunks_exact(8).map(byte).collect()
}

/// The form of a request, however it arrives.
fn form<'a>(call: &Call<'a>) -> &'a [u8] {
    let is_form = read_form(&call.head, &[call.body]).1;
    for pieces in ways(call.body) {
        let (read, is_same) = read_form(&call.head, &pieces);
        assert_eq!(is_same, is_form);
        assert!(read == if is_form { call.body } else { b"" });
    }
    let types = call.head.headers.get_all(CONTENT_TYPE).iter();
    let mut types = types.map(|value| String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase());
    assert!(!is_form || types.any(|text| text.contains("application/x-www-form-urlencoded")));
    if is_form { call.body } else { b"" }
}

/// Mapping rules get the form's last value, else the query's.
fn last_arguments(call: &Call<'_>, form: &[u8]) {
    let (query, form_pairs) = (arguments(call.query.as_bytes()), arguments(form));
    for (name, _) in query.iter().chain(&form_pairs) {
        let last = |pairs: &[(Vec<u8>, Vec<u8>)]| {
            pairs.iter().rev().find(|(found, _)| found == name).map(|(_, value)| value.clone())
        };
        let expected = last(&form_pairs).or_else(|| last(&query));
        assert_eq!(last_argument(call.query, form, name), expected);
    }
}

fn nothing_is_left(call: &Call<'_>, form: &[u8]) {
    let mut headers = call.head.headers.clone();
    strip_credentials(&mut headers, &call.proxy);
    let strip = |text: &[u8]| {
        let stripped = without(text, &call.names()).unwrap_or_else(|| text.to_vec());
        let is_named = |name: &[u8]| call.names().iter().any(|own| name.eq_ignore_ascii_case(own.as_bytes()));
        let mut rest = arguments(text);
        rest.retain(|(name, _)| !is_named(name));
        assert_eq!(arguments(&stripped), rest);
        stripped
    };
    let (query, form) = (strip(call.query.as_bytes()), strip(form));
    let query = String::from_utf8_lossy(&query);
    assert!(credentials(call.kind, &call.proxy, &headers, &query, &form).is_none(), "credentials are left");
}
