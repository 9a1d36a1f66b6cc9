//! `listener.toml`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use weir_core::{Environment, KeyHasher, Secret, ServiceId};
use weir_listener::{Config, GatewayToken, ServerTls};

use super::{LogConfig, TracingConfig, address, check_token, count, duration_ms, log, store, tracing};
use crate::names::Names;
use crate::problem::Reading;
use crate::report::{self, Source};
use crate::section::Section;

/// Variables that override keys begin so.
pub(crate) const VARIABLE_PREFIX: &str = "WEIR_LISTENER__";

/// All that a listener process is told.
#[derive(Debug, Clone)]
pub(crate) struct ListenerSettings {
    /// For the listener itself.
    pub(crate) listener: Config,
    /// For its store.
    pub(crate) store: weir_store::Config,
    /// The catalog file; `None`: the control plane publishes.
    pub(crate) catalog: Option<PathBuf>,
    /// Where metrics and health are served.
    pub(crate) telemetry_address: SocketAddr,
    /// How it logs.
    pub(crate) log: LogConfig,
    /// Where its spans go; `None`: there are none.
    pub(crate) tracing: Option<TracingConfig>,
}

impl fmt::Display for ListenerSettings {
    /// `listener on 0.0.0.0:8090 and 0.0.0.0:8091, redis store, 2 gateways`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config { grpc_address, http_address, gateways, .. } = &self.listener;
        let store = match self.store {
            weir_store::Config::Embedded(_) => "embedded",
            weir_store::Config::Redis(_) => "redis",
        };
        let plural = if gateways.len() == 1 { "" } else { "s" };
        let gateways = gateways.len();
        write!(f, "listener on {grpc_address} and {http_address}, {store} store, {gateways} gateway{plural}")
    }
}

/// Reads the file and what overrides it.
///
/// # Errors
/// Everything that is wrong with either.
pub(crate) fn parse(source: &Source) -> Reading<ListenerSettings> {
    report::read(source, read)
}

/// Reads the outermost table.
pub(super) fn read(section: &Section<'_>) -> Option<ListenerSettings> {
    let grpc_address = address(section, "grpc_address", 8090);
    let http_address = address(section, "http_address", 8091);
    let telemetry_address = address(section, "telemetry_address", 9090);
    let (catalog, publish_token) = catalog_source(section);
    let operator_token = operator_token(section, publish_token.as_ref());
    let key_hasher = key_hasher(section);
    let gateways = gateways(section);
    let store = store::read(section);
    let log = log::read(section);
    let tracing = tracing::of_listener(section);
    // Without secrets nothing of this is used; the limits are read for their problems.
    let hasher = key_hasher.clone().unwrap_or_else(|| KeyHasher::new(("", &Secret::new("")), &[]));
    let defaults = Config::new(grpc_address, http_address, hasher);
    let grpc_tls = section.inside("grpc_tls", |section| tls(section, "grpc_tls"));
    let http_tls = section.inside("http_tls", |section| tls(section, "http_tls"));
    let config = Config { gateways, publish_token, operator_token, grpc_tls, http_tls, ..defaults };
    let listener = section.inside("limits", |section| limits(section, config));
    key_hasher?;
    Some(ListenerSettings { listener, store: store?, catalog, telemetry_address, log, tracing })
}

/// Names every field, so that a limit which the listener gains cannot be forgotten here.
fn limits(section: &Section<'_>, config: Config) -> Config {
    let count = |key, default| count(section, key, default);
    let duration_ms = |key, default| duration_ms(section, key, default);
    Config {
        decision_timeout_ms: duration_ms("decision_timeout_ms", config.decision_timeout_ms),
        applications_cached_max: count("applications_cached_max", config.applications_cached_max),
        stream_requests_max: count("stream_requests_max", config.stream_requests_max),
        catalog_poll_ms: duration_ms("catalog_poll_ms", config.catalog_poll_ms),
        grpc_address: config.grpc_address,
        http_address: config.http_address,
        grpc_tls: config.grpc_tls,
        http_tls: config.http_tls,
        gateways: config.gateways,
        publish_token: config.publish_token,
        operator_token: config.operator_token,
        key_hasher: config.key_hasher,
    }
}

/// Certificate, key and the authority of callers' certificates.
fn tls(section: &Section<'_>, name: &str) -> Option<ServerTls> {
    let certificate = section.file("certificate_file");
    let key = section.file("key_file");
    let client_ca = section.file("client_ca_file");
    if certificate.is_some() != key.is_some() || (client_ca.is_some() && certificate.is_none()) {
        let message = format!("{name} needs both certificate_file and key_file");
        section.report().error(section.place(), message);
    }
    Some(ServerTls {
        certificate_pem: certificate?.value.into_bytes(),
        key_pem: Secret::new(&key?.value),
        client_ca_pem: client_ca.map(|file| file.value.into_bytes()),
    })
}

/// The file or the control plane's token: one of them, since two sources would overwrite each other.
fn catalog_source(section: &Section<'_>) -> (Option<PathBuf>, Option<Secret>) {
    let catalog = section.path("catalog");
    let token = section.secret("publish_token");
    if let Some(token) = &token {
        check_token(section, "publish_token", token);
    }
    match (&catalog, &token) {
        (Some(_), Some(token)) => {
            let message = "publish_token and catalog are both given: a catalog has one source";
            section.report().error(token.place, message);
        }
        (None, None) => {
            let message = "catalog is missing (or publish_token, when a control plane publishes)";
            section.report().error(section.place(), message);
        }
        _ => {}
    }
    (catalog, token.map(|token| token.value))
}

/// The token of who reads errors and events without being allowed to publish.
fn operator_token(section: &Section<'_>, publish_token: Option<&Secret>) -> Option<Secret> {
    let token = section.secret("operator_token")?;
    check_token(section, "operator_token", &token);
    if publish_token == Some(&token.value) {
        let message =
            "operator_token is publish_token, too: leave it out, the publisher may read all that it opens";
        section.report().error(token.place, message);
    }
    Some(token.value)
}

/// The server secrets: a file of lines `id secret`, the first being the current one.
fn key_hasher(section: &Section<'_>) -> Option<KeyHasher> {
    const KEY: &str = "key_hash_secret_file";
    section.require(KEY);
    let file = section.file(KEY)?;
    let mut secrets: Vec<(&str, Secret)> = Vec::new();
    let lines = (1..).zip(file.value.lines());
    for (number, line) in lines.filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#')) {
        let problem = match line.trim().split_once(char::is_whitespace) {
            Some((id, _)) if secrets.iter().any(|(other, _)| *other == id) => "repeats an id",
            Some((id, _)) if id.contains(':') => "has an id with a colon",
            Some((id, secret)) => {
                secrets.push((id, Secret::new(secret.trim())));
                continue;
            }
            None => "is not of the form: id secret",
        };
        section.report().error(file.place, format!("{KEY}: line {number} {problem}"));
    }
    let Some(((id, current), older)) = secrets.split_first() else {
        section.report().error(file.place, format!("{KEY} holds no secret"));
        return None;
    };
    let older: Vec<(&str, &Secret)> = older.iter().map(|(id, secret)| (*id, secret)).collect();
    Some(KeyHasher::new((id, current), &older))
}

fn gateways(section: &Section<'_>) -> Vec<GatewayToken> {
    let mut names = Names::new("gateway");
    let mut tokens: Vec<Secret> = Vec::new();
    let gateways = section.each("gateways", |section| gateway(section, &mut names, &mut tokens));
    // Where some are given and none is good, their own problems say so.
    if gateways.is_empty() && !section.gives("gateways") {
        section
            .report()
            .warning(section.place(), "there are no gateways: nobody may ask this listener by gRPC");
    }
    gateways
}

fn gateway(section: &Section<'_>, names: &mut Names, tokens: &mut Vec<Secret>) -> Option<GatewayToken> {
    section.require("id");
    section.require("environment");
    let id = section.text("id");
    let token = section.secret_required("token");
    let environments = [("production", Environment::Production), ("staging", Environment::Staging)];
    let environment = section.choice("environment", &environments);
    let services = services(section);
    if let Some(token) = &token {
        check_token(section, "token", token);
        if tokens.contains(&token.value) {
            section.report().error(token.place, "token is another gateway's too");
        }
        tokens.push(token.value.clone());
    }
    let id = id?;
    if id.value.is_empty() || !id.value.bytes().all(|b| b.is_ascii_graphic()) {
        section.report().error(id.place, format!("id {:?} is not a name of visible ASCII", id.value));
    }
    names.claim(section.report(), id.value, id.place);
    Some(GatewayToken { id: id.value.to_owned(), token: token?.value, environment: environment?, services })
}

fn services(section: &Section<'_>) -> Option<Vec<ServiceId>> {
    let texts = section.texts("services")?;
    let mut services = Vec::with_capacity(texts.len());
    for text in texts {
        match text.value.parse() {
            Ok(service) => services.push(service),
            Err(error) => {
                section.report().error(text.place, format!("services: {:?} {error}", text.value));
            }
        }
    }
    Some(services)
}
