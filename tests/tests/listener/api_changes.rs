//! 3scale's API while its store is away or has lost its catalog, and on the call that follows a change.
//!
//! Goal: nobody is refused for an outage, nobody waits for one, and what the catalog says holds on the next call at
//! every listener. Method: real Redis, killed, frozen or emptied; two listeners over one Redis, of which one publishes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use weir_tests::http::Answer;
use weir_tests::management_api::{CATALOG, ask, outcome, report, start, usage};
use weir_tests::stack::{Plan, Stack};
use weir_tests::wait::{until, until_async};

/// Three deadlines of 250 ms one after the other, and room for a busy machine.
const BOUND: Duration = Duration::from_millis(2_000);
/// A report has ten times as long.
const REPORT_BOUND: Duration = Duration::from_millis(4_500);

const TRANSACTION: &str = "transactions[0][app_id]=open&transactions[0][usage][hits]=1";

fn in_time(bound: Duration, call: impl Fn() -> Answer) -> Answer {
    let began = Instant::now();
    let answer = call();
    assert!(began.elapsed() < bound, "{:?} for {answer:?}", began.elapsed());
    answer
}

#[tokio::test]
async fn redis_away_is_told_in_time() {
    let (mut stack, address) = start(Plan { redis: true, ..Plan::small("") }).await;
    assert_eq!(ask(address, "authrep", "app_id=open&usage[hits]=1", "").status, 200);
    for freeze in [false, true] {
        let redis = stack.redis.as_mut().unwrap();
        if freeze {
            assert_eq!(redis.command("CLIENT PAUSE 20000 ALL"), "+OK");
        } else {
            redis.kill();
        }
        for (query, status) in [
            ("app_id=open&usage[hits]=1", 503),
            ("app_id=nobody", 503),
            ("provider_key=no&app_id=open", 503),
            ("service_id=nothing&app_id=open", 503),
            // What is wrong with a call itself is told all the same.
            ("app_id=open&user_key=uk", 403),
            ("app_id=%zz", 400),
        ] {
            let answer = in_time(BOUND, || ask(address, "authrep", query, ""));
            assert_eq!(answer.status, status, "{query} frozen {freeze}: {answer:?}");
            assert!(!answer.body.to_lowercase().contains("redis"), "{}", answer.body);
        }
        let reported = in_time(REPORT_BOUND, || report(address, TRANSACTION, &[("Idempotency-Key", "away")]));
        assert_eq!((reported.status, reported.header("retry-after").as_str()), (503, "1"));
        let redis = stack.redis.as_mut().unwrap();
        if freeze {
            redis.kill();
        }
        redis.restart();
        until("calls to pass again", || {
            (ask(address, "authrep", "app_id=open", "").status == 200).then_some(())
        });
    }
    until("the report to pass", || {
        (report(address, TRANSACTION, &[("Idempotency-Key", "away")]).status == 202).then_some(())
    });
    let used = usage(&ask(address, "authorize", "app_id=open", ""), "hits", "eternity");
    assert_eq!(
        used, "2/10",
        "an authrep without a decision does not count, a report under one id counts once"
    );
}

#[tokio::test]
async fn a_store_that_lost_its_catalog_refuses_nobody() {
    let (stack, address) = start(Plan { redis: true, ..Plan::small("") }).await;
    assert_eq!(ask(address, "authrep", "app_id=open", "").status, 200);
    assert_eq!(stack.redis.as_ref().unwrap().command("FLUSHALL"), "+OK");
    for query in
        ["app_id=open", "app_id=open", "provider_key=no&app_id=open", "service_id=nothing&app_id=open"]
    {
        assert_eq!(ask(address, "authrep", query, "").status, 503, "{query}");
    }
    assert_eq!(report(address, TRANSACTION, &[]).status, 503);
}

/// Puts a catalog in force; one listener has taken it up then.
async fn change(stack: &Stack, revision: u64, catalog: &str) {
    stack.put_catalog(&catalog.replace("revision = 1", &format!("revision = {revision}")));
    let published = format!("revision {revision} published");
    until_async("the catalog to be published", || async {
        stack.listeners.iter().any(|role| role.log().contains(&published)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn every_change_holds_on_the_next_call_at_every_listener() {
    let (stack, _) = start(Plan { redis: true, listeners: 2, ..Plan::small("") }).await;
    let addresses: Vec<SocketAddr> = stack.listeners.iter().map(|role| role.http.unwrap()).collect();
    let all = |query: &str, expected: &str| {
        for address in &addresses {
            let answer = ask(*address, "authorize", query, "rejection_reason_header=1");
            assert_eq!(outcome(&answer), expected, "{query}: {}", answer.body);
        }
    };
    let token = "service_token=keys-service-token&service_id=keys&user_key=uk";
    let oauth = "service_id=pair&app_id=locked";
    all("app_id=open", "200");
    all(token, "200");
    all(oauth, "409 application_key_invalid");
    all("service_id=keys&user_key=uk", "200");

    let without =
        CATALOG.replace("provider_keys = [\"postbote-provider-key\"]\n", "provider_keys = [\"new\"]\n");
    change(&stack, 2, &without).await;
    all("service_id=pair&app_id=open", "403 provider_key_invalid");
    all("app_id=open", "403 provider_key_invalid_or_service_missing");
    all("provider_key=new&app_id=open", "200");

    change(&stack, 3, &CATALOG.replace("service_tokens = [\"keys-service-token\"]\n", "")).await;
    all(token, "403 service_token_invalid");
    all("app_id=open", "200");

    change(
        &stack,
        4,
        &CATALOG
            .replace("credentials = \"app_id_and_key\"\nreferrer", "credentials = \"client_id\"\nreferrer"),
    )
    .await;
    all(oauth, "200");

    // The order of services says which is the default: now `keys` is.
    let (head, services) = CATALOG.split_once("[[providers.services]]\nid = \"pair\"").unwrap();
    let (pair, rest) = services.split_once("[[providers.services]]\nid = \"keys\"").unwrap();
    let (keys, rest) = rest.split_once("[[providers.services]]\nid = \"oauth\"").unwrap();
    let start = "[[providers.services]]\nid = ";
    change(&stack, 5, &format!("{head}{start}\"keys\"{keys}{start}\"pair\"{pair}{start}\"oauth\"{rest}"))
        .await;
    all("user_key=uk", "200");
    all("app_id=open", "403 user_key_invalid");
}

#[tokio::test]
async fn a_report_is_judged_by_what_holds_now() {
    let (stack, _) = start(Plan { redis: true, listeners: 2, ..Plan::small("") }).await;
    let addresses: Vec<SocketAddr> = stack.listeners.iter().map(|role| role.http.unwrap()).collect();
    let by_key = "service_id=keys&transactions[0][user_key]=uk&transactions[0][usage][hits]=1";
    let send = |form: &str| {
        for address in &addresses {
            assert_eq!(report(*address, form, &[]).status, 202);
        }
    };
    let used = |app: &str| usage(&ask(addresses[0], "authorize", app, ""), "hits", "eternity");
    send(by_key);
    assert_eq!(used("service_id=keys&user_key=uk"), "2/3");
    // The key goes to another application; the first one is left without.
    let holder = "{ id = \"holder\", plan = \"gold\", user_key = \"uk\" }";
    let moved = "{ id = \"holder\", plan = \"gold\", user_key = \"old\" }, { id = \"heir\", plan = \"gold\", user_key = \"uk\" }";
    change(&stack, 2, &CATALOG.replace(holder, moved)).await;
    send(by_key);
    assert_eq!([used("service_id=keys&user_key=uk"), used("service_id=keys&user_key=old")], ["2/3", "2/3"]);
    change(&stack, 3, &CATALOG.replace(holder, "")).await;
    send(by_key);
    send("service_id=keys&transactions[0][app_id]=holder&transactions[0][usage][hits]=1");
    change(&stack, 4, &CATALOG.replace(holder, moved)).await;
    assert_eq!([used("service_id=keys&user_key=uk"), used("service_id=keys&user_key=old")], ["2/3", "2/3"]);
}
