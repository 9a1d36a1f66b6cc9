//! gRPC through the gateway: calls pass with their trailers, refusals are gRPC's own.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Endpoint, Server, Uri};
use tonic::{Code, Request, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus as Seen;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::server::HealthReporter;

use weir_tests::http::get;
use weir_tests::stack::Stack;
use weir_tests::wait::until;

use crate::world::{Api, PLAIN, hits, start};

const PROXY: &str = "credentials_location = \"headers\"";
const CHECK: &str =
    r#"{ method = "POST", pattern = "/grpc.health.v1.Health/Check", metrics = { hits = 1 } }"#;
const BOTH: &str = r#"
{ method = "POST", pattern = "/grpc.health.v1.Health/Check", metrics = { hits = 1 } },
{ method = "POST", pattern = "/grpc.health.v1.Health/Watch", metrics = { extra = 1 } },
"#;
const LIMITS: &str = r#"
{ metric = "hits", period = "day", max = 2 },
{ metric = "extra", period = "eternity", max = 0 },
"#;

/// A health service, as tonic has it.
async fn upstream() -> (SocketAddr, HealthReporter) {
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter.set_service_status("api", ServingStatus::Serving).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (address, reporter)
}

fn client(gateway: SocketAddr, service: &str) -> HealthClient<Channel> {
    let origin: Uri = format!("http://{service}.test").parse().unwrap();
    let channel =
        Endpoint::from_shared(format!("http://{gateway}")).unwrap().origin(origin.clone()).connect_lazy();
    HealthClient::with_origin(channel, origin)
}

fn ask(service: &str, key: &str) -> Request<HealthCheckRequest> {
    let mut request = Request::new(HealthCheckRequest { service: service.to_owned() });
    if !key.is_empty() {
        request.metadata_mut().insert("user_key", key.parse().unwrap());
    }
    request
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code) -> Status {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), code, "{status:?}");
    assert!(!status.message().is_empty());
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_pass_and_refusals_are_grpcs_own() {
    let (address, reporter) = upstream().await;
    let url = format!("http://{address}");
    let mut stack = start(
        &[
            Api { backend: &url, proxy: PROXY, ..PLAIN },
            Api { id: "narrow", backend: &url, proxy: PROXY, rules: BOTH, limits: LIMITS },
            Api { id: "ruled", backend: &url, proxy: PROXY, rules: CHECK, limits: "" },
            Api { id: "gone", backend: "http://127.0.0.1:1", proxy: PROXY, ..PLAIN },
        ],
        "",
    )
    .await;
    let gateway = stack.gateways[0].address;
    let mut api = client(gateway, "api");
    let answer = api.check(ask("api", "key")).await.unwrap();
    assert_eq!(answer.into_inner().status(), Seen::Serving);
    let unknown = refused(api.check(ask("unknown", "key")).await, Code::NotFound);
    assert_eq!(unknown.message(), "service not registered", "the upstream's own trailers");

    let mut watch = api.watch(ask("api", "key")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), Seen::Serving);
    reporter.set_service_status("api", ServingStatus::NotServing).await;
    assert_eq!(watch.message().await.unwrap().unwrap().status(), Seen::NotServing, "answers stream");
    assert_eq!(hits(&stack, "api").await, 3);

    refused(api.check(ask("api", "")).await, Code::Unauthenticated);
    refused(api.check(ask("api", "wrong")).await, Code::PermissionDenied);
    refused(client(gateway, "ruled").watch(ask("api", "key")).await, Code::Unimplemented);
    refused(client(gateway, "nobody").check(ask("api", "key")).await, Code::Unimplemented);
    refused(client(gateway, "gone").check(ask("api", "key")).await, Code::Unavailable);
    let mut narrow = client(gateway, "narrow");
    refused(narrow.watch(ask("api", "key")).await, Code::PermissionDenied);
    for _ in 0..2 {
        let answer = narrow.check(ask("api", "key")).await.unwrap();
        assert!(answer.metadata().contains_key("ratelimit"));
    }
    let exceeded = refused(narrow.check(ask("api", "key")).await, Code::ResourceExhausted);
    for name in ["retry-after", "ratelimit", "ratelimit-policy"] {
        assert!(exceeded.metadata().contains_key(name), "{name}: {exceeded:?}");
    }
    stack.listeners[0].kill();
    refused(api.check(ask("api", "key")).await, Code::Unavailable);
    statuses_are_told(&stack);
}

/// Goal: log and metrics tell how calls ended, which HTTP's 200 does not.
fn statuses_are_told(stack: &Stack) {
    let gateway = &stack.gateways[0];
    let metrics = until("the metrics", || {
        let text = get(gateway.telemetry, "/metrics").body;
        text.contains("{service=\"api\",grpc_status=\"14\"} 1").then_some(text)
    });
    for line in [
        "weir_gateway_grpc_answers_total{service=\"api\",grpc_status=\"5\"} 1",
        "weir_gateway_grpc_answers_total{service=\"narrow\",grpc_status=\"0\"} 2",
        "weir_gateway_grpc_answers_total{service=\"narrow\",grpc_status=\"8\"} 1",
        "weir_gateway_refusals_total{service=\"narrow\",reason=\"limits_exceeded\"} 2",
        "weir_gateway_requests_total{service=\"narrow\",class=\"2xx\"} 2",
        "weir_gateway_requests_total{service=\"narrow\",class=\"4xx\"} 2",
        "weir_gateway_requests_total{service=\"ruled\",class=\"4xx\"} 1",
        "weir_gateway_requests_total{service=\"api\",class=\"5xx\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    let log = gateway.log();
    for part in [
        "status=200 grpc_status=0 service.id=\"narrow\" duration_ms",
        "status=200 grpc_status=5 service.id=\"api\" duration_ms",
        "status=200 grpc_status=8 service.id=\"narrow\" reason=\"limits_exceeded\"",
        "status=200 grpc_status=14 service.id=\"api\" reason=\"authorisation_unavailable\"",
    ] {
        assert!(log.contains(part), "{part} in {log}");
    }
}
