//! The text of nginx.conf, part by part in the order in which it is read.
//!
//! What the listener answers decides: its target and secret token go upstream, its refusal's class picks the reply.
//! Comments in the file say why, for whoever has to change it.

use std::fmt::Write as _;

use http::Uri;
use weir_core::extract::credential_headers;
use weir_core::proxy::{CredentialLocation, RefusalReply};
use weir_core::target::own_host;
use weir_core::{Environment, Proxy, Service};

use super::quote::{other_spellings, text, word};

/// What a configuration is made of.
pub(super) struct Plan<'a> {
    pub(super) service: &'a Service,
    pub(super) proxy: &'a Proxy,
    pub(super) environment: Environment,
    pub(super) backend: &'a Uri,
    /// At least one; all with the same scheme.
    pub(super) listeners: &'a [Uri],
    pub(super) listen: &'a str,
    pub(super) token_include: &'a str,
    pub(super) include: &'a str,
}

/// Whom nginx believes certificates, as Debian has it.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The refusals that are the provider's, by the listener's word for them.
fn replies(proxy: &Proxy) -> [(&'static str, &RefusalReply); 4] {
    let refusals = &proxy.refusals;
    [
        ("auth_missing", &refusals.auth_missing),
        ("auth_failed", &refusals.auth_failed),
        ("no_match", &refusals.no_match),
        ("limits_exceeded", &refusals.limits_exceeded),
    ]
}

/// The refusals that are not: the same everywhere.
const PLAIN_REPLIES: [(&str, u16); 4] =
    [("malformed", 400), ("expectation", 417), ("method", 405), ("body_too_long", 413)];

/// The whole file.
pub(super) fn render(plan: &Plan<'_>) -> String {
    let Plan { service, environment, .. } = plan;
    let (id, environment) = (&service.id, environment.as_str());
    let hosts = plan.proxy.hosts.iter().map(|host| word(host)).collect::<Vec<_>>().join(" ");
    [
        format!(
            "# The API {id}, {environment}, behind nginx alone: made by\n\
             # `weir nginx-config {id} --environment {environment}`.\n\
             # Run that again rather than change this; your own directives have a place below. No secret is in here.\n\n\
             worker_processes auto;\nevents {{ worker_connections 4096; }}\n\nhttp {{\n"
        ),
        upstreams(plan),
        texts(plan.proxy),
        maps(),
        underscores(plan.proxy),
        other_hosts(plan.listen),
        format!("    server {{\n        listen {};\n        server_name {hosts};\n\n", place(plan.listen)),
        own_directives(plan),
        api(plan),
        ask(plan),
        reply_locations(plan.proxy),
        "    }\n}\n".to_owned(),
    ]
    .concat()
}

fn upstreams(plan: &Plan<'_>) -> String {
    let address = |url: &Uri| {
        let port = url.port_u16().unwrap_or(if is_tls(url) { 443 } else { 80 });
        format!("{}:{port}", url.host().unwrap_or_default())
    };
    let listeners: String =
        plan.listeners.iter().map(|url| format!("        server {};\n", address(url))).collect();
    format!(
        "    # The listeners. Connections are kept, for less long than a listener keeps them: who closes first knows it.\n\
         \x20   upstream weir_listener {{\n{listeners}        keepalive 64;\n        keepalive_timeout 5s;\n    }}\n\
         \x20   upstream weir_api {{\n        server {};\n        keepalive 64;\n    }}\n\
         \x20   proxy_headers_hash_max_size 2048;\n    proxy_headers_hash_bucket_size 256;\n\
         \x20   server_names_hash_bucket_size 512;\n    variables_hash_max_size 4096;\n\n",
        address(plan.backend)
    )
}

fn is_tls(url: &Uri) -> bool {
    url.scheme_str() == Some("https")
}

/// `geo`, because it is the one directive that takes `$` for what it is.
fn texts(proxy: &Proxy) -> String {
    let directives = replies(proxy).map(|(name, reply)| text(name, &reply.body).0);
    format!("    # What refusals say.\n{}    geo $weir_nothing {{ default \"\"; }}\n\n", directives.concat())
}

fn maps() -> String {
    let classes = ["auth_missing", "auth_failed", "no_match", "limits_exceeded", "not_found"];
    let classes = || classes.into_iter().chain(PLAIN_REPLIES.map(|(class, _)| class));
    let entries = |suffix: &str| -> String {
        let entry = |class: &str| {
            // Nobody is told anything of services that are not there.
            let suffix = if class == "not_found" { "" } else { suffix };
            format!("        {class} @weir_{class}{suffix};\n")
        };
        classes().map(entry).collect()
    };
    format!(
        "    # Which reply a refusal gets. Without one there was no decision: the listener, or its store, is away.\n\
         \x20   map $weir_refusal $weir_text {{\n        default @weir_away;\n{}    }}\n\
         \x20   map $weir_refusal $weir_document {{\n        default @weir_away;\n{}    }}\n\
         \x20   # Whoever asks for application/problem+json gets the document that came with the refusal.\n\
         \x20   map $weir_problem $weir_reply {{\n        default $weir_document;\n        \"\" $weir_text;\n    }}\n\
         \x20   # WebSocket alone: in a tunnel of h2c there would be requests that nobody has authorised.\n\
         \x20   map $http_upgrade $weir_upgrade {{\n        default \"\";\n        \"~*^websocket$\" websocket;\n    }}\n\
         \x20   map $weir_upgrade $weir_connection {{\n        default \"\";\n        websocket upgrade;\n    }}\n\
         \x20   # nginx serves 100-continue itself, and the listener refuses the rest.\n\
         \x20   map $http_expect $weir_expect {{\n        default $http_expect;\n        ~*^100-continue$ \"\";\n    }}\n\
         \x20   # Requests of HTTP/1.0 need no Host; nginx would take them for this server's.\n\
         \x20   map $http_host $weir_host {{\n        default $host;\n        \"\" \"\";\n    }}\n\n",
        entries(""),
        entries("_problem")
    )
}

fn own_directives(plan: &Plan<'_>) -> String {
    format!(
        "        # Your own directives: certificates, logs, further locations. What is in a location of yours is not\n\
         \x20       # authorised unless it says so.\n        include {};\n\n",
        word(plan.include)
    )
}

/// Off by default, and better so; but credentials with a hyphen in their names are read with an underscore, too. For all
/// servers: until it has read Host, nginx goes by the default one.
fn underscores(proxy: &Proxy) -> String {
    let names = &proxy.credential_names;
    let mut names = [&names.user_key, &names.app_id, &names.app_key].into_iter();
    if proxy.credential_location != CredentialLocation::Headers
        || !names.any(|name| name.contains(['-', '_']))
    {
        return String::new();
    }
    "    # The names of the API's credentials may have some.\n    underscores_in_headers on;\n\n".into()
}

/// Without it, the one server there is would take every host for its own.
fn other_hosts(listen: &str) -> String {
    let words = || listen.split_whitespace().filter(|word| *word != "default_server");
    let all = words().collect::<Vec<_>>().join(" ");
    // It needs no certificate to refuse.
    let tls =
        if words().any(|word| matches!(word, "ssl" | "quic")) { "ssl_reject_handshake on; " } else { "" };
    let content_type = word(PLAIN);
    format!(
        "    # Hosts that are not the API's.\n    server {{\n        listen {all} default_server;\n\
         \x20       {tls}types {{}} default_type {content_type};\n        return 404 $weir_nothing;\n    }}\n\n"
    )
}

/// Address and protocols. The rest of what `listen` takes nginx wants to read once, and it is with the default server.
fn place(listen: &str) -> String {
    let mut words = listen.split_whitespace();
    let address = words.next().unwrap_or_default();
    let protocols = words.filter(|word| matches!(*word, "ssl" | "quic" | "http2" | "proxy_protocol"));
    std::iter::once(address).chain(protocols).collect::<Vec<_>>().join(" ")
}

fn api(plan: &Plan<'_>) -> String {
    let timeouts = &plan.proxy.timeouts;
    let scheme = if is_tls(plan.backend) { "https" } else { "http" };
    let mut block = String::from(
        "        location / {
            auth_request /_weir/auth;
            auth_request_set $weir_refusal $upstream_http_weir_refusal;
            auth_request_set $weir_problem $upstream_http_weir_problem;
            auth_request_set $weir_detail $upstream_http_weir_detail;
            auth_request_set $weir_allow $upstream_http_allow;
            auth_request_set $weir_retry_after $upstream_http_retry_after;
            auth_request_set $weir_ratelimit $upstream_http_ratelimit;
            auth_request_set $weir_ratelimit_policy $upstream_http_ratelimit_policy;
            auth_request_set $weir_target $upstream_http_weir_target;
            auth_request_set $weir_secret_token $upstream_http_weir_secret_token;
            # 401 and 403 are refusals, 500 is all that auth_request does not understand. The API's own pass.
            error_page 401 403 500 = $weir_reply;
            error_page 413 = @weir_too_long;
            error_page 502 = @weir_unreachable;
            error_page 504 = @weir_late;

",
    );
    let _ = writeln!(
        block,
        "            # The target as the listener read it: slashes merged, credentials out, below the API's base URL.\n\
         \x20           proxy_pass {scheme}://weir_api$weir_target;\n            proxy_redirect off;\n\
         \x20           proxy_http_version 1.1;\n            # Nothing is sent twice, and bodies stream.\n\
         \x20           proxy_next_upstream off;\n            proxy_request_buffering off;\n\
         \x20           proxy_buffering off;\n\
         \x20           proxy_connect_timeout {}ms;\n            proxy_read_timeout {}ms;\n\
         \x20           proxy_send_timeout {}ms;",
        timeouts.connect_ms,
        timeouts.response_ms.max(timeouts.idle_ms),
        timeouts.idle_ms,
    );
    block += &body_bound(plan.proxy.request_body_bytes_max);
    if is_tls(plan.backend) {
        block += &certificates(plan.backend.host().unwrap_or_default());
    }
    block += &onward_headers(plan);
    block += "            # What the API says of limits is not ours.
            proxy_hide_header RateLimit;
            proxy_hide_header RateLimit-Policy;
            add_header RateLimit $weir_ratelimit always;
            add_header RateLimit-Policy $weir_ratelimit_policy always;
        }\n\n";
    block
}

fn body_bound(max: u64) -> String {
    if max == 0 {
        return "            # No body at all: to nginx, 0 would be any. One byte passes.\n            \
                client_max_body_size 1;\n"
            .into();
    }
    format!("            client_max_body_size {max};\n")
}

fn certificates(name: &str) -> String {
    format!(
        "            proxy_ssl_server_name on;\n            proxy_ssl_name {};\n            proxy_ssl_verify on;\n\
         \x20           proxy_ssl_verify_depth 4;\n            proxy_ssl_trusted_certificate {AUTHORITIES};\n",
        word(name)
    )
}

fn onward_headers(plan: &Plan<'_>) -> String {
    let proxy = plan.proxy;
    let mut lines = String::new();
    let mut set = |name: &str, value: &str| {
        let _ = writeln!(lines, "            proxy_set_header {} {value};", word(name));
    };
    let host = proxy.host_rewrite.clone().unwrap_or_else(|| backend_host(plan.backend));
    let vouched = [
        ("X-Real-IP", "$remote_addr"),
        ("X-Forwarded-For", "$proxy_add_x_forwarded_for"),
        ("X-Forwarded-Proto", "$scheme"),
        ("X-Forwarded-Host", "$http_host"),
        ("X-3scale-debug", "\"\""),
        ("Proxy-Authorization", "\"\""),
        (proxy.secret_token_header.as_str(), "$weir_secret_token"),
    ];
    set("Host", &word(&host));
    set("Connection", "$weir_connection");
    set("Upgrade", "$weir_upgrade");
    for (name, value) in vouched {
        set(name, value);
        // Also where nobody asks for underscores here: a directive of the provider's may.
        other_spellings(name).iter().for_each(|other| set(other, "\"\""));
    }
    if proxy.strip_credentials {
        credential_spellings(proxy).iter().for_each(|name| set(name, "\"\""));
    }
    lines
}

/// Every spelling of the headers that credentials are looked for in.
fn credential_spellings(proxy: &Proxy) -> Vec<String> {
    let spellings = |name: &str| std::iter::once(name.to_owned()).chain(other_spellings(name));
    credential_headers(proxy).flat_map(spellings).collect()
}

fn backend_host(url: &Uri) -> String {
    let authority = url.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    own_host(authority, is_tls(url)).to_owned()
}

fn ask(plan: &Plan<'_>) -> String {
    let listener = &plan.listeners[0];
    let scheme = if is_tls(listener) { "https" } else { "http" };
    let certificates =
        if is_tls(listener) { certificates(listener.host().unwrap_or_default()) } else { String::new() };
    format!(
        "        # The question about a request. It has the client's headers, and these in place of the client's own.
        location = /_weir/auth {{
            internal;
            proxy_pass {scheme}://weir_listener/nginx/auth;
            proxy_http_version 1.1;
            proxy_pass_request_body off;
            # A question that is asked again would count again.
            proxy_next_upstream off;
            proxy_connect_timeout 1s;
            proxy_send_timeout 1s;
            # Longer than the listener's decision_timeout_ms.
            proxy_read_timeout 2s;
            # The target comes back in a header.
            proxy_buffer_size 64k;
            proxy_buffers 4 64k;
            proxy_busy_buffers_size 128k;
{certificates}            # One line: proxy_set_header Weir-Gateway-Token \"…\"; readable by nobody but nginx's
            # master process.
            include {};
            # This API alone: the listener refuses the hosts of the rest, and a token of a different environment.
            proxy_set_header Weir-Service {};
            proxy_set_header Weir-Environment {};
            proxy_set_header X-Original-Method $request_method;
            proxy_set_header X-Original-URI $request_uri;
            proxy_set_header X-Original-Host $weir_host;
            proxy_set_header Host weir;
            proxy_set_header Expect $weir_expect;
            proxy_set_header Connection \"\";
            proxy_set_header Content-Length \"\";
        }}\n\n",
        word(plan.token_include),
        word(plan.service.id.as_str()),
        word(plan.environment.as_str()),
    )
}

fn reply_locations(proxy: &Proxy) -> String {
    let mut blocks = String::new();
    for (name, reply) in replies(proxy) {
        let (_, variables) = text(name, &reply.body);
        let headers = if name == "limits_exceeded" { LIMIT_HEADERS } else { "" };
        blocks += &location(name, &reply.content_type, headers, reply.status, &variables);
        let problem = format!("{name}_problem");
        blocks += &location(&problem, PROBLEM_TYPE, headers, reply.status, "$weir_problem");
    }
    for (name, status) in PLAIN_REPLIES {
        let headers = if name == "method" { "add_header Allow $weir_allow always; " } else { "" };
        blocks += &location(name, PLAIN, headers, status, "$weir_detail");
        blocks += &location(&format!("{name}_problem"), PROBLEM_TYPE, headers, status, "$weir_problem");
    }
    blocks += &location("not_found", PLAIN, "", 404, "$weir_nothing");
    let away = "add_header Retry-After 1 always; ";
    blocks += &location("away", PLAIN, away, 503, "Please try again shortly.");
    blocks += &location("too_long", PLAIN, "", 413, "The request body is too long.");
    blocks += &location("unreachable", PLAIN, "", 502, "The API cannot be reached.");
    blocks += &location("late", PLAIN, "", 504, "The API did not answer in time.");
    blocks
}

const PLAIN: &str = "text/plain; charset=utf-8";
const PROBLEM_TYPE: &str = weir_core::refusal::PROBLEM_TYPE;
const LIMIT_HEADERS: &str = "add_header Retry-After $weir_retry_after always; \
    add_header RateLimit $weir_ratelimit always; add_header RateLimit-Policy $weir_ratelimit_policy always; ";

/// `types {}`: the ending of a path says nothing about a refusal.
fn location(name: &str, content_type: &str, headers: &str, status: u16, text: &str) -> String {
    let (content_type, text) = (word(content_type), format!("\"{text}\""));
    format!(
        "        location @weir_{name} {{ types {{}} default_type {content_type}; {headers}return {status} {text}; }}\n"
    )
}
