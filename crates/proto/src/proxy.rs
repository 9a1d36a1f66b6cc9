//! How gateways serve a service.

use weir_core::backend::{BACKENDS_MAX, Backend};
use weir_core::mapping_rule::MappingRule;
use weir_core::oidc::{AUDIENCES_MAX, Oidc};
use weir_core::policy::Chain;
use weir_core::proxy::{
    CredentialLocation, CredentialNames, Decisions, Environment, Proxy, RefusalReply, Refusals,
    UpstreamTimeouts, WhenAway,
};
use weir_core::{Secret, Service};

use crate::catalog::{parse, read_statuses, status_names};
use crate::settings;
use crate::{FieldError, v1};

impl v1::GatewayService {
    /// What gateways of an environment are told of a service.
    pub fn new(service: &Service, environment: Environment) -> Self {
        let proxy = service.proxy(environment);
        let metrics = service.metrics.iter().map(|(_, metric)| metric.name.to_string());
        Self {
            id: service.id.to_string(),
            name: service.name.clone(),
            credentials: v1::CredentialKind::from(service.credentials).into(),
            proxy: Some(proxy.into()),
            metrics: if proxy.usage_header.is_some() { metrics.collect() } else { vec![] },
        }
    }
}

impl From<Environment> for v1::Environment {
    fn from(environment: Environment) -> Self {
        match environment {
            Environment::Staging => Self::Staging,
            Environment::Production => Self::Production,
        }
    }
}

impl TryFrom<v1::Environment> for Environment {
    type Error = FieldError;
    fn try_from(environment: v1::Environment) -> Result<Self, FieldError> {
        match environment {
            v1::Environment::Unspecified => Err(FieldError::new("environment", "is missing or unknown")),
            v1::Environment::Staging => Ok(Self::Staging),
            v1::Environment::Production => Ok(Self::Production),
        }
    }
}

impl From<&Proxy> for v1::Proxy {
    fn from(proxy: &Proxy) -> Self {
        let location = match proxy.credential_location {
            CredentialLocation::Query => v1::CredentialLocation::Query,
            CredentialLocation::Headers => v1::CredentialLocation::Headers,
            CredentialLocation::Authorization => v1::CredentialLocation::Authorization,
        };
        let refusal = |reply: &RefusalReply| {
            Some(v1::RefusalReply {
                status: reply.status.into(),
                body: reply.body.clone(),
                content_type: reply.content_type.clone(),
            })
        };
        Self {
            hosts: proxy.hosts.clone(),
            api_backend: proxy.api_backend.clone().unwrap_or_default(),
            credential_location: location.into(),
            user_key_name: proxy.credential_names.user_key.clone(),
            app_id_name: proxy.credential_names.app_id.clone(),
            app_key_name: proxy.credential_names.app_key.clone(),
            strip_credentials: proxy.strip_credentials,
            mapping_rules: proxy.mapping_rules.iter().map(rule_message).collect(),
            auth_missing: refusal(&proxy.refusals.auth_missing),
            auth_failed: refusal(&proxy.refusals.auth_failed),
            no_match: refusal(&proxy.refusals.no_match),
            limits_exceeded: refusal(&proxy.refusals.limits_exceeded),
            secret_token: proxy.secret_token.as_ref().map(|s| s.expose().to_owned()).unwrap_or_default(),
            secret_token_header: proxy.secret_token_header.clone(),
            host_rewrite: proxy.host_rewrite.clone().unwrap_or_default(),
            request_body_bytes_max: proxy.request_body_bytes_max,
            connect_timeout_ms: proxy.timeouts.connect_ms,
            response_timeout_ms: proxy.timeouts.response_ms,
            idle_timeout_ms: proxy.timeouts.idle_ms,
            decisions: v1::Decisions::from(proxy.decisions).into(),
            when_away: v1::WhenAway::from(proxy.when_away).into(),
            backends: proxy.backends.iter().map(backend_message).collect(),
            oidc: proxy.oidc.as_ref().map(oidc_message),
            access_token_name: proxy.credential_names.access_token.clone(),
            usage_header: proxy.usage_header.clone().unwrap_or_default(),
            usage_header_max: proxy.usage_header_max,
            policies: proxy.policies.written().iter().map(settings::message).collect(),
        }
    }
}

fn oidc_message(oidc: &Oidc) -> v1::Oidc {
    v1::Oidc {
        issuer: oidc.issuer.clone(),
        audiences: oidc.audiences.clone(),
        client_id_claim: oidc.client_id_claim.clone(),
        algorithms: oidc.algorithms.iter().map(|algorithm| algorithm.as_str().to_owned()).collect(),
        leeway_s: oidc.leeway_s,
    }
}

fn backend_message(backend: &Backend) -> v1::Backend {
    v1::Backend {
        id: backend.id.clone(),
        mount: backend.mount.to_string(),
        api_backend: backend.api_backend.clone(),
        host_rewrite: backend.host_rewrite.clone().unwrap_or_default(),
        mapping_rules: backend.mapping_rules.iter().map(rule_message).collect(),
    }
}

fn rule_message(rule: &MappingRule) -> v1::MappingRule {
    v1::MappingRule {
        http_method: rule.http_method.as_str().to_owned(),
        pattern: rule.pattern.to_string(),
        metric: rule.metric.to_string(),
        delta: rule.delta,
        position: rule.position,
        last: rule.last,
        free_answers: status_names(&rule.free_answers),
    }
}

impl TryFrom<&v1::Proxy> for Proxy {
    type Error = FieldError;

    fn try_from(message: &v1::Proxy) -> Result<Self, FieldError> {
        let rules: Result<_, _> = message.mapping_rules.iter().map(read_rule).collect();
        let backends: Result<Vec<_>, _> = message.backends.iter().map(read_backend).collect();
        let backends = backends?;
        if backends.len() > BACKENDS_MAX {
            return Err(FieldError::new("backends", "are too many"));
        }
        Ok(Self {
            hosts: message.hosts.clone(),
            api_backend: filled(&message.api_backend),
            backends,
            credential_location: match message.credential_location() {
                v1::CredentialLocation::Unspecified => {
                    return Err(FieldError::new("credential_location", "is missing or unknown"));
                }
                v1::CredentialLocation::Query => CredentialLocation::Query,
                v1::CredentialLocation::Headers => CredentialLocation::Headers,
                v1::CredentialLocation::Authorization => CredentialLocation::Authorization,
            },
            credential_names: CredentialNames {
                user_key: message.user_key_name.clone(),
                app_id: message.app_id_name.clone(),
                app_key: message.app_key_name.clone(),
                access_token: filled(&message.access_token_name)
                    .unwrap_or_else(|| CredentialNames::default().access_token),
            },
            oidc: message.oidc.as_ref().map(read_oidc).transpose()?,
            strip_credentials: message.strip_credentials,
            mapping_rules: rules?,
            refusals: Refusals {
                auth_missing: read_refusal("auth_missing", message.auth_missing.as_ref())?,
                auth_failed: read_refusal("auth_failed", message.auth_failed.as_ref())?,
                no_match: read_refusal("no_match", message.no_match.as_ref())?,
                limits_exceeded: read_refusal("limits_exceeded", message.limits_exceeded.as_ref())?,
            },
            secret_token: filled(&message.secret_token).map(|text| Secret::new(&text)),
            secret_token_header: message.secret_token_header.clone(),
            host_rewrite: filled(&message.host_rewrite),
            request_body_bytes_max: message.request_body_bytes_max,
            timeouts: UpstreamTimeouts {
                connect_ms: message.connect_timeout_ms,
                response_ms: message.response_timeout_ms,
                idle_ms: message.idle_timeout_ms,
            },
            usage_header: filled(&message.usage_header),
            usage_header_max: message.usage_header_max,
            decisions: match message.decisions() {
                v1::Decisions::Unspecified | v1::Decisions::Leased => Decisions::Leased,
                v1::Decisions::Synchronous => Decisions::Synchronous,
            },
            when_away: match message.when_away() {
                v1::WhenAway::Unspecified | v1::WhenAway::Deny => WhenAway::Deny,
                v1::WhenAway::AllowKnown => WhenAway::AllowKnown,
                v1::WhenAway::Allow => WhenAway::Allow,
            },
            policies: read_policies(&message.policies)?,
        })
    }
}

impl From<Decisions> for v1::Decisions {
    fn from(decisions: Decisions) -> Self {
        match decisions {
            Decisions::Leased => Self::Leased,
            Decisions::Synchronous => Self::Synchronous,
        }
    }
}

impl From<WhenAway> for v1::WhenAway {
    fn from(when: WhenAway) -> Self {
        match when {
            WhenAway::Deny => Self::Deny,
            WhenAway::AllowKnown => Self::AllowKnown,
            WhenAway::Allow => Self::Allow,
        }
    }
}

fn read_policies(policies: &[prost_types::Struct]) -> Result<Chain, FieldError> {
    let written: Result<Vec<_>, _> = policies.iter().map(settings::read).collect();
    Chain::read(&written?).map_err(|problems| {
        // The first says enough: lists are checked whole where they are written.
        let problem = problems.first().map(ToString::to_string).unwrap_or_default();
        FieldError::new("policies", problem)
    })
}

/// A text that is given.
fn filled(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn read_backend(backend: &v1::Backend) -> Result<Backend, FieldError> {
    let rules: Result<_, _> = backend.mapping_rules.iter().map(read_rule).collect();
    let missing = || FieldError::new("backends.api_backend", "is missing");
    Ok(Backend {
        id: backend.id.clone(),
        mount: parse("backends.mount", &backend.mount)?,
        api_backend: filled(&backend.api_backend).ok_or_else(missing)?,
        host_rewrite: filled(&backend.host_rewrite),
        mapping_rules: rules.map_err(|error: FieldError| error.within("backends"))?,
    })
}

fn read_oidc(oidc: &v1::Oidc) -> Result<Oidc, FieldError> {
    if oidc.audiences.len() > AUDIENCES_MAX {
        return Err(FieldError::new("oidc.audiences", "are too many"));
    }
    let missing = |field| FieldError::new(field, "is missing");
    let algorithms: Result<_, _> =
        oidc.algorithms.iter().map(|text| parse("oidc.algorithms", text)).collect();
    Ok(Oidc {
        issuer: filled(&oidc.issuer).ok_or_else(|| missing("oidc.issuer"))?,
        audiences: oidc.audiences.clone(),
        client_id_claim: filled(&oidc.client_id_claim).ok_or_else(|| missing("oidc.client_id_claim"))?,
        algorithms: algorithms?,
        leeway_s: oidc.leeway_s,
    })
}

fn read_rule(rule: &v1::MappingRule) -> Result<MappingRule, FieldError> {
    if rule.delta == 0 {
        return Err(FieldError::new("mapping_rules.delta", "is below 1"));
    }
    Ok(MappingRule {
        http_method: parse("mapping_rules.http_method", &rule.http_method)?,
        pattern: parse("mapping_rules.pattern", &rule.pattern)?,
        metric: parse("mapping_rules.metric", &rule.metric)?,
        delta: rule.delta,
        position: rule.position,
        last: rule.last,
        free_answers: read_statuses("mapping_rules.free_answers", &rule.free_answers)?,
    })
}

fn read_refusal(field: &str, reply: Option<&v1::RefusalReply>) -> Result<RefusalReply, FieldError> {
    let reply = reply.ok_or_else(|| FieldError::new(field, "is missing"))?;
    let status = u16::try_from(reply.status).ok().filter(|status| (200..=599).contains(status));
    Ok(RefusalReply {
        status: status.ok_or_else(|| FieldError::new(field, "has a status outside 200 to 599"))?,
        body: reply.body.clone(),
        content_type: reply.content_type.clone(),
    })
}
