//! Every decision of Authorize, AuthRep and Report, in each credential mode.

use tonic::Code;
use weir_proto::v1;
use weir_proto::v1::credentials::Kind;
use weir_tests::listener::{ListenerClient, auth_rep_request, usage_entry};
use weir_tests::stack::{Plan, Stack};

const CATALOG: &str = r#"
revision = 1
[[providers]]
name = "Three modes"

[[providers.services]]
id = "api"
name = "By user_key"
credentials = "user_key"
metrics = [{ name = "hits" }, { name = "search", parent = "hits" }, { name = "mail" }]
[providers.services.proxy]
hosts = ["one.test"]
[[providers.services.plans]]
id = "plan"
name = "Plan"
limits = [
  { metric = "hits", period = "day", max = 3 },
  { metric = "hits", period = "eternity", max = 100 },
  { metric = "mail", period = "month", max = 0 },
]
[[providers.services.applications]]
id = "app"
plan = "plan"
user_key = "key"
[[providers.services.applications]]
id = "exhausted"
plan = "plan"
user_key = "exhausted"

[[providers.services]]
id = "pair"
name = "By app_id and app_key"
credentials = "app_id_and_key"
referrer_filters_required = true
metrics = [{ name = "hits" }]
[providers.services.proxy]
hosts = ["two.test"]
[[providers.services.plans]]
id = "plan"
name = "Plan"
limits = []
[[providers.services.applications]]
id = "two-keys"
plan = "plan"
app_keys = ["first", "second", { key = "ended", until = 2020-01-01T00:00:00Z }]
[[providers.services.applications]]
id = "no-key"
plan = "plan"
[[providers.services.applications]]
id = "filtered"
plan = "plan"
referrer_filters = ["*.example.org"]
[[providers.services.applications]]
id = "waiting"
plan = "plan"
state = "pending"

[[providers.services]]
id = "closed"
name = "Suspended"
state = "suspended"
credentials = "client_id"
metrics = [{ name = "hits" }]
[providers.services.proxy]
hosts = ["three.test"]
[[providers.services.plans]]
id = "plan"
name = "Plan"
limits = []
[[providers.services.applications]]
id = "client"
plan = "plan"
"#;

async fn start() -> (Stack, ListenerClient) {
    let stack = Stack::start(&Plan { gateways: 0, ..Plan::small(CATALOG) }).await;
    let client = stack.listener_client(0);
    (stack, client)
}

fn pair(app_id: &str, app_key: Option<&str>) -> Kind {
    Kind::AppIdAndKey(v1::AppIdAndKey { app_id: app_id.into(), app_key: app_key.map(str::to_owned) })
}

/// What a decision says: `"ok hits/day 1 of 3"`, or the code of a refusal.
fn words(decision: &v1::Decision) -> String {
    let limit = |limit: &v1::LimitStatus| {
        let period = limit.period().as_str_name().trim_start_matches("PERIOD_").to_lowercase();
        format!(" {}/{period} {} of {}", limit.metric, limit.used, limit.max)
    };
    match &decision.denial {
        Some(denial) => denial.code.clone() + &denial.limit.as_ref().map(limit).unwrap_or_default(),
        None => "ok".to_owned() + &decision.limits.iter().map(limit).collect::<String>(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_judged_in_each_mode() {
    let (_stack, client) = start().await;
    let key = |text: &str| Kind::UserKey(text.into());
    let id = |text: &str| Kind::ClientId(text.into());
    let cases = [
        ("api", key("key"), None, "ok hits/day 1 of 3 hits/eternity 1 of 100"),
        ("api", key("nobody's"), None, "user_key_invalid"),
        ("api", pair("app", Some("key")), None, "user_key_invalid"),
        ("nothing", key("key"), None, "service_id_invalid"),
        ("pair", pair("two-keys", Some("first")), None, "ok"),
        ("pair", pair("two-keys", Some("second")), None, "ok"),
        ("pair", pair("two-keys", Some("ended")), None, "application_key_invalid"),
        ("pair", pair("two-keys", Some("third")), None, "application_key_invalid"),
        ("pair", pair("two-keys", None), None, "application_key_invalid"),
        ("pair", pair("no-key", None), None, "ok"),
        ("pair", pair("nobody", None), None, "application_not_found"),
        ("pair", pair("no such id", None), None, "application_not_found"),
        ("pair", id("no-key"), None, "application_not_found"),
        ("pair", pair("filtered", None), None, "referrer_not_allowed"),
        ("pair", pair("filtered", None), Some("www.example.org"), "ok"),
        ("pair", pair("waiting", None), None, "application_not_active"),
        ("closed", id("client"), None, "service_not_active"),
        ("closed", id("nobody"), None, "application_not_found"),
    ];
    for (service, kind, referrer, expected) in cases {
        let mut message = auth_rep_request("", &[("hits", 1)]);
        message.service_id = service.into();
        message.credentials = Some(v1::Credentials { kind: Some(kind.clone()) });
        message.referrer = referrer.map(str::to_owned);
        let decision = client.client.clone().auth_rep(client.signed(message)).await.unwrap().into_inner();
        assert_eq!(words(&decision), expected, "{service} {expected}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_judged_against_the_plan() {
    let (_stack, client) = start().await;
    let cases: [(&[(&str, u64)], &str); 8] = [
        (&[("search", 1)], "ok hits/day 1 of 3 hits/eternity 1 of 100"),
        (&[("search", 1), ("hits", 1)], "ok hits/day 3 of 3 hits/eternity 3 of 100"),
        (&[("hits", 1)], "limits_exceeded hits/day 3 of 3"),
        (&[("hits", 0)], "ok hits/day 3 of 3 hits/eternity 3 of 100"),
        (&[("mail", 1)], "limits_exceeded mail/month 0 of 0"),
        (&[("mail", 0)], "ok mail/month 0 of 0"),
        (&[("hitz", 1)], "metric_invalid"),
        (&[], "ok hits/day 3 of 3 hits/eternity 3 of 100 mail/month 0 of 0"),
    ];
    for (usage, expected) in cases {
        assert_eq!(words(&client.auth_rep("key", usage).await.unwrap()), expected, "{usage:?}");
    }
    assert_eq!(client.used("app", "search", v1::Period::Hour).await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn authorize_counts_nothing() {
    let (_stack, client) = start().await;
    let authorize = async |user_key: &str, usage: &[(&str, u64)]| {
        let message = v1::AuthorizeRequest {
            app_id: String::new(),
            service_id: "api".into(),
            credentials: Some(v1::Credentials { kind: Some(Kind::UserKey(user_key.into())) }),
            usage: usage.iter().map(|(metric, by)| usage_entry(metric, *by)).collect(),
            referrer: None,
        };
        words(&client.client.clone().authorize(client.signed(message)).await.unwrap().into_inner())
    };
    let untouched = "ok hits/day 0 of 3 hits/eternity 0 of 100";
    assert_eq!(authorize("key", &[("hits", 3)]).await, untouched);
    assert_eq!(authorize("key", &[("hits", 4)]).await, "limits_exceeded hits/day 0 of 3");
    assert_eq!(authorize("key", &[]).await, format!("{untouched} mail/month 0 of 0"), "all limits");
    report(&client, &[("exhausted", 4, None)], "").await.unwrap();
    assert_eq!(authorize("exhausted", &[]).await, "limits_exceeded hits/day 4 of 3");
}

async fn report(
    client: &ListenerClient,
    transactions: &[(&str, u64, Option<i64>)],
    id: &str,
) -> Result<u32, tonic::Status> {
    let transaction = |(app_id, hits, at_unix_s): &(&str, u64, Option<i64>)| v1::Transaction {
        application: Some(v1::transaction::Application::AppId((*app_id).into())),
        usage: vec![usage_entry("hits", *hits)],
        at_unix_s: *at_unix_s,
    };
    let message = v1::ReportRequest {
        gives_back: false,
        service_id: "api".into(),
        idempotency_id: id.as_bytes().to_vec(),
        transactions: transactions.iter().map(transaction).collect(),
    };
    client.client.clone().report(client.signed(message)).await.map(|answer| answer.into_inner().counted)
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_are_checked_whole_and_counted_once() {
    let (_stack, client) = start().await;
    assert_eq!(report(&client, &[("app", 5, None), ("exhausted", 2, None)], "r1").await.unwrap(), 2);
    assert_eq!(report(&client, &[("app", 5, None), ("exhausted", 2, None)], "r1").await.unwrap(), 0);
    let used = async |app: &str, period| client.used(app, "hits", period).await.unwrap();
    assert_eq!((used("app", v1::Period::Day).await, used("exhausted", v1::Period::Day).await), (5, 2));

    for (transactions, field) in [
        (vec![("app", 1, None), ("nobody", 1, None)], "transactions[1].application"),
        (vec![("app", 1, None), ("app", 1, Some(0))], "transactions[1].at_unix_s"),
        (vec![("app", 1, None), ("app", 1 << 53, None)], "transactions[1].usage[0].value"),
    ] {
        let status = report(&client, &transactions, "").await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with(field), "{}", status.message());
    }
    assert_eq!(used("app", v1::Period::Eternity).await, 5, "a bad transaction voids its report");

    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let yesterday = i64::try_from(now).unwrap() - 86_000;
    report(&client, &[("app", 7, Some(yesterday))], "").await.unwrap();
    assert_eq!(used("app", v1::Period::Eternity).await, 12);
    assert_eq!(used("app", v1::Period::Hour).await, 5, "booked to its own hour");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_request_gives_its_place_back() {
    let (_stack, client) = start().await;
    let message = auth_rep_request("key", &[("hits", 3)]);
    let ask = async |message: v1::AuthRepRequest| {
        words(&client.client.clone().auth_rep(client.signed(message)).await.unwrap().into_inner())
    };
    let full = "ok hits/day 3 of 3 hits/eternity 3 of 100";
    assert_eq!(ask(message.clone()).await, full);
    assert_eq!(ask(v1::AuthRepRequest { attempt: 1, ..message.clone() }).await, full, "counted once");
    let cancel = async |attempt| {
        let (credentials, request_id) = (message.credentials.clone(), message.request_id.clone());
        let cancel = v1::CancelRequest { service_id: "api".into(), credentials, request_id, attempt };
        client.client.clone().cancel(client.signed(cancel)).await.unwrap().into_inner().taken_back
    };
    assert!(!cancel(Some(0)).await, "the second attempt owns it");
    assert!(cancel(None).await);
    assert!(!cancel(None).await, "once");
    assert_eq!(ask(auth_rep_request("key", &[("hits", 3)])).await, full);
}
