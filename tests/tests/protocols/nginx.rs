//! nginx with our listener behind `auth_request`, by the configuration that `weir nginx-config` prints.

use std::net::SocketAddr;
use std::path::Path;

use weir_proto::v1::Period;
use weir_tests::certificates::Authority;
use weir_tests::foreign::{Foreign, free_addresses};
use weir_tests::http::{call, get, raw};
use weir_tests::process::weir;
use weir_tests::stack::{Stack, TOKEN};
use weir_tests::wait::until;

use crate::edge::{self, CASES, send};

/// What the tests' nginx needs besides: one process, and all that it writes in its folder.
fn in_folder(config: &str, dir: &Path) -> String {
    let dir = dir.display();
    let places = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {dir}/{kind};\n"))
        .concat();
    let one = format!("daemon off;\nmaster_process off;\npid {dir}/nginx.pid;\n");
    let log = format!("log_format all '$request $status';\naccess_log {dir}/access.log all;\n");
    config.replacen("worker_processes auto;\n", &one, 1).replacen(
        "http {\n",
        &format!("http {{\n{places}{log}"),
        1,
    )
}

/// What our command prints for a service of the edge's catalog, with an nginx that runs by it.
fn nginx(stack: &Stack, service: &str, environment: &str, token: &str) -> Foreign {
    start(stack, &edge::catalog(), (service, environment), token)
}

/// The same of a service of any catalog, in an environment.
pub(crate) fn start(
    stack: &Stack,
    catalog_text: &str,
    (service, environment): (&str, &str),
    token: &str,
) -> Foreign {
    let address = free_addresses(1)[0];
    let catalog = tempfile::NamedTempFile::new().unwrap();
    let upstream = format!("http://{}", stack.upstream.address());
    std::fs::write(catalog.path(), catalog_text.replace("{upstream}", &upstream)).unwrap();
    let listener = format!("http://{}", stack.listeners[0].http.unwrap());
    let catalog = catalog.path().display().to_string();
    let (listen, options) = (address.to_string(), ["--environment", environment, "--listener", &listener]);
    let done = weir(
        &[&["nginx-config", service, "--catalog", &catalog, "--listen", &listen][..], &options].concat(),
    );
    let config = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    for secret in [TOKEN, "s3cret", "other"] {
        assert!(!config.contains(secret), "no secret is in it");
    }
    Foreign::nginx(vec![address], |dir| {
        let line = format!("proxy_set_header Weir-Gateway-Token \"{token}\";\n");
        std::fs::write(dir.join("weir-token.conf"), line).unwrap();
        std::fs::create_dir(dir.join(format!("weir-{service}.d"))).unwrap();
        let own = "location = /own { return 200 mine; }\n";
        std::fs::write(dir.join(format!("weir-{service}.d/own.conf")), own).unwrap();
        in_folder(&config, dir)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_answers_as_our_gateway_does() {
    let stack = edge::start().await;
    let servers =
        ["api", "pair", "basic"].map(|service| (service, nginx(&stack, service, "production", TOKEN)));
    let ours = stack.gateways[0].address;
    let case_of = |service: &str, case: &edge::Case| case.0.contains(&format!("{service}.test/"));
    for case in CASES {
        let (_, nginx) = servers.iter().find(|(service, _)| case_of(service, case)).unwrap_or(&servers[0]);
        assert_eq!(edge::seen(&send(nginx.addresses[0], case)), edge::seen(&send(ours, case)), "{case:?}");
    }
    let counted = edge::totals(&stack).await;
    assert!(counted.values().all(|used| used % 2 == 0), "each as often as the other: {counted:?}");
    let theirs = servers[0].1.addresses[0];
    let long = "x".repeat(3000);
    let answer = call(theirs, "POST", "/form?user_key=key", &[], &long);
    assert_eq!((answer.status, answer.body.as_str()), (413, "The request body is too long."));
    assert_eq!(get(theirs, "/own").body, "mine", "the provider's own directives");
    assert_eq!(raw(theirs, "GET /hello?user_key=key HTTP/1.0\r\n\r\n").status, 404, "no Host, no service");
    let fragment = get(theirs, "/hello?user_key=key#x");
    assert_eq!(
        (fragment.status, fragment.body.as_str()),
        (400, "The request is malformed: the request target has a character that must be escaped.")
    );
    assert_eq!(edge::totals(&stack).await, counted, "none of these counts");
    let escaped = get(theirs, "/hello?user_key=key&a=é%zz;{$b}");
    assert_eq!(escaped.json()["target"].as_str(), Some("/hello?a=é%zz;{$b}"));
    for (_, nginx) in &servers {
        assert!(!nginx.logs().contains(TOKEN));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_counts_once_and_refuses_beyond() {
    let stack = edge::start().await;
    let nginx = nginx(&stack, "api", "production", TOKEN);
    let hello = |headers| call(nginx.addresses[0], "GET", "/hello?user_key=one", headers, "");
    let passed = hello(&[("x-header", "RateLimit=theirs")]);
    assert!(passed.header("ratelimit").starts_with("\"hits-day\";r=1;t="), "{passed:?}");
    let statuses: Vec<u16> = (0..3).map(|_| hello(&[]).status).collect();
    assert_eq!(statuses, [200, 429, 429]);
    let refused = hello(&[]);
    assert_eq!(refused.body, "Limits exceeded");
    assert!(refused.header("ratelimit").starts_with("\"hits-day\";r=0;t="), "{refused:?}");
    assert_eq!(refused.header("ratelimit-policy"), "\"hits-day\";q=2;w=86400");
    assert!(refused.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 0), "{refused:?}");
    let problem = hello(&[("accept", "application/problem+json")]).json();
    assert_eq!((&problem["code"], &problem["limit"]["max"]), (&"limits_exceeded".into(), &2.into()));
    assert_eq!(stack.listener_client(0).used("one", "hits", Period::Day).await.unwrap(), 2);
    // The API's own refusals are its own.
    let theirs = call(nginx.addresses[0], "GET", "/hello?user_key=two", &[("x-status", "403")], "");
    assert_eq!((theirs.status, theirs.json()["target"].as_str()), (403, Some("/hello")));
}

#[tokio::test(flavor = "multi_thread")]
async fn staging_is_another_deployment() {
    let stack = edge::start().await;
    let nginx = nginx(&stack, "basic", "staging", "staging-gateway-token");
    let ask = |target: &str, headers: &[(&str, &str)]| call(nginx.addresses[0], "GET", target, headers, "");
    let host = ("host", "stage.test");
    let passed = ask("/staged?user_key=key", &[host]);
    assert_eq!((passed.status, passed.json()["target"].as_str()), (200, Some("/staged?user_key=key")));
    assert_eq!(ask("/other?user_key=key", &[host]).status, 404);
    let missing = ask("/staged", &[host]);
    assert_eq!((missing.status, missing.body.as_str()), (401, "staged"));
    let production = ask("/staged", &[("host", "basic.test"), ("authorization", "Bearer key")]);
    assert_eq!((production.status, production.body.as_str()), (404, ""), "hosts of production are not there");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_decision_nothing_passes_nginx() {
    let mut stack = edge::start().await;
    let nginx_of = |token: &str| nginx(&stack, "api", "production", token);
    let (known, stranger, narrow) =
        (nginx_of(TOKEN), nginx_of("not-a-token"), nginx_of("narrow-gateway-token"));
    let ask = |address: SocketAddr| get(address, "/hello?user_key=key");
    let address = known.addresses[0];
    assert_eq!(ask(address).status, 200);
    let received = stack.upstream.received();
    let is_away = |address: SocketAddr| {
        let answer = ask(address);
        let seen = (answer.status, answer.header("retry-after"), answer.body);
        assert_eq!(seen, (503, "1".to_owned(), "Please try again shortly.".to_owned()));
    };
    is_away(stranger.addresses[0]);
    let not_its_own = ask(narrow.addresses[0]);
    assert_eq!((not_its_own.status, not_its_own.body.as_str()), (404, ""));
    stack.redis.as_mut().unwrap().kill();
    is_away(address);
    stack.listeners[0].kill();
    is_away(address);
    assert_eq!(stack.upstream.received(), received, "nothing got through");
    stack.redis.as_mut().unwrap().restart();
    stack.listeners[0].start();
    until("nginx to reach the listener again", || (ask(address).status == 200).then_some(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_requests_hide_in_a_tunnel_of_nginx() {
    let stack = edge::start().await;
    let nginx = nginx(&stack, "api", "production", TOKEN);
    let wish = |address: SocketAddr, protocol: &str| {
        let lines =
            format!("Host: api.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\n");
        let answer = raw(address, &format!("GET /hello?user_key=key HTTP/1.1\r\n{lines}\r\n"));
        assert_eq!(answer.status, 200, "{answer:?}");
        let upstream = answer.json();
        ["connection", "upgrade"].map(|name| edge::header(&upstream, name).to_ascii_lowercase())
    };
    for (protocol, passed) in [
        ("websocket", ["upgrade", "websocket"]),
        ("WebSocket", ["upgrade", "websocket"]),
        ("h2c", ["", ""]),
        ("websocket, h2c", ["", ""]),
        ("TLS/1.2", ["", ""]),
    ] {
        assert_eq!(wish(nginx.addresses[0], protocol), passed, "nginx: {protocol}");
        assert_eq!(wish(stack.gateways[0].address, protocol), passed, "our gateway: {protocol}");
    }
}

/// A token for all services opens one nginx's service to that nginx alone.
#[tokio::test(flavor = "multi_thread")]
async fn nginx_stands_in_front_of_one_service() {
    let stack = edge::start().await;
    let listener = stack.listeners[0].http.unwrap();
    let pair = [("x-original-host", "pair.test"), ("app-id", "app"), ("app-key", "secret")];
    let ask = |token: &str, bound: &[(&str, &str)]| {
        let question =
            [("weir-gateway-token", token), ("x-original-method", "GET"), ("x-original-uri", "/x")];
        let answer = call(listener, "GET", "/nginx/auth", &[&question, &pair[..], bound].concat(), "");
        (answer.status, answer.header("weir-refusal"))
    };
    let admitted = || (204, String::new());
    let nowhere = || (403, "not_found".to_owned());
    assert_eq!(ask(TOKEN, &[]), admitted());
    let production = ("weir-environment", "production");
    assert_eq!(ask(TOKEN, &[("weir-service", "pair"), production]), admitted());
    assert_eq!(ask(TOKEN, &[("weir-service", "api"), production]), nowhere());
    assert_eq!(ask(TOKEN, &[("weir-service", ""), production]), nowhere());
    assert_eq!(ask(TOKEN, &[("weir-service", "pair"), ("weir-environment", "staging")]), nowhere());
    let log = stack.listeners[0].log();
    assert!(log.contains("gateway.environment") && !log.contains(TOKEN), "{log}");
    assert_eq!(edge::totals(&stack).await.get("pair/app/hits"), Some(&2));

    let (api, received) = (nginx(&stack, "api", "production", TOKEN), stack.upstream.received());
    let strayed = call(api.addresses[0], "GET", "/x", &[("host", "pair.test"), pair[1], pair[2]], "");
    assert_eq!((strayed.status, strayed.body.as_str()), (404, ""));
    let strayed = raw(api.addresses[0], "GET /own HTTP/1.1\r\nHost: pair.test\r\nConnection: close\r\n\r\n");
    assert_eq!(strayed.status, 404, "the provider's own directives are this API's");
    assert_eq!(stack.upstream.received(), received, "nothing got through");
    let staging = nginx(&stack, "api", "production", "staging-gateway-token");
    assert_eq!(get(staging.addresses[0], "/hello?user_key=key").status, 404);
}

/// What a URL may have in the place of a host ends a directive, or is a variable.
#[test]
fn nginx_is_given_hosts_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog.toml").display().to_string();
    for host in ["a;b", "a'b", "$host", "a{b}", "a&b"] {
        let url = format!("http://{host}:1");
        std::fs::write(&path, edge::catalog().replace("{upstream}", "http://localhost")).unwrap();
        let done = weir(&["nginx-config", "api", "--catalog", &path, "--listener", &url]);
        assert!(!done.status.success() && done.stdout.is_empty(), "--listener {host}");
        std::fs::write(&path, edge::catalog().replace("{upstream}", &url)).unwrap();
        let done = weir(&["nginx-config", "api", "--catalog", &path]);
        assert!(!done.status.success() && done.stdout.is_empty(), "api_backend {host}");
    }
}

/// What no other test's service has: TLS both ways, several listeners, no body at all.
#[test]
fn nginx_reads_every_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = edge::catalog().replace(
        "api_backend = \"{upstream}\"",
        "api_backend = \"https://localhost:1/$base;x?fixed=1\"\nrequest_body_bytes_max = 0",
    );
    // The first service has a bound of its own.
    let catalog =
        catalog.replacen("request_body_bytes_max = 2000\n", "", 1).replace("{upstream}", "http://localhost");
    std::fs::write(dir.path().join("catalog.toml"), catalog).unwrap();
    let file = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(file("token.conf"), "proxy_set_header Weir-Gateway-Token \"t\";\n").unwrap();
    let authorities = Authority::new();
    std::fs::write(file("ca.pem"), authorities.pem()).unwrap();
    for (service, listeners) in [
        ("api", ["https://127.0.0.1:1", "https://localhost"]),
        ("pair", ["http://[::1]:1", "http://localhost"]),
    ] {
        let [one, other] = listeners;
        let done = weir(&[
            "nginx-config",
            service,
            "--catalog",
            &file("catalog.toml"),
            "--listener",
            one,
            "--listener",
            other,
            "--token-include",
            &file("token.conf"),
            "--include",
            "no such folder/*.conf",
            "--listen",
            "127.0.0.1:1 ssl default_server backlog=64",
        ]);
        let config = String::from_utf8(done.stdout).unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let config = config.replace("/etc/ssl/certs/ca-certificates.crt", &file("ca.pem"));
        std::fs::write(file("nginx.conf"), in_folder(&config.replace(":1 ssl", ":1"), dir.path())).unwrap();
        let checked =
            weir_tests::foreign::nginx(dir.path(), &dir.path().join("nginx.conf")).arg("-t").output();
        let checked = checked.unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        let said = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert!(!said.contains("warn"), "{said}");
    }
}
