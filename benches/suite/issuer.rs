//! An issuer of tokens, as far as a gateway asks one: its configuration and its one key, in the suite's own thread.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A running issuer; answers nobody once dropped.
pub(crate) struct Issuer {
    /// As tokens name it.
    pub(crate) url: String,
    key: EcdsaKeyPair,
    random: SystemRandom,
    accepting: JoinHandle<()>,
}

impl Issuer {
    /// Makes a key, binds a port and answers from now on.
    ///
    /// # Errors
    /// When there is no port, or no key.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind(crate::server::free_address()?).await?;
        let address = listener.local_addr()?;
        let random = SystemRandom::new();
        let kind = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let no_key = |_| anyhow::anyhow!("no key can be made");
        let document = EcdsaKeyPair::generate_pkcs8(kind, &random).map_err(no_key)?;
        let key =
            EcdsaKeyPair::from_pkcs8(kind, document.as_ref(), &random).ok().context("no key can be read")?;
        let url = format!("http://{address}");
        let accepting = tokio::spawn(accept(listener, documents(address, key.public_key().as_ref())));
        Ok(Self { url, key, random, accepting })
    }

    /// A token for an application; forged ones are signed for another.
    pub(crate) fn token(&self, application: &str, is_forged: bool) -> anyhow::Result<String> {
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let claims = |application: &str| {
            let id = format!("{application}-3f2c9a71-5b0d-4c3e-9d2f");
            json!({ "iss": self.url, "aud": "bench", "azp": application, "exp": now_s + 36_000, "iat": now_s,
                    "jti": id, "sub": id, "scope": "openid profile mail:send mail:read" })
        };
        let signed = |claims: &Value| {
            let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
            format!(
                "{}.{}",
                encode(&json!({ "alg": "ES256", "kid": "bench", "typ": "at+jwt" })),
                encode(claims)
            )
        };
        let text = signed(&claims(application));
        let another = signed(&claims("another"));
        let signature =
            self.key.sign(&self.random, if is_forged { another.as_bytes() } else { text.as_bytes() });
        let signature = signature.map_err(|_| anyhow::anyhow!("no signature can be made"))?;
        Ok(format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
    }

    /// How long verifying one of these tokens takes, in microseconds: signature and reading, and nothing else.
    pub(crate) fn verification_us(&self, tokens: &[String]) -> f64 {
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref().to_vec());
        let begun = std::time::Instant::now();
        let mut good = 0;
        for token in tokens {
            let (signed, signature) = token.rsplit_once('.').unwrap_or_default();
            let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
            let (_, claims) = signed.split_once('.').unwrap_or_default();
            let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).unwrap_or_default();
            let claims: Value = serde_json::from_slice(&claims).unwrap_or_default();
            good += usize::from(claims.is_object() && key.verify(signed.as_bytes(), &signature).is_ok());
        }
        std::hint::black_box(good);
        begun.elapsed().as_secs_f64() * 1e6 / crate::turns::count(tokens.len() as u64)
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn documents(address: SocketAddr, point: &[u8]) -> [String; 2] {
    let answer = |body: Value| {
        let body = body.to_string();
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
    };
    let coordinate = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let (x, y) = (coordinate(&point[1..33]), coordinate(&point[33..]));
    [
        answer(json!({
            "issuer": format!("http://{address}"),
            "jwks_uri": format!("http://{address}/jwks"),
            "id_token_signing_alg_values_supported": ["ES256"],
        })),
        answer(json!({ "keys": [{ "kty": "EC", "crv": "P-256", "kid": "bench", "x": x, "y": y }] })),
    ]
}

async fn accept(listener: TcpListener, documents: [String; 2]) {
    while let Ok((stream, _)) = listener.accept().await {
        // Who leaves is not waited for.
        let _ = answer(stream, &documents).await;
    }
}

async fn answer(mut stream: TcpStream, [configuration, keys]: &[String; 2]) -> std::io::Result<()> {
    let mut head = vec![0; 4 << 10];
    let length = stream.read(&mut head).await?;
    let is_for_keys = head[..length].starts_with(b"GET /jwks");
    stream.write_all(if is_for_keys { keys } else { configuration }.as_bytes()).await
}
