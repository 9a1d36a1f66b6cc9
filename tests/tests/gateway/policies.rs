//! Policies over real sockets: what each does to a call, what it leaves alone, and what it costs.
//!
//! Goal: a policy holds for the calls that it is for, in the order of its list, and a call that it refuses is neither
//! sent upstream nor counted. Method: each module starts one data plane with a service per list of policies, and runs
//! tables of calls against it: what the client is told, what the upstream saw, and what was counted.

mod access_log;
mod anonymous;
mod claims;
mod cors;
mod edge_limits;
mod headers;
mod ip_check;
mod maintenance;
mod payload_limits;
mod retry;
mod routing;
mod running;
mod upstream_answers;
mod upstream_pool;
mod upstream_tls;
mod url_rewriting;

use weir_tests::wait::until_async;

use crate::world::{Api, PLAIN, World};

/// The line for a proxy with these policies, as TOML tables.
fn proxy(policies: &str) -> String {
    // Inline tables are lines.
    format!("policies = [{}]", policies.replace('\n', " "))
}

/// A service like [`PLAIN`] with further lines for its proxy.
fn api<'a>(id: &'a str, proxy: &'a str) -> Api<'a> {
    Api { id, proxy, ..PLAIN }
}

/// A call `METHOD /target|…` as one to a service.
fn to(service: &str, call: &str) -> String {
    call.replacen(" /", &format!(" {service}.test/"), 1)
}

/// A request with one more header.
fn with(request: &str, header: &str) -> String {
    match request.split_once("|||") {
        Some((head, body)) => format!("{head}|{header}|||{body}"),
        None => format!("{request}|{header}"),
    }
}

/// The status, and of a refusal its stable code.
fn code(world: &World, request: &str) -> String {
    let answer = world.call(&with(request, "Accept: application/problem+json"));
    match answer.header("content-type").as_str() {
        "application/problem+json" => {
            let problem = answer.json();
            assert_eq!(problem["status"], answer.status, "{request}");
            format!("{} {}", answer.status, problem["code"].as_str().unwrap_or("-"))
        }
        _ => answer.status.to_string(),
    }
}

/// Makes calls to a service, one after the other. `200` passes: it reaches the upstream and is counted, once. Another
/// status with a code is refused, as a problem document: it does neither.
async fn judge(world: &World, service: &str, calls: &[(&str, &str)]) {
    let (sent, used) = (world.stack.upstream.received(), hits(world, service, "app").await);
    let mut passed = 0;
    for (call, expected) in calls {
        let found = code(world, &to(service, call));
        assert_eq!(found, *expected, "{service}: {call}");
        passed += u64::from(found == "200");
        assert_eq!(world.stack.upstream.received() - sent, passed, "upstream of {service}: {call}");
    }
    comes_to(world, service, "app", used + passed).await;
}

/// What an application has used.
async fn hits(world: &World, service: &str, application: &str) -> u64 {
    let totals = world.stack.listener_client(0).totals(service, application).await;
    totals.expect("the listener answers").get("hits").copied().unwrap_or_default()
}

/// Waits until an application has used so many hits: what was counted and taken back comes in later.
async fn comes_to(world: &World, service: &str, application: &str, expected: u64) {
    let what = format!("{service}/{application} to come to {expected} hits");
    until_async(&what, || async { (hits(world, service, application).await == expected).then_some(()) })
        .await;
}

/// A header of an answer; empty: it has none.
#[track_caller]
fn answers(world: &World, request: &str, name: &str, expected: &str) {
    let answer = world.call(request);
    assert_eq!(answer.header(name), expected, "{name} of the answer to {request}: {answer:?}");
}
