//! Who may ask what.

use tonic::{Code, Request, Status};
use weir_proto::v1;
use weir_proto::v1::gateways_client::GatewaysClient;
use weir_tests::listener::{ListenerClient, auth_rep_request};
use weir_tests::stack::{Plan, Stack, TOKEN, catalog};

const OTHERS: &str = r#"
[[gateways]]
id = "elsewhere"
environment = "production"
token = "token-for-another-service"
services = ["another"]
[[gateways]]
id = "staging"
environment = "staging"
token = "token-for-staging-only"
"#;

#[track_caller]
fn check<T: std::fmt::Debug>(outcome: Result<T, Status>, code: Code, text: &str) {
    let status = outcome.expect_err("refused");
    assert_eq!((status.code(), status.message()), (code, text));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_its_services_and_its_environment() {
    let plan = Plan { gateways: 0, listener_tables: OTHERS.into(), ..Plan::small(&catalog(1, "")) };
    let stack = Stack::start(&plan).await;
    let address = stack.listeners[0].address;
    let known = ListenerClient::new(address, TOKEN);
    assert!(known.auth_rep("key", &[("hits", 1)]).await.is_ok());

    let mut bare = known.client.clone();
    let unsigned = bare.auth_rep(Request::new(auth_rep_request("key", &[]))).await;
    check(unsigned, Code::Unauthenticated, "a gateway token is needed");
    let stranger = ListenerClient::new(address, "nobody's");
    check(stranger.auth_rep("key", &[]).await, Code::Unauthenticated, "the gateway token is not known");
    let elsewhere = ListenerClient::new(address, "token-for-another-service");
    check(elsewhere.auth_rep("key", &[]).await, Code::PermissionDenied, "the token is not for service api");
    let used = elsewhere.used("app", "hits", v1::Period::Day).await;
    check(used, Code::PermissionDenied, "the token is not for service api");

    let mut gateways = GatewaysClient::connect(format!("http://{address}")).await.unwrap();
    let production = v1::WatchRequest { environment: v1::Environment::Production.into() };
    let staging = ListenerClient::new(address, "token-for-staging-only");
    let watched = gateways.watch(staging.signed(production)).await.map(|_| ());
    check(watched, Code::PermissionDenied, "the token is for staging");
    let nowhere = v1::WatchRequest { environment: 0 };
    let watched = gateways.watch(known.signed(nowhere)).await.map(|_| ());
    check(watched, Code::InvalidArgument, "environment: is missing or unknown");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_and_keys_stay_out_of_the_log() {
    let lines = "log = { level = \"trace\" }";
    let plan = Plan { listener_lines: lines.into(), ..Plan::small(&catalog(1, "")) };
    let stack = Stack::start(&plan).await;
    let client = stack.listener_client(0);
    client.auth_rep("key-that-nobody-has", &[("hits", 1)]).await.unwrap();
    let stranger = ListenerClient::new(stack.listeners[0].address, "token-that-nobody-has");
    assert!(stranger.auth_rep("key-that-nobody-has", &[]).await.is_err());
    let log = stack.listeners[0].log();
    assert!(log.contains("unknown gateway token"), "{log}");
    for secret in ["that-nobody-has", TOKEN, "stack-server-secret"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}
