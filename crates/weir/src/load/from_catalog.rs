//! A mix from a catalog: each mapping rule is a call, each application a caller with the first of its keys.
//!
//! Applications of a plan make the calls that their plan opens. A wildcard in a rule's pattern becomes its own name, so
//! that each call is one path and what it counts is known exactly, by the same rules that gateways use.
//!
//! The catalog's reader keeps no key, only hashes. So `keys` reads the text a second time, for keys alone.

use weir_core::mapping_rule::decode_argument;
use weir_core::path::RequestPath;
use weir_core::{
    Application, ApplicationState, CredentialKind, Credentials, HttpMethod, MetricName, Plan, ProductRules,
    Service, ServiceState, Timestamp,
};
use weir_load::{Call, CallKind, Caller, Expected, Group, Template};

use super::mix_file::CALLS_MAX;
use crate::catalog::{self, KeyHashing};
use crate::problem::{Checked, Problem, Reading};
use crate::report::Source;
use keys::{Key, Keys};

/// What of a catalog is wanted.
#[derive(Debug, Default)]
pub(super) struct Wanted<'a> {
    /// Ids of services; empty: all.
    pub(super) services: &'a [String],
    /// Ids of applications; empty: all that are active.
    pub(super) applications: &'a [String],
    /// Whether calls go through gateways, which serve hosts.
    pub(super) needs_host: bool,
}

/// Makes groups of a catalog's services and plans.
///
/// # Errors
/// What is wrong with the catalog, or with what is wanted of it.
pub(super) fn groups(source: &Source, wanted: &Wanted<'_>, now: Timestamp) -> Reading<Vec<Group>> {
    let Checked { value: file, .. } = catalog::parse(source, &KeyHashing::for_check())?;
    let keys = Keys::read(source);
    let mut draft = Draft { source, keys: &keys, wanted, now, problems: vec![], warnings: vec![] };
    let services = &file.catalog.services;
    draft.check_names(services, &file.catalog.applications);
    let mut groups = Vec::new();
    for service in services {
        if !draft.takes(service) {
            continue;
        }
        for plan in &service.plans {
            let of_plan = file.catalog.applications.iter().filter(|application| {
                application.reference.service == service.id && application.plan == plan.id
            });
            groups.extend(draft.group(service, plan, of_plan).map(|group| (plan, group)));
        }
    }
    let groups = named_apart(groups);
    if groups.is_empty() && draft.problems.is_empty() {
        draft.problems.push(Problem::of_file(&source.file, "has no active application with a call to make"));
    }
    if groups.iter().map(|group| group.calls.len()).sum::<usize>() > CALLS_MAX {
        let message = format!("makes more than {CALLS_MAX} calls: choose services or applications");
        draft.problems.push(Problem::of_file(&source.file, message));
    }
    if draft.problems.is_empty() {
        Ok(Checked { value: groups, warnings: draft.warnings })
    } else {
        Err(draft.problems)
    }
}

/// Where there are several groups, calls carry the name of their plan, and of their service where those differ.
fn named_apart(mut groups: Vec<(&Plan, Group)>) -> Vec<Group> {
    let is_single = groups.len() < 2;
    let is_one_service = groups.windows(2).all(|pair| pair[0].1.service == pair[1].1.service);
    for (plan, group) in &mut groups {
        let service = group.service.as_ref().filter(|_| !is_one_service);
        let prefix = service.map_or_else(|| plan.id.to_string(), |service| format!("{service} {}", plan.id));
        for call in group.calls.iter_mut().filter(|_| !is_single) {
            call.name = format!("{prefix}: {}", call.name);
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}

struct Draft<'a> {
    source: &'a Source,
    keys: &'a Keys,
    wanted: &'a Wanted<'a>,
    now: Timestamp,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Draft<'_> {
    fn check_names(&mut self, services: &[Service], applications: &[Application]) {
        let known = |id: &str| services.iter().any(|service| service.id.as_str() == id);
        for id in self.wanted.services.iter().filter(|id| !known(id)) {
            self.problems
                .push(Problem::of_argument("--service", format!("{} has no service {id}", self.source.file)));
        }
        let known = |id: &str| applications.iter().any(|a| a.reference.application.as_str() == id);
        for id in self.wanted.applications.iter().filter(|id| !known(id)) {
            let message = format!("{} has no application {id}", self.source.file);
            self.problems.push(Problem::of_argument("--application", message));
        }
    }

    /// Whether a service can be called; says why one that is wanted cannot.
    fn takes(&mut self, service: &Service) -> bool {
        let is_named = self.wanted.services.iter().any(|id| id == service.id.as_str());
        if !is_named && !self.wanted.services.is_empty() {
            return false;
        }
        let reason = if service.state != ServiceState::Active {
            "is suspended"
        } else if service.credentials == CredentialKind::ClientId {
            "wants verified tokens, which no catalog holds"
        } else if self.wanted.needs_host && service.production.hosts.is_empty() {
            "has no hosts that gateways serve"
        } else {
            return true;
        };
        let message = format!("service {} is left out: it {reason}", service.id);
        let problem = Problem::of_file(&self.source.file, message);
        if is_named {
            self.problems.push(problem)
        } else {
            self.warnings.push(problem)
        }
        false
    }

    fn group<'a>(
        &mut self,
        service: &Service,
        plan: &Plan,
        applications: impl Iterator<Item = &'a Application>,
    ) -> Option<Group> {
        let calls = calls(service, plan);
        let is_wanted = |application: &&Application| match self.wanted.applications {
            [] => application.state == ApplicationState::Active,
            ids => ids.iter().any(|id| id == application.reference.application.as_str()),
        };
        let wanted: Vec<&Application> = applications.filter(is_wanted).collect();
        if calls.is_empty() || wanted.is_empty() {
            return None;
        }
        let callers: Vec<Caller> =
            wanted.iter().filter_map(|application| self.caller(service, application)).collect();
        let host = service.production.hosts.first().map(|host| host.replace('*', "load"));
        let weight = u32::try_from(callers.len().max(1)).unwrap_or(u32::MAX);
        let proof = self.keys.proofs.get(service.id.as_str()).cloned();
        Some(Group { weight, service: Some(service.id.clone()), proof, host, callers, calls })
    }

    /// Someone with the application's first key in the clear.
    fn caller(&mut self, service: &Service, application: &Application) -> Option<Caller> {
        let (service_id, id) = (&application.reference.service, &application.reference.application);
        let written = self.keys.applications.get(&(service_id.to_string(), id.to_string()))?;
        let is_open = |key: &&Key| {
            application.app_keys.get(key.number).is_none_or(|k| k.until.is_none_or(|u| u > self.now))
        };
        let credentials = match service.credentials {
            CredentialKind::UserKey => written.user_key.clone().map(Credentials::UserKey),
            _ if application.app_keys.is_empty() => {
                Some(Credentials::AppIdAndKey { app_id: id.to_string(), app_key: None })
            }
            _ => written.app_keys.iter().find(is_open).map(|key| Credentials::AppIdAndKey {
                app_id: id.to_string(),
                app_key: Some(key.secret.clone()),
            }),
        };
        let proxy = &service.production;
        let problem = match credentials {
            Some(credentials) => {
                let made = Caller::new(
                    1,
                    Some(id.clone()),
                    credentials,
                    proxy.credential_location,
                    &proxy.credential_names,
                );
                match made {
                    Ok(caller) => return Some(caller),
                    Err(error) => format!("application {id} has a key that {error}"),
                }
            }
            None => format!(
                "application {id} has no key in the clear that is in force; hashes cannot be sent. \
                 Leave it out with --application, or list its key in a mix file"
            ),
        };
        let (line, column) = self.source.line_and_column(written.offset);
        self.problems.push(Problem::at(&self.source.file, line, column, problem));
        None
    }
}

/// What applications of a plan may call: one call for each method and pattern.
fn calls(service: &Service, plan: &Plan) -> Vec<Call> {
    let rules = ProductRules::new(&mut service.production.clone());
    let mut calls: Vec<Call> = Vec::new();
    for rule in rules.all() {
        let method = if rule.http_method == HttpMethod::Any { "GET" } else { rule.http_method.as_str() };
        let path = path_of(&rule.pattern.to_string());
        let name = format!("{method} {path}");
        if calls.iter().any(|call| call.name == name) {
            continue;
        }
        calls.extend(call(service, plan, &rules, (name, method, &path)));
    }
    calls
}

/// `None`: the plan does not have it, or no request can have this path.
fn call(
    service: &Service,
    plan: &Plan,
    rules: &ProductRules,
    (name, method, path): (String, &str, &str),
) -> Option<Call> {
    let (bare, query) = path.split_once('?').unwrap_or((path, ""));
    let decoded = RequestPath::parse(bare).ok()?.decoded.into_owned();
    let argument = |wanted: &[u8]| {
        let arguments = query.split('&').map(|part| part.split_once('=').unwrap_or((part, "")));
        let mut found = arguments.filter(|(name, _)| decode_argument(name.as_bytes()) == wanted);
        found.next_back().map(|(_, value)| decode_argument(value.as_bytes()))
    };
    let backend = rules.backend_of(&decoded);
    let usage = rules.matches(backend, method, &decoded, &argument).usage;
    let expanded = usage.expand(&service.metrics).ok()?;
    let is_closed =
        expanded.iter().any(|(metric, _)| plan.limits_of(*metric).iter().any(|limit| limit.max == 0));
    if expanded.is_empty() || is_closed {
        return None;
    }
    let amount = |value| match value {
        weir_core::UsageValue::Add(by) | weir_core::UsageValue::Set(by) => by,
    };
    let counted: Vec<(MetricName, u64)> = expanded
        .into_iter()
        .map(|(metric, value)| (service.metrics.metric(metric).name.clone(), amount(value)))
        .collect();
    Some(Call {
        name,
        weight: 1,
        kind: CallKind::Http { method: method.parse().ok()?, body: Template::default() },
        path: path.parse().ok()?,
        headers: vec![],
        usage: usage.iter().map(|(metric, value)| (metric.clone(), amount(value))).collect(),
        counted,
        expected: Expected::default(),
    })
}

/// A path that a pattern matches: each wildcard takes its own name.
fn path_of(pattern: &str) -> String {
    let (path, query) = pattern.split_once('?').map_or((pattern, None), |(path, query)| (path, Some(query)));
    let plain = |text: &str| text.replace(['{', '}', '\\'], "");
    let path = plain(path.strip_suffix('$').unwrap_or(path));
    match query {
        Some(query) => format!("{path}?{}", plain(query)),
        None => path,
    }
}

mod keys;
#[cfg(test)]
mod tests;
