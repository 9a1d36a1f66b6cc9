//! What Envoy's two contracts answer, asked as Envoy would ask; Envoy itself is in the protocol tests.

use std::time::Duration;

use tonic::{Code, Status};
use weir_proto::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use weir_proto::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use weir_proto::envoy::service::auth::v3::CheckRequest;
use weir_proto::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use weir_proto::envoy::service::ratelimit::v3::rate_limit_response::Code as Limit;
use weir_proto::envoy::service::ratelimit::v3::rate_limit_service_client::RateLimitServiceClient;
use weir_proto::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use weir_tests::stack::{Plan, Stack};
use weir_tests::wait::until_async;

const CATALOG: &str = r#"
revision = 1
[[providers]]
name = "Limits"
[[providers.services]]
id = "api"
credentials = "user_key"
metrics = [{ name = "hits" }, { name = "search", parent = "hits" }, { name = "mail" }, { name = "free" }]
mapping_rules = [
  { method = "GET", pattern = "/search?deep={deep}", metrics = { search = 3 }, last = true },
  { method = "GET", pattern = "/search", metrics = { search = 1 } },
]
[providers.services.proxy]
hosts = ["one.test"]
[[providers.services.plans]]
id = "plan"
limits = [
  { metric = "hits", period = "day", max = 10 },
  { metric = "hits", period = "eternity", max = 5000000000 },
  { metric = "mail", period = "week", max = 0 },
]
[[providers.services.applications]]
id = "app"
plan = "plan"
user_key = "key"
[[providers.services.applications]]
id = "other"
plan = "plan"
user_key = "other"

[[providers.services]]
id = "pair"
credentials = "app_id_and_key"
metrics = [{ name = "hits" }]
[providers.services.proxy]
hosts = ["two.test"]
[[providers.services.plans]]
id = "plan"
limits = []
[[providers.services.applications]]
id = "app"
plan = "plan"
app_keys = ["secret"]
"#;

const NARROW: &str = r#"
[[gateways]]
id = "narrow"
environment = "production"
token = "narrow-gateway-token"
services = ["pair"]
"#;

async fn stack(redis: bool) -> Stack {
    let listener_tables = NARROW.to_owned();
    Stack::start(&Plan { gateways: 0, redis, listener_tables, ..Plan::small(CATALOG) }).await
}

/// `key=value` pairs, parted by blanks; `*n` at the end is the descriptor's own `hits_addend`.
fn descriptor(text: &str) -> RateLimitDescriptor {
    let mut descriptor = RateLimitDescriptor::default();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        match word.strip_prefix('*') {
            Some(times) => descriptor.hits_addend = Some(times.parse().unwrap()),
            None => {
                let (key, value) = word.split_once('=').unwrap();
                descriptor.entries.push(Entry { key: key.into(), value: value.into() });
            }
        }
    }
    descriptor
}

/// Asks about descriptors, parted by `|`.
async fn ask(stack: &Stack, domain: &str, text: &str, hits: u32) -> Result<RateLimitResponse, Status> {
    let client = stack.listener_client(0);
    let address = format!("http://{}", stack.listeners[0].address);
    let mut limits = RateLimitServiceClient::connect(address).await.unwrap();
    let descriptors = text.split('|').filter(|text| !text.is_empty()).map(descriptor).collect();
    let message = RateLimitRequest { domain: domain.into(), descriptors, hits_addend: hits };
    Ok(limits.should_rate_limit(client.signed(message)).await?.into_inner())
}

/// What became of each descriptor: its code, what is left, and of which limit.
fn shown(answer: &RateLimitResponse) -> Vec<String> {
    let status =
        |status: &weir_proto::envoy::service::ratelimit::v3::rate_limit_response::DescriptorStatus| {
            let name = status.current_limit.as_ref().map_or("-", |limit| limit.name.as_str());
            format!("{:?} {} {name}", status.code(), status.limit_remaining)
        };
    answer.statuses.iter().map(status).collect()
}

async fn check(stack: &Stack, text: &str, hits: u32, overall: Limit, expected: &[&str]) -> RateLimitResponse {
    let answer = ask(stack, "api", text, hits).await.unwrap();
    assert_eq!(
        (answer.overall_code(), shown(&answer)),
        (overall, expected.iter().map(|t| (*t).to_owned()).collect()),
        "{text}"
    );
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn descriptors_count_all_or_none() {
    for redis in [false, true] {
        let stack = stack(redis).await;
        let client = stack.listener_client(0);
        check(&stack, "user_key=key metric=hits", 0, Limit::Ok, &["Ok 9 hits-day"]).await;
        check(&stack, "user_key=key metric=search", 2, Limit::Ok, &["Ok 7 hits-day"]).await;
        check(&stack, "user_key=key method=GET path=/search?deep=1", 0, Limit::Ok, &["Ok 4 hits-day"]).await;
        // The descriptor's own number comes before the request's; 0 only looks.
        check(&stack, "user_key=key metric=hits *2", 9, Limit::Ok, &["Ok 2 hits-day"]).await;
        check(&stack, "user_key=key metric=hits *0", 9, Limit::Ok, &["Ok 2 hits-day"]).await;
        check(&stack, "user_key=key metric=free", 0, Limit::Ok, &["Ok 0 -"]).await;

        let before = client.totals("api", "other").await.unwrap();
        let refused = check(
            &stack,
            "user_key=other metric=search|user_key=key metric=hits *3|user_key=other metric=hits",
            0,
            Limit::OverLimit,
            &["Ok 10 hits-day", "OverLimit 2 hits-day", "Ok 10 hits-day"],
        )
        .await;
        assert_eq!(refused.raw_body, b"Limits exceeded");
        let header = |name: &str| refused.response_headers_to_add.iter().find(|h| h.key == name).unwrap();
        assert!(header("retry-after").value.parse::<u32>().unwrap() > 0);
        assert!(header("ratelimit").value.starts_with("\"hits-day\";r=2;t="));
        assert!(refused.statuses[1].duration_until_reset.unwrap().seconds > 0);
        assert_eq!(client.totals("api", "other").await.unwrap(), before, "what was admitted is taken back");
        assert_eq!(header("content-type").value, "text/plain; charset=utf-8");
        // A metric that is not in the plan: a limit of 0, and nothing to wait for.
        let closed =
            check(&stack, "user_key=key metric=mail", 0, Limit::OverLimit, &["OverLimit 0 mail-week"]).await;
        assert_eq!(closed.raw_body, b"Authentication failed");
        assert!(closed.response_headers_to_add.iter().all(|header| header.key != "retry-after"));
        assert_eq!(client.totals("api", "app").await.unwrap()["hits"], 8);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_question_about_limits_is_an_error() {
    let stack = stack(false).await;
    let cases = [
        ("api", "", Code::InvalidArgument, "descriptors: has 0 entries, not 1 to 64"),
        ("api", "metric=hits", Code::InvalidArgument, "name an application"),
        ("api", "user_key=key app_id=app metric=hits", Code::InvalidArgument, "name an application"),
        ("api", "user_key=key", Code::InvalidArgument, "say what is used"),
        ("api", "user_key=key metric=hits path=/x method=GET", Code::InvalidArgument, "say what is used"),
        ("api", "user_key=key metric=", Code::InvalidArgument, "descriptors[0].entries.metric"),
        ("api", "user_key=key method=get path=/search", Code::InvalidArgument, "entries.method"),
        ("api", "user_key=key method=GET path=/a/../b", Code::InvalidArgument, "entries.path"),
        (
            "api",
            "user_key=key metric=hits remote_address=::1",
            Code::InvalidArgument,
            "\"remote_address\" is not a key",
        ),
        ("api", "user_key=key user_key=key metric=hits", Code::InvalidArgument, "user_key is there twice"),
        (
            "api",
            "user_key=key metric=hits *9007199254740992",
            Code::InvalidArgument,
            "hits_addend: is too large",
        ),
        ("api", "user_key=secret-of-nobody metric=hits", Code::PermissionDenied, "user_key_invalid"),
        ("api", "app_id=app metric=hits", Code::PermissionDenied, "user_key_invalid"),
        ("api", "user_key=key metric=nothing", Code::PermissionDenied, "metric_invalid"),
        ("api", "user_key=key method=GET path=/nothing", Code::PermissionDenied, "no_mapping_rule"),
        (
            "pair",
            "app_id=app app_key=secret-of-nobody metric=hits",
            Code::PermissionDenied,
            "application_key_invalid",
        ),
        ("nothing", "user_key=key metric=hits", Code::NotFound, "no service"),
        ("no/service", "user_key=key metric=hits", Code::InvalidArgument, "domain"),
    ];
    for (domain, text, code, message) in cases {
        // What is admitted before it is taken back.
        let text = if text.is_empty() { text.to_owned() } else { format!("{text}|{text}") };
        let status = ask(&stack, domain, &text, 0).await.unwrap_err();
        assert_eq!(status.code(), code, "{text}: {status}");
        assert!(status.message().contains(message), "{text}: {status}");
        assert!(!status.message().contains("secret"), "{text}: {status}");
    }
    let first = ask(&stack, "api", "user_key=other metric=hits|user_key=nobody metric=hits", 0).await;
    assert_eq!(first.unwrap_err().code(), Code::PermissionDenied);
    assert!(stack.listener_client(0).totals("api", "other").await.unwrap().is_empty());
    ask(&stack, "pair", "app_id=app app_key=secret metric=hits", 0).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_open_their_own_services_alone() {
    let stack = stack(false).await;
    let address = format!("http://{}", stack.listeners[0].address);
    let mut limits = RateLimitServiceClient::connect(address.clone()).await.unwrap();
    let mut checks = AuthorizationClient::connect(address).await.unwrap();
    let message = RateLimitRequest {
        domain: "api".into(),
        descriptors: vec![descriptor("user_key=key metric=hits")],
        hits_addend: 0,
    };
    for (token, expected) in [("narrow-gateway-token", Code::NotFound), ("unknown", Code::Unauthenticated)] {
        let client = weir_tests::listener::ListenerClient::new(stack.listeners[0].address, token);
        let status = limits.should_rate_limit(client.signed(message.clone())).await.unwrap_err();
        assert_eq!(status.code(), expected);
    }
    let status = limits.should_rate_limit(message).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    let status = checks.check(CheckRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    let client = stack.listener_client(0);
    let status = checks.check(client.signed(CheckRequest::default())).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
}

/// Whoever leaves while descriptors are being decided leaves nothing half counted.
#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_waits_for_counts_whole_or_not() {
    const DESCRIPTORS: usize = 64;
    let stack = stack(true).await;
    let many = ["user_key=other metric=free"; DESCRIPTORS].join("|");
    let mut left = 0;
    for wait_ms in 1..=30 {
        let asked = ask(&stack, "api", &many, 0);
        left += u64::from(tokio::time::timeout(Duration::from_millis(wait_ms), asked).await.is_err());
    }
    assert!(left > 0, "all were answered at once");
    let client = stack.listener_client(0);
    until_async("what was begun to be taken back", || async {
        let used = client.totals("api", "other").await.ok()?.get("free").copied().unwrap_or_default();
        used.is_multiple_of(DESCRIPTORS as u64).then_some(())
    })
    .await;
    // More may still come back: then it does so whole.
    ask(&stack, "api", &many, 0).await.unwrap();
    stack.counter_settles_at("other", "free", client.totals("api", "other").await.unwrap()["free"]).await;
    assert_eq!(client.totals("api", "other").await.unwrap()["free"] % DESCRIPTORS as u64, 0);
}

/// Whoever leaves while descriptors are taken back leaves none of them counted.
#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_waits_for_is_taken_back() {
    let stack = stack(true).await;
    let refused = format!("{}|user_key=other metric=mail", ["user_key=other metric=free"; 63].join("|"));
    let mut left = 0;
    for wait_ms in 1..=40 {
        let asked = ask(&stack, "api", &refused, 0);
        left += u64::from(tokio::time::timeout(Duration::from_millis(wait_ms), asked).await.is_err());
    }
    assert!(left > 0, "all were answered at once");
    stack.counter_settles_at("other", "free", 0).await;
    assert_eq!(ask(&stack, "api", &refused, 0).await.unwrap().overall_code(), Limit::OverLimit);
    stack.counter_settles_at("other", "free", 0).await;
}
