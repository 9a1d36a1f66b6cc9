//! An issuer's public keys (RFC 7517), and signatures by them.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::signature::{self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::Deserialize;
use weir_core::oidc::SigningAlgorithm;

/// Most keys of one issuer; further ones are not looked at.
const KEYS_MAX: usize = 100;

/// All keys of an issuer that can be used here.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Keys(Vec<Key>);

/// A public key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Key {
    id: Option<String>,
    /// The only one that it is for; `None`: any of its kind.
    algorithm: Option<SigningAlgorithm>,
    material: Material,
}

#[derive(Debug, PartialEq, Eq)]
enum Material {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Written {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Keys {
    /// Reads a set; keys that cannot be used here are left out. `None`: it is none.
    pub(super) fn read(json: &[u8]) -> Option<Self> {
        let set: Set = serde_json::from_slice(json).ok()?;
        let read = |key: serde_json::Value| Key::read(&serde_json::from_value(key).ok()?);
        Some(Self(set.keys.into_iter().take(KEYS_MAX).filter_map(read).collect()))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The key that a token names, if it is for the algorithm. A token that names none means the only one that is.
    pub(super) fn find(&self, id: Option<&str>, algorithm: SigningAlgorithm) -> Option<&Key> {
        let mut fitting = self.0.iter().filter(|key| key.is_for(algorithm));
        match id {
            Some(_) => fitting.find(|key| key.id.as_deref() == id),
            None => fitting.next().filter(|_| fitting.next().is_none()),
        }
    }
}

impl Key {
    fn read(written: &Written) -> Option<Self> {
        if written.purpose.as_deref().is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let decode = |text: &Option<String>| BASE64_URL_SAFE_NO_PAD.decode(text.as_ref()?).ok();
        let point = |length: usize| {
            let (x, y) = (decode(&written.x)?, decode(&written.y)?);
            (x.len() == length && y.len() == length).then(|| [&[4], x.as_slice(), y.as_slice()].concat())
        };
        let material = match (written.kty.as_str(), written.crv.as_deref()) {
            ("RSA", _) => Material::Rsa { modulus: decode(&written.n)?, exponent: decode(&written.e)? },
            ("EC", Some("P-256")) => Material::P256(point(32)?),
            ("EC", Some("P-384")) => Material::P384(point(48)?),
            ("OKP", Some("Ed25519")) => Material::Ed25519(decode(&written.x).filter(|x| x.len() == 32)?),
            _ => return None,
        };
        // Of an algorithm that is not served, it is of no use.
        let algorithm = written.alg.as_deref().map(str::parse).transpose().ok()?;
        Some(Self { id: written.kid.clone(), algorithm, material })
    }

    fn is_for(&self, algorithm: SigningAlgorithm) -> bool {
        use SigningAlgorithm::{EdDsa, Es256, Es384, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
        let is_its_kind = match &self.material {
            Material::Rsa { .. } => matches!(algorithm, Rs256 | Rs384 | Rs512 | Ps256 | Ps384 | Ps512),
            Material::P256(_) => algorithm == Es256,
            Material::P384(_) => algorithm == Es384,
            Material::Ed25519(_) => algorithm == EdDsa,
        };
        is_its_kind && self.algorithm.is_none_or(|only| only == algorithm)
    }

    /// Whether it made a signature of a message, by an algorithm that it is for.
    pub(super) fn verify(&self, algorithm: SigningAlgorithm, message: &[u8], signature: &[u8]) -> bool {
        if !self.is_for(algorithm) {
            return false;
        }
        let verified =
            match &self.material {
                Material::Rsa { modulus, exponent } => {
                    let key = RsaPublicKeyComponents { n: modulus, e: exponent };
                    rsa(algorithm)
                        .map_or(Err(ring::error::Unspecified), |rsa| key.verify(rsa, message, signature))
                }
                Material::P256(point) => UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point)
                    .verify(message, signature),
                Material::P384(point) => UnparsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point)
                    .verify(message, signature),
                Material::Ed25519(point) => {
                    UnparsedPublicKey::new(&signature::ED25519, point).verify(message, signature)
                }
            };
        verified.is_ok()
    }
}

/// Keys of less than 2,048 bits make no signatures.
fn rsa(algorithm: SigningAlgorithm) -> Option<&'static RsaParameters> {
    match algorithm {
        SigningAlgorithm::Rs256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
        SigningAlgorithm::Rs384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
        SigningAlgorithm::Rs512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
        SigningAlgorithm::Ps256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
        SigningAlgorithm::Ps384 => Some(&signature::RSA_PSS_2048_8192_SHA384),
        SigningAlgorithm::Ps512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
        SigningAlgorithm::Es256 | SigningAlgorithm::Es384 | SigningAlgorithm::EdDsa => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key and the message of RFC 8037, appendix A, and its signature.
    const ED25519_X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    const SIGNED: &[u8] = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    const SIGNATURE: &str =
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";

    fn keys(json: &str) -> Keys {
        Keys::read(json.as_bytes()).unwrap()
    }

    #[test]
    fn a_signature_is_its_keys_and_its_messages() {
        let set = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"1","x":"{ED25519_X}"}}]}}"#);
        let keys = keys(&set);
        let signature = BASE64_URL_SAFE_NO_PAD.decode(SIGNATURE).unwrap();
        let key = keys.find(Some("1"), SigningAlgorithm::EdDsa).unwrap();
        assert!(key.verify(SigningAlgorithm::EdDsa, SIGNED, &signature));
        assert!(!key.verify(SigningAlgorithm::EdDsa, &SIGNED[1..], &signature));
        assert!(!key.verify(SigningAlgorithm::EdDsa, SIGNED, &signature[1..]));
        assert!(!key.verify(SigningAlgorithm::Es256, SIGNED, &signature));
    }

    #[test]
    fn keys_are_found_by_name_and_kind() {
        let rsa =
            |id: &str, rest: &str| format!(r#"{{"kty":"RSA","kid":"{id}","n":"AQAB","e":"AQAB"{rest}}}"#);
        let all = [
            rsa("any", ""),
            rsa("ps", r#","alg":"PS256","use":"sig""#),
            rsa("enc", r#","use":"enc""#),
            rsa("hs", r#","alg":"HS256""#),
            r#"{"kty":"EC","crv":"P-521","kid":"p521","x":"AQAB","y":"AQAB"}"#.to_owned(),
            r#"{"kty":"EC","crv":"P-256","kid":"short","x":"AQAB","y":"AQAB"}"#.to_owned(),
            r#"{"kty":7}"#.to_owned(),
            format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{ED25519_X}"}}"#),
        ];
        let keys = keys(&format!(r#"{{"keys":[{}]}}"#, all.join(",")));
        assert_eq!(keys.0.len(), 3);
        let found = |id, algorithm| keys.find(id, algorithm).is_some();
        assert!(found(Some("any"), SigningAlgorithm::Rs512) && found(Some("ps"), SigningAlgorithm::Ps256));
        assert!(!found(Some("ps"), SigningAlgorithm::Rs256) && !found(Some("enc"), SigningAlgorithm::Rs256));
        assert!(!found(Some("any"), SigningAlgorithm::Es256) && !found(Some("hs"), SigningAlgorithm::Rs256));
        assert!(found(None, SigningAlgorithm::EdDsa), "the only one");
        assert!(!found(None, SigningAlgorithm::Ps256), "one of two");
        assert!(Keys::read(b"[]").is_none() && Keys::read(b"{\"keys\":1}").is_none());
    }
}
