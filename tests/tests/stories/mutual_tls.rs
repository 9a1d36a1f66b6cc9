//! Mutual TLS between gateway and listener.

use std::path::Path;

use weir_tests::certificates::Authority;
use weir_tests::http::get;
use weir_tests::process::weir;
use weir_tests::stack::{Plan, Stack, catalog};
use weir_tests::wait::until;

fn put(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// Goal: gateways with a certificate of the right authority are served over TLS, others are not, whatever their token.
/// Method: two stacks, the second one's gateway shows a certificate of another authority.
#[tokio::test(flavor = "multi_thread")]
async fn only_gateways_with_a_certificate_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Authority::new(), Authority::new());
    let authority = put(dir.path(), "ca.pem", &ours.pem());
    let server = ours.issue("listener.test");
    let (certificate, key) =
        (put(dir.path(), "server.pem", &server.pem), put(dir.path(), "server.key", &server.key_pem));
    let listener_tables = format!(
        "[grpc_tls]\ncertificate_file = \"{certificate}\"\nkey_file = \"{key}\"\nclient_ca_file = \"{authority}\""
    );
    for (issuer, name, expected) in [(&ours, "good", 200), (&theirs, "stranger", 503)] {
        let client = issuer.issue("gateway.test");
        let certificate = put(dir.path(), &format!("{name}.pem"), &client.pem);
        let key = put(dir.path(), &format!("{name}.key"), &client.key_pem);
        let state = dir.path().join("state");
        let gateway_lines = format!(
            "state_dir = \"{}\"\n[listener_tls]\nca_file = \"{authority}\"\nserver_name = \"listener.test\"\n\
             certificate_file = \"{certificate}\"\nkey_file = \"{key}\"",
            state.display()
        );
        let plan = Plan {
            tls_between: true,
            gateway_lines,
            listener_tables: listener_tables.clone(),
            ..Plan::small(&catalog(1, ""))
        };
        let stack = Stack::start(&plan).await;
        assert_eq!(get(stack.gateways[0].address, "/?user_key=key").status, expected, "{name}");
        if expected == 200 {
            // The second gateway starts from what this one was told.
            until("the configuration to be kept", || state.read_dir().ok()?.next().map(|_| ()));
        }
    }
}

/// Goal: files that do not go together are found before anything starts.
#[test]
fn half_a_certificate_is_a_configuration_error() {
    let dir = tempfile::tempdir().unwrap();
    let authority = put(dir.path(), "ca.pem", &Authority::new().pem());
    let text = format!(
        "listeners = [\"https://127.0.0.1:1\"]\ntoken = \"t\"\n[listener_tls]\ncertificate_file = \"{authority}\"\n"
    );
    let file = put(dir.path(), "gateway.toml", &text);
    let checked = weir(&["check", &file]);
    let errors = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert_eq!(checked.status.code(), Some(2), "{errors}");
    for complaint in ["ca_file is missing", "certificate_file and key_file belong together"] {
        assert!(errors.contains(complaint), "{errors}");
    }
}
