//! One recorded stream of requests, five ways in: our gRPC, 3scale's HTTP API, Envoy, nginx and our gateway.
//!
//! Goal: whichever way a provider's calls come in, the same call gets the same verdict, and the same is counted.
//! Method: each way has applications of its own under the same plans, and plays the stream from its beginning, through
//! all limits. What gRPC and 3scale's API have to name themselves, the mapping rules are asked for, as a gateway would.

use std::net::SocketAddr;

use weir_core::mapping_rule::MappingRules;
use weir_core::{HttpMethod, MappingRule, MetricName, UsageValue};
use weir_proto::v1;
use weir_proto::v1::credentials::Kind;
use weir_tests::foreign::Foreign;
use weir_tests::http::{Answer, call};
use weir_tests::listener::usage_entry;
use weir_tests::stack::{Plan, Stack, TOKEN};

use crate::envoy::{envoy, for_services};
use crate::nginx;

/// Requests in the order they came: method, target, whose they are, and the verdict.
const STREAM: &str = include_str!("../../recorded/stream.txt");
const SERVICE_TOKEN: &str = "equivalence-service-token";
const WAYS: [&str; 5] = ["grpc", "3scale", "envoy", "nginx", "gateway"];

/// Rules as in the catalog: method, pattern, metric and how much of it.
const RULES: [(&str, &str, &str, u64); 5] = [
    ("GET", "/hello", "hello", 1),
    ("POST", "/mail/{to}$", "mail", 1),
    ("POST", "/mail", "hits", 1),
    ("GET", "/search?q={q}", "search", 3),
    ("GET", "/closed", "closed", 1),
];

fn catalog() -> String {
    let rule = |(method, pattern, metric, delta): &(&str, &str, &str, u64)| {
        format!("{{ method = \"{method}\", pattern = \"{pattern}\", metrics = {{ {metric} = {delta} }} }}")
    };
    let rules: Vec<String> = RULES.iter().map(rule).collect();
    let application = |way: &&str| {
        let kinds = [("a", "small", ""), ("b", "large", ""), ("s", "large", "state = \"suspended\"")];
        kinds.map(|(name, plan, state)| {
            format!("[[providers.services.applications]]\nid = \"{way}-{name}\"\nplan = \"{plan}\"\nuser_key = \"{way}-{name}\"\n{state}\n")
        }).concat()
    };
    format!(
        r#"
revision = 1
[[providers]]
name = "Equivalence"
[[providers.services]]
id = "api"
service_tokens = ["{SERVICE_TOKEN}"]
metrics = [
  {{ name = "hits" }}, {{ name = "hello", parent = "hits" }}, {{ name = "mail", parent = "hits" }},
  {{ name = "search" }}, {{ name = "closed" }},
]
mapping_rules = [{}]
[providers.services.proxy]
hosts = ["api.test"]
api_backend = "{{upstream}}"
[[providers.services.plans]]
id = "small"
limits = [
  {{ metric = "hits", period = "day", max = 30 }}, {{ metric = "mail", period = "eternity", max = 8 }},
  {{ metric = "search", period = "month", max = 40 }}, {{ metric = "closed", period = "day", max = 0 }},
]
[[providers.services.plans]]
id = "large"
limits = [{{ metric = "hits", period = "day", max = 80 }}, {{ metric = "closed", period = "day", max = 0 }}]
{}"#,
        rules.join(", "),
        WAYS.iter().map(application).collect::<String>()
    )
}

/// A request of the stream.
struct Recorded<'a> {
    method: &'a str,
    target: &'a str,
    /// `a`, `b`, `s`; `x`: nobody; `-`: no credentials.
    who: &'a str,
    verdict: &'a str,
}

fn recorded() -> Vec<Recorded<'static>> {
    let line = |line: &'static str| {
        let words: Vec<&str> = line.split(' ').collect();
        let [method, target, who, verdict] = words[..] else { panic!("{line}") };
        Recorded { method, target, who, verdict }
    };
    STREAM.lines().map(line).collect()
}

impl Recorded<'_> {
    /// What it uses by the mapping rules.
    fn usage(&self, rules: &MappingRules) -> Vec<(String, u64)> {
        let (path, query) = self.target.split_once('?').unwrap_or((self.target, ""));
        let argument = |name: &[u8]| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(found, _)| found.as_bytes() == name).map(|(_, value)| value.as_bytes().to_vec())
        };
        let usage = rules.matches(self.method, path.as_bytes(), &argument).usage;
        let added = |(metric, value): (&MetricName, UsageValue)| match value {
            UsageValue::Add(by) | UsageValue::Set(by) => (metric.to_string(), by),
        };
        usage.iter().map(added).collect()
    }
}

fn rules() -> MappingRules {
    let rule = |(method, pattern, metric, delta): &(&str, &str, &str, u64)| MappingRule {
        http_method: method.parse::<HttpMethod>().unwrap(),
        pattern: pattern.parse().unwrap(),
        metric: metric.parse().unwrap(),
        delta: *delta,
        position: 0,
        last: false,
        free_answers: weir_core::StatusSet::default(),
    };
    MappingRules::new(RULES.iter().map(rule).collect())
}

/// Everything that the stream is played through.
struct Ways {
    stack: Stack,
    envoy: Foreign,
    nginx: Foreign,
    rules: MappingRules,
}

impl Ways {
    async fn start() -> Self {
        let stack = Stack::start(&Plan { redis: true, ..Plan::small(&catalog()) }).await;
        let envoy = envoy(&stack, &for_services(&[("api", "[\"api.test\"]")]), TOKEN);
        let nginx = nginx::start(&stack, &catalog(), ("api", "production"), TOKEN);
        Self { stack, envoy, nginx, rules: rules() }
    }

    async fn verdict(&self, way: &str, request: &Recorded<'_>) -> String {
        let key = format!("{way}-{}", request.who);
        match way {
            "grpc" => self.by_grpc(request, &key).await,
            "3scale" => self.by_3scale(request, &key),
            "envoy" => through(self.envoy.addresses[0], request, &key),
            "nginx" => through(self.nginx.addresses[0], request, &key),
            _ => through(self.stack.gateways[0].address, request, &key),
        }
    }

    /// What a gateway finds by itself.
    fn found(&self, request: &Recorded<'_>) -> Result<Vec<(String, u64)>, String> {
        if request.who == "-" {
            return Err("credentials_missing".into());
        }
        let usage = request.usage(&self.rules);
        if usage.is_empty() { Err("no_mapping_rule".into()) } else { Ok(usage) }
    }

    async fn by_grpc(&self, request: &Recorded<'_>, key: &str) -> String {
        let usage = match self.found(request) {
            Ok(usage) => usage,
            Err(verdict) => return verdict,
        };
        let client = self.stack.listener_client(0);
        let message = v1::AuthRepRequest {
            credentials: Some(v1::Credentials { kind: Some(Kind::UserKey(key.into())) }),
            usage: usage.iter().map(|(metric, by)| usage_entry(metric, *by)).collect(),
            ..weir_tests::listener::auth_rep_request("", &[])
        };
        let decision = client.client.clone().auth_rep(client.signed(message)).await.unwrap().into_inner();
        decision.denial.map_or_else(|| "allowed".into(), |denial| denial.code)
    }

    fn by_3scale(&self, request: &Recorded<'_>, key: &str) -> String {
        let usage = match self.found(request) {
            Ok(usage) => usage,
            Err(verdict) => return verdict,
        };
        let usage: String = usage.iter().map(|(metric, by)| format!("&usage[{metric}]={by}")).collect();
        let target = format!(
            "/transactions/authrep.xml?service_token={SERVICE_TOKEN}&service_id=api&user_key={key}{usage}"
        );
        let address = self.stack.listeners[0].http.unwrap();
        let answer = call(address, "GET", &target, &[("3scale-options", "rejection_reason_header=1")], "");
        match weir_tests::management_api::outcome(&answer).split_once(' ') {
            None => "allowed".into(),
            Some((_, code)) => code.into(),
        }
    }
}

/// A call as a customer makes it, through whatever stands before the API.
fn through(address: SocketAddr, request: &Recorded<'_>, key: &str) -> String {
    let separator = if request.target.contains('?') { '&' } else { '?' };
    let target = match request.who {
        "-" => request.target.to_owned(),
        _ => format!("{}{separator}user_key={key}", request.target),
    };
    let answer: Answer =
        call(address, request.method, &target, &[("accept", "application/problem+json")], "");
    match answer.status {
        200 => "allowed".into(),
        _ => answer.json()["code"].as_str().unwrap_or("nothing").to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_stream_gets_the_same_verdicts_and_counters_whichever_way_it_comes() {
    let ways = Ways::start().await;
    let stream = recorded();
    let mut counters = vec![];
    for way in WAYS {
        for (place, request) in stream.iter().enumerate() {
            let verdict = ways.verdict(way, request).await;
            let Recorded { method, target, who, verdict: expected } = request;
            assert_eq!(verdict, *expected, "line {} by {way}: {method} {target} of {who}", place + 1);
        }
        let client = ways.stack.listener_client(0);
        let mut used = vec![];
        for who in ["a", "b", "s"] {
            used.push(client.totals("api", &format!("{way}-{who}")).await.unwrap());
        }
        counters.push((way, used));
    }
    let (_, first) = &counters[0];
    assert!(first[0]["hits"] == 30 && first[0]["mail"] == 7 && first[2].is_empty(), "{first:?}");
    for (way, used) in &counters {
        assert_eq!(used, first, "{way}");
    }
}
