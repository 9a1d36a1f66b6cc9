//! What the benchmarks work on: a service like the example's, and as many mapping rules as one likes.
//!
//! The same for every run, so that figures of two versions can be compared.

use weir_core::{
    HttpMethod, MappingRule, MappingRules, MetricName, MetricTree, Period, Plan, Timestamp, Usage,
    UsageLimit, UsageValue,
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

/// A plan with three limits that one call touches.
pub fn plan(metrics: &MetricTree) -> Plan {
    let limit = |name: &str, period, max| UsageLimit {
        metric: metrics.find(name).expect("a metric of the tree"),
        period,
        max,
    };
    let limits = vec![
        limit("hits", Period::Minute, 300),
        limit("api_0", Period::Day, 10_000),
        limit("api_0", Period::Month, 200_000),
    ];
    Plan::new("silver".parse().expect("a good id"), "Silver".into(), limits, metrics).expect("a good plan")
}

/// What one call uses: a method, which rolls up into `hits`, and its API.
pub fn usage() -> Usage {
    Usage::new([(metric("method_0"), UsageValue::Add(1)), (metric("api_0"), UsageValue::Add(1))])
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
    };
    (0..count).map(rule).collect()
}

/// Compiled, with a path that the last of them matches.
pub fn compiled_rules(count: usize) -> (MappingRules, String) {
    let last = count - 1;
    (MappingRules::new(mapping_rules(count)), format!("/v3/resource{last}/3f2c9a71/part{}", last % 7))
}
