//! Where policies come to stand.

use serde_json::json;

use super::*;

/// Names of a chain become names of a list; the account.
#[track_caller]
fn check(chain: &[(&str, Json)], expected: &[&str], changed: usize) {
    let mut account = Account::default();
    let mut policies = Policies::new(Of {
        credentials: CredentialKind::ClientId,
        secret_names: vec!["access_token".to_owned()],
        client_id_claim: "azp".to_owned(),
        has_backends: false,
        apicast_at: chain.iter().position(|(name, _)| *name == "apicast"),
    });
    for (at, (name, configuration)) in chain.iter().enumerate().filter(|(_, (name, _))| *name != "apicast") {
        let policy = json!({ "configuration": configuration });
        policies.read(at, name, &policy, &format!("[{at}]"), &mut account);
    }
    let list = policies.into_list();
    let names: Vec<&Value> = list.iter().map(|entry| &entry["policy"]).collect();
    assert_eq!(names, expected.iter().map(|name| text(*name)).collect::<Vec<_>>().iter().collect::<Vec<_>>());
    let told = account.lines(false);
    assert_eq!(told.matches(": it stands ").count(), changed, "{told}");
    let list: Vec<Value> = list.into_iter().map(Value::Table).collect();
    assert!(Chain::read(&list).is_ok(), "{list:?}");
}

fn cors() -> (&'static str, Json) {
    ("cors", json!({ "allow_origin": "https://a.test" }))
}

fn headers() -> (&'static str, Json) {
    ("headers", json!({ "request": [{ "op": "set", "header": "X-A", "value": "a" }] }))
}

fn retry() -> (&'static str, Json) {
    ("retry", json!({ "retries": 1 }))
}

fn limits(key: &str) -> (&'static str, Json) {
    let key = json!({ "name": key, "name_type": "liquid" });
    ("rate_limit", json!({ "leaky_bucket_limiters": [{ "key": key, "rate": 1 }] }))
}

fn apicast() -> (&'static str, Json) {
    ("apicast", json!({}))
}

#[test]
fn authorise_stands_where_apicast_stood_if_that_matters() {
    check(&[cors(), apicast(), headers(), retry()], &["cors", "headers", "retry"], 0);
    check(&[retry(), apicast(), headers()], &["retry", "authorise", "headers"], 0);
    check(&[retry(), headers()], &["retry", "headers"], 0);
}

#[test]
fn what_cannot_stand_where_it_stood_is_moved() {
    check(&[headers(), apicast(), cors()], &["cors", "headers"], 2);
    check(&[limits("{{ remote_addr }}"), apicast()], &["edge_limits", "authorise"], 0);
    check(&[limits("{{ jwt.azp }}"), apicast()], &["edge_limits"], 1);
    check(&[limits("{{ jwt.sub }}"), apicast()], &[], 0);
}

#[test]
fn a_list_has_one_of_some_and_an_end() {
    check(&[retry(), retry()], &["retry"], 0);
    let many: Vec<(&str, Json)> = (0..STEPS_MAX + 3).map(|_| headers()).collect();
    check(&many, &vec!["headers"; STEPS_MAX - 1], 0);
}

#[test]
fn texts_of_documents_stay_texts() {
    let hostile = "\"]\n[[providers]]\nname = 'x'\t'''\"\"\"\\u0000 {{ \u{7f}é";
    let chain = json!([
        { "name": "maintenance_mode", "configuration": { "message": hostile } },
        { "name": "url_rewriting", "configuration": {
            "query_args_commands": [{ "op": "set", "arg": hostile, "value": "'\"\\" }] } },
    ]);
    let document = json!({ "id": "a", "proxy": { "hosts": ["a.test"], "policy_chain": chain } });
    let draft = crate::import::apicast::read(&document, &mut Account::default()).unwrap();
    let parsed: toml::Table = draft.to_toml().parse().unwrap();
    assert_eq!(parsed["providers"].as_array().map(Vec::len), Some(1));
    let policies = &parsed["providers"][0]["services"][0]["proxy"]["policies"];
    assert_eq!(policies[0]["body"].as_str(), Some(hostile));
    assert_eq!(policies[1]["query"][0]["name"].as_str(), Some(hostile));
}
