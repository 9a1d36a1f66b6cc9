//! 3scale's report through the socket: what is refused at once, what voids a report, what is counted where and once.

use std::net::SocketAddr;

use weir_proto::v1;
use weir_tests::http::Answer;
use weir_tests::listener::ListenerClient;
use weir_tests::management_api::{SERVICE_TOKEN, ask, outcome, report, start, usage};
use weir_tests::stack::{Plan, Stack, TOKEN};
use weir_tests::wait::unix_s;

const OPERATOR_TOKEN: &str = "api-reports-operator";

fn plan(redis: bool) -> Plan {
    let listener_lines = format!("operator_token = \"{OPERATOR_TOKEN}\"");
    Plan { redis, listener_lines, ..Plan::small("") }
}

/// A transaction of `open` with that usage.
fn transaction(label: &str, usage: &str) -> String {
    format!("transactions[{label}][app_id]=open&transactions[{label}][usage]{usage}")
}

fn used(address: SocketAddr, application: &str) -> String {
    usage(&ask(address, "authorize", &format!("app_id={application}"), ""), "hits", "eternity")
}

/// The codes of a service's error list, newest first.
async fn errors(stack: &Stack, service: &str) -> Vec<String> {
    let channel = ListenerClient::new(stack.listeners[0].address, OPERATOR_TOKEN);
    let request = channel.signed(v1::ListErrorsRequest { service_id: service.into(), ..Default::default() });
    let client = v1::errors_client::ErrorsClient::connect(format!("http://{}", stack.listeners[0].address));
    let errors = client.await.as_mut().unwrap().list_errors(request).await.unwrap().into_inner();
    errors.errors.into_iter().map(|error| error.code).collect()
}

#[tokio::test]
async fn what_is_refused_at_once() {
    let (stack, address) = start(plan(false)).await;
    let good = transaction("0", "[hits]=1");
    for (form, headers, expected) in [
        (good.as_str(), &[("Content-Type", "application/json")][..], "400 content_type_invalid"),
        (&good, &[("Content-Type", "multipart/form-data")], "400 bad_request"),
        ("provider_key=%zz", &[], "400 bad_request"),
        (&format!("provider_key=no&{good}&x=%ff"), &[], "422 not_valid_data"),
        ("provider_key=&x=%ff", &[], "403 provider_key_or_service_token_required"),
        ("service_token=no&service_id=keys&x=%ff", &[], "403 service_token_invalid"),
        ("service_token=no", &[], "422 service_id_missing"),
        ("", &[], "400 transactions_is_blank"),
        ("transactions=", &[], "400 transactions_is_blank"),
        ("transactions[]=x", &[], "400 transactions_format_invalid"),
        ("transactions=x", &[], "400 transactions_format_invalid"),
        ("transactions[0]", &[], "400 transactions_has_nil_transaction"),
        ("transactions[0]=x", &[], "400 transactions_format_invalid"),
        (&transaction("0", "=5"), &[], "400 transactions_format_invalid"),
        (&format!("{good}&transactions[0][user_id]=u"), &[], "400 end_users_no_longer_supported"),
        (&format!("provider_key=no&{good}"), &[], "403 provider_key_invalid_or_service_missing"),
        (&format!("{good}&service_id=foreign"), &[], "403 service_id_invalid"),
        (&good, &[("Idempotency-Key", &"k".repeat(256))], "400 bad_request"),
        (&good, &[("3scale-options", "a=%zz")], "400 bad_request"),
    ] {
        let answer = report(address, form, headers);
        assert_eq!(outcome(&answer), expected, "{form} {headers:?}");
    }
    assert_eq!(used(address, "open"), "0/10");
    assert_eq!(errors(&stack, "pair").await, Vec::<String>::new(), "these are the caller's to read");
    for (form, options, has_body) in [
        ("transactions=&provider_key=no", "no_body=1", false),
        ("transactions=", "no_body=1", false),
        ("transactions=&no_body=1", "", true),
        ("transactions=&x=%ff", "no_body=1", true),
        ("transactions=%zz", "no_body=1", true),
    ] {
        let answer = report(address, form, &[("3scale-options", options)]);
        assert_eq!(!answer.body.is_empty(), has_body, "{form} {options}: {}", answer.body);
    }
}

#[tokio::test]
async fn one_bad_transaction_voids_the_report() {
    for redis in [false, true] {
        let (stack, address) = start(plan(redis)).await;
        let (old, new) = (unix_s() - 86_410, unix_s() + 3_700);
        let good = transaction("good", "[hits]=1");
        let mut expected = vec![];
        for (bad, code) in [
            ("transactions[x][app_id]=nobody&transactions[x][usage][hits]=1", "application_not_found"),
            ("transactions[x][usage][hits]=1", "application_not_found"),
            ("transactions[x][user_key]=no&transactions[x][usage][hits]=1", "user_key_invalid"),
            (
                "transactions[x][user_key]=uk&transactions[x][app_id]=&transactions[x][usage][hits]=1",
                "authentication_error",
            ),
            (&transaction("x", "[nothing]=1"), "metric_invalid"),
            (&transaction("x", "[hits]=-1"), "usage_value_invalid"),
            (
                &format!("{}&transactions[x][timestamp]={old}", transaction("x", "[hits]=1")),
                "transaction_timestamp_too_old",
            ),
            (
                &format!("{}&transactions[x][timestamp]={new}", transaction("x", "[hits]=1")),
                "transaction_timestamp_too_new",
            ),
            ("transactions[x][app_id]=nobody", "application_not_found"),
        ] {
            let answer = report(address, &format!("{good}&{bad}"), &[]);
            assert_eq!((answer.status, answer.body.as_str()), (202, ""), "{bad}");
            expected.insert(0, code.to_owned());
        }
        assert_eq!(used(address, "open"), "0/10", "nothing of them is counted");
        assert_eq!(errors(&stack, "pair").await, expected);
    }
}

#[tokio::test]
async fn what_is_counted() {
    let (_stack, address) = start(plan(false)).await;
    let counted = |form: &str, options: &str| {
        let headers = [("3scale-options", options)];
        let answer = report(address, form, if options.is_empty() { &[] } else { &headers });
        assert_eq!(answer.status, 202, "{form}: {}", answer.body);
        used(address, "open")
    };
    for (form, options, expected) in [
        (transaction("0", "[hits]=1"), "", "1/10"),
        (format!("{}&{}", transaction("b", "[page]=1"), transaction("a", "[hits]=%23 3")), "", "1/10"),
        (format!("{}&{}", transaction("b", "[page]=1"), transaction("a", "[hits]=%233")), "", "3/10"),
        (transaction("0", "[page]=5"), "flat_usage=1", "3/10"),
        (transaction("0", "[hits]=0"), "", "3/10"),
        ("transactions[0][app_id]=nobody&transactions[0][usage][nothing]=0".into(), "", "3/10"),
        ("transactions[0][app_id]=open".into(), "", "3/10"),
        ("transactions[0][app_id]=locked&transactions[0][usage][hits]=1".into(), "", "3/10"),
        ("transactions[0][app_id]=suspended&transactions[0][usage][hits]=1".into(), "", "3/10"),
        (transaction("0", "[hits]=9"), "", "12/10!"),
    ] {
        assert_eq!(counted(&form, options), expected, "{form} {options}");
    }
    assert_eq!(used(address, "suspended"), "1/10", "neither state nor keys are asked about");
    let with_user_key = "service_id=keys&transactions[0][user_key]=uk&transactions[0][usage][hits]=2";
    let token = format!("service_token={SERVICE_TOKEN}&{with_user_key}");
    assert_eq!([report(address, with_user_key, &[]).status, report(address, &token, &[]).status], [202, 202]);
    let keys = ask(address, "authorize", "service_id=keys&user_key=uk", "");
    assert_eq!(usage(&keys, "hits", "eternity"), "4/3!");
}

#[tokio::test]
async fn a_timestamp_says_which_periods() {
    let (_stack, address) = start(plan(false)).await;
    let yesterday = unix_s() - unix_s() % 86_400 - 60;
    let form = format!("{}&transactions[0][timestamp]={yesterday}", transaction("0", "[hits]=2"));
    assert_eq!(report(address, &form, &[]).status, 202);
    let form = format!("{}&transactions[0][timestamp]=nonsense", transaction("0", "[hits]=1"));
    assert_eq!(report(address, &form, &[]).status, 202);
    let status = ask(address, "authorize", "app_id=open", "");
    assert_eq!([usage(&status, "hits", "day"), usage(&status, "hits", "eternity")], ["1/8", "3/10"]);
}

#[tokio::test]
async fn forms_of_several_parts_are_read_as_well() {
    let (_stack, address) = start(plan(false)).await;
    let part = |name: &str, value: &str| {
        format!("--cut\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let body = [
        part("provider_key", "postbote-provider-key"),
        part("transactions[0][app_id]", "open"),
        part("transactions[0][usage][hits]", "2"),
        "--cut--\r\n".into(),
    ];
    let headers = [("Content-Type", "multipart/form-data; boundary=cut")];
    assert_eq!(report(address, &body.concat(), &headers).status, 202);
    assert_eq!(used(address, "open"), "2/10");
}

#[tokio::test]
async fn a_report_is_counted_once_and_survives() {
    for redis in [false, true] {
        let (mut stack, address) = start(plan(redis)).await;
        let form = format!("{}&{}", transaction("0", "[hits]=1"), transaction("1", "[hits]=1"));
        let send = |id: &str| -> Answer { report(address, &form, &[("Idempotency-Key", id)]) };
        assert_eq!([send("one").status, send("one").status, send("two").status], [202; 3]);
        assert_eq!(used(address, "open"), "4/10");
        // What was answered is kept, whatever becomes of the process.
        stack.listeners[0].kill();
        stack.listeners[0].start();
        assert_eq!(send("one").status, 202);
        assert_eq!(used(address, "open"), "4/10");
    }
}

#[tokio::test]
async fn errors_of_calls_are_kept_for_the_provider() {
    let (stack, address) = start(plan(false)).await;
    for query in [
        "app_id=nobody",
        "app_id=open&usage[nothing]=1",
        "app_id=open&usage[hits]=x",
        "app_id=open&user_key=secret-key",
        "app_id=open&user_id=1",
        // These are no errors, or nobody's.
        "app_id=locked",
        "app_id=open&usage=1",
        "app_id=open&x=%ff",
        "provider_key=no&app_id=open",
    ] {
        ask(address, "authrep", query, "no_body=1");
    }
    let expected = [
        "end_users_no_longer_supported",
        "authentication_error",
        "usage_value_invalid",
        "metric_invalid",
        "application_not_found",
    ];
    assert_eq!(errors(&stack, "pair").await, expected);
    assert!(!stack.listeners[0].log().contains("secret-key"));
}

#[tokio::test]
async fn codes_of_responses_are_counted_with_usage() {
    let (stack, address) = start(plan(false)).await;
    ask(address, "authrep", "app_id=open&usage[hits]=3&log[code]=200", "");
    ask(address, "authrep", "app_id=open&usage[hits]=1&log[code]=404", "");
    ask(address, "authrep", "app_id=open&log[code]=404", "");
    ask(address, "authorize", "app_id=open&usage[hits]=1&log[code]=404", "");
    report(address, &format!("{}&transactions[0][log][code]=503", transaction("0", "[hits]=1")), &[]);
    let client = ListenerClient::new(stack.listeners[0].address, TOKEN);
    let codes = [".responses/200", ".responses/2XX", ".responses/404", ".responses/4XX", ".responses/503"];
    let mut counted = vec![];
    for code in codes {
        counted.push(client.used_of("pair", "open", code, v1::Period::Eternity).await.unwrap());
    }
    assert_eq!(counted, [1, 1, 1, 1, 1]);
}
