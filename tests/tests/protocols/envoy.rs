//! Envoy with our listener behind `ext_authz` and behind the rate limit filter, by the configurations we ship.

use std::net::SocketAddr;

use weir_proto::v1::Period;
use weir_tests::foreign::{Foreign, free_addresses};
use weir_tests::http::{Answer, call, get};
use weir_tests::stack::{Stack, TOKEN};
use weir_tests::wait::until;

use crate::edge::{self, CASES, send};

const EXT_AUTHZ: &str = include_str!("../../../deploy/envoy/envoy-ext-authz.yaml");
const RATE_LIMIT: &str = include_str!("../../../deploy/envoy/envoy-ratelimit.yaml");

/// The virtual host of our file once for each of these: a service's id, and its hosts.
pub(crate) fn for_services(services: &[(&str, &str)]) -> String {
    let start = EXT_AUTHZ.find("                    - name: mail_api\n").unwrap();
    let end = start + EXT_AUTHZ[start..].find("                http_filters:\n").unwrap();
    let host = |(id, hosts): &(&str, &str)| {
        EXT_AUTHZ[start..end].replace("mail_api", id).replace("[\"api.postbote.example\"]", hosts)
    };
    let hosts: String = services.iter().map(host).collect();
    [&EXT_AUTHZ[..start], &hosts, &EXT_AUTHZ[end..]].concat()
}

/// For the edge's catalog.
fn ext_authz() -> String {
    let api = ("api", "[\"api.test\", \"*.api.test\"]");
    for_services(&[api, ("pair", "[\"pair.test\"]"), ("basic", "[\"basic.test\"]")])
}

/// Envoy by one of our files, with the ports of the test.
pub(crate) fn envoy(stack: &Stack, config: &str, token: &str) -> Foreign {
    let address = free_addresses(1)[0];
    let mut config = config.to_owned();
    for (ours, theirs) in
        [(10000, address), (8090, stack.listeners[0].address), (8110, stack.upstream.address())]
    {
        let (ours, theirs) = (format!("port_value: {ours} "), format!("port_value: {} ", theirs.port()));
        assert!(config.contains(&ours), "{ours}");
        config = config.replace(&ours, &theirs);
    }
    Foreign::envoy(address, &config, token)
}

#[tokio::test(flavor = "multi_thread")]
async fn ext_authz_answers_as_our_gateway_does() {
    let stack = edge::start().await;
    let envoy = envoy(&stack, &ext_authz(), TOKEN);
    let (ours, theirs) = (stack.gateways[0].address, envoy.addresses[0]);
    let forms = [
        (
            "POST api.test/form",
            &[("content-type", "application/x-www-form-urlencoded")][..],
            "a=1&user_key=key",
        ),
        ("POST api.test/form?user_key=key", &[][..], &*"x".repeat(3000).leak()),
    ];
    let compare = |case: &edge::Case| {
        let (mut ours, mut theirs) = (edge::seen(&send(ours, case)), edge::seen(&send(theirs, case)));
        for seen in [&mut ours, &mut theirs] {
            // Envoy leaves forms as they are.
            seen.retain(|name, _| case.0 != "POST api.test/form" || name != "body");
            // For a client on loopback, Envoy appends its machine's address.
            if let Some(chain) = seen.get_mut("x-forwarded-for") {
                *chain = chain.rsplit_once(',').map_or_else(String::new, |(before, _)| before.to_owned());
            }
        }
        assert_eq!(theirs, ours, "{case:?}");
    };
    CASES.iter().for_each(compare);
    let counted = edge::totals(&stack).await;
    assert_eq!(counted["api/app/hits"] % 2, 0, "each as often as the other: {counted:?}");
    forms.iter().for_each(compare);
    assert!(!envoy.logs().contains(TOKEN));
}

#[tokio::test(flavor = "multi_thread")]
async fn ext_authz_counts_once_and_refuses_beyond() {
    let stack = edge::start().await;
    let envoy = envoy(&stack, &ext_authz(), TOKEN);
    let hello = || call(envoy.addresses[0], "GET", "/hello?user_key=one", &[("x-request-id", "same")], "");
    let statuses: Vec<u16> = (0..4).map(|_| hello().status).collect();
    assert_eq!(statuses, [200, 200, 429, 429]);
    let refused = hello();
    assert_eq!(refused.body, "Limits exceeded");
    assert!(refused.header("ratelimit").starts_with("\"hits-day\";r=0;t="), "{refused:?}");
    assert_eq!(refused.header("ratelimit-policy"), "\"hits-day\";q=2;w=86400");
    assert!(refused.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 0), "{refused:?}");
    assert_eq!(stack.listener_client(0).used("one", "hits", Period::Day).await.unwrap(), 2);
    let metrics = get(stack.listeners[0].telemetry, "/metrics").body;
    for (outcome, count) in [("allowed", 2), ("limits_exceeded", 3)] {
        let line =
            format!("weir_listener_edge_calls_total{{asker=\"envoy\",outcome=\"{outcome}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
}

/// A token for all services opens a virtual host's service to it alone, even where it takes every host.
#[tokio::test(flavor = "multi_thread")]
async fn a_virtual_host_of_envoy_stands_in_front_of_one_service() {
    let stack = edge::start().await;
    let everybody = envoy(&stack, &for_services(&[("api", "[\"*\"]")]), TOKEN);
    let ask = |envoy: &Foreign, host: &str, target: &str| {
        let headers = [("host", host), ("app-id", "app"), ("app-key", "secret")];
        call(envoy.addresses[0], "GET", target, &headers, "").status
    };
    assert_eq!(ask(&everybody, "api.test", "/hello?user_key=key"), 200);
    assert_eq!(ask(&everybody, "pair.test", "/x"), 404);
    let shipped = envoy(&stack, &ext_authz(), TOKEN);
    assert_eq!(ask(&shipped, "pair.test", "/x"), 200);
    assert_eq!(ask(&shipped, "nobodys.test", "/x"), 404);
    let staging = envoy(&stack, &ext_authz(), "staging-gateway-token");
    assert_eq!(ask(&staging, "pair.test", "/x"), 404);
    // The same by metadata, for who has one service.
    let bound = for_services(&[("api", "[\"*\"]")])
        .replace(
            "context_extensions: { weir-service: api, weir-environment: production }",
            "disable_request_body_buffering: true",
        )
        .replace(
            "initial_metadata:\n",
            "initial_metadata:\n                          - { key: weir-service, value: api }\n",
        );
    let bound = envoy(&stack, &bound, TOKEN);
    assert_eq!(ask(&bound, "api.test", "/hello?user_key=key"), 200);
    assert_eq!(ask(&bound, "pair.test", "/x"), 404);
    assert_eq!(stack.upstream.received(), 3, "nothing else got through");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_decision_nothing_passes_envoy() {
    let mut stack = edge::start().await;
    let stranger = envoy(&stack, &ext_authz(), "not-a-token");
    let narrow = envoy(&stack, &ext_authz(), "narrow-gateway-token");
    let envoys = [(ext_authz(), "/hello?user_key=key"), (RATE_LIMIT.to_owned(), "/hello")]
        .map(|(config, target)| (envoy(&stack, &config, TOKEN), target));
    let ask = |address: SocketAddr, target: &str| call(address, "GET", target, &[("x-api-key", "key")], "");
    for (envoy, target) in &envoys {
        assert_eq!(ask(envoy.addresses[0], target).status, 200);
    }
    let received = stack.upstream.received();
    assert_eq!(get(stranger.addresses[0], "/hello?user_key=key").status, 503);
    let not_its_own = get(narrow.addresses[0], "/hello?user_key=key");
    assert_eq!((not_its_own.status, not_its_own.body.as_str()), (404, ""));

    stack.redis.as_mut().unwrap().kill();
    let away = |envoys: &[(Foreign, &str)]| {
        for (number, (envoy, target)) in envoys.iter().enumerate() {
            let answer = ask(envoy.addresses[0], target);
            assert_eq!(answer.status, 503, "{answer:?}");
            if number == 0 {
                assert_eq!(
                    (answer.header("retry-after").as_str(), answer.body.as_str()),
                    ("1", "Please try again shortly.")
                );
            }
        }
    };
    away(&envoys);
    stack.listeners[0].kill();
    away(&envoys);
    assert_eq!(stack.upstream.received(), received, "nothing got through");
    stack.redis.as_mut().unwrap().restart();
    stack.listeners[0].start();
    until("Envoy to reach the listener again", || {
        (ask(envoys[0].0.addresses[0], envoys[0].1).status == 200).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rate_limit_filter_counts_all_descriptors_or_none() {
    let stack = edge::start().await;
    let envoy = envoy(&stack, RATE_LIMIT, TOKEN);
    let ask = |target: &str, key: &str| call(envoy.addresses[0], "GET", target, &[("x-api-key", key)], "");
    let statuses = |target: &str| -> Vec<u16> { (0..3).map(|_| ask(target, "one").status).collect() };
    // The rule counts a hit and two searches, the route a search more.
    assert_eq!(statuses("/search?q=1"), [200, 200, 429]);
    let client = stack.listener_client(0);
    assert_eq!(
        client.totals("api", "one").await.unwrap(),
        [("hits".into(), 2), ("searches".into(), 6)].into()
    );
    let refused: Answer = ask("/hello", "one");
    assert_eq!((refused.status, refused.body.as_str()), (429, "Limits exceeded"));
    assert!(refused.header("ratelimit").starts_with("\"hits-day\";r=0;t="), "{refused:?}");
    assert!(refused.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 0), "{refused:?}");
    let passed = ask("/hello", "two");
    assert!(passed.header("ratelimit").starts_with("\"hits-day\";r=1;t="), "{passed:?}");
    for (target, key) in [("/hello", "nobodys"), ("/hello", "suspended"), ("/nothing", "two")] {
        assert_eq!(
            ask(target, key).status,
            503,
            "{target} of {key}: an error, which failure_mode_deny refuses"
        );
    }
}
