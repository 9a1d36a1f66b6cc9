//! Errors and events, as an operator reads them.

use std::net::SocketAddr;

use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use weir_core::{Secret, Timestamp};
use weir_proto::v1;
use weir_proto::v1::errors_client::ErrorsClient;
use weir_proto::v1::events_client::EventsClient;
use weir_store::{Config, RedisConfig, ServiceError, Store};
use weir_tests::http::get;
use weir_tests::listener::{ListenerClient, SERVICE};
use weir_tests::stack::{Plan, Stack, TOKEN, catalog};
use weir_tests::wait::until_async;

const OPERATOR: &str = "operator-token-of-the-stack";
const LIMITS: &str = r#"{ metric = "hits", period = "eternity", max = 10 }"#;

fn plan() -> Plan {
    let listener_lines = format!("operator_token = \"{OPERATOR}\"");
    Plan { gateways: 0, listener_lines, ..Plan::small(&catalog(1, LIMITS)) }
}

/// Asks one listener under a token.
struct Operator {
    errors: ErrorsClient<Channel>,
    events: EventsClient<Channel>,
    signing: ListenerClient,
}

impl Operator {
    async fn new(address: SocketAddr, token: &str) -> Self {
        let channel = Channel::from_shared(format!("http://{address}")).unwrap();
        // Without a catalog nothing says when the port is open.
        let channel = until_async("a connection", || async { channel.connect().await.ok() }).await;
        Self {
            errors: ErrorsClient::new(channel.clone()),
            events: EventsClient::new(channel),
            signing: ListenerClient::new(address, token),
        }
    }

    async fn list_events(&self, count: u32) -> Result<Vec<v1::Event>, Status> {
        let asked = self.signing.signed(v1::ListEventsRequest { count });
        Ok(self.events.clone().list_events(asked).await?.into_inner().events)
    }

    async fn acknowledge(&self, ids: &[&str]) -> Result<(), Status> {
        let ids = ids.iter().map(|id| (*id).to_owned()).collect();
        let asked = self.signing.signed(v1::AcknowledgeEventsRequest { ids });
        self.events.clone().acknowledge_events(asked).await.map(|_| ())
    }

    async fn list_errors(&self, page: u32, per_page: u32) -> Result<v1::ListErrorsResponse, Status> {
        let asked = v1::ListErrorsRequest { service_id: SERVICE.into(), page, per_page };
        Ok(self.errors.clone().list_errors(self.signing.signed(asked)).await?.into_inner())
    }

    async fn delete_errors(&self, service_id: &str) -> Result<(), Status> {
        let asked = self.signing.signed(v1::DeleteErrorsRequest { service_id: service_id.into() });
        self.errors.clone().delete_errors(asked).await.map(|_| ())
    }
}

/// What happened, and to whom: `"alert api/app hits per eternity: 5/10 50 % 0.5"`.
fn word(event: &v1::Event) -> String {
    let kind = event.r#type().as_str_name().trim_start_matches("EVENT_TYPE_").to_lowercase();
    let about = format!("{kind} {}/{}", event.service_id, event.app_id);
    match &event.alert {
        None => about,
        Some(alert) => {
            let v1::Alert { utilization, max_utilization, limit, .. } = alert;
            assert_eq!(alert.period(), v1::Period::Eternity);
            assert_eq!(
                *limit,
                format!("{} per eternity: {}/{}", alert.metric, alert.current_value, alert.max_value)
            );
            format!("{about} {limit} {utilization} % {max_utilization}")
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_an_application_is_told_until_it_is_acknowledged() {
    for redis in [false, true] {
        let stack = Stack::start(&Plan { redis, ..plan() }).await;
        let operator = Operator::new(stack.listeners[0].address, OPERATOR).await;
        assert_eq!(operator.list_events(0).await.unwrap(), []);
        let client = stack.listener_client(0);
        for (by, is_allowed) in [(5, true), (3, true), (3, false)] {
            let decision = client.auth_rep("key", &[("search", by)]).await.unwrap();
            assert_eq!(decision.denial.is_none(), is_allowed);
        }
        let entry = v1::Transaction {
            application: Some(v1::transaction::Application::UserKey("key".into())),
            usage: vec![weir_tests::listener::usage_entry("hits", 4)],
            ..v1::Transaction::default()
        };
        client.report(SERVICE, vec![entry]).await.unwrap();
        let events = operator.list_events(1_000).await.unwrap();
        let expected = [
            "first_traffic api/app",
            "first_daily_traffic api/app",
            "alert api/app hits per eternity: 5/10 50 % 0.5",
            "alert api/app hits per eternity: 8/10 80 % 0.8",
            "alert api/app hits per eternity: 12/10 90 % 1.2",
            "alert api/app hits per eternity: 12/10 100 % 1.2",
            "alert api/app hits per eternity: 12/10 120 % 1.2",
        ];
        assert_eq!(events.iter().map(word).collect::<Vec<_>>(), expected, "redis: {redis}");
        let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        assert!(events.iter().all(|event| now_ms - u128::from(event.at_unix_ms) < 600_000));
        assert_eq!(operator.list_events(2).await.unwrap(), events[..2]);
        for _ in 0..2 {
            operator.acknowledge(&[&events[0].id, &events[2].id]).await.unwrap();
            let left = [&events[1..2], &events[3..]].concat();
            assert_eq!(operator.list_events(0).await.unwrap(), left);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_a_service_are_read_in_pages_and_emptied() {
    let stack = Stack::start(&Plan { redis: true, ..plan() }).await;
    let operator = Operator::new(stack.listeners[0].address, OPERATOR).await;
    assert_eq!(operator.list_errors(0, 0).await.unwrap(), v1::ListErrorsResponse::default());
    let redis = RedisConfig::new(Secret::new(&stack.redis.as_ref().unwrap().url()));
    let store = Store::open(Config::Redis(redis)).await.unwrap();
    for number in 0..120 {
        let error = ServiceError {
            code: "application_not_found".into(),
            message: format!("application with id=\"{number}\" was not found"),
            at: Timestamp::from_unix_ms(1_795_404_719_123 + number),
            request: "GET /transactions/authrep.xml".into(),
        };
        store.keep_error(&SERVICE.parse().unwrap(), &error).await.unwrap();
    }
    let first = operator.list_errors(0, 0).await.unwrap();
    assert_eq!((first.errors.len(), first.total), (100, 120));
    let newest = v1::ServiceError {
        code: "application_not_found".into(),
        message: "application with id=\"119\" was not found".into(),
        at_unix_ms: 1_795_404_719_242,
        request: "GET /transactions/authrep.xml".into(),
    };
    assert_eq!(first.errors[0], newest);
    let last = operator.list_errors(3, 50).await.unwrap();
    assert_eq!((last.errors.len(), last.errors[19].at_unix_ms), (20, 1_795_404_719_123));
    operator.delete_errors("another").await.unwrap();
    assert_eq!(operator.list_errors(1, 1).await.unwrap().total, 120);
    operator.delete_errors(SERVICE).await.unwrap();
    assert_eq!(operator.list_errors(1, 1).await.unwrap().total, 0);
}

/// More events than there is room for: ten of each application, of which two are no longer told once half of it is taken.
#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_fetches_in_time_is_counted() {
    for (redis, applications) in [(false, 2_300), (true, 4_400)] {
        let mut catalog = catalog(1, LIMITS);
        for number in 0..applications {
            let lines = ["[[providers.services.applications]]".into(), format!("id = \"app-{number}\"")];
            let lines =
                lines.into_iter().chain(["plan = \"plan\"".into(), format!("user_key = \"key-{number}\"\n")]);
            catalog.push_str(&lines.collect::<Vec<String>>().join("\n"));
        }
        let stack = Stack::start(&Plan { redis, catalog, ..plan() }).await;
        let client = stack.listener_client(0);
        let transaction = |number: usize| v1::Transaction {
            application: Some(v1::transaction::Application::UserKey(format!("key-{number}"))),
            usage: vec![weir_tests::listener::usage_entry("hits", 30)],
            ..v1::Transaction::default()
        };
        for first in (0..applications).step_by(20) {
            client.report(SERVICE, (first..first + 20).map(transaction).collect()).await.unwrap();
        }
        let operator = Operator::new(stack.listeners[0].address, OPERATOR).await;
        let mut kept = 0;
        loop {
            // On a busy machine Redis may take too long for so many; they are there the next time.
            let listed = || async { operator.list_events(1_000).await.ok() };
            let events = until_async("events to be listed", listed).await;
            if events.is_empty() {
                break;
            }
            kept += events.len();
            let ids: Vec<&str> = events.iter().map(|event| event.id.as_str()).collect();
            until_async("them to be acknowledged", || async { operator.acknowledge(&ids).await.ok() }).await;
        }
        let metrics = get(stack.listeners[0].telemetry, "/metrics").body;
        let dropped = metrics.lines().find_map(|line| line.strip_prefix("weir_events_dropped_total "));
        assert_eq!(dropped, Some(&*(10 * applications - kept).to_string()), "{metrics}");
        // One part is full, and four are about half full of alerts.
        let expected = if redis { 42_000..44_000 } else { 20_000..20_001 };
        assert!(expected.contains(&kept), "{kept} of {expected:?}");
    }
}

#[track_caller]
fn check<T: std::fmt::Debug>(outcome: Result<T, Status>, code: Code, text: &str) {
    let status = outcome.expect_err("refused");
    assert_eq!((status.code(), status.message()), (code, text));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_operators_and_publishers_read_them() {
    let stack = Stack::start(&plan()).await;
    let address = stack.listeners[0].address;
    let refused = "the operator's or the publisher's token is needed";
    for token in [TOKEN, "another"] {
        let stranger = Operator::new(address, token).await;
        check(stranger.list_events(0).await, Code::Unauthenticated, refused);
        check(stranger.acknowledge(&[]).await, Code::Unauthenticated, refused);
        check(stranger.list_errors(0, 0).await, Code::Unauthenticated, refused);
        check(stranger.delete_errors(SERVICE).await, Code::Unauthenticated, refused);
    }
    let unsigned = EventsClient::connect(format!("http://{address}")).await.unwrap();
    let unsigned = unsigned.clone().list_events(Request::new(v1::ListEventsRequest::default())).await;
    check(unsigned, Code::Unauthenticated, refused);

    let operator = Operator::new(address, OPERATOR).await;
    let bad = Code::InvalidArgument;
    check(operator.list_events(1_001).await, bad, "count: is more than 1000");
    check(operator.list_errors(1, 1_001).await, bad, "per_page: is more than 1000");
    check(operator.acknowledge(&["0-1-0", "x"]).await, bad, "ids[1]: is not the id of an event");
    check(operator.acknowledge(&["0-1-0"; 1_001]).await, bad, "ids: has more than 1000 entries");
    let empty = operator.delete_errors("a b").await.expect_err("no name of a service");
    assert_eq!(empty.code(), bad);
    assert!(empty.message().starts_with("service_id: "), "{empty}");
    operator.acknowledge(&["0-1-0"; 1_000]).await.unwrap();
    let log = stack.listeners[0].log();
    assert!(!log.contains(OPERATOR), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_without_tokens_for_it_says_so() {
    let stack = Stack::start(&Plan { gateways: 0, ..Plan::small(&catalog(1, LIMITS)) }).await;
    let operator = Operator::new(stack.listeners[0].address, OPERATOR).await;
    let text = "this listener has no operator_token (nor a publish_token): nobody may ask this";
    check(operator.list_events(0).await, Code::FailedPrecondition, text);
    check(operator.list_errors(0, 0).await, Code::FailedPrecondition, text);

    let listener_lines = "publish_token = \"publisher-token-of-the-stack\"".into();
    let stack =
        Stack::start(&Plan { gateways: 0, catalog_file: false, listener_lines, ..Plan::small("") }).await;
    let publisher = Operator::new(stack.listeners[0].address, "publisher-token-of-the-stack").await;
    assert_eq!(publisher.list_events(0).await.unwrap(), []);
    assert_eq!(publisher.list_errors(0, 0).await.unwrap().total, 0);
}
