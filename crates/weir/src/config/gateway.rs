//! `gateway.toml`.

use std::fmt;
use std::net::SocketAddr;

use http::Uri;
use weir_core::{Environment, Secret};
use weir_gateway::{Config, ListenerTls, Routing};

use super::{LogConfig, address, check_token, count, duration_ms, log};
use crate::problem::Reading;
use crate::report::{self, Source};
use crate::section::Section;

/// Variables that override keys begin so.
pub(crate) const VARIABLE_PREFIX: &str = "WEIR_GATEWAY__";

/// All that a gateway process is told.
#[derive(Debug, Clone)]
pub(crate) struct GatewaySettings {
    /// For the gateway itself.
    pub(crate) gateway: Config,
    /// Where metrics and health are served.
    pub(crate) telemetry_address: SocketAddr,
    /// How it logs.
    pub(crate) log: LogConfig,
}

impl fmt::Display for GatewaySettings {
    /// `production gateway on 0.0.0.0:8080, 1 listener`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config { environment, address, listeners, .. } = &self.gateway;
        let plural = if listeners.len() == 1 { "" } else { "s" };
        write!(f, "{} gateway on {address}, {} listener{plural}", environment.as_str(), listeners.len())
    }
}

/// Reads the file and what overrides it.
///
/// # Errors
/// Everything that is wrong with either.
pub(crate) fn parse(source: &Source) -> Reading<GatewaySettings> {
    report::read(source, read)
}

/// Reads the outermost table.
pub(super) fn read(section: &Section<'_>) -> Option<GatewaySettings> {
    section.require("listeners");
    let environment = environment(section);
    let (port, telemetry_port) = match environment {
        Environment::Production => (8080, 9080),
        Environment::Staging => (8081, 9081),
    };
    let address = address(section, "address", port);
    let telemetry_address = super::address(section, "telemetry_address", telemetry_port);
    let listeners = listeners(section);
    let token = token(section);
    let routing = routing(section);
    let state_dir = section.path("state_dir");
    let log = log::read(section);
    // Nothing of this is used without a token: that is a problem already.
    let token = token.unwrap_or_else(|| Secret::new(""));
    let listener_tls = listener_tls(section, &listeners);
    let config =
        Config { routing, state_dir, listener_tls, ..Config::new(address, environment, listeners, token) };
    let gateway = section.inside("limits", |section| limits(section, config));
    Some(GatewaySettings { gateway, telemetry_address, log })
}

fn environment(section: &Section<'_>) -> Environment {
    let environments = [("production", Environment::Production), ("staging", Environment::Staging)];
    section.choice("environment", &environments).unwrap_or(Environment::Production)
}

fn routing(section: &Section<'_>) -> Routing {
    let kinds = [("host", Routing::Host), ("path", Routing::Path), ("path_only", Routing::PathOnly)];
    section.choice("routing", &kinds).unwrap_or_default()
}

fn token(section: &Section<'_>) -> Option<Secret> {
    let token = section.secret_required("token")?;
    check_token(section, "token", &token);
    Some(token.value)
}

fn listeners(section: &Section<'_>) -> Vec<String> {
    let Some(listeners) = section.texts("listeners") else { return vec![] };
    if listeners.is_empty() {
        section.report().error(section.place(), "listeners is empty: a gateway needs at least one");
    }
    for listener in &listeners {
        let uri = listener.value.parse::<Uri>().ok();
        let usable = uri.filter(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| !host.is_empty())
                && matches!(uri.path(), "" | "/")
                && uri.query().is_none()
        });
        if usable.is_none() {
            let message = format!(
                "listeners: {:?} is not of the form http://host:port or https://host:port",
                listener.value
            );
            section.report().error(listener.place, message);
        }
    }
    listeners.iter().map(|listener| listener.value.to_owned()).collect()
}

/// How `https://` listeners are verified, and what they are shown.
fn listener_tls(section: &Section<'_>, listeners: &[String]) -> Option<ListenerTls> {
    let is_wanted = listeners.iter().any(|address| address.starts_with("https://"));
    section.inside("listener_tls", |section| {
        if is_wanted {
            section.require("ca_file");
        }
        let ca = section.file("ca_file");
        let certificate = section.file("certificate_file");
        let key = section.file("key_file");
        let server_name = section.text("server_name").map(|name| name.value.to_owned());
        if certificate.is_some() != key.is_some() {
            let message = "certificate_file and key_file belong together: give both or none";
            section.report().error(section.place(), message);
        }
        let identity = certificate.zip(key);
        let identity =
            identity.map(|(certificate, key)| (certificate.value.into_bytes(), Secret::new(&key.value)));
        Some(ListenerTls { ca_pem: ca?.value.into_bytes(), identity, server_name })
    })
}

/// Names every field, so that a limit which the gateway gains cannot be forgotten here.
fn limits(section: &Section<'_>, config: Config) -> Config {
    let count = |key, default| count(section, key, default);
    let duration_ms = |key, default| duration_ms(section, key, default);
    Config {
        connections_max: count("connections_max", config.connections_max),
        head_bytes_max: head_bytes_max(section, config.head_bytes_max),
        head_timeout_ms: duration_ms("head_timeout_ms", config.head_timeout_ms),
        write_timeout_ms: duration_ms("write_timeout_ms", config.write_timeout_ms),
        authorise_timeout_ms: duration_ms("authorise_timeout_ms", config.authorise_timeout_ms),
        authorisations_waiting_max: count("authorisations_waiting_max", config.authorisations_waiting_max),
        cancels_waiting_max: count("cancels_waiting_max", config.cancels_waiting_max),
        upstream_idle_max: count("upstream_idle_max", config.upstream_idle_max),
        drain_timeout_ms: duration_ms("drain_timeout_ms", config.drain_timeout_ms),
        address: config.address,
        environment: config.environment,
        listeners: config.listeners,
        listener_tls: config.listener_tls,
        token: config.token,
        routing: config.routing,
        state_dir: config.state_dir,
    }
}

/// hyper's buffer takes no less than 8 KiB.
fn head_bytes_max(section: &Section<'_>, default: usize) -> usize {
    let bytes = section.whole("head_bytes_max", 8_192..=(1 << 30));
    bytes.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(default)
}
