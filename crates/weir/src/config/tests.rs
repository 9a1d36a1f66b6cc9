//! What the parsers of role files take and how they say what they do not take.

use std::path::{Path, PathBuf};

use super::*;
use crate::documented;
use crate::problem::{Checked, Reading};
use crate::report::{self, Environment, Source};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn example(file: &str) -> Source {
    Source::load(&repository().join("deploy/example").join(file)).unwrap()
}

fn source(text: &str, prefix: &'static str, variables: &[(&str, &str)]) -> Source {
    let variables = variables.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    Source {
        file: "role.toml".into(),
        folder: repository().join("deploy/example"),
        text: text.into(),
        environment: Environment::new(prefix, variables),
    }
}

fn problems<T>(reading: Reading<T>) -> Vec<String> {
    let problems = match reading {
        Ok(checked) => checked.warnings,
        Err(problems) => problems,
    };
    problems.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn check_gateway(text: &str, variables: &[(&str, &str)], expected: &[&str]) {
    let source = source(text, gateway::VARIABLE_PREFIX, variables);
    assert_eq!(problems(gateway::parse(&source)), expected);
}

#[track_caller]
fn check_listener(text: &str, variables: &[(&str, &str)], expected: &[&str]) {
    let source = source(text, listener::VARIABLE_PREFIX, variables);
    assert_eq!(problems(listener::parse(&source)), expected);
}

const GATEWAY: &str = "listeners = 'http://l:8090'\ntoken = 't'\n";

#[test]
fn a_gateway_needs_little() {
    let source = source(GATEWAY, gateway::VARIABLE_PREFIX, &[]);
    let Checked { value, .. } = gateway::parse(&source).unwrap();
    assert_eq!(value.gateway.address.to_string(), "0.0.0.0:8080");
    assert_eq!(value.telemetry_address.to_string(), "0.0.0.0:9080");
    assert_eq!(value.log, LogConfig::default());
    check_gateway(
        "",
        &[],
        &["role.toml:1:1: listeners is missing", "role.toml:1:1: token is missing (or token_file)"],
    );
}

#[test]
fn staging_has_ports_of_its_own() {
    let source = source(GATEWAY, gateway::VARIABLE_PREFIX, &[("WEIR_GATEWAY__ENVIRONMENT", "staging")]);
    let Checked { value, .. } = gateway::parse(&source).unwrap();
    assert_eq!(value.to_string(), "staging gateway on 0.0.0.0:8081, 1 listener");
    assert_eq!(value.telemetry_address.port(), 9081);
}

#[test]
fn a_gateways_file_is_checked_in_every_part() {
    check_gateway(
        "listeners = ['l:8090', 'http://ok:1', 'http://x/path']\ntoken = \"a b\"\ntoken_fil = 'x'\naddress = 'here'\n\
         routing = 'hosts'\n[limits]\nhead_bytes_max = 100\nconnections_max = 'x'\nhead_timeout_ms = 0\n\
         [log]\nformat = 'xml'\nlevel = 'a=b=c'\n",
        &[],
        &[
            "role.toml:1:14: listeners: \"l:8090\" is not of the form http://host:port or https://host:port",
            "role.toml:1:39: listeners: \"http://x/path\" is not of the form http://host:port or https://host:port",
            "role.toml:2:9: token must be visible ASCII without blanks: it travels in a header",
            "role.toml:3:1: there is no key token_fil (did you mean \"token_file\"?)",
            "role.toml:4:11: address \"here\" is not an address and port such as 0.0.0.0:8080",
            "role.toml:5:11: routing \"hosts\" is none of host, path, path_only (did you mean \"host\"?)",
            "role.toml:7:18: head_bytes_max is not a whole number from 8192 to 1073741824",
            "role.toml:8:19: connections_max must be a whole number, not text",
            "role.toml:9:19: head_timeout_ms is not a whole number from 1 to 86400000",
            "role.toml:11:10: format \"xml\" is none of human, json",
            "role.toml:12:9: level \"a=b=c\" is neither a level nor directives such as info,weir=debug",
        ],
    );
}

#[test]
fn a_gateways_sockets_are_checked() {
    check_gateway(
        &format!(
            "{GATEWAY}proxy_protocol_from = ['10.0.0.0/8', '10.0.0.0/99']\nreuse_port = 'yes'\n[http2]\n\
             streams_max = 0\nstream_window_bytes = 10\n[tls]\ncertificates = ['a']\n"
        ),
        &[],
        &[
            "role.toml:3:38: proxy_protocol_from: \"10.0.0.0/99\" is not a network such as 10.0.0.0/8 or fd00::/8",
            "role.toml:4:14: reuse_port must be true or false, not text",
            "role.toml:6:15: streams_max is not a whole number from 1 to 100000",
            "role.toml:7:23: stream_window_bytes is not a whole number from 65535 to 2147483647",
            "role.toml:9:17: certificates must be a list of { certificate_file, key_file }, not text",
        ],
    );
}

#[test]
fn shares_are_numbers_from_0_to_1() {
    let ratio = |text: &str, variables: &[(&str, &str)]| {
        let text = format!("{GATEWAY}[access_log]\n{text}");
        let read = gateway::parse(&source(&text, gateway::VARIABLE_PREFIX, variables));
        read.map(|Checked { value, .. }| value.gateway.access_sample_ratio)
            .map_err(|found| found[0].to_string())
    };
    let wrong = |place: &str| Err(format!("{place}: sample_ratio is not a number from 0 to 1"));
    assert_eq!(ratio("", &[]), Ok(1.0));
    assert_eq!(ratio("sample_ratio = 0", &[]), Ok(0.0));
    assert_eq!(ratio("sample_ratio = 0.25", &[]), Ok(0.25));
    assert_eq!(ratio("", &[("WEIR_GATEWAY__ACCESS_LOG__SAMPLE_RATIO", "1e-3")]), Ok(0.001));
    assert_eq!(ratio("sample_ratio = 1.01", &[]), wrong("role.toml:4:16"));
    assert_eq!(ratio("sample_ratio = -1", &[]), wrong("role.toml:4:16"));
    assert_eq!(ratio("sample_ratio = nan", &[]), wrong("role.toml:4:16"));
    let variable = "WEIR_GATEWAY__ACCESS_LOG__SAMPLE_RATIO";
    assert_eq!(ratio("", &[(variable, "some")]), wrong(variable));
    let text = Err("role.toml:4:16: sample_ratio must be a number, not text".into());
    assert_eq!(ratio("sample_ratio = 'all'", &[]), text);
}

#[track_caller]
fn check_tracing(
    text: &str,
    variables: &[(&str, &str)],
    is_built_in: bool,
    expected: Result<Option<(&str, f64)>, &[&str]>,
) {
    let source = source(text, gateway::VARIABLE_PREFIX, variables);
    let read =
        |section: &Section<'_>| tracing::read(section, is_built_in, |section| section.ratio("sample_ratio"));
    let reading = report::read(&source, |section| Some(read(section)));
    let found = match &reading {
        Ok(checked) => Ok(checked.value.as_ref().map(|read| (read.endpoint.as_str(), read.sample_ratio))),
        Err(_) => Err(problems(reading)),
    };
    let expected = expected.map_err(|found| found.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(found, expected, "{text}");
}

#[test]
fn spans_go_to_an_endpoint() {
    let at = "http://127.0.0.1:4317";
    check_tracing("", &[], true, Ok(None));
    check_tracing("", &[], false, Ok(None));
    check_tracing(&format!("[tracing]\nendpoint = '{at}'"), &[], true, Ok(Some((at, 0.01))));
    check_tracing(&format!("[tracing]\nendpoint = '{at}'\nsample_ratio = 1"), &[], true, Ok(Some((at, 1.0))));
    check_tracing("", &[("WEIR_GATEWAY__TRACING__ENDPOINT", at)], true, Ok(Some((at, 0.01))));
    check_tracing("[tracing]", &[], true, Err(&["role.toml:1:2: tracing.endpoint is missing"]));
    for wrong in ["127.0.0.1:4317", "https://a:4317", "http://a:4317/v1/traces", "http://me@a:4317"] {
        let problem = format!("role.toml:2:12: endpoint {wrong:?} is not of the form http://host:port");
        check_tracing(&format!("[tracing]\nendpoint = '{wrong}'"), &[], true, Err(&[&problem]));
    }
}

#[test]
fn a_build_without_traces_says_so() {
    let say = |place: &str| {
        format!(
            "{place}: tracing: this weir was built without OpenTelemetry; \
             one with it is built by: cargo build --release -p weir --features otel"
        )
    };
    let at = "http://127.0.0.1:4317";
    check_tracing(&format!("\n[tracing]\nendpoint = '{at}'"), &[], false, Err(&[&say("role.toml:2:2")]));
    check_tracing("[tracing]\nsample_ratio = 0.5", &[], false, Err(&[&say("role.toml:1:2")]));
    let variable = "WEIR_GATEWAY__TRACING__ENDPOINT";
    check_tracing("", &[(variable, at)], false, Err(&[&say(variable)]));
}

#[test]
fn variables_come_before_the_file() {
    let variables = [
        ("WEIR_GATEWAY__ADDRESS", "127.0.0.1:1"),
        ("WEIR_GATEWAY__LISTENERS", "http://a:1, http://b:2"),
        ("WEIR_GATEWAY__LIMITS__CONNECTIONS_MAX", "7"),
        ("WEIR_GATEWAY__TOKEN", "from-the-environment"),
        ("WEIR_LISTENER__NOT_MINE", "1"),
    ];
    let source = source(GATEWAY, gateway::VARIABLE_PREFIX, &variables);
    let Checked { value, .. } = gateway::parse(&source).unwrap();
    assert_eq!(value.gateway.address.port(), 1);
    assert_eq!(value.gateway.listeners, ["http://a:1", "http://b:2"]);
    assert_eq!(value.gateway.connections_max, 7);
    assert_eq!(value.gateway.token.expose(), "from-the-environment");
}

#[test]
fn problems_of_variables_name_them() {
    check_gateway(
        GATEWAY,
        &[
            ("WEIR_GATEWAY__LIMITS__CONNECTIONS_MAX", "many"),
            ("WEIR_GATEWAY__LISTENER", "http://a:1"),
            ("WEIR_GATEWAY__TOKEN", ""),
        ],
        &[
            "WEIR_GATEWAY__LIMITS__CONNECTIONS_MAX: connections_max is not a whole number from 1 to 4294967295",
            "WEIR_GATEWAY__LISTENER: overrides no key (did you mean \"LISTENERS\"?)",
            "WEIR_GATEWAY__TOKEN: token is empty",
        ],
    );
}

#[test]
fn tables_in_lists_have_no_variables() {
    check_listener(
        LISTENER,
        &[("WEIR_LISTENER__GATEWAYS__TOKEN", "t2"), ("WEIR_LISTENER__LIMITS__X", "1")],
        &["WEIR_LISTENER__GATEWAYS__TOKEN: overrides no key", "WEIR_LISTENER__LIMITS__X: overrides no key"],
    );
}

#[test]
fn a_secret_has_one_source() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "from-a-file\n").unwrap();
    let path = path.to_str().unwrap();
    let token = |text: &str, variables: &[(&str, &str)]| {
        let text = format!("listeners = 'http://l:8090'\n{text}");
        let Checked { value, .. } =
            gateway::parse(&source(&text, gateway::VARIABLE_PREFIX, variables)).unwrap();
        value.gateway.token.expose().to_owned()
    };
    assert_eq!(token(&format!("token_file = '{path}'"), &[]), "from-a-file");
    assert_eq!(token("token = 't'", &[("WEIR_GATEWAY__TOKEN_FILE", path)]), "from-a-file");
    assert_eq!(token(&format!("token_file = '{path}'"), &[("WEIR_GATEWAY__TOKEN", "v")]), "v");
    check_gateway(
        &format!("{GATEWAY}token_file = '/nowhere'\n"),
        &[],
        &["role.toml:3:14: token and token_file are both given: leave one out"],
    );
    check_gateway(
        "listeners = 'http://l:8090'\ntoken_file = '/nowhere'\n",
        &[],
        &["role.toml:2:14: token_file /nowhere cannot be read: No such file or directory (os error 2)"],
    );
}

const LISTENER: &str = "catalog = 'catalog.toml'\nkey_hash_secret_file = 'key-hash-secrets.txt'\n\
    [store]\nkind = 'embedded'\nembedded.dir = 'd'\n[[gateways]]\nid = 'g'\nenvironment = 'staging'\ntoken = 't'\n";

#[test]
fn paths_start_at_the_files_folder() {
    let Checked { value, warnings } =
        listener::parse(&source(LISTENER, listener::VARIABLE_PREFIX, &[])).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(value.catalog, Some(repository().join("deploy/example/catalog.toml")));
}

#[test]
fn what_a_listener_needs() {
    check_listener(
        "",
        &[],
        &[
            "role.toml:1:1: catalog is missing (or publish_token, when a control plane publishes)",
            "role.toml:1:1: key_hash_secret_file is missing",
            "role.toml:1:1: warning: there are no gateways: nobody may ask this listener by gRPC",
            "role.toml:1:1: store.kind is missing",
        ],
    );
    check_listener(
        &LISTENER.replace("'embedded'", "'redis'"),
        &[],
        &["role.toml:3:2: store.redis.url is missing (or store.redis.url_file)"],
    );
    check_listener(
        &format!("publish_token = 'p'\n{LISTENER}"),
        &[],
        &["role.toml:1:17: publish_token and catalog are both given: a catalog has one source"],
    );
    check_listener(
        &format!("operator_token = 'o o'\n{LISTENER}"),
        &[],
        &["role.toml:1:18: operator_token must be visible ASCII without blanks: it travels in a header"],
    );
    let published = LISTENER.replace("catalog = ", "operator_token = 'p'\npublish_token = 'p' #");
    let same = "operator_token is publish_token, too: leave it out, the publisher may read all that it opens";
    check_listener(&published, &[], &[&format!("role.toml:1:18: {same}")]);
}

#[test]
fn a_listeners_file_is_checked_in_every_part() {
    let gateways = "[[gateways]]\nid = 'g'\ntoken = 't'\nenvironment = 'test'\nservices = ['a/b']\n\
        [store.redis]\nurl = 'http://hunter2'\nresponse_timeout_ms = 0\nallow_volatile = 'yes'\n[limits]\ncatalog_pol_ms = 1\n";
    check_listener(
        &format!("{LISTENER}{gateways}"),
        &[],
        &[
            "role.toml:11:6: gateway \"g\" is defined twice, first in line 7",
            "role.toml:12:9: token is another gateway's too",
            "role.toml:13:15: environment \"test\" is none of production, staging",
            "role.toml:14:13: services: \"a/b\" has the character '/', which is not allowed here",
            "role.toml:16:7: url is not of the form redis://[user:password@]host:port[/db] (rediss:// for TLS)",
            "role.toml:17:23: response_timeout_ms is not a whole number from 1 to 86400000",
            "role.toml:18:18: allow_volatile must be true or false, not text",
            "role.toml:20:1: there is no key catalog_pol_ms in limits (did you mean \"catalog_poll_ms\"?)",
        ],
    );
}

#[test]
fn the_store_can_be_switched_by_variables() {
    let variables = [
        ("WEIR_LISTENER__STORE__KIND", "redis"),
        ("WEIR_LISTENER__STORE__REDIS__URL", "redis://:hunter2@r:1"),
    ];
    let Checked { value, .. } =
        listener::parse(&source(LISTENER, listener::VARIABLE_PREFIX, &variables)).unwrap();
    assert!(matches!(&value.store, weir_store::Config::Redis(redis) if redis.response_timeout_ms == 200));
    assert!(!format!("{value:?}").contains("hunter2"));
}

#[test]
fn key_hash_secrets_are_lines_of_id_and_secret() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secrets");
    let check = |text: &str, expected: &[&str]| {
        std::fs::write(&path, text).unwrap();
        let text = LISTENER.replace("key-hash-secrets.txt", path.to_str().unwrap());
        let expected: Vec<String> =
            expected.iter().map(|problem| format!("role.toml:2:24: key_hash_secret_file{problem}")).collect();
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        check_listener(&text, &[], &expected);
    };
    check("# a comment\n\nnew abc\nold def\n", &[]);
    check("# nothing\n", &[" holds no secret"]);
    check(
        "new abc\nnew def\na:b c\nhunter2\n",
        &[
            ": line 2 repeats an id",
            ": line 3 has an id with a colon",
            ": line 4 is not of the form: id secret",
        ],
    );
}

#[test]
fn the_examples_load_and_show_no_secret() {
    let gateway = gateway::parse(&example("gateway.toml")).unwrap();
    let listener = listener::parse(&example("listener.toml")).unwrap();
    assert_eq!((gateway.warnings, listener.warnings), (vec![], vec![]));
    assert_eq!(gateway.value.gateway.token, listener.value.listener.gateways[0].token);
    let shown = format!("{:?} {:?}", gateway.value, listener.value);
    for secret in ["demo-gateway-token", "demo-staging-token", "key-hash-secret"] {
        assert!(!shown.contains(secret), "{secret} is shown");
    }
}

/// The tables of the documentation list just the keys that are read.
#[test]
fn the_documentation_lists_every_key() {
    let page = std::fs::read_to_string(repository().join("docs/configuration.md")).unwrap();
    let (gateway_page, listener_page) = page.split_once("## `listener.toml`").unwrap();
    let (_, keys) = report::read_with_keys(&example("gateway.toml"), gateway::read);
    assert_eq!(documented::keys(gateway_page), keys.into_iter().collect::<Vec<_>>());
    let (_, keys) = report::read_with_keys(&example("listener.toml"), listener::read);
    assert_eq!(documented::keys(listener_page), keys.into_iter().collect::<Vec<_>>());
}
