//! What lists of policies are taken, and what is said of others.

use super::*;

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn table<const N: usize>(entries: [(&str, Value); N]) -> Value {
    Value::Table(entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn policy<const N: usize>(name: &str, entries: [(&str, Value); N]) -> Value {
    let Value::Table(mut settings) = table(entries) else { unreachable!() };
    settings.insert("policy".to_owned(), text(name));
    Value::Table(settings)
}

fn cors() -> Value {
    policy("cors", [("origins", text("*"))])
}

fn rewriting() -> Value {
    let rewrite = table([("pattern", text("^/a")), ("replacement", text("/b"))]);
    policy("url_rewriting", [("path", Value::List(vec![rewrite]))])
}

#[track_caller]
fn order(entries: &[Value], expected: &str) {
    let told = match Chain::read(entries) {
        Ok(chain) => {
            let name = |step: &ChainStep| step.name;
            let (front, behind) = chain.steps().split_at(chain.front());
            let mut names: Vec<&str> = front.iter().map(name).collect();
            names.push("|");
            names.extend(behind.iter().map(name));
            names.join(" ")
        }
        Err(problems) => problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
    };
    assert!(told.contains(expected), "{told}");
}

#[test]
fn order_is_as_written_around_authorise() {
    let authorise = || policy(AUTHORISE, []);
    order(&[], "|");
    order(&[rewriting(), cors()], "cors | url_rewriting");
    order(&[rewriting(), cors(), authorise()], "url_rewriting cors |");
    order(&[cors(), authorise(), rewriting()], "cors | url_rewriting");
    order(&[authorise(), cors()], "1. cors stands behind authorise");
    order(&[cors(), cors()], "1. cors stands here a second time");
    order(&[authorise(), authorise()], "1. authorise stands here a second time");
    order(&[policy(AUTHORISE, [("x", text("y"))])], "0. authorise has no settings");
    let check = table([("claims", Value::List(vec![table([("name", text("role"))])]))]);
    let check = policy("claim_check", [("checks", Value::List(vec![check]))]);
    order(&[check.clone(), authorise()], "0. claim_check stands in front of authorise");
    order(&[check], "| claim_check");
    let limit = table([("per", text("application")), ("requests", Value::Whole(1))]);
    let limits = policy("edge_limits", [("limits", Value::List(vec![limit]))]);
    order(&[limits, authorise()], "0. edge_limits per application or client stands in front");
}

#[test]
fn all_that_is_wrong_is_told_with_its_path() {
    let headers = table([("name", text("Host")), ("value", text("x"))]);
    let entries = [
        policy("corz", []),
        table([("origins", text("*"))]),
        policy(
            "cors",
            [("origins", text("nonsense")), ("max_age", Value::Whole(1)), ("max_age_s", text("1"))],
        ),
        policy("headers", [("request", Value::List(vec![headers])), ("when", table([]))]),
        rewriting(),
    ];
    let problems = Chain::read(&entries).unwrap_err();
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    for expected in [
        "0.policy. there is no policy \"corz\"",
        "1. policy is missing",
        "2.origins. origins: \"nonsense\" is not an origin",
        "2.max_age_s. max_age_s must be a whole number, not text",
        "2.max_age. there is no key max_age",
        "3.request.0.name. name cannot be \"Host\": use host_rewrite",
        "3.when. is empty",
    ] {
        assert!(told.iter().any(|problem| problem.starts_with(expected)), "{expected}: {told:#?}");
    }
    let (unknown, known) = problems[0].unknown.as_ref().unwrap();
    assert!(unknown == "corz" && known.contains(&"cors".to_owned()));
}

/// An empty list would let everybody pass here and nobody there.
#[test]
fn empty_lists_are_refused() {
    let empty = || Value::List(vec![]);
    for entry in [
        policy("ip_check", [("allow", empty())]),
        policy("claim_check", [("checks", empty())]),
        policy("maintenance", [("unless", table([("paths", empty())]))]),
        policy("cors", [("origins", empty())]),
    ] {
        let told = Chain::read(std::slice::from_ref(&entry)).unwrap_err();
        assert!(
            told.iter().any(|problem| problem.message.ends_with("is empty: fill it, or leave it out")),
            "{entry:?}"
        );
    }
}

/// Every kind can be asked for its keys, and each of them means something.
#[test]
fn kinds_have_shapes() {
    for kind in &KINDS {
        let Shape(properties) = kind.shape();
        assert_eq!(properties[0].name, "policy", "{}", kind.name);
        assert!(properties.iter().all(|property| property.meaning.ends_with('.')), "{}", kind.name);
        let Value::Table(schema) = Shape(properties).schema() else { panic!("a schema is a table") };
        assert_eq!(schema["type"], text("object"));
    }
    let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert_eq!(names, sorted);
}

#[test]
fn policies_leave_credentials_alone() {
    let change = table([("name", text("X-Key")), ("value", text("{query.user_key}"))]);
    let chain = Chain::read(&[policy("headers", [("request", Value::List(vec![change]))])]).unwrap();
    let told = |credentials, secret_names: &[&'static str]| {
        chain
            .problems_for(&ServiceOf {
                credentials,
                secret_names: secret_names.to_vec(),
                has_api_backend: false,
            })
            .len()
    };
    assert_eq!(told(CredentialKind::UserKey, &["user_key"]), 1);
    assert_eq!(told(CredentialKind::UserKey, &["key"]), 0);
    assert_eq!(told(CredentialKind::UserKey, &["x_key"]), 1, "under either spelling");
}

#[test]
fn conditions() {
    let header = |name: &str| (name == "x-beta").then_some(&b"yes"[..]);
    let argument = |name: &[u8]| (name == b"v").then(|| b"2".to_vec());
    let claims = condition::ClaimValues::new(vec![("role".into(), vec!["admin".into(), "dev".into()])]);
    let subject = Subject {
        method: "GET",
        path: b"/v1/mails/7",
        argument: &argument,
        header: &header,
        claims: Some(&claims),
    };
    let named = |name: &str, more: Value| {
        let Value::Table(mut test) = more else { unreachable!() };
        test.insert("name".into(), text(name));
        Value::List(vec![Value::Table(test)])
    };
    let check = |key: &str, value: Value, expected: bool| {
        let entry = policy("maintenance", [("when", table([(key, value.clone())]))]);
        let place = if key == "claims" { return check_claims(value, &subject, expected) } else { entry };
        let chain = Chain::read(&[place]).unwrap();
        assert_eq!(chain.steps()[0].applies(&subject), expected, "{key} {value:?}");
    };
    check("methods", text("GET"), true);
    check("methods", Value::List(vec![text("PUT"), text("POST")]), false);
    check("paths", text("/v1/mails"), true);
    check("paths", text("/v1/mails$"), false);
    check("paths", text("/v1/{any}/7$"), true);
    check("paths", text("/{a}/{b}$"), false);
    check("paths", text("/v1?v=2"), true);
    check("paths", text("/v1?v=3"), false);
    check("headers", named("X-Beta", table([])), true);
    check("headers", named("X-Beta", table([("values", text("no"))])), false);
    check("headers", named("X-Beta", table([("matches", text("^y"))])), true);
    check("headers", named("X-None", table([("not", Value::Flag(true))])), true);
    check("query", named("v", table([("values", text("2"))])), true);
    check("claims", named("role", table([("values", text("dev"))])), true);
    check("claims", named("role", table([("values", text("root"))])), false);
    check("claims", named("none", table([("not", Value::Flag(true))])), true);
}

fn check_claims(tests: Value, subject: &Subject<'_>, expected: bool) {
    let check = table([("claims", tests.clone())]);
    let chain = Chain::read(&[policy("claim_check", [("checks", Value::List(vec![check]))])]).unwrap();
    let Policy::ClaimCheck(check) = &chain.steps()[0].policy else { unreachable!() };
    assert_eq!(check.check(subject, subject.claims).is_ok(), expected, "{tests:?}");
    assert!(
        check.check(&Subject { claims: None, ..*subject }, None).is_err(),
        "without a token nothing holds"
    );
}
