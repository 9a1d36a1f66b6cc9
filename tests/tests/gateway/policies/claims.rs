//! What tokens say: `claim_check`, and claims in conditions, routes and values.
//!
//! Goal: what a token does not say opens nothing, and costs nothing. Method: a real issuer that signs whatever claims
//! a call needs.

use serde_json::{Value, json};
use weir_tests::issuer::Issuer;
use weir_tests::wait::unix_s;

use crate::policies::{code, comes_to, judge, proxy};
use crate::world::{Api, PLAIN, World, header_seen};

/// Tests' issuers are on loopback.
const NEAR: &str = "[oidc]\nprivate_networks = [\"127.0.0.0/8\"]\n";

const CHECKS: &str = r#"{ policy = "claim_check", checks = [
    { claims = [{ name = "role", values = ["admin", "owner"] }], when = { paths = "/admin" } },
    { claims = [{ name = "a.b", values = "deep" }, { name = "a.c.d" }], when = { paths = "/deep" } },
    { claims = [{ name = "scope", matches = "(^| )mail:write( |$)" }], when = { methods = ["POST", "PUT"] } },
    { claims = [{ name = "tenant" }], when = { paths = "/tenant" } },
    { claims = [{ name = "age", values = "7" }, { name = "ok", values = "true" }], when = { paths = "/plain" } },
    { claims = [{ name = "banned", not = true }] },
], unless = { paths = "/open$" } }"#;

const ANY_ROLE: &str = r#"{ policy = "claim_check", checks = [{ claims = [{ name = "role" }] }] }"#;
const NOT_BANNED: &str = r#"{ policy = "claim_check", checks = [{ claims = [{ name = "banned", not = true }], when = { paths = "/x" } }] }"#;

const ELSEWHERE: &str = r#"
    { policy = "routing", routes = [
        { when = { claims = [{ name = "tier", values = ["gold", "silver"] }] }, api_backend = "{upstream}/metal" },
        { when = { claims = [{ name = "role", matches = "^dev" }], paths = "/dev" }, api_backend = "{upstream}/lab" },
    ] },
    { policy = "headers", request = [
        { name = "X-Roles", value = "{claim.role}" },
        { name = "X-Deep", value = "<{claim.a.b}>" },
    ] },
    { policy = "headers", request = [{ name = "X-Gold", value = "yes" }], when = { claims = [{ name = "tier", values = "gold" }] } },
    { policy = "url_rewriting", query = [{ name = "tenant", value = "{claim.tenant}" }], when = { claims = [{ name = "tenant" }] } }"#;

/// A service whose callers show tokens of an issuer.
fn service<'a>(id: &'a str, proxy: &'a str) -> Api<'a> {
    Api { id, mode: "client_id", proxy, ..PLAIN }
}

/// Makes tokens of the application `app`.
struct Tokens(Issuer);

impl Tokens {
    /// The header with a token that says this, too.
    fn saying(&self, claims: &Value) -> String {
        let mut all = json!({ "iss": self.0.url(), "aud": "x", "exp": unix_s() + 600, "azp": "app" });
        for (name, value) in claims.as_object().expect("claims have names") {
            all[name] = value.clone();
        }
        let token = self.0.forge("ES256", &json!({ "alg": "ES256" }), &all, "ES256");
        format!("Authorization: Bearer {token}")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_have_to_say_what_is_asked() {
    let tokens = Tokens(Issuer::start());
    let oidc = format!("oidc = {{ issuer = \"{}\" }}\nstrip_credentials = true", tokens.0.url());
    let with = |policies: &str, more: &str| format!("{}\n{oidc}\n{more}", proxy(policies));
    let checked = with(CHECKS, "");
    let synchronous = with(CHECKS, "decisions = \"synchronous\"");
    let guests = format!("{{ policy = \"anonymous\", application = \"app\" }}, {NOT_BANNED}");
    let guests = with(&guests, "");
    let worded = with(ANY_ROLE, "errors = { auth_failed = { status = 418, body = \"not you\" } }");
    let elsewhere = with(ELSEWHERE, "");
    let rate = |per: &str| {
        let limit = format!("{{ per = \"{per}\", requests = 1, period_s = 3600 }}");
        with(&format!("{{ policy = \"edge_limits\", limits = [{limit}] }}"), "")
    };
    let [by_client, by_application] = ["client", "application"].map(rate);
    let world = World::start_with(
        &[
            service("checked", &checked),
            service("synchronous", &synchronous),
            service("guests", &guests),
            service("worded", &worded),
            service("elsewhere", &elsewhere),
            service("client", &by_client),
            service("application", &by_application),
        ],
        NEAR,
    )
    .await;
    for service in ["checked", "synchronous"] {
        by_path_and_method(&world, &tokens, service).await;
    }
    without_a_token(&world, &tokens).await;
    refusals(&world, &tokens).await;
    ways(&world, &tokens);
    values(&world, &tokens);
    tokens_of_one_are_one(&world, &tokens).await;
    world.finish();
}

async fn by_path_and_method(world: &World, tokens: &Tokens, service: &str) {
    const DENIED: &str = "403 claim_denied";
    for (call, claims, expected) in [
        ("GET /", json!({}), "200"),
        ("GET /admin", json!({ "role": "admin" }), "200"),
        ("GET /admin/x", json!({ "role": ["dev", "owner"] }), "200"),
        ("GET /admin", json!({ "role": ["dev", "administrator"] }), DENIED),
        ("GET /%61dmin", json!({ "role": "dev" }), DENIED),
        ("GET /admin", json!({ "role": [] }), DENIED),
        ("GET /admin", json!({ "role": null }), DENIED),
        ("GET /admin", json!({ "role": { "admin": "admin" } }), DENIED),
        ("GET /admin", json!({}), DENIED),
        ("GET /deep", json!({ "a": { "b": "deep", "c": { "d": [1] } } }), "200"),
        ("GET /deep", json!({ "a": { "b": "deep" } }), DENIED),
        ("GET /deep", json!({ "a": { "b": "deeper", "c": { "d": 1 } } }), DENIED),
        ("GET /deep", json!({ "a": "deep" }), DENIED),
        ("POST /", json!({ "scope": "mail:read mail:write" }), "200"),
        ("PUT /", json!({ "scope": "mail:read mail:writer" }), DENIED),
        ("POST /", json!({}), DENIED),
        ("DELETE /", json!({}), "200"),
        ("GET /tenant", json!({ "tenant": "acme" }), "200"),
        ("GET /tenant", json!({ "Tenant": "acme" }), DENIED),
        ("GET /plain", json!({ "age": 7, "ok": true }), "200"),
        ("GET /plain", json!({ "age": 70, "ok": true }), DENIED),
        ("POST /admin", json!({ "role": "admin" }), DENIED),
        ("POST /admin", json!({ "role": "admin", "scope": "mail:write" }), "200"),
        ("GET /", json!({ "banned": "yes" }), DENIED),
        ("GET /open", json!({ "banned": "yes" }), "200"),
        ("GET /open/x", json!({ "banned": "yes" }), DENIED),
    ] {
        let signed = format!("{call}|{}", tokens.saying(&claims));
        judge(world, service, &[(&signed, expected)]).await;
    }
}

/// Without a token nothing holds, nor the other way round.
async fn without_a_token(world: &World, tokens: &Tokens) {
    judge(world, "guests", &[("GET /", "200"), ("GET /x", "403 claim_denied")]).await;
    let banned = format!("GET /x|{}", tokens.saying(&json!({ "banned": 1 })));
    let fine = format!("GET /x|{}", tokens.saying(&json!({ "role": 1 })));
    judge(world, "guests", &[(&banned, "403 claim_denied"), (&fine, "200")]).await;
    judge(
        world,
        "checked",
        &[
            ("GET /admin", "401 credentials_missing"),
            ("GET /open|Authorization: Bearer not-a-s3cret", "403 token_unreadable"),
        ],
    )
    .await;
}

/// In the provider's words for credentials that do not open its API.
async fn refusals(world: &World, tokens: &Tokens) {
    let bare = tokens.saying(&json!({}));
    world.check(&format!("GET checked.test/admin|{bare}"), "403 Authentication failed");
    world.check(&format!("GET worded.test/|{bare}"), "418 not you");
    assert_eq!(code(world, &format!("GET worded.test/|{bare}")), "418 claim_denied");
    comes_to(world, "worded", "app", 0).await;
}

fn ways(world: &World, tokens: &Tokens) {
    for (path, claims, target) in [
        ("/a", json!({ "tier": "gold" }), "/metal/a"),
        ("/dev", json!({ "tier": "silver", "role": "developer" }), "/metal/dev"),
        ("/dev/x", json!({ "tier": "bronze", "role": ["ops", "devops"] }), "/lab/dev/x"),
        ("/a", json!({ "role": "developer" }), "/a"),
        ("/dev", json!({ "role": "nodev" }), "/dev"),
        ("/a?x=1&tenant=forged", json!({ "tenant": "a b" }), "/a?x=1&tenant=a%20b"),
        ("/a?x=1", json!({ "tenant": "a&b=c" }), "/a?x=1&tenant=a%26b%3Dc"),
    ] {
        world.lands(&format!("GET elsewhere.test{path}|{}", tokens.saying(&claims)), target);
    }
}

fn values(world: &World, tokens: &Tokens) {
    let forged = "X-Roles: forged|X-Gold: forged";
    for (claims, name, expected) in [
        (json!({ "role": ["admin", "dev"] }), "x-roles", "admin,dev"),
        (json!({ "role": "admin" }), "x-roles", "admin"),
        (json!({}), "x-roles", ""),
        (json!({ "a": { "b": 3 } }), "x-deep", "<3>"),
        (json!({}), "x-deep", "<>"),
        (json!({ "tier": "gold" }), "x-gold", "yes"),
        (json!({ "tier": "tin" }), "x-gold", "forged"),
    ] {
        let request = format!("GET elsewhere.test/a|{}|{forged}", tokens.saying(&claims));
        world.sends(&request, name, expected);
    }
    let evil = tokens.saying(&json!({ "role": "a\r\nX-Evil: 1" }));
    let seen = world.seen(&format!("GET elsewhere.test/a|{evil}"));
    assert_eq!(
        (header_seen(&seen, "x-roles"), header_seen(&seen, "x-evil")),
        ("aX-Evil: 1".into(), String::new())
    );
}

/// A new token makes no new client of an application.
async fn tokens_of_one_are_one(world: &World, tokens: &Tokens) {
    let [one, other] =
        ["one", "other"].map(|name| format!("GET /|{}", tokens.saying(&json!({ "jti": name }))));
    const FAST: &str = "429 edge_rate_exceeded";
    judge(world, "application", &[(&one, "200"), (&other, FAST), (&one, FAST)]).await;
    judge(world, "client", &[(&one, "200"), (&other, FAST), (&one, FAST)]).await;
}
