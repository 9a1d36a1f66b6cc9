//! Tokens of an OpenID Connect issuer as credentials.
//!
//! Goal: who logged in at the issuer is served and counted under the application that the token names, and nobody else,
//! whatever becomes of the issuer. Method: a real issuer (the npm package `oidc-provider`), which also signs what a test
//! makes up, so that each token is wrong in one way.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use weir_tests::http::get;
use weir_tests::issuer::{AUDIENCE, Issuer};
use weir_tests::scripted::Scripted;
use weir_tests::wait::until;

use crate::world::{Api, PLAIN, World};

/// Tests' issuers are on loopback, and change their keys at once.
const NEAR: &str = "[oidc]\nprivate_networks = [\"127.0.0.0/8\"]\nrenewal_pause_ms = 1\n";

const APPLICATIONS: &str = r#"
[[providers.services.applications]]
id = "phone"
plan = "plan"
[[providers.services.applications]]
id = "desk"
plan = "plan"
"#;

const LIMITS: &str = r#"{ metric = "hits", period = "eternity", max = 5 }"#;

/// A service whose callers show tokens of this issuer.
fn api<'a>(id: &'a str, proxy: &'a str) -> Api<'a> {
    Api { id, mode: "client_id", proxy, limits: LIMITS, applications: APPLICATIONS, ..PLAIN }
}

fn oidc(issuer: &str, more: &str) -> String {
    format!("oidc = {{ issuer = \"{issuer}\"{more} }}")
}

/// The code of a refusal; empty for a success.
fn code(world: &World, service: &str, token: &str) -> String {
    let request =
        format!("GET {service}.test/|Authorization: Bearer {token}|Accept: application/problem+json");
    let answer = world.call(&request);
    if answer.status == 200 {
        String::new()
    } else {
        format!("{} {}", answer.status, answer.json()["code"].as_str().unwrap_or("-"))
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_logs_in_is_served_and_limited() {
    let issuer = Issuer::start();
    let audience = format!(", audiences = \"{AUDIENCE}\"");
    let leased = oidc(&issuer.url(), &audience);
    let synchronous = format!("{leased}\ndecisions = \"synchronous\"\nstrip_credentials = true");
    let named = format!(
        "{}\ncredentials_location = \"headers\"\ncredential_names = {{ access_token = \"X-Token\" }}",
        oidc(&issuer.url(), ", client_id_claim = \"client_id\", algorithms = \"ES256\"")
    );
    let apis = [api("leased", &leased), api("synchronous", &synchronous), api("named", &named)];
    let world = World::start_with(&apis, NEAR).await;

    for algorithm in ["RS256", "PS256", "ES256", "ES384", "EdDSA"] {
        let token = issuer.log_in("phone", algorithm);
        assert_eq!(code(&world, "leased", &token), "", "{algorithm}");
    }
    let token = issuer.log_in("phone", "ES256");
    assert_eq!(code(&world, "leased", &token), "429 limits_exceeded", "the application's limit is used up");
    assert_eq!(code(&world, "leased", &issuer.log_in("desk", "ES256")), "", "another has its own");
    assert_eq!(code(&world, "leased", &issuer.log_in("stranger", "ES256")), "403 application_not_found");
    world.check("GET leased.test/", "401 Authentication parameters missing");
    world.check("GET leased.test/?user_key=x", "401 Authentication parameters missing");

    // In the query, too; what is stripped never arrives.
    world.lands(&format!("GET synchronous.test/a?access_token={token}&b=1"), "/a?b=1");
    world.sends(&format!("GET synchronous.test/|Authorization: Bearer {token}"), "authorization", "");
    for _ in 2..5 {
        assert_eq!(code(&world, "synchronous", &token), "");
    }
    assert_eq!(code(&world, "synchronous", &token), "429 limits_exceeded");

    world.lands(&format!("GET named.test/a|x_token: {token}"), "/a");
    let rsa = issuer.log_in("phone", "RS256");
    assert_eq!(code(&world, "named", &rsa), "403 token_algorithm_invalid", "only ES256 is pinned");
    let metrics = get(world.stack.gateways[0].telemetry, "/metrics").body;
    let remembered = "weir_gateway_tokens_total{service=\"synchronous\",outcome=\"remembered\"} 5";
    assert!(metrics.contains(remembered), "{metrics}");
    assert!(!world.stack.gateways[0].log().contains(&token), "a token was logged");
    world.finish();
}

/// One thing is wrong with each of them.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_are_not_good_open_nothing() {
    let issuer = Issuer::start();
    let proxy = oidc(&issuer.url(), &format!(", audiences = [\"other\", \"{AUDIENCE}\"], leeway_s = 5"));
    let world = World::start_with(&[api("api", &proxy)], NEAR).await;
    let good = json!({ "iss": issuer.url(), "aud": ["x", AUDIENCE], "exp": now_s() + 60, "azp": "phone" });
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    let header = |algorithm: &str| json!({ "alg": algorithm });
    let forge = |claims: &Value| issuer.forge("ES256", &header("ES256"), claims, "ES256");
    assert_eq!(code(&world, "api", &forge(&good)), "");
    assert_eq!(code(&world, "api", &forge(&with("exp", json!(now_s() - 3)))), "", "within the leeway");
    for (name, value, expected) in [
        ("iss", json!("http://elsewhere.test"), "token_issuer_invalid"),
        ("iss", Value::Null, "token_issuer_invalid"),
        ("aud", json!("x"), "token_audience_invalid"),
        ("aud", json!([]), "token_audience_invalid"),
        ("exp", json!(now_s() - 60), "token_expired"),
        ("exp", json!("never"), "token_expired"),
        ("exp", Value::Null, "token_expired"),
        ("nbf", json!(now_s() + 60), "token_not_yet_valid"),
        ("nbf", json!("now"), "token_not_yet_valid"),
        ("typ", json!("ID"), "token_kind_invalid"),
        ("azp", Value::Null, "token_client_id_missing"),
        ("azp", json!(""), "token_client_id_missing"),
        ("azp", json!("x".repeat(2_000)), "application_not_found"),
        ("azp", json!("x".repeat(5_000)), "token_client_id_missing"),
    ] {
        let found = code(&world, "api", &forge(&with(name, value.clone())));
        assert_eq!(found, format!("403 {expected}"), "{name} {value}");
    }
    let signed = |key: &str, header: &Value, signed_as: &str| issuer.forge(key, header, &good, signed_as);
    for (token, expected) in [
        (signed("RS256", &header("none"), "none"), "token_algorithm_invalid"),
        (signed("RS256", &header("HS256"), "HS256"), "token_algorithm_invalid"),
        (signed("RS256", &header("RS384"), "RS256"), "token_algorithm_invalid"),
        (signed("RS256", &json!({ "alg": "RS256", "kid": "nobodys" }), "RS256"), "token_key_unknown"),
        (signed("ES256", &json!({ "alg": "ES256", "crit": ["x"], "x": 1 }), "ES256"), "token_unreadable"),
        (signed("RS256", &header("PS256"), "RS256"), "token_signature_invalid"),
        // The key of one kind, the algorithm of another.
        (signed("ES256", &header("RS256"), "ES256"), "token_key_unknown"),
        (format!("{}x", forge(&good)), "token_unreadable"),
        (forge(&good).replacen('.', ".e30", 1), "token_unreadable"),
        ("not-a-token".to_owned(), "token_unreadable"),
        (format!("{}.e30.AA", "e".repeat(9_000)), "token_too_long"),
    ] {
        assert_eq!(code(&world, "api", &token), format!("403 {expected}"), "{token}");
    }
    // Claims of one token under the signature of another.
    let (one, other) = (forge(&good), forge(&with("azp", json!("desk"))));
    let signature = one.rsplit('.').next().expect("a signature");
    let (other, _) = other.rsplit_once('.').expect("a signature");
    assert_eq!(code(&world, "api", &format!("{other}.{signature}")), "403 token_signature_invalid");
    world.finish();
}

/// Keys change while the gateway runs; a token of the old ones is good no more.
#[tokio::test(flavor = "multi_thread")]
async fn keys_are_rotated() {
    let mut issuer = Issuer::start();
    let proxy = oidc(&issuer.url(), "");
    let world = World::start_with(&[api("api", &proxy)], NEAR).await;
    let old = issuer.log_in("phone", "RS256");
    assert_eq!(code(&world, "api", &old), "");
    issuer.stop();
    assert_eq!(code(&world, "api", &old), "", "an issuer that is away is not needed");
    issuer.restart();
    assert_eq!(code(&world, "api", &old), "", "nobody has said that it has new keys");
    let new = issuer.log_in("phone", "RS256");
    assert_eq!(code(&world, "api", &new), "");
    assert_eq!(code(&world, "api", &old), "403 token_key_unknown");
    world.finish();
}

/// Goal: an issuer that misbehaves closes its own service, and no other.
#[tokio::test(flavor = "multi_thread")]
async fn issuers_that_misbehave_are_left_alone() {
    let good = Issuer::start();
    let document = |issuer: &str, keys: &str| {
        let text =
            json!({ "issuer": issuer, "jwks_uri": keys, "id_token_signing_alg_values_supported": ["RS256"] });
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.to_string().len())
    };
    let answering = |answer: String| Scripted::start(move |mut exchange| exchange.send(&answer));
    let redirects =
        answering(format!("HTTP/1.1 302 Found\r\nLocation: {}/\r\nContent-Length: 0\r\n\r\n", good.url()));
    let hangs = Scripted::start(|mut exchange| while !exchange.receive().is_empty() {});
    let long =
        answering(format!("HTTP/1.1 200 OK\r\nContent-Length: 10485760\r\n\r\n{}", " ".repeat(10 << 20)));
    let other = answering(document("http://elsewhere.test", &format!("{}/jwks", good.url())));
    // Its keys are where the gateway may not ask: not in the network that is named.
    let inward = Scripted::start(move |mut exchange| {
        let host = exchange.head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
        let document = document(&format!("http://{host}"), "http://169.254.169.254/keys");
        exchange.send(&document);
    });
    let bad = [
        ("redirects", redirects.url(), "answered 302"),
        ("hangs", hangs.url(), "did not answer within 5s"),
        ("long", long.url(), "longer than 1048576 bytes"),
        ("other", other.url(), "it is another issuer's"),
        ("inward", inward.url(), "http://169.254.169.254:80 has only private addresses"),
    ];
    let proxies: Vec<String> = bad.iter().map(|(_, url, _)| oidc(url, "")).collect();
    let fine = oidc(&good.url(), "");
    let mut apis: Vec<Api<'_>> = bad.iter().zip(&proxies).map(|((id, ..), proxy)| api(id, proxy)).collect();
    apis.push(api("fine", &fine));
    let world = World::start_with(&apis, NEAR).await;
    let token = good.log_in("phone", "RS256");
    assert_eq!(code(&world, "fine", &token), "");
    for (id, url, why) in &bad {
        let claims = json!({ "iss": url, "aud": "x", "exp": now_s() + 60, "azp": "phone" });
        let token = good.forge("RS256", &json!({ "alg": "RS256" }), &claims, "RS256");
        let answer = world.call(&format!("GET {id}.test/|Authorization: Bearer {token}"));
        assert_eq!((answer.status, answer.header("retry-after").as_str()), (503, "1"), "{id} {answer:?}");
        until(why, || world.stack.gateways[0].log().contains(why).then_some(()));
    }
    assert_eq!(code(&world, "fine", &token), "");
    world.finish();
}

/// Without being told so, a gateway asks no private address.
#[tokio::test(flavor = "multi_thread")]
async fn private_addresses_have_to_be_named() {
    let issuer = Issuer::start();
    let proxy = oidc(&issuer.url(), "");
    let world = World::start(&[api("api", &proxy)]).await;
    let token = issuer.log_in("phone", "RS256");
    assert_eq!(code(&world, "api", &token), "503 issuer_unavailable");
    assert!(world.stack.gateways[0].log().contains("oidc.private_networks"));
    world.finish();
}

/// The last good keys of an issuer that is away are used for as long as is configured.
#[tokio::test(flavor = "multi_thread")]
async fn keys_are_kept_for_a_time() {
    let mut issuer = Issuer::start();
    let proxy = oidc(&issuer.url(), "");
    let lines = format!("{NEAR}refresh_interval_ms = 50\nkeys_kept_ms = 3000\n");
    let world = World::start_with(&[Api { limits: "", ..api("api", &proxy) }], &lines).await;
    let token = issuer.log_in("phone", "RS256");
    assert_eq!(code(&world, "api", &token), "");
    issuer.stop();
    until("failing fetches", || world.stack.gateways[0].log().contains("cannot be fetched").then_some(()));
    assert_eq!(code(&world, "api", &token), "");
    until("the end of the keys", || (code(&world, "api", &token) == "503 issuer_unavailable").then_some(()));
    issuer.restart();
    let token = issuer.log_in("phone", "RS256");
    until("new keys", || code(&world, "api", &token).is_empty().then_some(()));
    world.finish();
}
