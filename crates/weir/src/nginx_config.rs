//! `weir nginx-config`: a complete nginx.conf for one service, for who runs nginx and no gateway of Weir.
//!
//! It is made of a catalog and printed; nothing is started and nobody is asked. The file holds no secret: the gateway
//! token is in a file of its own that it includes, and the service's secret token comes with each answer of the
//! listener.
//!
//! What nginx cannot do of what the catalog says is an error here, and not a difference that somebody finds later.

mod quote;
mod render;

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use http::Uri;
use weir_core::proxy::RefusalReply;
use weir_core::{Environment, Proxy, Service};

use crate::catalog::{self, KeyHashing};
use crate::failure::Failure;
use crate::problem::{Checked, Problem};
use crate::report::Source;
use crate::suggest::did_you_mean;

use render::{Plan, render};

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// The service's id.
    service: String,
    /// The catalog that the listener has.
    #[arg(long, value_name = "FILE")]
    catalog: PathBuf,
    /// Which of the service's deployments: production or staging. The gateway token has to be for the same.
    #[arg(long, default_value = "production")]
    environment: Environment,
    /// A listener's HTTP port: http://host:port or https://host:port. Give it again for each further listener.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8091")]
    listener: Vec<Uri>,
    /// The file that holds the gateway token for nginx, by an absolute path or beside nginx.conf.
    #[arg(long, value_name = "FILE", default_value = "weir-token.conf")]
    token_include: String,
    /// Where nginx takes your own directives for the server from; none need be there.
    #[arg(long, value_name = "FILES")]
    include: Option<String>,
    /// Where nginx listens: a port, or whatever its directive `listen` takes.
    #[arg(long, default_value = "80")]
    listen: String,
}

const AFTER_HELP: &str = "\
Example:
  weir nginx-config mail_api --catalog catalog.toml > nginx.conf
  umask 077
  sed 's/.*/proxy_set_header Weir-Gateway-Token \"&\";/' \\
      gateway.token > weir-token.conf
  nginx -t -c $PWD/nginx.conf

nginx asks the listener about every request (auth_request), passes on what is
admitted, and refuses the rest in the provider's words. Run this again when the
service's hosts, texts or timeouts change. Its plans, keys, rules and secret
token are the listener's, and are never in the file.

docs/envoy-and-nginx.md says what is different from Weir's own gateway.";

/// Prints the configuration.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let source = Source::load(&arguments.catalog).map_err(|problem| Failure::BadInput(vec![problem]))?;
    let Checked { value, .. } =
        catalog::parse(&source, &KeyHashing::for_check()).map_err(Failure::BadInput)?;
    let services = &value.catalog.services;
    let Some(service) = services.iter().find(|service| service.id.as_str() == arguments.service) else {
        let hint = did_you_mean(&arguments.service, services.iter().map(|service| service.id.as_str()));
        let message = format!("{} has no service {:?}{hint}", source.file, arguments.service);
        return Err(Failure::BadInput(vec![Problem::of_argument("SERVICE", message)]));
    };
    let proxy = service.proxy(arguments.environment);
    let mut problems = argument_problems(arguments);
    problems.extend(catalog_problems(&source.file, service, proxy));
    let backend = proxy.api_backend.as_deref().and_then(|url| url.parse::<Uri>().ok());
    let Some(backend) = backend.filter(|_| problems.is_empty()) else {
        return Err(Failure::BadInput(problems));
    };
    let include = arguments.include.clone().unwrap_or_else(|| format!("weir-{}.d/*.conf", service.id));
    let plan = Plan {
        service,
        proxy,
        environment: arguments.environment,
        backend: &backend,
        listeners: &arguments.listener,
        listen: &arguments.listen,
        token_include: &arguments.token_include,
        include: &include,
    };
    std::io::stdout().write_all(render(&plan).as_bytes()).context("cannot print the configuration")?;
    Ok(())
}

fn argument_problems(arguments: &Arguments) -> Vec<Problem> {
    let mut problems = Vec::new();
    let is_origin = |url: &Uri| {
        matches!(url.scheme_str(), Some("http" | "https"))
            && url.path() == "/"
            && url.authority().is_some_and(|authority| !authority.as_str().contains('@'))
    };
    if !arguments.listener.iter().all(has_plain_host) {
        problems.push(Problem::of_argument("--listener", "needs a host name or an IP address"));
    }
    let schemes: Vec<_> = arguments.listener.iter().map(Uri::scheme_str).collect();
    if !arguments.listener.iter().all(is_origin) {
        problems.push(Problem::of_argument("--listener", "is not http://host:port or https://host:port"));
    } else if schemes.windows(2).any(|two| two[0] != two[1]) {
        problems
            .push(Problem::of_argument("--listener", "all listeners have to be http://, or all https://"));
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ".:[]*=_- /".contains(c);
    if arguments.listen.is_empty() || !arguments.listen.chars().all(is_plain) {
        problems.push(Problem::of_argument("--listen", "is not what nginx can listen on"));
    }
    let files =
        [("--token-include", Some(&arguments.token_include)), ("--include", arguments.include.as_ref())];
    for (name, file) in files {
        // nginx puts variables into neither, but ends a path at what ends a line.
        if file.is_some_and(|file| file.is_empty() || file.chars().any(char::is_control)) {
            problems.push(Problem::of_argument(name, "is not the name of a file"));
        }
    }
    problems
}

/// Whether the host is a name or an address. A URL may have more in it, which ends a directive, or is a variable.
fn has_plain_host(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default();
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(is_name),
    }
}

/// Names with more hyphens and underscores than these have too many spellings to name each.
const SEPARATORS_MAX: usize = 6;

fn catalog_problems(file: &str, service: &Service, proxy: &Proxy) -> Vec<Problem> {
    let id = &service.id;
    let mut problems = Vec::new();
    let mut problem =
        |message: String| problems.push(Problem::of_file(file, format!("service {id}: {message}")));
    if proxy.api_backend.is_none() {
        problem("has no api_backend: nginx would not know where to send requests".into());
    }
    let backend = proxy.api_backend.as_deref().and_then(|url| url.parse::<Uri>().ok());
    if backend.is_some_and(|url| !has_plain_host(&url)) {
        problem("api_backend needs a host name or an IP address: nginx reads the rest differently".into());
    }
    if !proxy.policies.steps().is_empty() {
        problem("has policies: nginx would not carry them out".into());
    }
    if !proxy.backends.is_empty() {
        problem("has several backends: nginx would not know which one has a request".into());
    }
    if proxy.hosts.is_empty() {
        problem("has no hosts".into());
    }
    let names = &proxy.credential_names;
    for name in [&proxy.secret_token_header, &names.user_key, &names.app_id, &names.app_key] {
        if name.matches(['-', '_']).count() > SEPARATORS_MAX {
            problem(format!("{name:?} has more than {SEPARATORS_MAX} hyphens, which nginx cannot guard"));
        }
    }
    let refusals = &proxy.refusals;
    let replies = [
        ("auth_missing", &refusals.auth_missing),
        ("auth_failed", &refusals.auth_failed),
        ("no_match", &refusals.no_match),
        ("limits_exceeded", &refusals.limits_exceeded),
    ];
    for (name, RefusalReply { status, body, .. }) in replies {
        if is_nginxs_own(*status) {
            problem(format!("errors.{name}: status {status} means something else to nginx: choose another"));
        }
        if body.contains('\0') {
            problem(format!("errors.{name}: nginx cannot write the character NUL"));
        }
    }
    problems
}

/// Statuses that nginx takes for redirects, or keeps for itself.
fn is_nginxs_own(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308 | 444 | 494..=499)
}
