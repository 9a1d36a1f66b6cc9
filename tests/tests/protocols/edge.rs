//! What Envoy and nginx have in common in the tests: services of every kind, and the same requests through our gateway.
//!
//! The gateway is the measure: other proxies in front of the same listener give the same answers, send the same
//! requests on, and count the same.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use weir_tests::http::{Answer, call};
use weir_tests::stack::{Plan, Stack};

/// What a provider may write into a refusal: everything that means something to a configuration language.
pub(crate) const NASTY: &str =
    "\"quoted\" 'text' $host ${args} {braces}; # no comment\\ back\\n\nnew line\ttab é </h1>";

/// Services by where their credentials are; `NASTY` and `LONG` stand for texts.
const CATALOG: &str = r#"
revision = 1
[[providers]]
name = "Edge tests"

[[providers.services]]
id = "api"
credentials = "user_key"
metrics = [{ name = "hits" }, { name = "searches" }, { name = "closed" }]
mapping_rules = [
  { method = "GET", pattern = "/hello", metrics = { hits = 1 } },
  { method = "POST", pattern = "/form", metrics = { hits = 1 } },
  { method = "GET", pattern = "/search?q={q}", metrics = { hits = 1, searches = 2 } },
  { method = "GET", pattern = "/closed", metrics = { closed = 1 } },
]
[providers.services.proxy]
hosts = ["api.test", "*.api.test"]
api_backend = "{upstream}"
strip_credentials = true
secret_token = "s3cret"
request_body_bytes_max = 2000
[providers.services.proxy.errors.auth_missing]
status = 403
body = NASTY
content_type = "text/html; charset=utf-8"
[providers.services.proxy.errors.no_match]
status = 418
body = ""
[[providers.services.plans]]
id = "plan"
limits = [
  { metric = "hits", period = "day", max = 1000 },
  { metric = "closed", period = "day", max = 0 },
]
[[providers.services.plans]]
id = "small"
limits = [{ metric = "hits", period = "day", max = 2 }]
[[providers.services.applications]]
id = "app"
plan = "plan"
user_key = "key"
[[providers.services.applications]]
id = "suspended"
plan = "plan"
user_key = "suspended"
state = "suspended"
[[providers.services.applications]]
id = "one"
plan = "small"
user_key = "one"
[[providers.services.applications]]
id = "two"
plan = "small"
user_key = "two"

[[providers.services]]
id = "pair"
credentials = "app_id_and_key"
metrics = [{ name = "hits" }]
mapping_rules = [{ method = "ANY", pattern = "/", metrics = { hits = 1 } }]
[providers.services.proxy]
hosts = ["pair.test"]
api_backend = "{upstream}/base"
credentials_location = "headers"
strip_credentials = true
host_rewrite = "inner.test"
[[providers.services.plans]]
id = "plan"
limits = []
[[providers.services.applications]]
id = "app"
plan = "plan"
app_keys = ["secret"]

[[providers.services]]
id = "basic"
credentials = "user_key"
metrics = [{ name = "hits" }]
mapping_rules = [{ method = "ANY", pattern = "/", metrics = { hits = 1 } }]
[providers.services.proxy]
hosts = ["basic.test"]
api_backend = "{upstream}"
credentials_location = "authorization"
strip_credentials = true
secret_token = "other"
secret_token_header = "X-Secret"
[providers.services.proxy.errors.auth_failed]
body = LONG
[providers.services.staging]
hosts = ["stage.test"]
api_backend = "{upstream}"
mapping_rules = [{ method = "GET", pattern = "/staged", metrics = { hits = 1 } }]
[providers.services.staging.errors.auth_missing]
body = "staged"
[[providers.services.plans]]
id = "plan"
limits = []
[[providers.services.applications]]
id = "app"
plan = "plan"
user_key = "key"
"#;

/// The catalog.
pub(crate) fn catalog() -> String {
    let long = "a \"quoted\" $word é; ".repeat(700);
    let quoted = |text: &str| serde_json::to_string(text).unwrap();
    CATALOG.replace("NASTY", &quoted(NASTY)).replace("LONG", &quoted(&long))
}

/// A listener over Redis, and a gateway to compare with.
pub(crate) async fn start() -> Stack {
    let tables = r#"
[[gateways]]
id = "narrow"
environment = "production"
token = "narrow-gateway-token"
services = ["basic"]
[[gateways]]
id = "staging"
environment = "staging"
token = "staging-gateway-token"
"#;
    let plan = Plan { redis: true, listener_tables: tables.to_owned(), ..Plan::small(&catalog()) };
    Stack::start(&plan).await
}

/// A request: method, host and target; header lines; a body.
pub(crate) type Case = (&'static str, &'static [(&'static str, &'static str)], &'static str);

/// Requests that go on, and every kind of refusal.
pub(crate) const CASES: &[Case] = &[
    ("GET api.test/hello?user_key=key", &[], ""),
    ("GET API.test:80/hello?a=1&user_key=key&b=%20", &[], ""),
    ("GET x.api.test/hello?a=1&User%5Fkey=key&a=2&a=1", &[("x-a", "1")], ""),
    ("GET api.test//hello///there?user_key=key", &[], ""),
    ("GET api.test/search?user_key=key&q=x", &[], ""),
    (
        "GET api.test/hello?user_key=key",
        &[("X-3scale-proxy-secret-token", "mine"), ("x-3scale-debug", "1")],
        "",
    ),
    (
        "GET api.test/hello?user_key=key",
        &[
            ("X-Forwarded-For", "198.51.100.7"),
            ("X_Forwarded_For", "203.0.113.9"),
            ("X-Forwarded_Proto", "https"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "evil.test"),
            ("x_forwarded_host", "evil.test"),
            ("X-Real-IP", "203.0.113.9"),
            ("X_Real-IP", "203.0.113.9"),
            ("x_3scale_proxy_secret_token", "mine"),
        ],
        "",
    ),
    ("GET pair.test/x", &[("app_id", "app"), ("app_key", "secret"), ("x_real_ip", "203.0.113.9")], ""),
    ("GET api.test/hello?user_key=key", &[("expect", "a-cake")], ""),
    ("GET api.test/hello", &[], ""),
    ("GET api.test/hello", &[("accept", "application/problem+json")], ""),
    ("GET api.test/hello?user_key=", &[], ""),
    ("GET api.test/hello?user_key=nobodys", &[], ""),
    ("GET api.test/hello?user_key=nobodys", &[("accept", "text/html, application/problem+json")], ""),
    ("GET api.test/hello?user_key=suspended", &[], ""),
    ("GET api.test/nothing?user_key=key", &[], ""),
    ("GET api.test/nothing?user_key=key", &[("accept", "application/problem+json")], ""),
    ("GET api.test/closed?user_key=key", &[], ""),
    ("DELETE api.test/hello?user_key=key", &[], ""),
    ("HEAD api.test/hello", &[], ""),
    ("GET nobodys.test/hello?user_key=key", &[], ""),
    ("GET api.test/a%2fb?user_key=key", &[], ""),
    ("GET pair.test/x?q=1", &[("app-id", "app"), ("app-key", "secret"), ("x-a", "1")], ""),
    ("POST pair.test/x", &[("app_id", "app"), ("app_key", "secret")], "a body"),
    ("GET pair.test/x", &[("app-id", "app"), ("app-key", "wrong")], ""),
    ("GET pair.test/x", &[("app-id", "app")], ""),
    ("GET basic.test/x", &[("authorization", "Basic a2V5Og==")], ""),
    ("GET basic.test/x", &[("authorization", "Bearer key"), ("x-secret", "mine")], ""),
    ("GET basic.test/x", &[("authorization", "Bearer nobodys")], ""),
];

/// Sends a case.
pub(crate) fn send(address: SocketAddr, (request, headers, body): &Case) -> Answer {
    let (method, url) = request.split_once(' ').unwrap();
    let (host, path) = url.split_at(url.find('/').unwrap());
    let mut headers = headers.to_vec();
    headers.push(("host", host));
    call(address, method, path, &headers, body)
}

/// What only a proxy says.
const VOUCHED: [&str; 4] = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-real-ip"];

/// What a client and the API behind see of a case, without what has to differ.
pub(crate) fn seen(answer: &Answer) -> BTreeMap<String, String> {
    let mut seen = BTreeMap::new();
    let mut tell = |name: &str, value: String| drop(seen.insert(name.to_owned(), value));
    tell("status", answer.status.to_string());
    for name in ["retry-after", "ratelimit-policy"] {
        tell(name, answer.header(name));
    }
    // What nothing is of needs no type, and Envoy sends none.
    if !answer.body.is_empty() {
        tell("content-type", answer.header("content-type"));
    }
    // Without what is left, which goes down, and the seconds.
    let state = answer.header("ratelimit");
    tell("ratelimit", state.split(';').next().unwrap_or_default().to_owned());
    if answer.header("content-type") == "application/problem+json" {
        let mut problem = answer.json();
        problem["instance"].take();
        tell("problem", problem.to_string());
    } else if answer.status == 200 && !answer.body.is_empty() {
        let upstream = answer.json();
        for name in ["method", "target", "body"] {
            tell(name, upstream[name].to_string());
        }
        for name in ["host", "x-3scale-proxy-secret-token", "x-secret", "x-3scale-debug", "x-a"] {
            tell(name, header(&upstream, name));
        }
        for name in VOUCHED {
            let spelled = name.replace('-', "_");
            // Some put a blank behind the comma.
            tell(name, header(&upstream, name).replace(", ", ","));
            tell(&spelled, header(&upstream, &spelled));
        }
        for name in ["x-forwarded_proto", "x_real-ip", "x_3scale_proxy_secret_token"] {
            tell(name, header(&upstream, name));
        }
        for name in ["authorization", "app-id", "app_id", "app-key", "app_key", "user_key"] {
            tell(name, header(&upstream, name));
        }
    } else {
        tell("body", answer.body.clone());
    }
    seen
}

/// The values of a header that the upstream saw.
pub(crate) fn header(upstream: &serde_json::Value, name: &str) -> String {
    let headers = upstream["headers"].as_array().unwrap();
    let values = headers.iter().filter(|pair| pair[0] == name).filter_map(|pair| pair[1].as_str());
    values.collect::<Vec<_>>().join(" | ")
}

/// What every application has used so far.
pub(crate) async fn totals(stack: &Stack) -> BTreeMap<String, u64> {
    let client = stack.listener_client(0);
    let mut all = BTreeMap::new();
    for (service, app) in [("api", "app"), ("api", "suspended"), ("pair", "app"), ("basic", "app")] {
        for (metric, used) in client.totals(service, app).await.unwrap() {
            all.insert(format!("{service}/{app}/{metric}"), used);
        }
    }
    all
}
