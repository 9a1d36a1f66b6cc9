//! core → proto → core is the identity, and every bad message is refused with its field's name.

use prost::Message;
use weir_core::application::AppKey;
use weir_core::proxy::{Environment, Proxy};
use weir_core::{
    Application, Credentials, Decision, Denial, KeyHasher, LimitStatus, MetricTree, Period, Plan, Secret,
    Service, ServiceState, Timestamp, Usage, UsageLimit, UsageValue,
};

use crate::{Acceptance, v1};

fn limit_status() -> LimitStatus {
    let window = Period::Minute.window(Timestamp::from_unix_s(1_800_000_000));
    LimitStatus { metric: "hits".parse().unwrap(), window, max: 60, used: 61, held: 3 }
}

fn service() -> Service {
    let name = |text: &str| text.parse().unwrap();
    let metrics = MetricTree::new(&[(name("hits"), None), (name("send"), Some(name("hits")))]).unwrap();
    let limit = UsageLimit { metric: metrics.find("send").unwrap(), period: Period::Day, max: 0 };
    let plan = Plan::new("gold".parse().unwrap(), "Gold".into(), vec![limit], &metrics).unwrap();
    let rule = weir_core::MappingRule {
        http_method: "ANY".parse().unwrap(),
        pattern: "/v3/{id}$?a=1".parse().unwrap(),
        metric: name("send"),
        delta: 2,
        position: 7,
        last: true,
        free_answers: weir_core::StatusSet::default(),
    };
    let production = Proxy {
        hosts: vec!["*.example.org".into()],
        api_backend: Some("http://127.0.0.1:1/base".into()),
        backends: vec![weir_core::Backend {
            id: "search".into(),
            mount: "/search".parse().unwrap(),
            api_backend: "http://127.0.0.1:2".into(),
            host_rewrite: Some("search.test".into()),
            mapping_rules: vec![rule.clone()],
        }],
        mapping_rules: vec![rule],
        secret_token: Some(Secret::new("shh")),
        strip_credentials: true,
        ..Proxy::default()
    };
    Service {
        id: "mail_api".parse().unwrap(),
        name: "Mail API".into(),
        state: ServiceState::Suspended,
        credentials: weir_core::CredentialKind::AppIdAndKey,
        referrer_filters_required: true,
        provider: weir_core::Provider { name: "Postbote".into(), keys: vec![key_hash()] },
        is_default: true,
        tokens: vec![key_hash(), key_hash()],
        alert_bins: weir_core::AlertBins::of([80, 300]).unwrap(),
        metrics,
        plans: vec![plan],
        production,
        staging: Some(Proxy::default()),
    }
}

fn key_hash() -> weir_core::KeyHash {
    KeyHasher::new(("1", &Secret::new("server")), &[]).hash(&Secret::new("key"))
}

fn application() -> Application {
    let hash = key_hash();
    Application {
        reference: "mail_api/acme".parse().unwrap(),
        state: weir_core::ApplicationState::Pending,
        plan: "gold".parse().unwrap(),
        user_key: Some(hash.clone()),
        app_keys: vec![AppKey { hash, until: Some(Timestamp::from_unix_s(9)) }],
        referrer_filters: vec!["*.org".into()],
        redirect_url: Some("https://acme.example/back".into()),
    }
}

#[test]
fn decisions_travel_unchanged() {
    let denials = [
        Denial::CredentialsMissing,
        Denial::ApplicationNotFound,
        Denial::MetricInvalid("hitz".into()),
        Denial::LimitsExceeded(limit_status()),
    ];
    let decisions = denials.into_iter().map(Decision::Deny).chain([Decision::Allow(vec![limit_status()])]);
    let accepted = Acceptance { application_id: "acme", ..Acceptance::default() };
    for decision in decisions {
        let message = v1::Decision::new(&decision, accepted, Timestamp::from_unix_s(5));
        let read = v1::Decision::decode(message.encode_to_vec().as_slice()).unwrap();
        assert_eq!(Decision::try_from(&read).unwrap(), decision);
    }
}

#[test]
fn an_unknown_denial_is_never_an_allowance() {
    let denial = v1::Denial { code: "from_the_future".into(), ..v1::Denial::default() };
    let message = v1::Decision { denial: Some(denial), ..v1::Decision::default() };
    assert!(Decision::try_from(&message).is_err());
}

#[test]
fn usage_and_credentials_travel_unchanged() {
    let metric = |text: &str| text.parse().unwrap();
    let usage = Usage::new([(metric("hits"), UsageValue::Add(3)), (metric("disk"), UsageValue::Set(0))]);
    assert_eq!(v1::UsageEntry::read(&v1::UsageEntry::list(&usage)).unwrap(), usage);
    let app_key = Some(Secret::new("k"));
    for credentials in [
        Credentials::UserKey(Secret::new("k")),
        Credentials::AppIdAndKey { app_id: "a".into(), app_key },
        Credentials::AppIdAndKey { app_id: "a".into(), app_key: None },
        Credentials::ClientId("c".into()),
    ] {
        let message = v1::Credentials::from(&credentials);
        assert_eq!(v1::Credentials::read(Some(&message)).unwrap(), credentials);
        assert!(!format!("{message:?}").contains("\"k\""), "no key in Debug");
    }
}

#[test]
fn services_and_applications_travel_unchanged() {
    let message = v1::Service::from(&service());
    let read = Service::try_from(&message).unwrap();
    assert_eq!(v1::Service::from(&read), message);
    let whose = |service: &Service| (service.provider.clone(), service.tokens.clone(), service.alert_bins);
    assert_eq!(whose(&read), whose(&service()));
    assert_eq!(read.production.mapping_rules, service().production.mapping_rules);
    assert_eq!(read.production.backends, service().production.backends);
    assert!(!format!("{message:?}").contains("shh"), "no secret token in Debug");
    let message = v1::Application::from(&application());
    assert_eq!(Application::try_from(&message).unwrap(), application());
    let told = v1::GatewayService::new(&service(), Environment::Staging);
    assert_eq!(told.proxy.unwrap().hosts, Vec::<String>::new());
}

#[test]
fn bad_messages_name_their_field() {
    #[track_caller]
    fn check<T>(result: Result<T, crate::FieldError>, expected: &str) {
        assert_eq!(result.err().expect("refused").field, expected);
    }
    let entry = |metric: &str, value| v1::UsageEntry { metric: metric.into(), value };
    let add = |n| Some(v1::usage_entry::Value::Add(n));
    check(v1::UsageEntry::read(&[entry("hits", None)]), "usage[0].value");
    check(v1::UsageEntry::read(&[entry("hits", add(1)), entry("a b", add(1))]), "usage[1].metric");
    check(v1::UsageEntry::read(&[entry("hits", add(1 << 53))]), "usage[0].value");
    check(v1::UsageEntry::read(&vec![entry("hits", add(1)); 257]), "usage");
    check(v1::Credentials::read(None), "credentials");
    check(v1::Credentials::read(Some(&v1::Credentials { kind: None })), "credentials");

    let good = v1::Service::from(&service());
    let broken = |change: fn(&mut v1::Service)| {
        let mut message = good.clone();
        change(&mut message);
        Service::try_from(&message)
    };
    check(broken(|s| s.id = "a/b".into()), "id");
    check(broken(|s| s.credentials = 99), "credentials");
    check(broken(|s| s.metrics[1].parent = "nobody".into()), "metrics");
    check(broken(|s| s.plans[0].limits[0].metric = "nobody".into()), "plans.limits.metric");
    check(broken(|s| s.plans[0].limits[0].period = 0), "period");
    check(
        broken(|s| s.production.as_mut().unwrap().mapping_rules[0].delta = 0),
        "production.mapping_rules.delta",
    );
    check(
        broken(|s| s.production.as_mut().unwrap().mapping_rules[0].pattern = "x".into()),
        "production.mapping_rules.pattern",
    );
    check(broken(|s| s.staging.as_mut().unwrap().auth_missing = None), "staging.auth_missing");
    check(
        broken(|s| s.production.as_mut().unwrap().backends[0].mount = "search".into()),
        "production.backends.mount",
    );
    check(
        broken(|s| s.production.as_mut().unwrap().backends[0].mapping_rules[0].delta = 0),
        "production.backends.mapping_rules.delta",
    );

    let good = v1::Application::from(&application());
    let broken = |change: fn(&mut v1::Application)| {
        let mut message = good.clone();
        change(&mut message);
        Application::try_from(&message)
    };
    check(broken(|a| a.app_id = "a b".into()), "app_id");
    check(broken(|a| a.state = 0), "state");
    check(broken(|a| a.user_key = "in the clear".into()), "user_key");
    check(broken(|a| a.app_keys = vec![a.app_keys[0].clone(); 6]), "app_keys");
}

#[test]
fn envoys_messages_show_no_secret() {
    use crate::envoy::config::core::v3::{HeaderMap, HeaderValue, HeaderValueOption};
    use crate::envoy::extensions::common::ratelimit::v3::{
        RateLimitDescriptor, rate_limit_descriptor::Entry,
    };
    use crate::envoy::service::auth::v3::attribute_context::{HttpRequest, Request};
    use crate::envoy::service::auth::v3::check_response::HttpResponse;
    use crate::envoy::service::auth::v3::{AttributeContext, CheckRequest, CheckResponse, OkHttpResponse};
    use crate::envoy::service::ratelimit::v3::RateLimitRequest;
    let secret = || "shh".to_owned();
    let header = HeaderValue { key: "authorization".into(), value: secret(), raw_value: b"shh".into() };
    let http = HttpRequest {
        path: "/?user_key=shh".into(),
        headers: [("authorization".to_owned(), secret())].into(),
        header_map: Some(HeaderMap { headers: vec![header.clone()] }),
        body: secret(),
        ..HttpRequest::default()
    };
    let attributes =
        Some(AttributeContext { request: Some(Request { http: Some(http) }), ..AttributeContext::default() });
    let set = HeaderValueOption { header: Some(header), ..HeaderValueOption::default() };
    let ok = OkHttpResponse { headers: vec![set], ..OkHttpResponse::default() };
    let response = CheckResponse { status: None, http_response: Some(HttpResponse::OkResponse(ok)) };
    let entries = vec![Entry { key: "user_key".into(), value: secret() }];
    let descriptors = vec![RateLimitDescriptor { entries, ..RateLimitDescriptor::default() }];
    let limits = RateLimitRequest { descriptors, ..RateLimitRequest::default() };
    let shown = format!("{:?} {response:?} {limits:?}", CheckRequest { attributes });
    assert!(!shown.contains("shh") && !shown.contains("115, 104"), "{shown}");
}
