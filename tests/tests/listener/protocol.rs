//! gRPC as the ecosystem expects it, and bad input with its field named.

use tonic::Code;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_types::StatusExt;
use weir_proto::v1;
use weir_tests::http::{call, get};
use weir_tests::listener::{auth_rep_request, usage_entry};
use weir_tests::stack::{Plan, Stack, TOKEN, catalog};

async fn start() -> (Stack, Channel) {
    let stack = Stack::start(&Plan { gateways: 0, ..Plan::small(&catalog(1, "")) }).await;
    let url = format!("http://{}", stack.listeners[0].address);
    let channel = Channel::from_shared(url).unwrap().connect().await.unwrap();
    (stack, channel)
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_reflection_are_served() {
    let (_stack, channel) = start().await;
    let mut health = HealthClient::new(channel.clone());
    for service in ["", "weir.v1.Authorization", "envoy.service.auth.v3.Authorization"] {
        weir_tests::wait::until_async("health to follow readiness", || {
            let (mut health, service) = (health.clone(), service.to_owned());
            async move {
                let answer = health.check(HealthCheckRequest { service }).await.ok()?;
                (answer.into_inner().status().as_str_name() == "SERVING").then_some(())
            }
        })
        .await;
    }
    let unknown = health.check(HealthCheckRequest { service: "nothing".into() }).await;
    assert_eq!(unknown.unwrap_err().code(), Code::NotFound);

    let list = MessageRequest::ListServices(String::new());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let mut reflection = ServerReflectionClient::new(channel);
    let asked = tokio_stream::once(request);
    let mut answers = reflection.server_reflection_info(asked).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("{answer:?}") };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in [
        "weir.v1.Authorization",
        "weir.v1.Catalog",
        "weir.v1.Gateways",
        "weir.v1.Errors",
        "weir.v1.Events",
        "envoy.service.auth.v3.Authorization",
        "envoy.service.ratelimit.v3.RateLimitService",
        "grpc.health.v1.Health",
    ] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_fields_are_named() {
    let (stack, _channel) = start().await;
    let client = stack.listener_client(0);
    let good = auth_rep_request("key", &[("hits", 1)]);
    let broken = |change: fn(&mut v1::AuthRepRequest)| {
        let mut message = good.clone();
        change(&mut message);
        message
    };
    let cases = [
        (broken(|m| m.request_id = vec![1]), "request_id"),
        (broken(|m| m.service_id = "a b".into()), "service_id"),
        (broken(|m| m.credentials = None), "credentials"),
        (broken(|m| m.credentials = Some(v1::Credentials { kind: None })), "credentials"),
        (broken(|m| m.usage = vec![usage_entry("hits", 1 << 53)]), "usage[0].value"),
        (broken(|m| m.usage = vec![usage_entry("a b", 1)]), "usage[0].metric"),
        (broken(|m| m.usage = vec![usage_entry("hits", 1); 257]), "usage"),
        (broken(|m| m.usage[0].value = None), "usage[0].value"),
        (broken(|m| m.referrer = Some("x".repeat(5000))), "referrer"),
    ];
    for (message, field) in cases {
        let status = client.client.clone().auth_rep(client.signed(message)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{field}");
        let details = status.get_details_bad_request().expect("BadRequest details");
        assert_eq!(details.field_violations[0].field, field);
    }
    assert_eq!(client.used("app", "hits", v1::Period::Eternity).await.unwrap(), 0);
}

/// Sends bytes as they are.
#[derive(Default)]
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = tonic::Status;
    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = tonic::Status;
    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, tonic::Status> {
        let length = bytes::Buf::remaining(buffer);
        Ok(Some(bytes::Buf::copy_to_bytes(buffer, length).to_vec()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_read_is_the_callers_mistake() {
    let (stack, channel) = start().await;
    let client = stack.listener_client(0);
    let mut raw = tonic::client::Grpc::new(channel);
    // Field 3 (service_id) as a varint.
    for bytes in [vec![0x18, 0x01], vec![0xff; 8], vec![0x1a, 0x05, b'a']] {
        raw.ready().await.unwrap();
        let path = "/weir.v1.Authorization/AuthRep".parse().unwrap();
        let status = raw.unary(client.signed(bytes.clone()), path, Bytes).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{bytes:?}: {status}");
        if bytes[0] == 0x18 {
            assert!(status.message().contains("service_id"), "{status}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_http_ports_tell_how_it_is() {
    let (stack, _channel) = start().await;
    let role = &stack.listeners[0];
    let http = role.http.unwrap();
    assert_eq!(get(http, "/check.txt").body, "ok");
    assert_eq!(get(http, "/status").json()["status"], "ok");
    assert_eq!(call(http, "HEAD", "/available", &[], "").status, 200);
    assert_eq!(get(http, "/elsewhere").status, 404);
    assert_eq!(get(role.telemetry, "/livez").status, 200);
    assert_eq!(get(role.telemetry, "/readyz").status, 200);
    stack.listener_client(0).auth_rep("key", &[("hits", 1)]).await.unwrap();
    let metrics = get(role.telemetry, "/metrics").body;
    assert!(metrics.contains("weir_listener_decisions_total{outcome=\"allowed\"} 1"), "{metrics}");
    assert!(!metrics.contains(TOKEN) && !metrics.contains("app\""), "no identities in labels: {metrics}");
}
