//! The command line as a shell sees it: exit codes, and what goes to which stream.

use std::path::Path;
use std::process::Command;

/// Runs `weir` in the folder of the examples.
#[track_caller]
fn check(arguments: &[&str], variables: &[(&str, &str)], code: i32, out: &str, err: &str) {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/example");
    let done = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .current_dir(examples)
        .output()
        .expect("the binary starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(
        (done.status.code(), text(&done.stdout), text(&done.stderr)),
        (Some(code), out.into(), err.into())
    );
}

#[test]
fn good_files_get_a_line_each() {
    check(
        &["check", "catalog.toml", "gateway.toml", "listener.toml"],
        &[],
        0,
        "catalog.toml: ok: 1 service, 5 plans, 12 mapping rules, 4 applications\n\
         gateway.toml: ok: production gateway on 0.0.0.0:8080, 1 listener\n\
         listener.toml: ok: listener on 0.0.0.0:8090 and 0.0.0.0:8091, embedded store, 2 gateways; \
         its catalog: 1 service, 5 plans, 12 mapping rules, 4 applications\n",
        "",
    );
}

#[test]
fn one_bad_file_does_not_hide_another() {
    check(
        &["check", "key-hash-secrets.txt", "catalog.toml", "nowhere.toml"],
        &[],
        2,
        "catalog.toml: ok: 1 service, 5 plans, 12 mapping rules, 4 applications\n",
        "key-hash-secrets.txt:4:6: is not TOML: key with no value, expected `=`\n\
         nowhere.toml: cannot be read: No such file or directory (os error 2)\n",
    );
}

#[test]
fn roles_start_nothing_when_anything_is_wrong() {
    check(
        &["gateway", "--config", "gateway.toml"],
        &[("WEIR_GATEWAY__ADDRESS", "here"), ("WEIR_GATEWAY__ROUTNG", "path")],
        2,
        "",
        "WEIR_GATEWAY__ADDRESS: address \"here\" is not an address and port such as 0.0.0.0:8080\n\
         WEIR_GATEWAY__ROUTNG: overrides no key (did you mean \"ROUTING\"?)\n",
    );
    check(
        &["listener", "--config", "listener.toml"],
        &[("WEIR_LISTENER__CATALOG", "nowhere.toml")],
        2,
        "",
        "nowhere.toml: cannot be read: No such file or directory (os error 2)\n",
    );
}

#[test]
fn a_bad_listener_file_does_not_hide_its_catalog() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("listener.toml"), "catalog = \"catalog.toml\"\nstore = 1\n").unwrap();
    std::fs::write(folder.path().join("catalog.toml"), "revision = 0\nproviders = []\n").unwrap();
    let file = folder.path().join("listener.toml");
    let checked = Command::new(env!("CARGO_BIN_EXE_weir")).arg("check").arg(file).output().unwrap();
    let errors = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert_eq!(checked.status.code(), Some(2), "{errors}");
    for problem in ["listener.toml:2:1: store must be a table", "catalog.toml:1:12: revision is not"] {
        assert!(errors.contains(problem), "{errors}");
    }
}

#[test]
fn files_that_are_no_configuration_are_located_too() {
    let folder = tempfile::tempdir().unwrap();
    let check = |bytes: &[u8]| {
        let file = folder.path().join("file.toml");
        std::fs::write(&file, bytes).unwrap();
        let checked = Command::new(env!("CARGO_BIN_EXE_weir")).arg("check").arg(file).output().unwrap();
        assert_eq!(checked.status.code(), Some(2));
        String::from_utf8_lossy(&checked.stderr).into_owned()
    };
    assert!(check(b"").contains("file.toml:1:1: is neither a catalog"));
    assert!(check(b"a = 1\nb = '\xff'\n").contains("file.toml:2:6: is not UTF-8 from here on"));
}

#[test]
fn nginx_configurations_are_of_services_that_there_are() {
    check(
        &["nginx-config", "mail_ap", "--catalog", "catalog.toml"],
        &[],
        2,
        "",
        "SERVICE: catalog.toml has no service \"mail_ap\" (did you mean \"mail_api\"?)\n",
    );
    check(
        &["nginx-config", "mail_api", "--catalog", "nowhere.toml"],
        &[],
        2,
        "",
        "nowhere.toml: cannot be read: No such file or directory (os error 2)\n",
    );
    check(
        &[
            "nginx-config",
            "mail_api",
            "--catalog",
            "catalog.toml",
            "--listen",
            "80;",
            "--listener",
            "ftp://a",
        ],
        &[],
        2,
        "",
        "--listener: is not http://host:port or https://host:port\n--listen: is not what nginx can listen on\n",
    );
}

#[test]
fn nginx_configurations_promise_nothing_that_nginx_cannot_do() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("catalog.toml");
    let catalog = r#"
revision = 1
[[providers]]
name = "Provider"
[[providers.services]]
id = "api"
credentials = "user_key"
metrics = [{ name = "hits" }]
[providers.services.proxy]
hosts = ["api.test"]
secret_token_header = "X-a-b-c-d-e-f-g"
[providers.services.proxy.errors.no_match]
status = 302
body = "a\u0000b"
[[providers.services.plans]]
id = "plan"
limits = []
"#;
    std::fs::write(&file, catalog).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    let done = command.args(["nginx-config", "api", "--catalog"]).arg(&file).output().unwrap();
    let errors = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!((done.status.code(), done.stdout.len()), (Some(2), 0), "{errors}");
    for problem in [
        "service api: has no api_backend",
        "\"X-a-b-c-d-e-f-g\" has more than 6 hyphens",
        "errors.no_match: status 302 means something else to nginx",
        "errors.no_match: nginx cannot write the character NUL",
    ] {
        assert!(errors.contains(problem), "{problem} in {errors}");
    }
}
