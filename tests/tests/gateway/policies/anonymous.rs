//! `anonymous`: calls without credentials are those of an application that is named, within its plan.

use weir_tests::issuer::Issuer;

use crate::policies::{api, code, comes_to, proxy, to};
use crate::world::{Api, PLAIN, World};

/// Tests' issuers are on loopback.
const NEAR: &str = "[oidc]\nprivate_networks = [\"127.0.0.0/8\"]\n";

/// Guests may call twice; a closed application never.
const KEYED: &str = r#"
[[providers.services.plans]]
id = "guests"
limits = [{ metric = "hits", period = "eternity", max = 2 }]
[[providers.services.applications]]
id = "guest"
plan = "guests"
KEY
[[providers.services.applications]]
id = "closed"
plan = "plan"
state = "suspended"
OTHER
"#;

const GUEST: &str = r#"{ policy = "anonymous", application = "guest", unless = { methods = "POST" } },
    { policy = "headers", request = [{ name = "X-Who", value = "{application}" }] }"#;
const CLOSED: &str = r#"{ policy = "anonymous", application = "closed" }"#;

fn applications(mode: &str) -> String {
    let (key, other) = match mode {
        "user_key" => ("user_key = \"guest-s3cret\"", "user_key = \"closed-s3cret\""),
        "app_id_and_key" => ("app_keys = [\"guest-s3cret\"]", "app_keys = [\"closed-s3cret\"]"),
        _ => ("", ""),
    };
    KEYED.replace("KEY", key).replace("OTHER", other)
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_have_an_application_of_their_own() {
    let issuer = Issuer::start();
    let oidc = format!("oidc = {{ issuer = \"{}\" }}", issuer.url());
    let lists = [proxy(GUEST), proxy(CLOSED), String::new()];
    let modes = [("user", "user_key"), ("pair", "app_id_and_key"), ("token", "client_id")];
    let mut services = vec![];
    for (name, mode) in modes {
        let more = if mode == "client_id" { oidc.as_str() } else { "" };
        for (kind, list) in ["guest", "closed", "none"].into_iter().zip(&lists) {
            services.push((format!("{name}-{kind}"), mode, format!("{list}\n{more}")));
        }
        let synchronous = format!("{}\n{more}\ndecisions = \"synchronous\"", lists[0]);
        services.push((format!("{name}-synchronous"), mode, synchronous));
    }
    let more = modes.map(|(_, mode)| (mode, applications(mode)));
    let apis: Vec<Api<'_>> = services
        .iter()
        .map(|(id, mode, proxy)| {
            let applications = more.iter().find(|(known, _)| known == mode).map_or("", |(_, text)| text);
            Api { id, mode, proxy, applications, ..PLAIN }
        })
        .collect();
    let world = World::start_with(&apis, NEAR).await;
    let token = issuer.log_in("phone", "ES256");
    for (mode, _) in modes {
        for kind in ["guest", "synchronous"] {
            guests_are_limited(&world, &format!("{mode}-{kind}"), &token).await;
        }
        for (kind, expected) in
            [("closed", "403 application_not_active"), ("none", "401 credentials_missing")]
        {
            let service = format!("{mode}-{kind}");
            assert_eq!(code(&world, &to(&service, "GET /")), expected, "{service}");
        }
    }
    world.finish();
}

/// Credentials that are good, and some that are not, with what becomes of them.
fn shown(service: &str, token: &str) -> (Option<String>, Vec<(String, &'static str)>) {
    let with = |call: &str, expected| (call.to_owned(), expected);
    match service.split('-').next() {
        Some("user") => (
            Some("GET /?user_key={key}".to_owned()),
            vec![with("GET /?user_key=wrong-s3cret", "403 user_key_invalid")],
        ),
        Some("pair") => (
            Some("GET /?app_id=app&app_key={key}".to_owned()),
            vec![
                with("GET /?app_id=app&app_key=wrong-s3cret", "403 application_key_invalid"),
                with("GET /?app_id=nobody&app_key={key}", "403 application_not_found"),
            ],
        ),
        _ => (
            None,
            vec![
                with("GET /|Authorization: Bearer not-a-s3cret", "403 token_unreadable"),
                (format!("GET /|Authorization: Bearer {token}"), "403 application_not_found"),
            ],
        ),
    }
}

async fn guests_are_limited(world: &World, service: &str, token: &str) {
    let (good, bad) = shown(service, token);
    for (call, expected) in bad {
        assert_eq!(code(world, &to(service, &call)), expected, "{service}: {call}");
    }
    assert_eq!(code(world, &to(service, "POST /|||x")), "401 credentials_missing", "{service}");
    comes_to(world, service, "guest", 0).await;
    world.sends(&to(service, "GET /a"), "x-who", "guest");
    world.sends(&to(service, "GET /b?x=1|Accept: text/html"), "x-who", "guest");
    let received = world.stack.upstream.received();
    assert_eq!(code(world, &to(service, "GET /c")), "429 limits_exceeded", "{service}");
    world.check(&to(service, "GET /c"), "429 Limits exceeded");
    assert_eq!(world.stack.upstream.received(), received);
    comes_to(world, service, "guest", 2).await;
    // Who says who he is has his own plan.
    if let Some(good) = good {
        world.sends(&to(service, &good), "x-who", "app");
        comes_to(world, service, "app", 1).await;
    }
    if service.starts_with("user") {
        let form = "PUT /|Content-Type: application/x-www-form-urlencoded|||user_key={key}";
        world.sends(&to(service, form), "x-who", "app");
    }
    comes_to(world, service, "guest", 2).await;
}

/// Who shows half of his credentials is somebody, and has forgotten the rest.
#[tokio::test(flavor = "multi_thread")]
async fn half_of_the_credentials_is_not_none() {
    let list = proxy(GUEST);
    let applications = applications("app_id_and_key");
    let pair = Api { mode: "app_id_and_key", applications: &applications, ..api("pair", &list) };
    let world = World::start(&[pair]).await;
    for call in ["GET /?app_id=guest", "GET /?app_id=app", "GET /?app_id=nobody", "GET /?app_key={key}"] {
        assert_eq!(code(&world, &to("pair", call)), "401 credentials_missing", "{call}");
    }
    comes_to(&world, "pair", "guest", 0).await;
    world.finish();
}
