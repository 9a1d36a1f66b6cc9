//! The crate `threescalers`, in a program of its own (`tests/clients/threescalers` has the reason): it builds the requests
//! and reads the documents, and tells what it made of them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use weir_tests::stack::{Plan, Stack};

use super::{CATALOG, PROVIDER_KEY};

/// The crate tells itself by another name than it asks for that Rust has a macro; see its Cargo.toml.
const FLAGS: &str = "--cfg supports_macro_matches";

/// The program, built from the lock beside it.
fn program() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/threescalers/Cargo.toml");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("threescalers");
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--locked", "--manifest-path"])
            .arg(manifest)
            .arg("--target-dir")
            .arg(&folder)
            .env("RUSTFLAGS", FLAGS)
            .status();
        assert!(built.is_ok_and(|status| status.success()), "threescalers-call does not build");
        folder.join("debug/threescalers-call")
    })
}

/// One service, as the client is set up for it.
struct Client {
    address: SocketAddr,
    service: &'static str,
    /// `key` or `token`, and its value.
    proof: (&'static str, &'static str),
}

const TOKEN: (&str, &str) = ("token", "token-of-plain");
const KEY: (&str, &str) = ("key", PROVIDER_KEY);

impl Client {
    fn new(stack: &Stack, service: &'static str, proof: (&'static str, &'static str)) -> Self {
        Self { address: stack.listeners[0].http.unwrap(), service, proof }
    }

    /// Status, headers, and what was read of the body.
    #[track_caller]
    fn send(&self, kind: &str, options: &Value, transactions: &Value) -> Value {
        let (proof, value) = self.proof;
        let call = json!({
            "service": self.service, proof: value, "kind": kind, "options": options, "transactions": transactions,
        });
        let run =
            Command::new(program()).arg(self.address.to_string()).arg(call.to_string()).output().unwrap();
        assert!(run.status.success(), "{call}: {}", String::from_utf8_lossy(&run.stderr));
        serde_json::from_slice(&run.stdout).unwrap()
    }

    /// Authorize or authrep, with reason and limits in the headers.
    #[track_caller]
    fn ask(&self, kind: &str, application: &Value, usage: &Value) -> Value {
        self.ask_with(
            kind,
            application,
            usage,
            &json!({ "rejection_reason_header": "1", "limit_headers": "1" }),
        )
    }

    #[track_caller]
    fn ask_with(&self, kind: &str, application: &Value, usage: &Value, options: &Value) -> Value {
        self.send(kind, options, &json!([transaction(application, usage)]))
    }
}

fn transaction(application: &Value, usage: &Value) -> Value {
    let mut transaction = application.clone();
    transaction["usage"] = usage.clone();
    transaction
}

async fn start() -> Stack {
    Stack::start(&Plan { gateways: 0, ..Plan::small(CATALOG) }).await
}

/// The document of an answer with this status.
#[track_caller]
fn body(answer: &Value, status: u16) -> &Value {
    assert_eq!(answer["status"], status, "{answer}");
    assert_eq!(answer["body"]["unread"], Value::Null, "{answer}");
    &answer["body"]
}

/// Limit, value and maximum of each usage report.
fn usage(body: &Value) -> Vec<(&str, u64, u64)> {
    let reports = body["usage"].as_array().into_iter().flatten();
    let number = |value: &Value| value.as_u64().unwrap();
    reports.map(|r| (r["limit"].as_str().unwrap(), number(&r["current"]), number(&r["max"]))).collect()
}

fn now_s() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

async fn check_counters<const N: usize>(stack: &Stack, application: &str, expected: [(&str, u64); N]) {
    let totals = stack.listener_client(0).totals("plain", application).await.unwrap();
    assert_eq!(totals, expected.map(|(metric, used)| (metric.to_owned(), used)).into());
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_counted_until_a_limit_denies_them() {
    let stack = start().await;
    let reader = json!({ "user_key": "key-of-reader" });
    let [by_token, by_key] = [TOKEN, KEY].map(|proof| Client::new(&stack, "plain", proof));
    for (client, used) in [(&by_token, 2), (&by_key, 4)] {
        let answer = client.ask("authrep", &reader, &json!({ "search": 2, "mail": 1 }));
        let told = body(&answer, 200);
        assert_eq!((&told["authorized"], &told["plan"]), (&json!(true), &json!("Small & cheap")));
        assert_eq!(
            usage(told),
            [("hits/year", used, 50), ("hits/month", used, 5), ("search/year", used, 40)]
        );
        assert_eq!(answer["headers"]["3scale-limit-max-value"], "5");
    }
    let denied = by_token.ask("authrep", &reader, &json!({ "search": 2 }));
    assert_eq!(denied["headers"]["3scale-rejection-reason"], "limits_exceeded");
    let told = body(&denied, 409);
    assert_eq!(told["authorized"], false);
    assert!(told["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{told}");
    let month = &told["usage"][1];
    assert_eq!((&month["current"], &month["is_limited"]), (&json!(4), &json!(false)), "it was not counted");
    let [start, end] = ["start", "end"].map(|key| month[key].as_i64().unwrap());
    assert!((start..end).contains(&now_s()), "{month}");

    let last = by_key.ask("authrep", &reader, &json!({ "hits": 1 }));
    assert_eq!(body(&last, 200)["usage"][1]["is_limited"], true);
    for (asked, status) in [(json!({}), 200), (json!({ "mail": 1_000 }), 200), (json!({ "hits": 1 }), 409)] {
        body(&by_key.ask("authorize", &reader, &asked), status);
    }
    check_counters(&stack, "reader", [("hits", 5), ("mail", 2), ("search", 4)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_of_several_shows_at_once() {
    let stack = start().await;
    let client = Client::new(&stack, "plain", TOKEN);
    let (reader, writer) = (json!({ "user_key": "key-of-reader" }), json!({ "user_key": "key-of-writer" }));
    let at = |mut transaction: Value| {
        transaction["timestamp"] = now_s().into();
        transaction
    };
    let sent = json!([
        transaction(&reader, &json!({ "search": 2 })),
        at(transaction(&writer, &json!({ "hits": 3 }))),
        at(transaction(&reader, &json!({ "mail": 7 }))),
    ]);
    let answer = client.send("report", &json!({}), &sent);
    assert_eq!((&answer["status"], &answer["body"]), (&json!(202), &Value::Null));
    let told = client.ask("authorize", &reader, &json!({}));
    assert_eq!(usage(body(&told, 200))[2], ("search/year", 2, 40));
    let told = client.ask("authorize", &writer, &json!({}));
    assert_eq!(usage(body(&told, 200))[0], ("hits/year", 3, 50));
    check_counters(&stack, "reader", [("hits", 2), ("mail", 7), ("search", 2)]).await;

    // What is reported has happened: it may pass a limit.
    let more = json!([transaction(&writer, &json!({ "hits": 10 }))]);
    assert_eq!(client.send("report", &json!({}), &more)["status"], 202);
    let told = client.ask("authorize", &writer, &json!({ "hits": 1 }));
    assert_eq!(usage(body(&told, 409))[1], ("hits/month", 13, 5));
    assert_eq!(body(&client.send("report", &json!({}), &json!([])), 400)["code"], "transactions_is_blank");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_read_by_their_code() {
    let stack = start().await;
    let known = json!({ "user_key": "key-of-reader" });
    for (service, proof, application, metric, status, code) in [
        ("plain", TOKEN, json!({ "user_key": "nobodys" }), "hits", 403, "user_key_invalid"),
        ("keyed", KEY, json!({ "app_id": "nobody" }), "hits", 404, "application_not_found"),
        // It sends nothing else then, and 3scale's API has no such parameter.
        ("tokens", KEY, json!({ "access_token": "any" }), "hits", 404, "application_not_found"),
        ("plain", TOKEN, known.clone(), "nothing", 404, "metric_invalid"),
        ("plain", ("token", "nobodys"), known.clone(), "hits", 403, "service_token_invalid"),
        ("keyed", TOKEN, known.clone(), "hits", 403, "service_token_invalid"),
        ("plain", ("key", "nobodys"), known.clone(), "hits", 403, "provider_key_invalid"),
        ("none", KEY, known.clone(), "hits", 403, "service_id_invalid"),
    ] {
        let client = Client::new(&stack, service, proof);
        for kind in ["authorize", "authrep"] {
            let answer = client.ask(kind, &application, &json!({ metric: 1 }));
            let told = body(&answer, status);
            assert_eq!(told["code"], code, "{kind} {answer}");
            assert!(told["description"].as_str().is_some_and(|text| !text.is_empty()), "{answer}");
        }
    }
    check_counters(&stack, "reader", []).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn denials_have_status_and_reason() {
    let stack = start().await;
    let plain = Client::new(&stack, "plain", TOKEN);
    let keyed = Client::new(&stack, "keyed", ("token", "token-of-keyed"));
    for (client, application, reason) in [
        (&plain, json!({ "user_key": "key-of-away" }), "application_not_active"),
        (&keyed, json!({ "app_id": "shop", "app_key": "nobodys" }), "application_key_invalid"),
        (&keyed, json!({ "app_id": "shop" }), "application_key_invalid"),
    ] {
        let answer = client.ask("authrep", &application, &json!({ "hits": 1 }));
        assert_eq!(answer["headers"]["3scale-rejection-reason"], reason);
        let told = body(&answer, 409);
        assert_eq!(told["authorized"], false);
        assert!(told["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{told}");
    }
    let shop = json!({ "app_id": "shop", "app_key": "key-of-shop" });
    let told = keyed.ask("authrep", &shop, &json!({ "hits": 1 }));
    assert_eq!(usage(body(&told, 200)), [("hits/year", 1, 9)], "no refused call was counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn extensions_are_understood() {
    let stack = start().await;
    let client = Client::new(&stack, "keyed", ("token", "token-of-keyed"));
    let (shop, search) = (json!({ "app_id": "shop", "app_key": "key-of-shop" }), json!({ "search": 1 }));

    let tree = client.ask_with("authorize", &shop, &search, &json!({ "hierarchy": "1" }));
    assert_eq!(body(&tree, 200)["children"], json!({ "hits": ["search"] }));
    let plain = client.ask("authorize", &shop, &search);
    let plain = body(&plain, 200);
    assert_eq!((&plain["children"], &plain["app_keys"]), (&Value::Null, &Value::Null));

    let flat = json!({ "flat_usage": "1" });
    let told = client.ask_with("authrep", &shop, &search, &flat);
    assert_eq!(usage(body(&told, 200)), [("hits/year", 0, 9)], "the parent is the caller's affair");
    let told = client.ask_with("authrep", &shop, &search, &json!({}));
    assert_eq!(usage(body(&told, 200)), [("hits/year", 1, 9)]);
    let reported = client.send("report", &flat, &json!([transaction(&shop, &search)]));
    assert_eq!(reported["status"], 202);
    let told = client.ask("authorize", &shop, &json!({}));
    assert_eq!(usage(body(&told, 200)), [("hits/year", 1, 9)]);
    let totals = stack.listener_client(0).totals("keyed", "shop").await.unwrap();
    assert_eq!(totals, [("hits".to_owned(), 1), ("search".to_owned(), 3)].into());

    let keys = client.ask_with("authorize", &shop, &json!({}), &json!({ "list_app_keys": "1" }));
    // They are kept as hashes.
    assert_eq!(body(&keys, 200)["app_keys"], json!({ "app_id": "shop", "keys": [] }));
    let bare = client.ask_with("authrep", &shop, &search, &json!({ "no_body": "1" }));
    assert_eq!((&bare["status"], &bare["body"]), (&json!(200), &Value::Null));
}
