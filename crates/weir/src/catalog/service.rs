//! Providers and their services: `[[providers]]` and `[[providers.services]]`.
//!
//! A service is read from the inside out: metrics first, since rules and plans name them, then rules, then
//! how gateways serve it, plans, and last the applications, which name plans. What is wrong in one part
//! does not keep the others from being read.

use weir_core::{
    CredentialKind, Environment, MappingRule, MetricIndex, MetricTree, Plan, Provider, Proxy, Service,
    ServiceId, ServiceState,
};

use super::{Draft, application, mapping_rule, metric, plan, proxy};
use crate::names::Names;
use crate::report::{Located, Report};
use crate::section::Section;
use crate::suggest::did_you_mean;

/// The service that a part of it belongs to, as far as it has been read.
pub(super) struct Scope {
    /// `None` when its id is missing or wrong.
    pub(super) id: Option<ServiceId>,
    /// How its applications prove themselves.
    pub(super) credentials: CredentialKind,
    metrics: MetricTree,
}

impl Scope {
    /// How messages name it.
    pub(super) fn label(&self) -> String {
        self.id.as_ref().map_or_else(|| "without an id".into(), ToString::to_string)
    }

    /// All its metrics.
    pub(super) fn metrics(&self) -> &MetricTree {
        &self.metrics
    }

    /// A metric by its name; says so when there is none.
    pub(super) fn metric(&self, report: &Report<'_>, name: Located<&str>) -> Option<MetricIndex> {
        let found = self.metrics.find(name.value);
        if found.is_none() {
            let near = did_you_mean(name.value, self.metrics.iter().map(|(_, metric)| metric.name.as_str()));
            let message = format!("metric {:?} is not defined in service {}{near}", name.value, self.label());
            report.error(name.place, message);
        }
        found
    }
}

/// Reads a provider with all its services.
pub(super) fn provider(section: &Section<'_>, names: &mut Names, draft: &mut Draft<'_>) -> Option<Provider> {
    section.require("name");
    section.require("services");
    let name = section.text("name");
    let services = section.each("services", |section| read(section, draft));
    let name = name?;
    if name.value.trim().is_empty() {
        section.report().error(name.place, "name is empty");
    }
    names.claim(section.report(), name.value, name.place);
    Some(Provider { name: name.value.to_owned(), services })
}

fn read(section: &Section<'_>, draft: &mut Draft<'_>) -> Option<ServiceId> {
    section.require("id");
    let id = section.parsed::<ServiceId>("id");
    if let Some(id) = &id {
        draft.service_names.claim(section.report(), id.value.as_str(), id.place);
    }
    let scope = Scope {
        id: id.map(|id| id.value),
        credentials: credentials(section),
        metrics: metric::read(section),
    };
    let name = section.text("name").map(|name| name.value.to_owned());
    let state = section.choice("state", STATES).unwrap_or_default();
    let referrer_filters_required = section.flag("referrer_filters_required").unwrap_or(false);
    let rules = mapping_rule::read(section, &scope);
    draft.mapping_rules += rules.written;
    let (production, staging) = proxies(section, &scope, rules.rules, draft);
    let plans: Vec<Plan> = plan::read(section, &scope);
    application::read(section, &scope, &plans, draft);
    let service = Service {
        name: name.unwrap_or_else(|| scope.label()),
        id: scope.id.clone()?,
        state,
        credentials: scope.credentials,
        referrer_filters_required,
        metrics: scope.metrics,
        plans,
        production,
        staging,
    };
    draft.catalog.services.push(service);
    scope.id
}

const STATES: &[(&str, ServiceState)] =
    &[("active", ServiceState::Active), ("suspended", ServiceState::Suspended)];

fn credentials(section: &Section<'_>) -> CredentialKind {
    let kinds = [
        ("user_key", CredentialKind::UserKey),
        ("app_id_and_key", CredentialKind::AppIdAndKey),
        ("client_id", CredentialKind::ClientId),
    ];
    section.choice("credentials", &kinds).unwrap_or_default()
}

/// The production proxy and, where given, the one of staging, which may have rules of its own.
fn proxies(
    section: &Section<'_>,
    scope: &Scope,
    rules: Vec<MappingRule>,
    draft: &mut Draft<'_>,
) -> (Proxy, Option<Proxy>) {
    let production = section.inside("proxy", |section| {
        let proxy = proxy::read(section, Environment::Production, scope, draft);
        Proxy { mapping_rules: rules.clone(), ..proxy }
    });
    let staging = section.inside("staging", |section| {
        let own = mapping_rule::read(section, scope).rules;
        let proxy = proxy::read(section, Environment::Staging, scope, draft);
        let mapping_rules = if own.is_empty() { rules } else { own };
        section.is_given().then_some(Proxy { mapping_rules, ..proxy })
    });
    (production, staging)
}
