//! 3scale's authorize and authrep through the socket, table by table of the reference's sections 1 to 3.
//!
//! Goal: what a client can see is what it saw before. Method: one listener, calls that change nothing, or applications
//! of their own for those that count.

use std::net::SocketAddr;

use weir_tests::http::call;
use weir_tests::management_api::{SERVICE_TOKEN, ask, outcome, start, usage};
use weir_tests::stack::Plan;

/// Rejections name their code, where there is no error document.
const REASON: &str = "rejection_reason_header=1";

/// Rows of endpoint, query and outcome.
#[track_caller]
fn check(address: SocketAddr, rows: &[(&str, &str, &str)]) {
    for (endpoint, query, expected) in rows {
        let answer = ask(address, endpoint, query, REASON);
        assert_eq!(outcome(&answer), *expected, "{endpoint}?{query}: {}", answer.body);
    }
}

#[tokio::test]
async fn endpoints() {
    let (_stack, address) = start(Plan::small("")).await;
    let query = "?provider_key=postbote-provider-key&app_id=free";
    let authorize = format!("/transactions/authorize.xml{query}");
    let version = format!(r#"{{"status":"ok","version":{{"backend":"{}"}}}}"#, env!("CARGO_PKG_VERSION"));
    let xml = "application/vnd.3scale-v2.0+xml";
    for (method, target, status, content_type, body) in [
        ("GET", "/check.txt", 200, "text/plain", "ok"),
        ("GET", "/status", 200, "application/json", &version),
        ("HEAD", "/available", 200, xml, ""),
        ("HEAD", &authorize, 200, xml, ""),
        ("GET", "/available", 404, xml, ""),
        ("POST", &authorize, 404, xml, ""),
        ("GET", "/transactions.xml", 404, xml, ""),
        ("GET", "/transactions/authorize.xml/", 404, xml, ""),
        ("GET", "/transactions/authorize", 404, xml, ""),
        ("GET", "/", 404, xml, ""),
        ("OPTIONS", "/nothing", 204, xml, ""),
    ] {
        let answer = call(address, method, target, &[], "");
        assert_eq!((answer.status, answer.body.as_str()), (status, body), "{method} {target}");
        assert_eq!(answer.header("content-type"), content_type, "{method} {target}");
        assert_eq!(answer.header("access-control-allow-origin"), "*", "{method} {target}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{method} {target}");
    }
    let slashes = call(address, "GET", &format!("//transactions//authorize.xml{query}"), &[], "");
    assert_eq!(slashes.status, 200);
    let preflight = call(address, "OPTIONS", "/transactions.xml", &[], "");
    assert_eq!(preflight.header("access-control-max-age"), "86400");
    assert!(preflight.header("access-control-allow-headers").contains("3scale-options"));
}

#[tokio::test]
async fn the_order_of_checks() {
    let (_stack, address) = start(Plan::small("")).await;
    check(
        address,
        &[
            // What is wrong with a call comes before what is wrong with its caller, row by row.
            ("authorize", "provider_key=no&x=%zz&y=%ff", "400 bad_request"),
            ("authorize", "provider_key=no&usage[]=1&usage[a]=1&y=%ff", "400 bad_request"),
            ("authorize", "provider_key=no&y=%ff", "422 not_valid_data"),
            (
                "authorize",
                "provider_key=&service_token=&app_id=open",
                "403 provider_key_or_service_token_required",
            ),
            ("authorize", "service_token=x&app_id=open", "422 service_id_missing"),
            ("authorize", "service_token=x&service_id=keys&user_id=1", "403 service_token_invalid"),
            ("authorize", "provider_key=no&user_id=1&usage=1", "400 end_users_no_longer_supported"),
            ("authorize", "provider_key=no&usage=1", "403"),
            ("authorize", "provider_key=no&app_id=open", "403 provider_key_invalid_or_service_missing"),
            ("authorize", "provider_key=no&service_id=pair&app_id=open", "403 provider_key_invalid"),
            ("authorize", "service_id=nothing&app_id=open", "403 service_id_invalid"),
            ("authorize", "service_id=foreign&app_id=open", "403 service_id_invalid"),
            ("oauth_authorize", "user_key=uk", "404 application_not_found"),
            ("authorize", "app_id=open&user_key=uk", "403 authentication_error"),
            ("authorize", "service_id=keys&app_id=holder", "403 user_key_invalid"),
            ("authorize", "service_id=keys&user_key=no", "403 user_key_invalid"),
            ("oauth_authorize", "service_id=keys&app_id=holder", "403 user_key_invalid"),
            ("authorize", "app_id=nobody&usage[nothing]=1", "404 application_not_found"),
            ("authorize", "user_key=uk", "404 application_not_found"),
            ("authorize", "app_id=locked&app_key=no&usage[nothing]=1", "409 application_key_invalid"),
            ("authorize", "app_id=locked&app_key=no&usage[nothing]=1&no_body", "409 application_key_invalid"),
            ("authorize", "app_id=open&usage[hits]=x&usage[nothing]=1", "403 usage_value_invalid"),
            ("authorize", "app_id=open&usage[nothing]=1&usage[hits]=x", "404 metric_invalid"),
            ("authorize", "app_id=open&usage[nothing]=x", "403 usage_value_invalid"),
            ("authorize", "app_id=open&usage[a%20b]=1", "404 metric_invalid"),
        ],
    );
    let moved = ask(address, "authorize", "app_id=locked&app_key=no&usage[nothing]=1", "no_body=1");
    assert_eq!((moved.status, moved.body.as_str()), (404, ""), "with no_body an unknown metric comes first");
    let value_first = ask(address, "authorize", "app_id=locked&app_key=no&usage[hits]=x", "no_body=1");
    assert_eq!(value_first.status, 409, "a bad value does not");
}

#[tokio::test]
async fn callers() {
    let (_stack, address) = start(Plan::small("")).await;
    let token = format!("service_token={SERVICE_TOKEN}");
    check(
        address,
        &[
            ("authorize", &format!("{token}&service_id=keys&user_key=uk"), "200"),
            ("authorize", &format!("{token}&service_id=pair&app_id=open"), "403 service_token_invalid"),
            ("authorize", &format!("{token}x&service_id=keys&user_key=uk"), "403 service_token_invalid"),
            (
                "authorize",
                &format!("{token}&service_id=keys&provider_key=postbote-provider-key&user_key=uk"),
                "200",
            ),
            (
                "authorize",
                &format!("{token}&service_id=keys&provider_key=no&user_key=uk"),
                "403 provider_key_invalid",
            ),
            ("authorize", "app_id=open", "200"),
            ("authorize", "service_id=pair&app_id=open", "200"),
            ("authorize", "service_id=legacy-pair&app_id=open", "200"),
            ("authorize", "service_id=%20pair&app_id=open", "403 service_id_invalid"),
            ("authorize", "app_id=%20open", "404 application_not_found"),
            ("authorize", "app_id=%20%09", "404 application_not_found"),
        ],
    );
}

#[tokio::test]
async fn validators() {
    let (_stack, address) = start(Plan::small("")).await;
    let redirect = |name: &str, url: &str| format!("service_id=oauth&app_id=client&{name}={url}");
    check(
        address,
        &[
            ("authorize", "app_id=locked", "409 application_key_invalid"),
            ("authorize", "app_id=locked&app_key=second", "200"),
            ("authorize", "app_id=locked&app_key=%20second%20", "200"),
            ("authorize", "app_id=open&app_key=whatever", "200"),
            ("authorize", "app_id=filtered", "409 referrer_not_allowed"),
            ("authorize", "app_id=filtered&referrer=www.example.org", "200"),
            ("authorize", "app_id=filtered&referrer=*", "200"),
            ("authorize", "app_id=pending", "409 application_not_active"),
            ("authorize", "app_id=suspended", "409 application_not_active"),
            ("authorize", "service_id=closed&app_id=open", "409 service_not_active"),
            ("authorize", "app_id=everything&app_key=no", "409 application_key_invalid"),
            ("authorize", "app_id=everything&app_key=first", "409 referrer_not_allowed"),
            ("authorize", "app_id=everything&app_key=first&referrer=a.example", "409 application_not_active"),
            ("authorize", "app_id=open&usage[mail]=1", "409 limits_exceeded"),
            ("authorize", "app_id=open&usage[mail]=0", "200"),
            ("authorize", "service_id=keys&user_key=uk&app_key=whatever", "200"),
            ("oauth_authorize", "app_id=open", "409 oauth_not_enabled"),
            ("oauth_authorize", "service_id=oauth&app_id=client", "200"),
            ("oauth_authorize", "service_id=oauth&app_id=client&app_key=secret", "200"),
            ("oauth_authorize", "service_id=oauth&app_id=client&app_key=", "409 application_key_invalid"),
            ("authorize", "service_id=oauth&app_id=client&app_key=no", "409 application_key_invalid"),
            ("authorize", &redirect("redirect_url", "https://b.example/"), "200"),
            ("oauth_authorize", &redirect("redirect_url", ""), "200"),
            ("oauth_authorize", &redirect("redirect_url", "https://b.example/"), "409 redirect_url_invalid"),
            ("oauth_authorize", &redirect("redirect_uri", "https://b.example/"), "409 redirect_uri_invalid"),
            ("oauth_authorize", &redirect("redirect_url", "https://a.example/?x=1%26y=2"), "200"),
        ],
    );
}

#[tokio::test]
async fn documents() {
    let (_stack, address) = start(Plan::small("")).await;
    let denied = ask(address, "authrep", "app_id=open&usage[page]=9", "hierarchy=1&list_app_keys=1");
    let today = time_of_day_removed(&denied.body);
    assert_eq!(
        today,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><status><authorized>false</authorized>\
         <reason>The limit of 8 hits per day is reached.</reason><plan>Gold &amp; &lt;Silver&gt;</plan><usage_reports>\
         <usage_report metric=\"hits\" period=\"eternity\"><max_value>10</max_value><current_value>0</current_value>\
         </usage_report><usage_report metric=\"hits\" period=\"day\"><period_start>…</period_start>\
         <period_end>…</period_end><max_value>8</max_value><current_value>0</current_value></usage_report>\
         <usage_report metric=\"mail\" period=\"eternity\"><max_value>0</max_value><current_value>0</current_value>\
         </usage_report></usage_reports><app_keys app=\"open\" svc=\"pair\"></app_keys><hierarchy>\
         <metric name=\"hits\" children=\"read\"/><metric name=\"hits\" children=\"read\"/>\
         <metric name=\"mail\" children=\"\"/></hierarchy></status>"
    );
    let free = ask(address, "authorize", "app_id=free", "");
    assert!(!free.body.contains("usage_reports"), "{}", free.body);
    let oauth = ask(address, "oauth_authorize", "service_id=oauth&app_id=client&redirect_uri=", "");
    let application = "<application><id>client</id><key></key>\
                       <redirect_uri>https://a.example/?x=1&amp;y=2</redirect_uri></application>";
    assert!(oauth.body.contains(application), "{}", oauth.body);
    let error = ask(address, "authorize", "app_id=open&usage[%3Cb%3E]=1", "");
    assert!(error.body.contains("called &lt;b&gt;"), "{}", error.body);
    assert_eq!(error.header("content-security-policy"), "");
}

/// The document with its instants left out, each of which has a day's form.
fn time_of_day_removed(body: &str) -> String {
    let mut parts = body.split("<period_");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once('>').unwrap();
        let (instant, rest) = rest.split_once('<').unwrap();
        assert!(instant.ends_with(" 00:00:00 +0000") && instant.len() == 25, "{instant}");
        text += &format!("<period_{name}>…<{rest}");
    }
    text
}

#[tokio::test]
async fn what_is_counted_and_shown() {
    let (_stack, address) = start(Plan::small("")).await;
    // Asking twice shows that an authorize counts nothing.
    for (endpoint, query, options, expected) in [
        ("authorize", "usage[page]=2", "", "200 0/10 0/8"),
        ("authorize", "usage[page]=2", "", "200 0/10 0/8"),
        ("authrep", "usage[page]=2&usage[hits]=1", "", "200 3/10 3/8"),
        ("authrep", "usage[page]=3", "flat_usage=1", "200 3/10 3/8"),
        ("authrep", "usage[hits]=%235", "", "200 5/10 5/8"),
        ("authrep", "usage[hits]=4", "", "409 limits_exceeded 5/10 5/8"),
        ("authrep", "usage[hits]=3", "", "200 8/10 8/8"),
        ("authrep", "usage[hits]=0", "", "200 8/10 8/8"),
        ("authrep", "", "", "200 8/10 8/8"),
        ("authrep", "usage[hits]=1", "", "409 limits_exceeded 8/10 8/8"),
        ("authrep", "usage[hits]=%231", "", "200 1/10 1/8"),
    ] {
        let options = format!("{REASON}&{options}");
        let answer = ask(address, endpoint, &format!("app_id=other&{query}"), &options);
        let found = format!(
            "{} {} {}",
            outcome(&answer),
            usage(&answer, "hits", "eternity"),
            usage(&answer, "hits", "day")
        );
        assert_eq!(found, expected, "{endpoint} {query}");
    }
}

#[tokio::test]
async fn options() {
    let (_stack, address) = start(Plan::small("")).await;
    for (query, options, expected) in [
        ("app_id=third&usage[hits]=2", "limit_headers=1", "200 4 day 8"),
        ("app_id=third&usage[mail]=1", "limit_headers=1&no_body=1", "409 0 -1 0"),
        ("app_id=third", "limit_headers=1", "200 -1 -1 "),
        ("app_id=free&usage[hits]=1", "limit_headers=1", "200 -1 -1 "),
        ("app_id=third&usage[hits]=2", "limit_headers=true", "200   "),
        ("app_id=locked", "limit_headers=1", "409   "),
    ] {
        let answer = ask(address, "authorize", query, options);
        let header = |name: &str| answer.header(&format!("3scale-limit-{name}"));
        let (remaining, reset, max) = (header("remaining"), header("reset"), header("max-value"));
        let reset = match reset.parse::<i64>() {
            Ok(1..=86_400) => "day".to_owned(),
            _ => reset,
        };
        assert_eq!(format!("{} {remaining} {reset} {max}", answer.status), expected, "{query} {options}");
    }
    for (query, options, has_body) in [
        ("", "", true),
        ("&no_body=1", "", false),
        ("&no_body=", "", false),
        ("&no_body", "", true),
        ("&no_body=1", "no_body=0", true),
        ("", "no_body=false", true),
        ("", "no_body=yes", false),
    ] {
        for app in ["free", "locked", "nobody"] {
            let answer = ask(address, "authorize", &format!("app_id={app}{query}"), options);
            assert_eq!(!answer.body.is_empty(), has_body, "{app}{query} {options}");
        }
    }
}

#[tokio::test]
async fn usage_values() {
    let (_stack, address) = start(Plan::small("")).await;
    for (value, expected) in [
        ("1", "200"),
        ("+1", "200"),
        ("%091%20", "200"),
        ("007", "200"),
        ("0", "200"),
        ("%230", "200"),
        ("%235", "200"),
        ("99999999999999999999", "409 limits_exceeded"),
        ("", "403 usage_value_invalid"),
        ("%20", "403 usage_value_invalid"),
        ("%23", "403 usage_value_invalid"),
        ("%23%233", "403 usage_value_invalid"),
        ("%23.0", "403 usage_value_invalid"),
        ("%23%205", "403 usage_value_invalid"),
        ("-1", "403 usage_value_invalid"),
        ("-%2355", "403 usage_value_invalid"),
        ("%2B5", "403 usage_value_invalid"),
        ("1.5", "403 usage_value_invalid"),
        ("tons!", "403 usage_value_invalid"),
    ] {
        let answer = ask(address, "authorize", &format!("app_id=open&usage[hits]={value}"), REASON);
        assert_eq!(outcome(&answer), expected, "{value:?}: {}", answer.body);
    }
    check(
        address,
        &[
            ("authorize", "app_id=open&usage[hits]", "403 usage_value_invalid"),
            ("authorize", "app_id=open&usage[hits][x]=1", "403 usage_value_invalid"),
            ("authorize", "app_id=open&usage", "200"),
            ("authorize", "app_id=open&usage[%20hits%20]=1", "200"),
        ],
    );
}

#[tokio::test]
async fn a_rejection_is_named_where_that_is_asked_for() {
    let (_stack, address) = start(Plan::small("")).await;
    for (query, options, expected) in [
        ("app_id=locked", "rejection_reason_header=1", "application_key_invalid"),
        ("app_id=locked", "rejection_reason_header=1&no_body=1", "application_key_invalid"),
        ("app_id=locked", "rejection_reason_header=0", ""),
        ("app_id=locked", "rejection_reason_header=true", ""),
        ("app_id=locked", "rejection_reason_header", ""),
        ("app_id=locked", "", ""),
        ("app_id=open", "rejection_reason_header=1", ""),
        ("app_id=nobody", "rejection_reason_header=1", ""),
    ] {
        let answer = ask(address, "authrep", query, options);
        assert_eq!(answer.header("3scale-rejection-reason"), expected, "{query} {options}");
    }
}
