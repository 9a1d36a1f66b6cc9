//! What the modules share: catalogs of many services, requests in one line of text, and what came of them.
//!
//! Every key, password and token has `s3cret` in it, so that one search finds whichever reached a log.

use std::collections::BTreeMap;

use serde_json::Value;
use weir_tests::http::{self, Answer};
use weir_tests::stack::{Plan, Stack};

/// The key of application `app` in every service; `{key}` in requests.
pub(crate) const KEY: &str = "open-s3cret";

/// One service of a catalog, with one application `app` under one plan.
#[derive(Clone, Copy)]
pub(crate) struct Api<'a> {
    /// Its id.
    pub(crate) id: &'a str,
    /// Its mode of credentials.
    pub(crate) mode: &'a str,
    /// A TOML list; empty: `<id>.test` alone.
    pub(crate) hosts: &'a str,
    /// Its mapping rules, as TOML tables.
    pub(crate) rules: &'a str,
    /// `{upstream}` is the stack's upstream; empty: none.
    pub(crate) backend: &'a str,
    /// Further lines of its proxy.
    pub(crate) proxy: &'a str,
    /// The plan's limits, as TOML tables.
    pub(crate) limits: &'a str,
    /// Further applications.
    pub(crate) applications: &'a str,
}

/// A service that takes `user_key` in the query and counts a hit for everything.
pub(crate) const PLAIN: Api<'static> = Api {
    id: "plain",
    mode: "user_key",
    hosts: "",
    rules: r#"{ method = "ANY", pattern = "/", metrics = { hits = 1 } }"#,
    backend: "{upstream}",
    proxy: "",
    limits: "",
    applications: "",
};

impl Api<'_> {
    fn toml(&self) -> String {
        let Self { id, mode, rules, proxy, limits, applications, .. } = self;
        let hosts = match self.hosts {
            "" => format!("[\"{id}.test\"]"),
            hosts => hosts.to_owned(),
        };
        let backend = match self.backend {
            "" => String::new(),
            url => format!("api_backend = \"{url}\""),
        };
        let key = match *mode {
            "user_key" => format!("user_key = \"{KEY}\""),
            _ => format!("app_keys = [\"{KEY}\"]"),
        };
        format!(
            r#"
[[providers.services]]
id = "{id}"
credentials = "{mode}"
metrics = [{{ name = "hits" }}, {{ name = "search", parent = "hits" }}, {{ name = "mail" }}]
mapping_rules = [{rules}]
[providers.services.proxy]
hosts = {hosts}
{backend}
{proxy}
[[providers.services.plans]]
id = "plan"
limits = [{limits}]
[[providers.services.applications]]
id = "app"
plan = "plan"
{key}
{applications}
"#
        )
    }
}

/// A catalog of these services.
pub(crate) fn catalog(revision: u64, apis: &[Api<'_>]) -> String {
    let services: String = apis.iter().map(Api::toml).collect();
    format!("revision = {revision}\n[[providers]]\nname = \"Gateway tests\"\n{services}")
}

/// A listener, a gateway and an upstream.
pub(crate) struct World {
    /// The processes.
    pub(crate) stack: Stack,
}

impl World {
    /// Starts everything for these services.
    pub(crate) async fn start(apis: &[Api<'_>]) -> Self {
        Self::start_with(apis, "").await
    }

    /// The same with further lines for the gateway's file.
    pub(crate) async fn start_with(apis: &[Api<'_>], gateway_lines: &str) -> Self {
        let plan = Plan { gateway_lines: gateway_lines.to_owned(), ..Plan::small(&catalog(1, apis)) };
        Self { stack: Stack::start(&plan).await }
    }

    /// Sends `METHOD host/target|Name: value|…|` and, behind an empty part, the body: `POST a.test/x|||body`.
    pub(crate) fn call(&self, request: &str) -> Answer {
        let request = request.replace("{key}", KEY);
        let (head, body) = request.split_once("|||").unwrap_or((&request, ""));
        let mut parts = head.split('|');
        let (method, rest) = parts.next().and_then(|line| line.split_once(' ')).expect("METHOD host/target");
        let (host, target) = rest.split_at(rest.find('/').expect("host/target"));
        let mut headers = vec![("Host", host)];
        headers.extend(parts.map(|part| part.split_once(": ").expect("Name: value")));
        http::call(self.stack.gateways[0].address, method, target, &headers, body)
    }

    /// Sends these bytes, `{key}` filled in.
    pub(crate) fn raw(&self, bytes: &str) -> Answer {
        http::raw(self.stack.gateways[0].address, &bytes.replace("{key}", KEY))
    }

    /// The request is answered like this: a status, and the gateway's own text behind it if it is none of success.
    #[track_caller]
    pub(crate) fn check(&self, request: &str, expected: &str) {
        assert_eq!(summary(&self.call(request)), expected, "{request}");
    }

    /// These bytes are answered like this.
    #[track_caller]
    pub(crate) fn check_raw(&self, bytes: &str, expected: &str) {
        assert_eq!(summary(&self.raw(bytes)), expected, "{bytes:?}");
    }

    /// What the upstream saw of a request.
    #[track_caller]
    pub(crate) fn seen(&self, request: &str) -> Value {
        let answer = self.call(request);
        assert_eq!(answer.status, 200, "{request}: {answer:?}");
        answer.json()
    }

    /// The request reaches the upstream with this target.
    #[track_caller]
    pub(crate) fn lands(&self, request: &str, target: &str) {
        assert_eq!(self.seen(request)["target"], target, "{request}");
    }

    /// The request reaches the upstream with this header; empty: without it.
    #[track_caller]
    pub(crate) fn sends(&self, request: &str, name: &str, expected: &str) {
        assert_eq!(header_seen(&self.seen(request), name), expected, "{name} of {request}");
    }

    /// What a service's application has used.
    pub(crate) async fn used(&self, service: &str) -> BTreeMap<String, u64> {
        let client = self.stack.listener_client(0);
        client.totals(service, "app").await.expect("the listener answers")
    }

    /// Nothing secret was logged. Ends everything.
    pub(crate) fn finish(mut self) {
        for role in self.stack.gateways.iter_mut().chain(&mut self.stack.listeners) {
            role.kill();
            let log = role.log();
            let secrets = [weir_tests::stack::TOKEN, "s3cret", "stack-server-secret"];
            let told: Vec<&str> =
                log.lines().filter(|line| secrets.iter().any(|secret| line.contains(secret))).collect();
            assert!(told.is_empty(), "secrets in a log: {told:#?}");
            assert!(!log.contains("panic"), "{log}");
        }
    }
}

/// Status, and the body if the answer is no success.
pub(crate) fn summary(answer: &Answer) -> String {
    match answer.status {
        200..=299 => answer.status.to_string(),
        status => format!("{status} {}", answer.body).trim().to_owned(),
    }
}

/// The values of a header that the upstream saw, joined.
pub(crate) fn header_seen(seen: &Value, name: &str) -> String {
    let headers = seen["headers"].as_array().expect("the upstream's echo");
    let values = headers.iter().filter(|pair| pair[0] == name).filter_map(|pair| pair[1].as_str());
    values.collect::<Vec<_>>().join(", ")
}

/// `hits=2 search=1`, what usage grew by.
pub(crate) fn growth(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> String {
    let by = |metric: &String| after[metric] - before.get(metric).copied().unwrap_or_default();
    let grown = after.keys().filter(|metric| by(metric) > 0);
    grown.map(|metric| format!("{metric}={}", by(metric))).collect::<Vec<_>>().join(" ")
}
