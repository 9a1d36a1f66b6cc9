//! Load on 3scale's API: a listener's HTTP port, asked as 3scale's gateways and client libraries ask.

use std::process::Command;

use serde_json::json;
use weir_tests::certificates::Authority;
use weir_tests::process::weir_binary;
use weir_tests::stack::{Plan, Stack, catalog};

use crate::world::Desk;

const LIMIT: &str = r#"{ metric = "hits", period = "year", max = 300 }"#;
const PROVIDER_KEY: &str = "provider-key-of-load";
const SERVICE_TOKEN: &str = "service-token-of-load";

/// The catalog that all share, opened for the API, with a second application that is suspended.
fn opened() -> String {
    let suspended = "[[providers.services.applications]]\nid = \"asleep\"\nplan = \"plan\"\nuser_key = \"key-of-asleep\"\nstate = \"suspended\"\n";
    catalog(1, LIMIT)
        .replace("name = \"Stack\"", &format!("name = \"Stack\"\nprovider_keys = [\"{PROVIDER_KEY}\"]"))
        .replace("id = \"api\"", &format!("id = \"api\"\nservice_tokens = [\"{SERVICE_TOKEN}\"]"))
        + suspended
}

fn mix(applications: &str) -> String {
    format!(
        "[[services]]\nid = \"api\"\nservice_token = \"{SERVICE_TOKEN}\"\napplications = [{applications}]\n\
         requests = [{{ path = \"/\", usage = {{ hits = 2 }} }}]\n"
    )
}

/// Goal: limits hold exactly under load on the API, too, and the tool's counts are the listener's. Method: a limit of 300,
/// used up by a catalog's calls and passed; then refusals of other kinds, which no counter may show.
#[tokio::test(flavor = "multi_thread")]
async fn admitted_is_what_was_counted() {
    let stack = Stack::start(&Plan { gateways: 0, ..Plan::small(&opened()) }).await;
    let desk = Desk::new();
    let target = format!("http://{}", stack.listeners[0].http.unwrap());
    let check = format!("http://{}", stack.listeners[0].address);
    let file = desk.put("catalog.toml", &opened().replace("{upstream}", "http://127.0.0.1:1"));
    let common =
        ["--api", "3scale", "--rate", "400", "--for", "500ms", "--seed", "7", "--check-usage", &check];

    let from_catalog = [&[&target as &str, "--from-catalog", &file], &common[..]].concat();
    let run = desk.load(&from_catalog).ended(0);
    assert_eq!(run.value("/protocol"), "3scale authrep over HTTP/1.1");
    assert_eq!(run.value("/stages/0/answers"), &json!({ "200": 200 }));
    let run = desk.load(&[&from_catalog[..], &["--with-body"]].concat()).ended(0);
    assert_eq!(run.value("/protocol"), "3scale authrep with documents over HTTP/1.1");
    assert_eq!(run.value("/stages/0/answers"), &json!({ "200": 100, "limits_exceeded": 100 }));
    let classes = json!({ "ok": 100, "limited": 100, "refused": 0, "failed": 0 });
    assert_eq!(run.value("/calls/0/classes"), &classes);
    // By the calls of a catalog, parents are compared as well.
    assert!(run.out.contains("2 counters: admitted 200 · counted 200 · exact"), "{}", run.out);
    assert!(run.out.contains("3scale authrep"), "{}", run.out);

    let refused = desk.put(
        "refused.toml",
        &mix(r#"{ id = "asleep", user_key = "key-of-asleep" }, { id = "nobody", user_key = "nobodys" }"#),
    );
    let run = desk.load(&[&[&target as &str, "--mix", &refused], &common[..]].concat()).ended(1);
    assert!(run.err.contains("does not tell the counters of nobody"), "{}", run.err);
    let run = desk.load(&[&[&target as &str, "--mix", &refused], &common[..8]].concat()).ended(0);
    let [asleep, unknown] =
        ["application_not_active", "403"].map(|answer| run.number(&format!("/stages/0/answers/{answer}")));
    assert_eq!((asleep + unknown, run.number("/stages/0/classes/refused")), (200.0, 200.0));
    assert!(asleep > 0.0 && unknown > 0.0);
    stack.counter_settles_at("app", "hits", 300).await;
    assert_eq!(stack.upstream.received(), 0, "asking is not calling");
}

/// Goal: the port with TLS gets load as well, and a provider's key opens it; no secret is shown. Method: Redis behind it,
/// the key from the variable, which wins over the mix's token.
#[tokio::test(flavor = "multi_thread")]
async fn a_providers_key_opens_the_port_over_tls() {
    let (desk, authority) = (Desk::new(), Authority::new());
    let server = authority.issue("listener.test");
    let ca = desk.put("ca.pem", &authority.pem());
    let (pem, key) = (desk.put("server.pem", &server.pem), desk.put("server.key", &server.key_pem));
    let listener_tables = format!("[http_tls]\ncertificate_file = \"{pem}\"\nkey_file = \"{key}\"");
    let plan = Plan { gateways: 0, redis: true, listener_tables, ..Plan::small(&opened()) };
    let stack = Stack::start(&plan).await;
    let target = format!("https://{}", stack.listeners[0].http.unwrap());
    let check = format!("http://{}", stack.listeners[0].address);
    let mix = mix(r#"{ id = "app", user_key = "key" }"#).replace(SERVICE_TOKEN, "no-token-of-load");
    let mix = desk.put("mix.toml", &mix);
    let common = [
        &[target.as_str(), "--api", "3scale", "--mix", &mix, "--rate", "200", "--for", "250ms"][..],
        &["--ca", &ca, "--server-name", "listener.test", "--check-usage", &check],
    ]
    .concat();
    let run = desk.load(&common).ended(0);
    assert_eq!(run.value("/stages/0/answers"), &json!({ "403": 50 }));
    assert!(run.out.contains("admitted 0 · counted 0 · exact"), "{}", run.out);

    let (token, html, json) = (desk.path("token.txt"), desk.path("run.html"), desk.path("run.json"));
    let done = Command::new(weir_binary())
        .args(["load", "--token-file", &token, "--html", &html, "--json", &json])
        .args(&common)
        .env("WEIR_LOAD_PROVIDER_KEY", PROVIDER_KEY)
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    let out = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(out.contains("admitted 100 · counted 100 · exact"), "{out}");
    let [html, json] = [html, json].map(|path| std::fs::read_to_string(path).unwrap());
    assert!(html.contains("3scale authrep over HTTP/1.1"), "{html}");
    for text in [&out, &html, &json] {
        assert!(!text.contains("-of-load"), "a secret is shown");
    }
    let log = stack.listeners[0].log();
    assert!(!log.contains("-of-load"), "{log}");
}
