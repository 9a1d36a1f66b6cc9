//! What the micro-benchmarks work on: a service like the example's, its applications, and as many mapping rules as one
//! likes.
//!
//! The same for every run, so that figures of two versions can be compared.

use weir_core::{
    Application, ApplicationRef, ApplicationState, CredentialKind, Credentials, HttpMethod, KeyHasher,
    MappingRule, MappingRules, MetricName, MetricTree, Period, Plan, Proxy, Secret, Service, ServiceState,
    Timestamp, Usage, UsageLimit, UsageValue,
};

/// Monday, 23 November 2026, 03:31:59 UTC.
pub fn now() -> Timestamp {
    Timestamp::from_unix_ms(1_795_404_719_000)
}

/// A name that is known to be good.
fn metric(name: &str) -> MetricName {
    MetricName::parse(name).expect("a good name")
}

/// `hits` with a method for each of ten endpoints, and one metric for each of five APIs.
pub fn metrics() -> MetricTree {
    let methods = (0..10).map(|n| (metric(&format!("method_{n}")), Some(metric("hits"))));
    let apis = (0..5).map(|n| (metric(&format!("api_{n}")), None));
    let all: Vec<_> = [(metric("hits"), None)].into_iter().chain(methods).chain(apis).collect();
    MetricTree::new(&all).expect("a good tree")
}

/// A plan with three limits that one call touches and no run reaches.
pub fn plan(metrics: &MetricTree) -> Plan {
    let limit = |name: &str, period| UsageLimit {
        metric: metrics.find(name).expect("a metric of the tree"),
        period,
        max: 1_000_000_000_000,
    };
    let limits =
        vec![limit("hits", Period::Minute), limit("api_0", Period::Day), limit("api_0", Period::Month)];
    Plan::new("silver".parse().expect("a good id"), "Silver".into(), limits, metrics).expect("a good plan")
}

/// What one call uses: a method, which rolls up into `hits`, and its API.
pub fn usage() -> Usage {
    Usage::new([(metric("method_0"), UsageValue::Add(1)), (metric("api_0"), UsageValue::Add(1))])
}

/// The server secret of all benchmarks.
pub fn hasher() -> KeyHasher {
    KeyHasher::new(("1", &Secret::new("a server secret of some length")), &[])
}

/// A service in `user_key` mode with as many mapping rules.
pub fn service(rules: usize) -> Service {
    let metrics = metrics();
    Service {
        id: "api".parse().expect("a good id"),
        name: "API".into(),
        state: ServiceState::Active,
        credentials: CredentialKind::UserKey,
        referrer_filters_required: false,
        provider: weir_core::Provider::default(),
        is_default: false,
        tokens: vec![],
        alert_bins: weir_core::AlertBins::default(),
        plans: vec![plan(&metrics)],
        metrics,
        production: Proxy { mapping_rules: mapping_rules(rules), ..Proxy::default() },
        staging: None,
    }
}

/// One of its applications, and what it shows.
pub fn application(number: usize) -> (Application, Credentials) {
    let key = Secret::new(&format!("3d3a41c1f4b9e0a6-{number}"));
    let application = Application {
        reference: ApplicationRef {
            service: "api".parse().expect("a good id"),
            application: format!("app-{number}").parse().expect("a good id"),
        },
        state: ApplicationState::Active,
        plan: "silver".parse().expect("a good id"),
        user_key: Some(hasher().hash(&key)),
        app_keys: vec![],
        referrer_filters: vec![],
        redirect_url: None,
    };
    (application, Credentials::UserKey(key))
}

/// As many rules: `/v3/resource42/{id}/part2$`.
pub fn mapping_rules(count: usize) -> Vec<MappingRule> {
    let rule = |n: usize| MappingRule {
        http_method: if n.is_multiple_of(2) { HttpMethod::Get } else { HttpMethod::Any },
        pattern: format!("/v3/resource{n}/{{id}}/part{}$", n % 7).parse().expect("a good pattern"),
        metric: metric(&format!("method_{}", n % 10)),
        delta: 1,
        position: 0,
        last: false,
        free_answers: weir_core::StatusSet::default(),
    };
    (0..count).map(rule).collect()
}

/// Compiled, with a path that the last of them matches.
pub fn compiled_rules(count: usize) -> (MappingRules, String) {
    let last = count - 1;
    (MappingRules::new(mapping_rules(count)), format!("/v3/resource{last}/3f2c9a71/part{}", last % 7))
}
