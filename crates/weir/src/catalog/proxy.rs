//! How gateways serve a service: `[providers.services.proxy]` and `[providers.services.staging]`.
//!
//! Both tables have the same keys. Staging is not laid over production: what it does not give has the default,
//! so that what is tried in staging is what will be promoted.

use std::collections::HashMap;

use http::{HeaderName, HeaderValue, Uri};
use weir_core::oidc::{AUDIENCES_MAX, Oidc};
use weir_core::policy::Chain;
use weir_core::proxy::{
    CredentialLocation, CredentialNames, Decisions, RefusalReply, Refusals, SECRET_TOKEN_HEADER,
    UpstreamTimeouts, WhenAway,
};
use weir_core::{COUNT_MAX, CredentialKind, Environment, Proxy, Secret};

use super::service::Scope;
use super::{Draft, policy};
use crate::report::{Located, Place, Report};
use crate::section::Section;

/// Longest text of a refusal.
const REFUSAL_BODY_BYTES_MAX: usize = 16 << 10;
/// Headers that carry the exchange itself and cannot carry a secret token.
const HEADERS_OF_THE_EXCHANGE: [&str; 8] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
    "trailer",
    "proxy-connection",
];

/// Which hosts are claimed in which deployment, and where in the file.
#[derive(Debug, Default)]
pub(super) struct Hosts(HashMap<(Environment, String), Place>);

/// Reads everything but the rules and the backends.
pub(super) fn read(
    section: &Section<'_>,
    environment: Environment,
    scope: &Scope,
    draft: &mut Draft<'_>,
) -> Proxy {
    if section.is_given() {
        section.require("hosts");
    }
    let defaults = Proxy::default();
    let proxy = Proxy {
        hosts: hosts(section, environment, &mut draft.hosts),
        api_backend: base_url(section, "api_backend"),
        backends: vec![],
        credential_location: section.choice("credentials_location", LOCATIONS).unwrap_or_default(),
        credential_names: section.inside("credential_names", |section| credential_names(section, scope)),
        oidc: section.inside("oidc", |inner| oidc(inner, section.is_given(), scope)),
        strip_credentials: section.flag("strip_credentials").unwrap_or(false),
        mapping_rules: vec![],
        refusals: section.inside("errors", refusals),
        secret_token: secret_token(section),
        secret_token_header: secret_token_header(section),
        host_rewrite: host_rewrite(section),
        request_body_bytes_max: section
            .whole("request_body_bytes_max", 0..=i64::MAX.unsigned_abs())
            .unwrap_or(defaults.request_body_bytes_max),
        timeouts: section.inside("timeouts", timeouts),
        usage_header: header_name(section, "usage_header"),
        usage_header_max: section
            .whole("usage_header_max", 1..=COUNT_MAX)
            .unwrap_or(defaults.usage_header_max),
        decisions: section.choice("decisions", DECISIONS).unwrap_or_default(),
        when_away: section.choice("when_away", WHEN_AWAY).unwrap_or_default(),
        policies: Chain::default(),
    };
    Proxy { policies: policy::read(section, &proxy, scope, draft), ..proxy }
}

const DECISIONS: &[(&str, Decisions)] =
    &[("leased", Decisions::Leased), ("synchronous", Decisions::Synchronous)];

const WHEN_AWAY: &[(&str, WhenAway)] =
    &[("deny", WhenAway::Deny), ("allow_known", WhenAway::AllowKnown), ("allow", WhenAway::Allow)];

const LOCATIONS: &[(&str, CredentialLocation)] = &[
    ("query", CredentialLocation::Query),
    ("headers", CredentialLocation::Headers),
    ("authorization", CredentialLocation::Authorization),
];

fn hosts(section: &Section<'_>, environment: Environment, taken: &mut Hosts) -> Vec<String> {
    let report = section.report();
    let mut hosts = Vec::new();
    for text in section.texts("hosts").unwrap_or_default() {
        let host = text.value.to_ascii_lowercase();
        if !is_host_name(host.strip_prefix("*.").unwrap_or(&host)) {
            let message =
                format!("host {host:?} is not a host name such as api.example.org or *.example.org");
            report.error(text.place, message);
            continue;
        }
        if let Some(first) = taken.0.insert((environment, host.clone()), text.place) {
            let line = report.line(first);
            let message = format!(
                "host {host:?} is claimed in line {line} already: only gateways with routing by path can share it"
            );
            report.warning(text.place, message);
        }
        hosts.push(host);
    }
    hosts
}

/// Labels of letters, digits, `-` and `_`; neither a port nor an IPv6 address.
fn is_host_name(host: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    host.len() <= 253 && host.split('.').all(is_label)
}

/// Where an upstream is.
pub(super) fn base_url(section: &Section<'_>, key: &str) -> Option<String> {
    let text = section.text(key)?;
    let problem = match text.value.parse::<Uri>() {
        Err(error) => Some(format!("is not a URL: {error}")),
        Ok(uri) => url_problem(text.value, &uri).map(ToOwned::to_owned),
    };
    if let Some(problem) = problem {
        // Not the URL itself, which may hold a password by mistake.
        section.report().error(text.place, format!("{key} {problem}"));
    }
    Some(text.value.to_owned())
}

fn url_problem(text: &str, uri: &Uri) -> Option<&'static str> {
    let authority = uri.authority().map(http::uri::Authority::as_str);
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        Some("does not begin with http:// or https://")
    } else if uri.host().is_none_or(str::is_empty) {
        Some("has no host")
    } else if authority.is_some_and(|authority| authority.contains('@')) {
        Some("holds a user name: the gateway would not send it")
    } else if text.contains('#') {
        Some("has a fragment, which is never sent")
    } else {
        None
    }
}

fn oidc(section: &Section<'_>, is_served: bool, scope: &Scope) -> Option<Oidc> {
    let is_wanted = scope.credentials == CredentialKind::ClientId;
    if section.is_given() {
        section.require("issuer");
        if !is_wanted {
            let message = "oidc is for services with credentials = \"client_id\"";
            section.report().error(section.place(), message);
        }
    }
    let issuer = base_url(section, "issuer");
    let audiences = section.texts("audiences").unwrap_or_default();
    if let Some(excess) = audiences.get(AUDIENCES_MAX) {
        section.report().error(excess.place, format!("audiences holds more than {AUDIENCES_MAX}"));
    }
    let algorithm = |text: Located<&str>| {
        let read = text.value.parse();
        read.map_err(|error| {
            section.report().error(text.place, format!("algorithms: {:?} {error}", text.value))
        })
        .ok()
    };
    let algorithms = section.texts("algorithms").unwrap_or_default().into_iter().filter_map(algorithm);
    if is_wanted && is_served && !section.is_given() {
        let message = "there is no oidc: gateways answer 401 to every call of a service with credentials = \"client_id\"";
        section.report().warning(section.place(), message);
    }
    let defaults = Oidc::of(&issuer.unwrap_or_default());
    let oidc = Oidc {
        audiences: audiences.iter().map(|text| text.value.to_owned()).collect(),
        client_id_claim: section
            .text("client_id_claim")
            .map_or(defaults.client_id_claim, |text| text.value.to_owned()),
        algorithms: algorithms.collect(),
        leeway_s: section
            .whole("leeway_s", 0..=3_600)
            .and_then(|s| u32::try_from(s).ok())
            .unwrap_or(defaults.leeway_s),
        issuer: defaults.issuer,
    };
    section.is_given().then_some(oidc)
}

fn credential_names(section: &Section<'_>, scope: &Scope) -> CredentialNames {
    let defaults = CredentialNames::default();
    let names = CredentialNames {
        user_key: credential_name(section, "user_key").unwrap_or(defaults.user_key),
        app_id: credential_name(section, "app_id").unwrap_or(defaults.app_id),
        app_key: credential_name(section, "app_key").unwrap_or(defaults.app_key),
        access_token: credential_name(section, "access_token").unwrap_or(defaults.access_token),
    };
    if scope.credentials == CredentialKind::AppIdAndKey && names.app_id == names.app_key {
        section.report().error(section.place(), "app_id and app_key have the same name");
    }
    names
}

fn credential_name(section: &Section<'_>, key: &str) -> Option<String> {
    let name = section.text(key)?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    if name.value.is_empty() || !name.value.bytes().all(allowed) {
        let message = format!("{key} {:?} is not a name of letters, digits, _ and -", name.value);
        section.report().error(name.place, message);
        return None;
    }
    Some(name.value.to_owned())
}

fn secret_token(section: &Section<'_>) -> Option<Secret> {
    let token = section.secret("secret_token")?;
    if HeaderValue::from_str(token.value.expose()).is_err() {
        section.report().error(token.place, "secret_token has a character that no header can carry");
    }
    Some(token.value)
}

fn secret_token_header(section: &Section<'_>) -> String {
    header_name(section, "secret_token_header").unwrap_or_else(|| SECRET_TOKEN_HEADER.into())
}

/// The name of a header that carries nothing of the exchange itself.
fn header_name(section: &Section<'_>, key: &str) -> Option<String> {
    let name = section.text(key)?;
    match HeaderName::from_bytes(name.value.as_bytes()) {
        Err(_) => {
            section.report().error(name.place, format!("{key} {:?} is not a header name", name.value));
        }
        Ok(header) if HEADERS_OF_THE_EXCHANGE.contains(&header.as_str()) => {
            let message = format!("{key} cannot be {:?}: HTTP itself uses it", name.value);
            section.report().error(name.place, message);
        }
        Ok(_) => {}
    }
    Some(name.value.to_owned())
}

/// The Host that an upstream sees.
pub(super) fn host_rewrite(section: &Section<'_>) -> Option<String> {
    let host = section.text("host_rewrite")?;
    let (name, port) = host.value.split_once(':').unwrap_or((host.value, "1"));
    if !is_host_name(name) || !port.parse::<u16>().is_ok_and(|port| port > 0) {
        let message = format!("host_rewrite {:?} is not a host, or a host and port", host.value);
        section.report().error(host.place, message);
    }
    Some(host.value.to_owned())
}

fn timeouts(section: &Section<'_>) -> UpstreamTimeouts {
    let defaults = UpstreamTimeouts::default();
    let read = |key: &str, default: u32| {
        let given = section.whole(key, 1..=u32::MAX.into());
        given.and_then(|ms| u32::try_from(ms).ok()).unwrap_or(default)
    };
    UpstreamTimeouts {
        connect_ms: read("connect_ms", defaults.connect_ms),
        response_ms: read("response_ms", defaults.response_ms),
        idle_ms: read("idle_ms", defaults.idle_ms),
    }
}

fn refusals(section: &Section<'_>) -> Refusals {
    let defaults = Refusals::default();
    Refusals {
        auth_missing: section.inside("auth_missing", |s| refusal(s, defaults.auth_missing)),
        auth_failed: section.inside("auth_failed", |s| refusal(s, defaults.auth_failed)),
        no_match: section.inside("no_match", |s| refusal(s, defaults.no_match)),
        limits_exceeded: section.inside("limits_exceeded", |s| refusal(s, defaults.limits_exceeded)),
    }
}

fn refusal(section: &Section<'_>, default: RefusalReply) -> RefusalReply {
    let status = section.whole("status", 200..=599).and_then(|status| u16::try_from(status).ok());
    RefusalReply {
        status: status.unwrap_or(default.status),
        body: body(section).unwrap_or(default.body),
        content_type: content_type(section.report(), section.text("content_type"))
            .unwrap_or(default.content_type),
    }
}

fn body(section: &Section<'_>) -> Option<String> {
    let body = section.text("body")?;
    if body.value.len() > REFUSAL_BODY_BYTES_MAX {
        section.report().error(body.place, format!("body is longer than {REFUSAL_BODY_BYTES_MAX} bytes"));
    }
    Some(body.value.to_owned())
}

fn content_type(report: &Report<'_>, text: Option<Located<&str>>) -> Option<String> {
    let text = text?;
    let is_type = |value: &str| value.split_once('/').is_some_and(|(a, b)| !a.is_empty() && !b.is_empty());
    if !is_type(text.value) || HeaderValue::from_str(text.value).is_err() {
        report.error(
            text.place,
            format!("content_type {:?} is not a media type such as text/plain", text.value),
        );
    }
    Some(text.value.to_owned())
}
