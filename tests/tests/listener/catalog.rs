//! Where the catalog comes from: a file that is followed, or the control plane.

use tonic::{Code, Request};
use weir_proto::v1;
use weir_proto::v1::catalog_change::Change;
use weir_proto::v1::catalog_client::CatalogClient;
use weir_proto::v1::gateways_client::GatewaysClient;
use weir_proto::v1::watch_response::Event;
use weir_tests::http::get;
use weir_tests::listener::ListenerClient;
use weir_tests::stack::{Plan, Stack, TOKEN, catalog};
use weir_tests::wait::{until, until_async};

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_or_older_file_leaves_the_old_catalog_in_force() {
    let stack = Stack::start(&Plan { gateways: 0, ..Plan::small(&catalog(5, "")) }).await;
    let client = stack.listener_client(0);
    let renamed = |revision| catalog(revision, "").replace("user_key = \"key\"", "user_key = \"other\"");
    let cases = [
        (renamed(6).replace("id = \"plan\"\nname", "id = \"a/b\"\nnome"), "catalog.toml:"),
        (renamed(4), "holds revision 5"),
        (renamed(5), "with other content"),
        ("revision = ".to_owned(), "catalog.toml:1:"),
    ];
    for (text, complaint) in cases {
        stack.put_catalog(&text);
        until("a complaint in the log", || stack.listeners[0].log().contains(complaint).then_some(()));
        assert!(client.auth_rep("key", &[]).await.unwrap().denial.is_none(), "{complaint}");
    }
    stack.put_catalog(&renamed(6));
    until_async("the good catalog to be in force", || async {
        client.auth_rep("other", &[]).await.ok().filter(|decision| decision.denial.is_none())
    })
    .await;
}

fn put(change: Change) -> v1::CatalogChange {
    v1::CatalogChange { change: Some(change) }
}

fn application(state: v1::ApplicationState) -> v1::CatalogChange {
    put(Change::PutApplication(v1::Application {
        service_id: "api".into(),
        app_id: "app".into(),
        state: state.into(),
        plan_id: "plan".into(),
        ..v1::Application::default()
    }))
}

fn service() -> v1::CatalogChange {
    let refusal =
        |status| Some(v1::RefusalReply { status, body: "no".into(), content_type: "text/plain".into() });
    let proxy = v1::Proxy {
        hosts: vec!["api.test".into()],
        credential_location: v1::CredentialLocation::Query.into(),
        auth_missing: refusal(401),
        auth_failed: refusal(403),
        no_match: refusal(404),
        limits_exceeded: refusal(429),
        ..v1::Proxy::default()
    };
    put(Change::PutService(v1::Service {
        id: "api".into(),
        credentials: v1::CredentialKind::ClientId.into(),
        metrics: vec![v1::Metric { name: "hits".into(), parent: String::new() }],
        plans: vec![v1::Plan { id: "plan".into(), name: "Plan".into(), ..v1::Plan::default() }],
        production: Some(proxy),
        ..v1::Service::default()
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_plane_publishes_change_by_change() {
    let plan = Plan {
        gateways: 0,
        catalog_file: false,
        listener_lines: "publish_token = \"publisher-token-of-the-stack\"".into(),
        ..Plan::small("")
    };
    let stack = Stack::start(&plan).await;
    let role = &stack.listeners[0];
    assert!(get(role.telemetry, "/readyz").body.contains("no catalog yet"));
    let publisher = ListenerClient::new(role.address, "publisher-token-of-the-stack");
    let mut catalog = CatalogClient::connect(format!("http://{}", role.address)).await.unwrap();
    let unsigned = catalog.publish(Request::new(v1::PublishRequest::default())).await.unwrap_err();
    assert_eq!(unsigned.code(), Code::Unauthenticated);

    let mut gateways = GatewaysClient::connect(format!("http://{}", role.address)).await.unwrap();
    let watch = v1::WatchRequest { environment: v1::Environment::Production.into() };
    let watching = gateways.watch(ListenerClient::new(role.address, TOKEN).signed(watch)).await;
    let mut events = watching.unwrap().into_inner();

    let publish = async |revision, changes: Vec<v1::CatalogChange>| {
        let message = v1::PublishRequest { revision, changes };
        let answer = catalog.clone().publish(publisher.signed(message)).await;
        answer.map(|answer| answer.into_inner().revision)
    };
    let active = v1::ApplicationState::Active;
    assert_eq!(publish(1, vec![service(), application(active)]).await.unwrap(), 1);
    assert!(
        matches!(events.message().await.unwrap().unwrap().event, Some(Event::Put(put)) if put.id == "api")
    );
    let synced = Event::Synced(v1::Synced { revision: 1 });
    assert_eq!(events.message().await.unwrap().unwrap().event, Some(synced));
    until("readiness", || (get(role.telemetry, "/readyz").status == 200).then_some(()));

    let ask = async || {
        let client = stack.listener_client(0);
        let mut message = weir_tests::listener::auth_rep_request("", &[("hits", 1)]);
        message.credentials =
            Some(v1::Credentials { kind: Some(v1::credentials::Kind::ClientId("app".into())) });
        let decision = client.client.clone().auth_rep(client.signed(message)).await.unwrap().into_inner();
        decision.denial.map_or_else(|| "ok".into(), |denial| denial.code)
    };
    assert_eq!(ask().await, "ok");
    let suspended = v1::ApplicationState::Suspended;
    assert_eq!(publish(2, vec![application(suspended)]).await.unwrap(), 2);
    assert_eq!(ask().await, "application_not_active", "on the very next call");
    assert_eq!(publish(1, vec![application(active)]).await.unwrap(), 2, "an old revision changes nothing");
    assert_eq!(publish(2, vec![application(suspended)]).await.unwrap(), 2, "nor does the same again");
    assert_eq!(ask().await, "application_not_active");

    let bad =
        put(Change::PutApplication(v1::Application { app_id: "a b".into(), ..v1::Application::default() }));
    let status = publish(3, vec![application(active), bad]).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("changes[1].put_application."), "{status}");
    assert_eq!(ask().await, "application_not_active", "a bad change voids its publication");
    let name = v1::ApplicationName { service_id: "api".into(), app_id: "app".into() };
    assert_eq!(publish(3, vec![put(Change::RemoveApplication(name))]).await.unwrap(), 3);
    assert_eq!(ask().await, "application_not_found");
    assert_eq!(publish(4, vec![put(Change::RemoveService("api".into()))]).await.unwrap(), 4);
    assert_eq!(ask().await, "service_id_invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_has_one_source() {
    let stack = Stack::start(&Plan { gateways: 0, ..Plan::small(&catalog(1, "")) }).await;
    let address = stack.listeners[0].address;
    let mut client = CatalogClient::connect(format!("http://{address}")).await.unwrap();
    let signed = ListenerClient::new(address, "anything").signed(v1::PublishRequest::default());
    assert_eq!(client.publish(signed).await.unwrap_err().code(), Code::FailedPrecondition);
}
