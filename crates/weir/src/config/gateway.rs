//! `gateway.toml`.

use std::fmt;
use std::net::SocketAddr;

use http::Uri;
use weir_core::route::Routing;
use weir_core::{Environment, Secret};
use weir_gateway::{
    CertificateError, CertificateFiles, Config, Http2Limits, ListenerTls, Network, OidcConfig, RefusalLog,
    TlsConfig, UpstreamIdentity,
};

use super::{LogConfig, TracingConfig, address, check_token, count, duration_ms, log, tracing};
use crate::names::Names;
use crate::problem::Reading;
use crate::report::{self, Located, Source};
use crate::section::{Item, Section};

/// Variables that override keys begin so.
pub(crate) const VARIABLE_PREFIX: &str = "WEIR_GATEWAY__";

/// All that a gateway process is told.
#[derive(Debug, Clone)]
pub(crate) struct GatewaySettings {
    /// For the gateway itself.
    pub(crate) gateway: Config,
    /// Where metrics and health are served.
    pub(crate) telemetry_address: SocketAddr,
    /// Proves who may ask there why calls are answered as they are; `None`: nobody may.
    pub(crate) operator_token: Option<Secret>,
    /// How it logs.
    pub(crate) log: LogConfig,
    /// Where its spans go; `None`: there are none.
    pub(crate) tracing: Option<TracingConfig>,
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
    let operator_token = section.secret("operator_token");
    if let Some(token) = &operator_token {
        check_token(section, "operator_token", token);
    }
    let refusal_log = section.inside("refusals", refusal_log);
    let routing = routing(section);
    let state_dir = section.path("state_dir");
    let upstream_ca_file = section.path("upstream_ca_file");
    let log = log::read(section);
    let tracing = tracing::of_gateway(section);
    // Nothing of this is used without a token: that is a problem already.
    let token = token.unwrap_or_else(|| Secret::new(""));
    let listener_tls = listener_tls(section, &listeners);
    let config = Config {
        routing,
        state_dir,
        upstream_ca_file,
        listener_tls,
        ..Config::new(address, environment, listeners, token)
    };
    let tls = section.inside("tls", |section| tls(section, environment));
    let workers = count(section, "workers", config.workers);
    let reuse_port = section.flag("reuse_port").unwrap_or(config.reuse_port);
    let proxy_protocol_from = networks(section, "proxy_protocol_from");
    let trusted_proxies = networks(section, "trusted_proxies");
    let upstream_tls = upstream_tls(section);
    let http2 = section.inside("http2", http2);
    let oidc = section.inside("oidc", oidc);
    let access_sample_ratio = section.inside("access_log", |section| section.ratio("sample_ratio"));
    let access_sample_ratio = access_sample_ratio.unwrap_or(config.access_sample_ratio);
    let config = Config {
        http2,
        tls,
        workers,
        reuse_port,
        proxy_protocol_from,
        trusted_proxies,
        upstream_tls,
        oidc,
        refusal_log,
        access_sample_ratio,
        #[cfg(feature = "otel")]
        is_traced: tracing.is_some(),
        ..config
    };
    let gateway = section.inside("limits", |section| limits(section, config));
    let operator_token = operator_token.map(|token| token.value);
    Some(GatewaySettings { gateway, telemetry_address, operator_token, log, tracing })
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

fn networks(section: &Section<'_>, key: &str) -> Vec<Network> {
    let texts = section.texts(key).unwrap_or_default();
    let network = |text: &Located<&str>| {
        let parsed = text.value.parse();
        parsed
            .map_err(|error| section.report().error(text.place, format!("{key}: {:?} {error}", text.value)))
            .ok()
    };
    texts.iter().filter_map(network).collect()
}

fn refusal_log(section: &Section<'_>) -> Option<RefusalLog> {
    if section.is_given() {
        section.require("file");
    }
    let bytes_max = section.whole("bytes_max", 65_536..=1 << 40).unwrap_or(64 << 20);
    Some(RefusalLog { file: section.path("file")?, bytes_max })
}

fn oidc(section: &Section<'_>) -> OidcConfig {
    let defaults = OidcConfig::default();
    OidcConfig {
        refresh_interval_ms: duration_ms(section, "refresh_interval_ms", defaults.refresh_interval_ms),
        renewal_pause_ms: duration_ms(section, "renewal_pause_ms", defaults.renewal_pause_ms),
        keys_kept_ms: duration_ms(section, "keys_kept_ms", defaults.keys_kept_ms),
        private_networks: networks(section, "private_networks"),
    }
}

/// TLS towards clients; the certificates are read to see whether they can be used.
fn tls(section: &Section<'_>, environment: Environment) -> Option<TlsConfig> {
    let port = match environment {
        Environment::Production => 8443,
        Environment::Staging => 8444,
    };
    let address = address(section, "address", port);
    let handshake_timeout_ms = duration_ms(section, "handshake_timeout_ms", 10_000);
    let mut is_empty = true;
    let certificates = section.items("certificates", |item| {
        is_empty = false;
        match item {
            Item::Section(section) => certificate(section),
            Item::Text(text) => {
                let message = "certificates must be a list of { certificate_file, key_file }, not text";
                section.report().error(text.place, message);
                None
            }
        }
    });
    if !section.is_given() {
        return None;
    }
    if is_empty {
        section
            .report()
            .error(section.place(), "tls.certificates is missing or empty: TLS needs at least one");
    }
    Some(TlsConfig { address, certificates, handshake_timeout_ms })
}

/// What upstreams are shown; the files are read to see whether they can be used.
fn upstream_tls(section: &Section<'_>) -> Vec<UpstreamIdentity> {
    let mut names = Names::new("upstream_tls");
    section.items("upstream_tls", |item| {
        let section = match item {
            Item::Section(section) => section,
            Item::Text(text) => {
                section.report().error(text.place, "upstream_tls must be a list of tables, not text");
                return None;
            }
        };
        section.require("name");
        let name = section.text("name");
        if let Some(name) = &name {
            names.claim(section.report(), name.value, name.place);
        }
        let is_shown = section.gives("certificate_file") || section.gives("key_file");
        let certificate = if is_shown { certificate(section) } else { None };
        let ca_file = section.file("ca_file").and_then(|_| section.path("ca_file"));
        Some(UpstreamIdentity { name: name?.value.to_owned(), certificate, ca_file })
    })
}

fn certificate(section: &Section<'_>) -> Option<CertificateFiles> {
    section.require("certificate_file");
    section.require("key_file");
    let (certificate, key) = (section.text("certificate_file"), section.text("key_file"));
    let (certificate, key) = certificate.zip(key)?;
    let path = |text| section.report().path(text);
    let files = CertificateFiles { certificate_file: path(certificate.value), key_file: path(key.value) };
    if let Err(error) = files.check() {
        let place = match error {
            CertificateError::Certificate { .. } => certificate.place,
            CertificateError::Key { .. } | CertificateError::Mismatch { .. } => key.place,
        };
        section.report().error(place, error.to_string());
    }
    Some(files)
}

/// Names every field, so that a limit which the gateway gains cannot be forgotten here.
fn limits(section: &Section<'_>, config: Config) -> Config {
    let count = |key, default| count(section, key, default);
    let duration_ms = |key, default| duration_ms(section, key, default);
    Config {
        workers: config.workers,
        journal_sync_interval_ms: duration_ms("journal_sync_interval_ms", config.journal_sync_interval_ms),
        leases_max: section
            .whole("leases_max", 1..=1 << 20)
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(config.leases_max),
        connections_max: count("connections_max", config.connections_max),
        head_bytes_max: head_bytes_max(section, config.head_bytes_max),
        head_timeout_ms: duration_ms("head_timeout_ms", config.head_timeout_ms),
        write_timeout_ms: duration_ms("write_timeout_ms", config.write_timeout_ms),
        authorise_timeout_ms: duration_ms("authorise_timeout_ms", config.authorise_timeout_ms),
        authorisations_waiting_max: count("authorisations_waiting_max", config.authorisations_waiting_max),
        cancels_waiting_max: count("cancels_waiting_max", config.cancels_waiting_max),
        upstream_in_flight_max: count("upstream_in_flight_max", config.upstream_in_flight_max),
        upstream_waiting_max: count("upstream_waiting_max", config.upstream_waiting_max),
        upstream_idle_max: count("upstream_idle_max", config.upstream_idle_max),
        upstream_ca_file: config.upstream_ca_file,
        drain_timeout_ms: duration_ms("drain_timeout_ms", config.drain_timeout_ms),
        address: config.address,
        environment: config.environment,
        listeners: config.listeners,
        listener_tls: config.listener_tls,
        token: config.token,
        routing: config.routing,
        state_dir: config.state_dir,
        http2: config.http2,
        tls: config.tls,
        reuse_port: config.reuse_port,
        proxy_protocol_from: config.proxy_protocol_from,
        trusted_proxies: config.trusted_proxies,
        upstream_tls: config.upstream_tls,
        oidc: config.oidc,
        refusal_log: config.refusal_log,
        access_sample_ratio: config.access_sample_ratio,
        #[cfg(feature = "otel")]
        is_traced: config.is_traced,
    }
}

/// Windows are at least what the protocol begins with, at most what it can say.
fn http2(section: &Section<'_>) -> Http2Limits {
    let defaults = Http2Limits::default();
    let window = |key, default| {
        let bytes = section.whole(key, 65_535..=(1 << 31) - 1);
        bytes.and_then(|bytes| u32::try_from(bytes).ok()).unwrap_or(default)
    };
    let streams = section.whole("streams_max", 1..=100_000).and_then(|n| u32::try_from(n).ok());
    Http2Limits {
        streams_max: streams.unwrap_or(defaults.streams_max),
        resets_pending_max: count(section, "resets_pending_max", defaults.resets_pending_max),
        faults_max: count(section, "faults_max", defaults.faults_max),
        stream_window_bytes: window("stream_window_bytes", defaults.stream_window_bytes),
        connection_window_bytes: window("connection_window_bytes", defaults.connection_window_bytes),
        send_buffer_bytes_max: count(section, "send_buffer_bytes_max", defaults.send_buffer_bytes_max),
        ping_interval_ms: duration_ms(section, "ping_interval_ms", defaults.ping_interval_ms),
        ping_timeout_ms: duration_ms(section, "ping_timeout_ms", defaults.ping_timeout_ms),
    }
}

/// hyper's buffer takes no less than 8 KiB.
fn head_bytes_max(section: &Section<'_>, default: usize) -> usize {
    let bytes = section.whole("head_bytes_max", 8_192..=(1 << 30));
    bytes.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(default)
}
