//! Providers and their services: `[[providers]]` and `[[providers.services]]`.
//!
//! A service is read from the inside out: metrics first, since rules and plans name them, then rules, then
//! how gateways serve it, plans, and last the applications, which name plans. What is wrong in one part
//! does not keep the others from being read.

use weir_core::alert::ALERT_BINS;
use weir_core::provider::PROVIDER_KEYS_MAX;
use weir_core::service::SERVICE_TOKENS_MAX;
use weir_core::{
    AlertBins, CredentialKind, Environment, KeyHash, MappingRule, MetricIndex, MetricTree, Plan, Provider,
    Proxy, Service, ServiceId, ServiceState,
};

use super::{Draft, application, backend, mapping_rule, metric, plan, policy, proxy};
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

/// Reads a provider with all its services; the first is its default.
pub(super) fn provider(section: &Section<'_>, names: &mut Names, draft: &mut Draft<'_>) -> Option<()> {
    section.require("name");
    section.require("services");
    let name = section.text("name");
    let keys = hashes(section, "provider_keys", PROVIDER_KEYS_MAX, draft);
    let provider = Provider { name: name.as_ref().map_or(String::new(), |name| name.value.to_owned()), keys };
    let mut is_default = true;
    section.each("services", |section| {
        read(section, draft, &provider, is_default);
        is_default = false;
        Some(())
    });
    let name = name?;
    if name.value.trim().is_empty() {
        section.report().error(name.place, "name is empty");
    }
    names.claim(section.report(), name.value, name.place);
    Some(())
}

/// Keys or tokens, each of which belongs to one provider or service of the file.
fn hashes(section: &Section<'_>, key: &str, max: usize, draft: &mut Draft<'_>) -> Vec<KeyHash> {
    let texts = section.texts(key).unwrap_or_default();
    if let Some(excess) = texts.get(max) {
        section.report().error(excess.place, format!("{key} holds more than {max}"));
    }
    let mut hashes = Vec::with_capacity(texts.len());
    for text in texts {
        let place = text.place;
        let Some(hash) = draft.hashing.read(section.report(), key, text) else { continue };
        match draft.tokens.insert(hash.clone(), place) {
            Some(first) => {
                let line = section.report().line(first);
                section.report().error(place, format!("{key}: the same is given in line {line}"));
            }
            None => hashes.push(hash),
        }
    }
    hashes
}

fn read(section: &Section<'_>, draft: &mut Draft<'_>, provider: &Provider, is_default: bool) -> Option<()> {
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
    let tokens = hashes(section, "service_tokens", SERVICE_TOKENS_MAX, draft);
    let alert_bins = alert_bins(section);
    let rules = mapping_rule::read(section, &scope);
    let backends = backend::read(section, &scope);
    draft.mapping_rules += rules.written + backends.iter().map(|backend| backend.rules).sum::<usize>();
    let (production, staging) = proxies(section, &scope, (rules.rules, &backends), draft);
    let plans: Vec<Plan> = plan::read(section, &scope);
    application::read(section, &scope, &plans, draft);
    policy::check_anonymous(section, &scope, draft);
    let service = Service {
        name: name.unwrap_or_else(|| scope.label()),
        id: scope.id?,
        provider: provider.clone(),
        is_default,
        tokens,
        state,
        credentials: scope.credentials,
        referrer_filters_required,
        alert_bins,
        metrics: scope.metrics,
        plans,
        production,
        staging,
    };
    draft.catalog.services.push(service);
    Some(())
}

fn alert_bins(section: &Section<'_>) -> AlertBins {
    let Some(percents) = section.wholes("alert_bins") else { return AlertBins::default() };
    for percent in &percents {
        if AlertBins::of([percent.value]).is_none() {
            let all = ALERT_BINS.map(|bin| bin.to_string()).join(", ");
            section.report().error(percent.place, format!("alert_bins holds a step that is none of {all}"));
        }
    }
    AlertBins::of(percents.iter().map(|percent| percent.value)).unwrap_or_default()
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
    (rules, backends): (Vec<MappingRule>, &[backend::Written]),
    draft: &mut Draft<'_>,
) -> (Proxy, Option<Proxy>) {
    let backends_of = |environment| backends.iter().map(|backend| backend.of(environment)).collect();
    let production = section.inside("proxy", |section| {
        let proxy = proxy::read(section, Environment::Production, scope, draft);
        Proxy { mapping_rules: rules.clone(), backends: backends_of(Environment::Production), ..proxy }
    });
    let staging = section.inside("staging", |section| {
        let own = mapping_rule::read(section, scope).rules;
        let proxy = proxy::read(section, Environment::Staging, scope, draft);
        let mapping_rules = if own.is_empty() { rules } else { own };
        let backends = backends_of(Environment::Staging);
        section.is_given().then_some(Proxy { mapping_rules, backends, ..proxy })
    });
    let differs = || backends.iter().any(backend::Written::differs_in_staging);
    let elsewhere = || Proxy { backends: backends_of(Environment::Staging), ..production.clone() };
    let staging = staging.or_else(|| differs().then(elsewhere));
    (production, staging)
}
