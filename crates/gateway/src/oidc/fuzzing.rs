//! What fuzz targets see of tokens and keys.

use weir_core::oidc::SigningAlgorithm;

use super::keys::Keys;
use super::token::Token;

/// The key of RFC 8037, appendix A.
const KEY: &str =
    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

/// What is signed of a token, its signature, and whether it is that key's; `None`: it is no token.
///
/// # Panics
/// Never, as long as the key is one.
pub fn token(text: &str) -> Option<(String, Vec<u8>, bool)> {
    let token = Token::read(text)?;
    if let Some(claims) = token.claims() {
        let _ = (claims.judged(), claims.expires_s(), claims.client_id("azp"));
    }
    let keys = Keys::read(KEY.as_bytes()).expect("a set");
    let is_its = |algorithm: SigningAlgorithm| {
        let key = keys.find(None, SigningAlgorithm::EdDsa).expect("the key");
        key.verify(algorithm, token.signed.as_bytes(), &token.signature)
    };
    let is_verified = SigningAlgorithm::ALL.into_iter().any(is_its);
    Some((token.signed.to_owned(), token.signature, is_verified))
}

/// How many keys of a set can be used; `None`: it is none.
pub fn key_set(json: &[u8]) -> Option<usize> {
    Keys::read(json).map(|keys| keys.len())
}
