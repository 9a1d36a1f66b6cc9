//! `weir import apicast`: whoever moves over brings the gateway's configuration along.
//!
//! Goal: what the document says is what the gateway then does, and every field is accounted for. Method: a document as
//! the portal writes it is imported, given a plan and an application, and served; a chain of policies, too.

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
            "policy_chain": [routing, { "name": "apicast.policy.apicast" }, { "name": "soap", "version": "builtin" }],
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

fn policy(name: &str, configuration: Value) -> Value {
    json!({ "name": name, "version": "builtin", "enabled": true, "configuration": configuration })
}

/// A service with a chain, which ends with what 3scale's gateway does.
fn with_chain(mut chain: Vec<Value>, more: &Value) -> Value {
    if !chain.iter().any(|policy| policy["name"] == "apicast") {
        chain.push(policy("apicast", json!({})));
    }
    let rule = json!({ "http_method": "GET", "pattern": "/", "metric_system_name": "hits", "delta": 1 });
    let mut service = json!({ "id": "chained", "backend_version": "2", "proxy": {
        "hosts": ["api.test"], "api_backend": "http://upstream.invalid", "credentials_location": "headers",
        "policy_chain": chain, "proxy_rules": [rule],
    } });
    extend(&mut service["proxy"], more);
    json!({ "services": [service] })
}

fn extend(value: &mut Value, more: &Value) {
    value.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("a catalog")
}

fn told(output: &Output) -> String {
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!told.contains("the catalog:"), "what is written can be read: {told}\n{output:?}");
    told
}

/// A limiter of 3scale's.
fn limiter(name: &str, more: &Value) -> Value {
    let mut limiter = json!({ "key": { "name": name, "name_type": "liquid", "scope": "service" } });
    extend(&mut limiter, more);
    limiter
}

/// Every kind that stands in front of `apicast`, as the portal writes it.
fn in_front() -> Vec<Value> {
    vec![
        policy(
            "cors",
            json!({ "allow_origin": "https://app.test", "allow_methods": ["GET", "PUT"],
                    "allow_headers": ["X-A"], "allow_credentials": true, "max_age": 60 }),
        ),
        policy(
            "url_rewriting",
            json!({
                "commands": [
                    { "op": "sub", "regex": "^/v2/(\\w+)", "replace": "/v3/$1", "options": "i", "break": true,
                      "methods": ["GET"] },
                    { "op": "gsub", "regex": "//+", "replace": "/" },
                ],
                "query_args_commands": [
                    { "op": "set", "arg": "source", "value": "{gateway}" },
                    { "op": "push", "arg": "tag", "value": "x" },
                    { "op": "add", "arg": "kind", "value": "y" },
                    { "op": "delete", "arg": "debug", "methods": ["GET"] },
                ],
            }),
        ),
        policy(
            "rate_limit",
            json!({
                "connection_limiters":
                    [limiter("{{ remote_addr }}", &json!({ "conn": 10, "burst": 5, "delay": 1 }))],
                "leaky_bucket_limiters": [{ "key": { "name": "all" }, "rate": 20, "burst": 4 }],
                "fixed_window_limiters": [limiter("{{remote_addr}}", &json!({ "count": 100, "window": 60 }))],
                "redis_url": "redis://redis.test",
                "limits_exceeded_error": { "status_code": 429, "error_handling": "exit" },
            }),
        ),
    ]
}

/// The others.
fn behind() -> Vec<Value> {
    let by_application = limiter("{{ credentials.app_id }}", &json!({ "count": 5, "window": 1 }));
    vec![
        policy(
            "headers",
            json!({
                "request": [
                    { "op": "set", "header": "X-Plain", "value": "a", "value_type": "plain" },
                    { "op": "push", "header": "X-More", "value": "b" },
                    { "op": "add", "header": "X-There", "value": "c" },
                    { "op": "delete", "header": "X-Gone" },
                ],
                "response": [{ "op": "set", "header": "X-Answer", "value": "yes" }],
            }),
        ),
        policy(
            "ip_check",
            json!({ "check_type": "blacklist", "ips": ["203.0.113.0/24", "198.51.100.7"],
                    "client_ip_sources": ["X-Forwarded-For", "last_caller"], "error_msg": "No." }),
        ),
        policy("payload_limits", json!({ "request": 1000, "response": 0 })),
        policy(
            "upstream_connection",
            json!({ "connect_timeout": 0.5, "read_timeout": 30, "send_timeout": 60 }),
        ),
        policy("retry", json!({ "retries": 9 })),
        policy("statuscode_overwrite", json!({ "http_statuses": [{ "upstream": 418, "apicast": 400 }] })),
        policy(
            "default_credentials",
            json!({ "auth_type": "app_id_and_app_key", "app_id": "visitors", "app_key": "hush" }),
        ),
        policy("logging", json!({ "enable_access_logs": false })),
        policy("rate_limit", json!({ "fixed_window_limiters": [by_application] })),
        policy("upstream", json!({ "rules": [{ "regex": "^/stats", "url": "http://stats.invalid/api" }] })),
    ]
}

/// What comes of them, in order.
const WRITTEN: &str = r#"
[[providers.services.proxy.policies]]
policy = "cors"
credentials = true
headers = ["X-A"]
max_age_s = 60
methods = ["GET", "PUT"]
origins = ["https://app.test"]

[[providers.services.proxy.policies]]
policy = "url_rewriting"
path = [
  { last = true, methods = ["GET"], pattern = '(?i)^/v2/(\w+)', replacement = "/v3/${1}" },
  { all = true, pattern = "//+", replacement = "/" },
]
query = [
  { change = "set", name = "source", value = "{{gateway}}" },
  { change = "add", name = "tag", value = "x" },
]

[[providers.services.proxy.policies]]
policy = "url_rewriting"
query = [
  { change = "add", name = "kind", value = "y" },
]
when = { query = [{ name = "kind" }] }

[[providers.services.proxy.policies]]
policy = "url_rewriting"
query = [
  { change = "remove", name = "debug" },
]
when = { methods = ["GET"] }

[[providers.services.proxy.policies]]
policy = "edge_limits"
limits = [
  { concurrent_max = 15, per = "address" },
  { burst = 5, per = "service", requests = 20 },
  { per = "address", period_s = 60, requests = 100 },
]

[[providers.services.proxy.policies]]
policy = "ip_check"
deny = ["203.0.113.0/24", "198.51.100.7"]

[[providers.services.proxy.policies]]
policy = "anonymous"
application = "visitors"

[[providers.services.proxy.policies]]
policy = "authorise"

[[providers.services.proxy.policies]]
policy = "headers"
request = [
  { change = "set", name = "X-Plain", value = "a" },
  { change = "add", name = "X-More", value = "b" },
]
response = [
  { change = "set", name = "X-Answer", value = "yes" },
]

[[providers.services.proxy.policies]]
policy = "headers"
request = [
  { change = "add", name = "X-There", value = "c" },
]
when = { headers = [{ name = "X-There" }] }

[[providers.services.proxy.policies]]
policy = "headers"
request = [
  { change = "remove", name = "X-Gone" },
]

[[providers.services.proxy.policies]]
policy = "payload_limits"
request_bytes_max = 1000

[[providers.services.proxy.policies]]
policy = "upstream_timeouts"
connect_ms = 500
idle_ms = 60000
response_ms = 30000

[[providers.services.proxy.policies]]
policy = "retry"
retries_max = 5

[[providers.services.proxy.policies]]
policy = "status_overwrite"
statuses = [
  { from = "418", to = 400 },
]

[[providers.services.proxy.policies]]
policy = "access_log"
lines = "none"

[[providers.services.proxy.policies]]
policy = "edge_limits"
limits = [
  { per = "application", period_s = 1, requests = 5 },
]

[[providers.services.proxy.policies]]
policy = "routing"
routes = [
  { api_backend = "http://stats.invalid/api", when = { paths = "/stats" } },
]

# Calls without credentials"#;

#[test]
fn every_kind_of_policy_is_taken_over() {
    let chain = [in_front(), vec![policy("apicast", json!({}))], behind()].concat();
    let output = import(&with_chain(chain, &json!({})).to_string());
    let told = told(&output);
    assert!(output.status.success(), "nothing is left out: {told}");
    let text = text(&output);
    assert!(text.contains(WRITTEN), "{text}");
    assert!(text.contains("id = \"visitors\"\nplan = \"anonymous\"\nstate = \"suspended\""), "{text}");
    assert!(!format!("{told}{text}").contains("hush"), "the key is needed nowhere");
    for (place, expected) in [
        ("[0].configuration.max_age", "mapped"),
        ("[1].configuration.commands[1]", "mapped"),
        ("[1].configuration.query_args_commands[3]", "mapped"),
        ("[2].configuration.connection_limiters[0]", "changed"),
        ("[2].configuration.redis_url", "changed"),
        ("[4].configuration.response[0]", "mapped"),
        ("[5].configuration.ips[1]", "mapped"),
        ("[5].configuration.client_ip_sources", "changed"),
        ("[5]", "changed"),
        ("[8].configuration.retries", "changed"),
        ("[10].configuration.app_id", "changed"),
        ("[13].configuration.rules[0]", "mapped"),
    ] {
        let line = format!("{expected:<9} services[0].proxy.policy_chain{place}: ");
        assert!(told.contains(&line), "{line:?} in {told}");
    }
}

#[test]
fn checks_of_claims_and_maintenance_are_taken_over() {
    let claim = |op: &str, claim: &str, value: &str| json!({ "op": op, "jwt_claim": claim, "jwt_claim_type": "plain", "value": value, "value_type": "plain" });
    let rules = json!([
        { "operations":
            [claim("==", "realm.role", "a"), claim("!=", "kind", "b"), claim("matches", "mail", "@a\\.org$")],
          "combine_op": "and", "resource": "/x/{id}$", "resource_type": "plain", "methods": ["GET", "PUT"] },
        { "operations": [claim("==", "role", "a"), claim("==", "role", "b")], "combine_op": "or",
          "resource": "/", "methods": ["ANY"] },
    ]);
    let maintenance =
        json!({ "status": 502, "message": "Back \"soon\"\n", "message_content_type": "text/html" });
    let chain = vec![
        policy("apicast", json!({})),
        policy("jwt_claim_check", json!({ "rules": rules, "error_message": "No." })),
        policy("maintenance_mode", maintenance),
    ];
    let tokens = json!({ "authentication_method": "oidc", "oidc_issuer_endpoint": "https://issuer.test" });
    let output = import(&with_chain(chain, &tokens).to_string());
    let told = told(&output);
    assert!(output.status.success(), "nothing is left out: {told}");
    let text = text(&output);
    let first =
        r#"{ claims = [{ name = "realm.role", values = "a" }, { name = "kind", not = true, values = "b" }, "#;
    let when = r#"when = { methods = ["GET", "PUT"], paths = "/x/{id}$" } }"#;
    let second = r#"{ claims = [{ name = "role", values = ["a", "b"] }] }"#;
    for line in [first, when, second, "policy = \"maintenance\"\nbody = ", "status = 502"] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert!(!text.contains("\"authorise\""), "nothing that could stand elsewhere stands in front: {text}");
}

/// A policy, the place in it, and what is said of it.
type Odd = (Value, &'static str, &'static str);

const OPENS: &str = "this opens a door: calls that it refused pass now";

/// Policies that are not taken over as a whole.
fn odd_policies() -> Vec<Odd> {
    let (mut disabled, mut own) = (policy("cors", json!({})), policy("headers", json!({})));
    disabled["enabled"] = false.into();
    own["version"] = "0.1".into();
    let operations = json!({ "operations": [{ "left": "{{ uri }}", "op": "==", "right": "/" }] });
    let log = json!({ "limits_exceeded_error": { "error_handling": "log" } });
    let user_key = json!({ "auth_type": "user_key", "user_key": "hush" });
    vec![
        (disabled, "", "it is switched off"),
        (own, "", "its version is \"0.1\""),
        (policy("so\nap\u{1b}", json!({})), "", "there is no policy \"so\\nap\\u{1b}\""),
        (policy("token_introspection", json!({})), "", OPENS),
        (policy("upstream_mtls", json!({})), "", "write the policy upstream_tls"),
        (policy("cors", json!({ "allow_origin": "^https?://.*" })), "allow_origin", "neither an origin"),
        (
            policy("ip_check", json!({ "check_type": "other" })),
            "check_type",
            "neither whitelist nor blacklist",
        ),
        (
            policy("maintenance_mode", json!({ "condition": operations })),
            "condition",
            "the policy is left out",
        ),
        (policy("rate_limit", log), "limits_exceeded_error", "only logs"),
        (policy("default_credentials", user_key), "user_key", "application = "),
        (policy("logging", json!({ "custom_logging": "{{ uri }}" })), "custom_logging", "access_log"),
        (policy("retry", json!({ "retries": 1, "x\n[[a]]": 1 })), "x\\n[[a]]", "nothing like it"),
        (policy("retry", json!({ "retries": 2 })), "", "stands here a second time"),
    ]
}

/// Policies of which a piece is not taken over.
fn odd_pieces() -> Vec<Odd> {
    let window = |limiter: Value| policy("rate_limit", json!({ "fixed_window_limiters": [limiter] }));
    let once = json!({ "count": 1, "window": 1 });
    let shared = json!({ "key": { "name": "a", "scope": "global" }, "count": 1, "window": 1 });
    let mut conditional = limiter("{{ remote_addr }}", &once);
    conditional["condition"] = json!({ "operations": [{ "left": "a", "op": "==", "right": "b" }] });
    let change = |field: &str, change: Value| policy("headers", json!({ field: [change] }));
    let rewrite = |regex: &str, replace: &str| {
        policy("url_rewriting", json!({ "commands": [{ "op": "sub", "regex": regex, "replace": replace }] }))
    };
    let upstream =
        |regex: &str, url: &str| policy("upstream", json!({ "rules": [{ "regex": regex, "url": url }] }));
    let liquid = json!({ "op": "set", "header": "X-A", "value": "{{ uri }}", "value_type": "liquid" });
    let claims = json!({ "operations": [{ "op": "==", "jwt_claim": "a", "value": "b" }], "resource": "/" });
    let nowhere = json!({ "check_type": "blacklist", "ips": ["nowhere"] });
    let statuses = json!({ "http_statuses": [{ "upstream": 99, "apicast": 200 }] });
    vec![
        (change("request", liquid), "request[0]", "liquid"),
        (
            change("request", json!({ "op": "delete", "header": "App_Key" })),
            "request[0]",
            "carries credentials",
        ),
        (change("request", json!({ "op": "delete", "header": "Host" })), "request[0]", "host_rewrite"),
        (
            change("response", json!({ "op": "set", "header": "X-A", "value": "hush\u{1}" })),
            "response[0]",
            "no header can carry",
        ),
        (rewrite("(?=a)b", "c"), "commands[0]", "look-around"),
        (rewrite("a++a", "c"), "commands[0]", "means something else here"),
        (rewrite("a", "$b"), "commands[0]", "stands for no group"),
        (policy("ip_check", nowhere), "ips[0]", OPENS),
        (policy("payload_limits", json!({ "request": "many" })), "request", "no whole number"),
        (policy("upstream_connection", json!({ "read_timeout": 1e30 })), "read_timeout", "no time"),
        (policy("retry", json!({ "retries": -1 })), "retries", "no whole number"),
        (policy("statuscode_overwrite", statuses), "http_statuses[0]", "neither a status"),
        (policy("jwt_claim_check", json!({ "rules": [claims] })), "rules[0].operations[0]", OPENS),
        (window(limiter("{{ host }}", &once)), "fixed_window_limiters[0]", OPENS),
        (window(shared), "fixed_window_limiters[0]", "share"),
        (window(conditional), "fixed_window_limiters[0]", "condition"),
        (upstream("/v\\d", "http://a.test"), "rules[0]", "begins with"),
        (upstream("^/v1", "gopher://a.test"), "rules[0]", "http://"),
        (upstream("^/v1", "http://a:hush@a.test"), "rules[0]", "user name"),
    ]
}

#[test]
fn what_of_a_chain_cannot_be_mapped_is_said() {
    for odd in [odd_policies(), odd_pieces()] {
        let chain = odd.iter().map(|(policy, ..)| policy.clone()).collect();
        let user_keys = json!({ "authentication_method": "1", "auth_user_key": "app_key" });
        let output = import(&with_chain(chain, &user_keys).to_string());
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        let told = told(&output);
        for (at, (_, field, why)) in odd.iter().enumerate() {
            let dot = if field.is_empty() { "" } else { ".configuration." };
            let begins = format!("left out  services[0].proxy.policy_chain[{at}]{dot}{field}: ");
            let line = told.lines().find(|line| line.starts_with(&begins));
            assert!(line.is_some_and(|line| line.contains(why)), "{begins:?} with {why:?} in {told}");
        }
        let text = text(&output);
        assert!(!format!("{told}{text}").contains("hush"), "neither names a secret: {told}");
        let written = text.lines().filter(|line| line.starts_with("policy = "));
        let is_known = |line: &str| ["policy = \"retry\"", "policy = \"authorise\""].contains(&line);
        assert!(written.into_iter().all(is_known), "nothing else is written: {text}");
    }
    let nobody = policy("ip_check", json!({ "check_type": "whitelist", "ips": ["nowhere"] }));
    let output = import(&with_chain(vec![nobody], &json!({})).to_string());
    assert!(text(&output).contains("deny = [\"0.0.0.0/0\", \"::/0\"]"), "nobody may call: {output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_imported_chain_does_what_it_did() {
    let rewriting = json!({ "commands": [{ "op": "sub", "regex": "^/old/(.*)$", "replace": "/new/$1" }] });
    let headers = json!({ "request": [{ "op": "set", "header": "X-Set", "value": "by the {gateway}" }] });
    let chain = vec![
        policy("cors", json!({ "allow_origin": "https://app.test" })),
        policy("url_rewriting", rewriting),
        policy("apicast", json!({})),
        policy("headers", headers),
        policy("ip_check", json!({ "check_type": "whitelist", "ips": ["127.0.0.1"] })),
    ];
    let only_new =
        json!([{ "http_method": "GET", "pattern": "/new/", "metric_system_name": "hits", "delta": 1 }]);
    let output = import(&with_chain(chain, &json!({ "proxy_rules": only_new })).to_string());
    assert!(output.status.success(), "{output:?}");
    let imported = text(&output).replace("http://upstream.invalid", "{upstream}");
    let plan = "\n[[providers.services.plans]]\nid = \"plan\"\n[[providers.services.applications]]\nid = \"app\"\n\
                plan = \"plan\"\napp_keys = [\"key\"]\n";
    let stack = Stack::start(&Plan::small(&format!("{imported}{plan}"))).await;
    let ask = |method: &str, headers: &[(&str, &str)]| {
        call(stack.gateways[0].address, method, "/old/x", headers, "")
    };
    let asked = ask("OPTIONS", &[("Origin", "https://app.test"), ("Access-Control-Request-Method", "GET")]);
    assert_eq!((asked.status, &*asked.header("access-control-allow-origin")), (204, "https://app.test"));
    let answer = ask("GET", &[("app_id", "app"), ("app_key", "key")]);
    assert_eq!((answer.status, &answer.json()["target"]), (200, &json!("/new/x")), "rules see the new path");
    assert!(answer.json()["headers"].to_string().contains("by the {gateway}"), "{answer:?}");
    assert_eq!(ask("GET", &[]).status, 401);
}
