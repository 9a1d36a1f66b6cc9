#![no_main]
//! Access tokens, as any client may show them, and sets of keys, as an issuer may answer them.
//!
//! A token that was read is put together again from what was read of it. Nobody but who has the key makes one that
//! verifies: of all texts only the one that RFC 8037 gives, in whichever letters its padding bits are written.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use weir_gateway::fuzzing::{key_set, token};

const SIGNED: &str = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";

fuzz_target!(|bytes: &[u8]| {
    if let Some(count) = key_set(bytes) {
        assert!(count <= 100 && count <= bytes.len(), "keys out of nothing");
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Some((signed, signature, is_verified)) = token(text) else { return };
    assert_eq!(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(&signature)), text);
    assert!(!is_verified || signed == SIGNED, "a forged token is good");
});
