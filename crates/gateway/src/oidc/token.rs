//! Reads signed JSON Web Tokens (RFC 7515, compact form), without believing them.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};
use weir_core::oidc::Claims;

/// A token, taken apart.
pub(super) struct Token<'a> {
    /// As its header says.
    pub(super) algorithm: String,
    /// The key that it names.
    pub(super) key_id: Option<String>,
    /// What is signed: header and claims as they are written.
    pub(super) signed: &'a str,
    pub(super) signature: Vec<u8>,
    claims: &'a str,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// What must be understood; nothing of it is.
    crit: Option<Value>,
}

impl<'a> Token<'a> {
    /// `None`: it is none.
    pub(super) fn read(text: &'a str) -> Option<Self> {
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let header: Header = serde_json::from_slice(&decode(header)?).ok()?;
        if header.crit.is_some() {
            return None;
        }
        let signature = decode(signature)?;
        Some(Self { algorithm: header.alg, key_id: header.kid, signed, signature, claims })
    }

    /// What it says; `None`: it cannot be read.
    pub(super) fn claims(&self) -> Option<ReadClaims> {
        serde_json::from_slice(&decode(self.claims)?).ok().map(ReadClaims)
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    BASE64_URL_SAFE_NO_PAD.decode(text).ok()
}

/// The claims of a token.
pub(super) struct ReadClaims(Map<String, Value>);

impl ReadClaims {
    /// What is judged of them. A claim of another kind than it should be is as good as none.
    pub(super) fn judged(&self) -> Claims<'_> {
        let text = |name: &str| self.0.get(name).and_then(Value::as_str);
        let audiences = match self.0.get("aud") {
            Some(Value::String(one)) => vec![one.as_str()],
            Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
            _ => vec![],
        };
        Claims {
            issuer: text("iss"),
            audiences,
            expires_s: self.seconds("exp"),
            // One that cannot be read begins never.
            not_before_s: self.0.get("nbf").map(|_| self.seconds("nbf").unwrap_or(i64::MAX)),
            kind: text("typ"),
        }
    }

    /// `exp`; 0 where there is none.
    pub(super) fn expires_s(&self) -> i64 {
        self.seconds("exp").unwrap_or_default()
    }

    /// Seconds since 1970, perhaps with a fraction.
    fn seconds(&self, name: &str) -> Option<i64> {
        let value = self.0.get(name)?;
        #[expect(clippy::cast_possible_truncation, reason = "beyond all times is as good as the last")]
        value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds as i64))
    }

    /// What a claim says, as texts; `a.b` is `b` within `a`, where no claim has that whole name.
    pub(super) fn values(&self, name: &str) -> Vec<String> {
        let found = self.0.get(name).or_else(|| {
            let mut names = name.split('.');
            let outer = self.0.get(names.next()?)?;
            names.try_fold(outer, |within, name| within.get(name))
        });
        let text = |value: &Value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
            _ => None,
        };
        match found {
            Some(Value::Array(several)) => several.iter().filter_map(text).collect(),
            Some(one) => text(one).into_iter().collect(),
            None => vec![],
        }
    }

    /// The claim that names the application, or the first of several names.
    pub(super) fn client_id(&self, claim: &str) -> Option<String> {
        let value = match self.0.get(claim)? {
            Value::Array(several) => several.first()?,
            value => value,
        };
        value.as_str().filter(|id| !id.is_empty()).map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str, claims: &str) -> String {
        let [header, claims] = [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
        format!("{header}.{claims}.c2ln")
    }

    #[test]
    fn what_is_no_token() {
        for text in ["", ".", "..", "a.b", "a.b.c", "e30.e30.", "e30.e30.e30.e30"] {
            assert!(Token::read(text).is_none(), "{text}");
        }
        assert!(Token::read(&token(r#"{"alg":"RS256","crit":["b64"]}"#, "{}")).is_none());
        assert!(Token::read(&token(r#"{"alg":7}"#, "{}")).is_none());
        let text = token(r#"{"alg":"RS256","kid":"1"}"#, "[]");
        let read = Token::read(&text).unwrap();
        assert_eq!((read.algorithm.as_str(), read.key_id.as_deref()), ("RS256", Some("1")));
        assert_eq!(read.signature, b"sig");
        assert!(read.claims().is_none(), "claims are an object");
    }

    #[test]
    fn claims_are_found_by_name_or_path() {
        let text = token(
            r#"{"alg":"RS256"}"#,
            r#"{"a.b":"whole","a":{"b":"path","c":{"d":["x",1,true,null]}},"https://e.org/r":"url"}"#,
        );
        let claims = Token::read(&text).unwrap().claims().unwrap();
        for (name, expected) in [
            ("a.b", &["whole"][..]),
            ("a.c.d", &["x", "1", "true"]),
            ("https://e.org/r", &["url"]),
            ("a", &[]),
            ("a.none", &[]),
            ("", &[]),
        ] {
            assert_eq!(claims.values(name), expected, "{name}");
        }
    }

    #[test]
    fn claims_of_the_wrong_kind_are_none() {
        let claims = |text: &str| Token::read(&token(r#"{"alg":"RS256"}"#, text)).unwrap().claims().unwrap();
        let read = claims(r#"{"iss":1,"aud":{},"exp":"1","nbf":"x","azp":["a","b"]}"#);
        let judged = read.judged();
        assert_eq!((judged.issuer, judged.audiences.len(), judged.expires_s), (None, 0, None));
        assert_eq!(judged.not_before_s, Some(i64::MAX));
        assert_eq!(read.client_id("azp").as_deref(), Some("a"));
        assert_eq!(read.client_id("iss"), None);
        assert_eq!(claims(r#"{"exp":1.5e9,"aud":"a"}"#).judged().expires_s, Some(1_500_000_000));
    }
}
