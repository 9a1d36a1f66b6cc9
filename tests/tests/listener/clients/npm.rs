//! The npm package `3scale`, which speaks TLS only: Node runs it, a script tells what it made of each answer.
//!
//! It is installed once by `npm ci` into the build's folder, from the lock in `tests/clients/3scale-npm`.

use std::process::Command;

use serde_json::{Value, json};
use weir_tests::certificates::Authority;
use weir_tests::npm;
use weir_tests::stack::{Plan, Stack};

use super::{CATALOG, PROVIDER_KEY};

/// A listener whose HTTP port has a certificate, and the client set up to trust it.
struct Client {
    stack: Stack,
    dir: tempfile::TempDir,
}

impl Client {
    async fn start() -> Self {
        let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        let server = authority.issue("127.0.0.1");
        let put = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).unwrap();
            dir.path().join(name).display().to_string()
        };
        put("ca.pem", &authority.pem());
        let (certificate, key) = (put("server.pem", &server.pem), put("server.key", &server.key_pem));
        let listener_tables =
            format!("[http_tls]\ncertificate_file = \"{certificate}\"\nkey_file = \"{key}\"");
        let stack = Stack::start(&Plan { gateways: 0, listener_tables, ..Plan::small(CATALOG) }).await;
        Self { stack, dir }
    }

    /// Makes these calls, one after the other.
    fn run(&self, calls: impl Iterator<Item = Value>) -> Vec<Value> {
        let (folder, file) = (npm::installed("3scale-npm"), self.dir.path().join("calls.jsonl"));
        std::fs::write(&file, calls.map(|call| format!("{call}\n")).collect::<String>()).unwrap();
        let script = npm::source("3scale-npm").join("calls.js");
        let port = self.stack.listeners[0].http.unwrap().port();
        let run = Command::new("node")
            .arg(script)
            .arg(port.to_string())
            .arg(file)
            .env("NODE_PATH", folder.join("node_modules"))
            .env("NODE_EXTRA_CA_CERTS", self.dir.path().join("ca.pem"))
            .output()
            .expect(npm::INSTALL);
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        let told = String::from_utf8_lossy(&run.stdout);
        told.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// One call and what the client makes of the answer.
struct Case {
    call: &'static str,
    arguments: Value,
    /// Else the call shows a token.
    by_provider_key: bool,
    expected: Value,
}

fn case(call: &'static str, arguments: Value, expected: Value) -> Case {
    Case { call, arguments: json!([arguments]), by_provider_key: false, expected }
}

fn report(service: &str, transactions: Value, expected: Value) -> Case {
    let arguments = json!([service, transactions]);
    Case { call: "report", arguments, by_provider_key: true, expected }
}

/// Let through, under a plan, with this usage: metric, period, value, maximum.
fn allowed(plan: &str, usage: &[(&str, &str, u32, u32)]) -> Value {
    let told = usage.iter().map(|(metric, period, used, max)| {
        json!({ "metric": metric, "period": period, "current": used.to_string(), "max": max.to_string() })
    });
    json!({ "status": 200, "code": null, "plan": plan, "usage": told.collect::<Value>() })
}

fn error(status: u16, code: &str) -> Value {
    json!({ "status": status, "code": code, "plan": null, "usage": null })
}

/// What the client told, in the form of the expectations.
fn shown(told: &Value) -> Value {
    let report = |usage: &Value| {
        let [metric, period] = ["metric", "period"].map(|key| &usage[key]);
        json!({ "metric": metric, "period": period, "current": usage["current_value"], "max": usage["max_value"] })
    };
    let usage = told["usage"].as_array().map(|usage| usage.iter().map(report).collect::<Vec<_>>());
    json!({ "status": told["status"], "code": told["code"], "plan": told["plan"], "usage": usage })
}

/// Goal: every call of the client is understood, and its answers are. Method: one list of calls, each on top of what
/// those before have counted.
#[tokio::test(flavor = "multi_thread")]
async fn the_client_finds_what_it_knows() {
    let client = Client::start().await;
    let cases: Vec<Case> =
        user_key_cases().into_iter().chain(app_id_cases()).chain(oauth_cases()).chain(reports()).collect();
    let calls = cases.iter().map(|case| {
        let key = case.by_provider_key.then_some(PROVIDER_KEY);
        json!({ "key": key, "call": case.call, "arguments": case.arguments })
    });
    let told = client.run(calls);
    assert_eq!(told.len(), cases.len());
    for (case, told) in cases.iter().zip(&told) {
        assert_eq!(shown(told), case.expected, "{} {}", case.call, case.arguments);
        let is_success = case.expected["status"] == 200 || case.expected["status"] == 202;
        assert_eq!(told["is_success"], is_success, "{told}");
        assert_eq!(told["message"].as_str().is_some_and(|text| !text.is_empty()), !is_success, "{told}");
    }
    let totals = client.stack.listener_client(0).totals("plain", "reader").await.unwrap();
    assert_eq!(totals, [("hits".to_owned(), 8), ("search".to_owned(), 6)].into());
}

fn user_key_cases() -> Vec<Case> {
    let call =
        |key: &str| json!({ "service_token": "token-of-plain", "service_id": "plain", "user_key": key });
    let reader = |usage: Value| {
        let mut call = call("key-of-reader");
        call["usage"] = usage;
        call
    };
    let used = |hits, search| {
        let usage = [("hits", "year", hits, 50), ("hits", "month", hits, 5), ("search", "year", search, 40)];
        allowed("Small & cheap", &usage)
    };
    let mut denied = used(4, 3);
    denied["status"] = 409.into();
    let mut bad_token = call("key-of-reader");
    bad_token["service_token"] = "nobodys".into();
    vec![
        case("authorize_with_user_key", call("key-of-reader"), used(0, 0)),
        // It counts one of `hits` where nothing is said.
        case("authrep_with_user_key", call("key-of-reader"), used(1, 0)),
        case("authrep_with_user_key", reader(json!({ "search": 3 })), used(4, 3)),
        case("authrep_with_user_key", reader(json!({ "search": 2 })), denied.clone()),
        case("authorize_with_user_key", reader(json!({ "hits": 2 })), denied),
        case("authrep_with_user_key", reader(json!({ "nothing": 1 })), error(404, "metric_invalid")),
        case("authrep_with_user_key", call("nobodys"), error(403, "user_key_invalid")),
        case("authrep_with_user_key", bad_token, error(403, "service_token_invalid")),
    ]
}

fn app_id_cases() -> Vec<Case> {
    let call = |id: &str, key: &str| json!({ "service_id": "keyed", "app_id": id, "app_key": key });
    let by_token = |mut call: Value| {
        call["service_token"] = "token-of-keyed".into();
        call
    };
    let (shop, used) = (call("shop", "key-of-shop"), |hits| allowed("Free", &[("hits", "year", hits, 9)]));
    let mut wrong_key = used(2);
    wrong_key["status"] = 409.into();
    let by_key = |name, call, expected| Case { by_provider_key: true, ..case(name, call, expected) };
    vec![
        case("authorize", by_token(shop.clone()), used(0)),
        case("authrep", by_token(shop.clone()), used(1)),
        by_key("authrep", shop.clone(), used(2)),
        by_key("authorize", shop.clone(), used(2)),
        case("authrep", by_token(call("shop", "nobodys")), wrong_key),
        case("authrep", by_token(call("nobody", "key")), error(404, "application_not_found")),
        // Neither key nor token.
        case("authorize", shop, error(403, "provider_key_or_service_token_required")),
    ]
}

fn oauth_cases() -> Vec<Case> {
    let phone = json!({ "service_token": "token-of-tokens", "service_id": "tokens", "app_id": "phone" });
    let mut stranger = phone.clone();
    stranger["app_id"] = "nobody".into();
    let mut lost = phone.clone();
    lost["redirect_url"] = "https://elsewhere.example/".into();
    let mut refused = allowed("Open", &[]);
    refused["status"] = 409.into();
    vec![
        case("oauth_authorize", phone.clone(), allowed("Open", &[])),
        case("oauth_authrep", phone, allowed("Open", &[])),
        case("oauth_authorize", stranger, error(404, "application_not_found")),
        case("oauth_authorize", lost, refused),
    ]
}

fn reports() -> Vec<Case> {
    let taken = json!({ "status": 202, "code": null, "plan": null, "usage": null });
    let transactions = json!([
        { "user_key": "key-of-reader", "usage": { "hits": 1 } },
        { "user_key": "key-of-reader", "usage": { "search": 3 }, "timestamp": "" },
        { "user_key": "key-of-writer", "usage": { "hits": 1000 } },
    ]);
    let call =
        json!({ "service_token": "token-of-plain", "service_id": "plain", "user_key": "key-of-reader" });
    let mut passed = allowed(
        "Small & cheap",
        &[("hits", "year", 8, 50), ("hits", "month", 8, 5), ("search", "year", 6, 40)],
    );
    passed["status"] = 409.into();
    // As its own page says; but a token belongs beside the transactions, not into them.
    let inside =
        json!([{ "service_token": "token-of-plain", "user_key": "key-of-reader", "usage": { "hits": 1 } }]);
    let by_token = report("plain", inside, error(403, "provider_key_or_service_token_required"));
    vec![
        report("plain", transactions, taken),
        case("authorize_with_user_key", call, passed),
        report(
            "nowhere",
            json!([{ "user_key": "key-of-reader", "usage": { "hits": 1 } }]),
            error(403, "service_id_invalid"),
        ),
        Case { by_provider_key: false, ..by_token },
    ]
}
