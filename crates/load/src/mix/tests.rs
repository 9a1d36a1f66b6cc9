//! What becomes of a choice: weights, credentials, and the request on the wire.

use http_body_util::BodyExt;
use weir_core::Secret;

use super::*;
use crate::plan::Target;

fn call(name: &str, weight: u32, kind: CallKind, path: &str) -> Call {
    Call {
        name: name.into(),
        weight,
        kind,
        path: path.parse().unwrap(),
        headers: vec![(HeaderName::from_static("x-n"), "{7..7}".parse().unwrap())],
        usage: vec![(MetricName::parse("search").unwrap(), 2)],
        counted: vec![],
        expected: Expected::default(),
    }
}

fn get(name: &str, weight: u32) -> Call {
    call(name, weight, CallKind::Http { method: Method::GET, body: Template::default() }, "/a?b=c")
}

fn group(callers: Vec<Caller>, calls: Vec<Call>) -> Group {
    Group {
        weight: 1,
        service: Some(ServiceId::parse("api").unwrap()),
        proof: Some(Proof::ServiceToken(Secret::new("t+1"))),
        host: Some("api.test".into()),
        callers,
        calls,
    }
}

fn caller(credentials: Credentials, location: CredentialLocation) -> Caller {
    Caller::new(1, None, credentials, location, &CredentialNames::default()).unwrap()
}

fn user_key() -> Credentials {
    Credentials::UserKey(Secret::new("k&1"))
}

fn pair() -> Credentials {
    Credentials::AppIdAndKey { app_id: "acme".into(), app_key: Some(Secret::new("s:1")) }
}

fn request(mix: &Mix, is_http2: bool) -> Request<Full<Bytes>> {
    let target = Target { authority: "127.0.0.1:80".into(), host: "127.0.0.1".into(), addresses: vec![] };
    let connector = Connector::over(None, &target, is_http2).unwrap();
    let mut random = Random::new(1);
    let choice = mix.choose(&mut random);
    mix.request(choice, &mut random, &connector, is_http2)
}

/// Method, URI and headers, each `name: value`, of the request that the only caller makes.
#[track_caller]
fn check(caller: Option<Caller>, call: Call, is_http2: bool, expected: &str) {
    let mix = Mix::new(vec![group(caller.into_iter().collect(), vec![call])]);
    let request = request(&mix, is_http2);
    let mut lines = vec![format!("{} {}", request.method(), request.uri())];
    let headers = request.headers().iter().filter(|(name, _)| *name != USER_AGENT_HEADER);
    lines.extend(headers.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())));
    assert_eq!(lines.join(", "), expected);
}

#[test]
fn credentials_go_where_gateways_look_for_them() {
    use CredentialLocation::{Authorization, Headers, Query};
    check(None, get("a", 1), false, "GET /a?b=c, x-n: 7, host: api.test");
    let made = |credentials, location| Some(caller(credentials, location));
    check(made(user_key(), Query), get("a", 1), false, "GET /a?b=c&user_key=k%261, x-n: 7, host: api.test");
    check(
        made(pair(), Query),
        get("a", 1),
        false,
        "GET /a?b=c&app_id=acme&app_key=s%3A1, x-n: 7, host: api.test",
    );
    check(
        made(pair(), Headers),
        get("a", 1),
        true,
        "GET http://api.test/a?b=c, x-n: 7, app_id: acme, app_key: s:1",
    );
    check(
        made(pair(), Authorization),
        get("a", 1),
        true,
        "GET http://api.test/a?b=c, x-n: 7, authorization: Basic YWNtZTpzOjE=",
    );
    check(
        made(user_key(), Authorization),
        get("a", 1),
        true,
        "GET http://api.test/a?b=c, x-n: 7, authorization: Basic ayYxOg==",
    );
    let client = Credentials::ClientId("acme".into());
    let refused = Caller::new(1, None, client, Query, &CredentialNames::default());
    assert_eq!(refused.unwrap_err(), CallerError::ClientId);
    let control = Credentials::UserKey(Secret::new("a\nb"));
    let refused = Caller::new(1, None, control, Headers, &CredentialNames::default());
    assert_eq!(refused.unwrap_err(), CallerError::Character);
}

#[tokio::test]
async fn grpc_calls_are_framed() {
    let kind = CallKind::grpc(&[1, 2, 3]);
    check(
        None,
        call("g", 1, kind.clone(), "/p.S/M"),
        true,
        "POST http://api.test/p.S/M, x-n: 7, content-type: application/grpc, te: trailers",
    );
    let request = request(&Mix::new(vec![group(vec![], vec![call("g", 1, kind, "/p.S/M")])]), true);
    let body = request.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body.as_ref(), [0, 0, 0, 0, 3, 1, 2, 3]);
}

#[test]
fn weights_are_kept_and_a_seed_repeats_them() {
    let heavy = Group { weight: 3, ..group(vec![], vec![get("a", 1), get("b", 9)]) };
    let mix = Mix::new(vec![heavy, group(vec![], vec![get("c", 5)])]);
    let draw = |number| mix.choose(&mut Random::of_request(1, number)).call as usize;
    let mut counts = [0_u32; 3];
    (0..40_000).for_each(|number| counts[draw(number)] += 1);
    for (count, expected) in counts.into_iter().zip([3_000_u32, 27_000, 10_000]) {
        assert!(count.abs_diff(expected) < expected / 10, "{counts:?}");
    }
    assert!((0..100).all(|number| draw(number) == draw(number)));
    let names: Vec<&str> = mix.calls().map(|call| call.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
}

/// The authrep that the only caller makes.
#[track_caller]
fn check_authrep(group: Group, has_body: bool, expected: &str) {
    let target = Target { authority: "127.0.0.1:80".into(), host: "127.0.0.1".into(), addresses: vec![] };
    let connector = Connector::over(None, &target, false).unwrap();
    let mix = Mix::new(vec![group]);
    let request = mix.authrep(mix.choose(&mut Random::new(1)), &connector, has_body);
    let header = |name| request.headers()[name].to_str().unwrap();
    let found =
        format!("{} {}, {}, {}", request.method(), request.uri(), header("host"), header("3scale-options"));
    assert_eq!(found, expected);
}

#[test]
fn authreps_have_proof_credentials_and_usage() {
    use CredentialLocation::{Headers, Query};
    // Wherever a gateway would look for them.
    check_authrep(
        group(vec![caller(user_key(), Headers)], vec![get("a", 1)]),
        false,
        "GET /transactions/authrep.xml?service_token=t%2B1&service_id=api&user_key=k%261&usage%5Bsearch%5D=2&, \
         127.0.0.1:80, rejection_reason_header=1&no_body=1",
    );
    let proof = Some(Proof::ProviderKey(Secret::new("p")));
    check_authrep(
        Group { proof, ..group(vec![caller(pair(), Query)], vec![get("a", 1)]) },
        true,
        "GET /transactions/authrep.xml?provider_key=p&service_id=api&app_id=acme&app_key=s%3A1&usage%5Bsearch%5D=2&, \
         127.0.0.1:80, rejection_reason_header=1",
    );
    let open = Credentials::AppIdAndKey { app_id: "acme".into(), app_key: None };
    let idle = Call { usage: vec![], ..get("a", 1) };
    check_authrep(
        group(vec![caller(open, Query)], vec![idle]),
        false,
        "GET /transactions/authrep.xml?service_token=t%2B1&service_id=api&app_id=acme&, \
         127.0.0.1:80, rejection_reason_header=1&no_body=1",
    );
}

#[test]
fn authreps_that_are_too_long_are_found() {
    let mix = |metric: &str, count| {
        let usage = (0..count).map(|n| (MetricName::parse(&format!("{metric}{n}")).unwrap(), 1)).collect();
        let calls = vec![get("a", 1), Call { usage, ..get("b", 1) }];
        Mix::new(vec![group(vec![caller(user_key(), CredentialLocation::Query)], calls)])
    };
    assert!(mix("metric", 500).authreps_fit());
    assert!(!mix("metric", 5_000).authreps_fit());
}

#[test]
fn questions_are_what_gateways_ask() {
    let mix = Mix::new(vec![group(vec![caller(user_key(), CredentialLocation::Query)], vec![get("a", 1)])]);
    let choice = mix.choose(&mut Random::new(1));
    let question = mix.question(choice, vec![7; 16]);
    assert_eq!((question.service_id.as_str(), question.request_id.len()), ("api", 16));
    assert_eq!(question.usage.len(), 1);
    assert_eq!(
        (question.usage[0].metric.as_str(), question.usage[0].value),
        ("search", Some(v1::usage_entry::Value::Add(2)))
    );
    assert!(mix.application(choice).is_none(), "no counters without an application's id");
}
