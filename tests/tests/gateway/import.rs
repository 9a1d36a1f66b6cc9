//! `weir import apicast`: whoever moves over brings the gateway's configuration along.
//!
//! Goal: what the document says is what the gateway then does, and every field is accounted for. Method: a document as
//! the portal writes it is imported, given a plan and an application, and served.

use std::collections::BTreeMap;
use std::process::Output;

use serde_json::{Value, json};
use weir_tests::http::call;
use weir_tests::process::weir;
use weir_tests::stack::{Plan, Stack};

fn import(document: &str) -> Output {
    let dir = tempfile::tempdir().expect("a folder of its own");
    let file = dir.path().join("config.json");
    std::fs::write(&file, document).expect("a file of its own");
    weir(&["import", "apicast", &file.display().to_string()])
}

/// As the portal writes it, with two backends and what ours does otherwise.
fn document() -> Value {
    let rule = |method: &str, pattern: &str, metric: &str, delta: i64| {
        json!({ "id": 1, "http_method": method, "pattern": pattern, "metric_system_name": metric, "delta": delta,
                "position": 1, "last": false, "querystring_parameters": {}, "parameters": [] })
    };
    let of_backend = |mut rule: Value, owner: u64| {
        rule["owner_type"] = "BackendApi".into();
        rule["owner_id"] = owner.into();
        rule
    };
    let mut searched = rule("GET", "/v2/find?kind={kind}", "finds", 2);
    searched["querystring_parameters"] = json!({ "kind": "{kind}" });
    let routing = json!({ "name": "routing", "version": "builtin", "configuration": { "rules": [
        { "url": "http://upstream.invalid/search", "owner_id": 7, "owner_type": "BackendApi", "replace_path": "{{uri | remove_first: '/find'}}",
          "condition": { "operations": [{ "match": "path", "op": "matches", "value": "/find/.*|/find/?" }] } },
        { "url": "http://upstream.invalid/odd", "condition": { "operations": [{ "match": "header", "op": "==", "value": "x" }] } },
    ] } });
    json!({ "services": [{
        "id": 2555, "system_name": "mail", "backend_version": "2", "account_id": 9, "support_email": "help@example.org",
        "backend_authentication_type": "service_token", "backend_authentication_value": "token-of-mail",
        "proxy": {
            "hosts": ["API.Test", "staging.api.test"], "api_backend": "http://upstream.invalid/mail", "credentials_location": "headers",
            "auth_app_id": "X-Id", "auth_app_key": "X-Key", "secret_token": "shared", "hostname_rewrite": "",
            "error_auth_missing": "Who is there?", "error_status_auth_missing": 403,
            "error_headers_auth_missing": "text/plain; charset=us-ascii", "endpoint": "https://api.test:443",
            "policy_chain": [routing, { "name": "apicast.policy.apicast" }, { "name": "cors", "version": "builtin" }],
            "proxy_rules": [
                rule("GET", "/", "hits", 1),
                searched,
                rule("GET", "/never", "hits", 0),
                rule("TRACE", "/", "hits", 1),
                of_backend(rule("GET", "/find/", "finds", 3), 7),
            ],
            "backend": { "endpoint": "https://su1.example.org", "host": "su1.example.org" },
        },
    }], "oidc": [{}] })
}

/// What became of each place.
fn account(output: &Output) -> BTreeMap<String, Vec<String>> {
    let mut account: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stderr).lines() {
        let fates = ["mapped", "changed", "left out"];
        let Some(fate) = fates.into_iter().find(|fate| line.starts_with(fate)) else { continue };
        let (place, _) = line[fate.len()..].trim().split_once(": ").expect("a place and what became of it");
        account.entry(fate.to_owned()).or_default().push(place.to_owned());
    }
    account
}

#[tokio::test(flavor = "multi_thread")]
async fn an_imported_gateway_does_what_it_did() {
    let output = import(&document().to_string());
    assert_eq!(output.status.code(), Some(3), "some of it is left out: {output:?}");
    let account = account(&output);
    let proxy = "services[0].proxy";
    let left_out: Vec<String> =
        [".policy_chain[0].configuration.rules[1]", ".policy_chain[2]", ".proxy_rules[2]", ".proxy_rules[3]"]
            .map(|place| format!("{proxy}{place}"))
            .into();
    assert_eq!(account["left out"], left_out);
    for place in [".support_email", ".proxy.backend", ".proxy.proxy_rules"] {
        assert!(account["changed"].contains(&format!("services[0]{place}")), "{place} in {account:?}");
    }
    for place in
        [".id", ".proxy.hosts", ".proxy.api_backend", ".proxy.proxy_rules[4]", ".proxy.error_*_auth_missing"]
    {
        assert!(account["mapped"].contains(&format!("services[0]{place}")), "{place} in {account:?}");
    }

    let imported = String::from_utf8(output.stdout).expect("a catalog");
    let imported = imported.replace("http://upstream.invalid", "{upstream}");
    let plan = "\n[[providers.services.plans]]\nid = \"plan\"\n[[providers.services.applications]]\nid = \"app\"\n\
                plan = \"plan\"\napp_keys = [\"key\"]\n";
    let stack = Stack::start(&Plan::small(&format!("{imported}{plan}"))).await;
    let get =
        |target: &str, headers: &[(&str, &str)]| call(stack.gateways[0].address, "GET", target, headers, "");
    let signed = [("X-Id", "app"), ("x_key", "key")];
    let refused = get("/", &[]);
    assert_eq!((refused.status, refused.body.as_str()), (403, "Who is there?"));
    assert_eq!(refused.header("content-type"), "text/plain; charset=us-ascii");
    for (target, arrives) in [
        ("/x", "/mail/x"),
        ("/v2/find?kind=all", "/mail/v2/find?kind=all"),
        ("/v2/find", "/mail/v2/find"),
        ("/find/x", "/search/x"),
    ] {
        let answer = get(target, &signed);
        assert_eq!((answer.status, &answer.json()["target"]), (200, &json!(arrives)), "{target}");
        assert!(answer.json()["headers"].to_string().contains("shared"), "{target}");
    }
    let used = stack.listener_client(0).totals("2555", "app").await.expect("the listener answers");
    assert_eq!(used, [("hits".to_owned(), 4), ("finds".to_owned(), 5)].into());
}

#[test]
fn other_forms_of_the_document_are_read() {
    let content = json!({ "id": "one", "backend_version": 1, "proxy": { "hosts": ["one.test"], "api_backend": "https://up.test" } });
    for document in [
        json!({ "services": [content] }),
        json!({ "proxy_configs": [{ "proxy_config": { "content": content } }] }),
        json!({ "proxy_config": { "content": content } }),
        content.clone(),
    ] {
        let output = import(&document.to_string());
        assert!(output.status.success(), "{document}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("hosts = [\"one.test\"]"), "{output:?}");
    }
    let tokens = json!({ "services": [{ "id": "a b", "backend_version": "oauth", "proxy": {
        "hosts": ["a.test"], "api_backend": "wss://up.test", "authentication_method": "oidc",
        "oidc_issuer_endpoint": "https://id:secret@issuer.test/realm", "jwt_claim_with_client_id": "cid",
    } }], "oidc": [{ "config": { "id_token_signing_alg_values_supported": ["RS256", "HS256"] } }] });
    let output = import(&tokens.to_string());
    let text = String::from_utf8_lossy(&output.stdout);
    let oidc = "oidc = { issuer = \"https://issuer.test/realm\", client_id_claim = \"cid\", algorithms = [\"RS256\"] }";
    for line in [oidc, "id = \"a_b\"", "api_backend = \"https://up.test\"", "credentials = \"client_id\""] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert!(!String::from_utf8_lossy(&output.stderr).contains("secret@"), "the report names no secret");
}

#[test]
fn what_is_no_such_document_is_refused_with_its_place() {
    for (document, expected) in [
        ("{", "config.json:1:1: is no JSON"),
        ("{\"services\": []}", "holds no service of a 3scale gateway"),
        ("[1, 2]", "holds no service of a 3scale gateway"),
        ("{\"services\":\n [{]}", "config.json:2:4: is no JSON"),
    ] {
        let output = import(document);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains(expected), "{expected:?} in {told}");
        assert!(output.stdout.is_empty());
    }
}
