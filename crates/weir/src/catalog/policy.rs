//! The policies of a deployment: `policies` of the proxy and of staging.
//!
//! What there is to be set is core's affair; here settings are turned into what core reads, and what core says of them
//! into places in the file.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::DeValue;
use weir_core::policy::form::{Problem, Step, Value};
use weir_core::policy::{Chain, Policy, ServiceOf};
use weir_core::{ApplicationId, Proxy};

use super::Draft;
use super::service::Scope;
use crate::report::{Place, Report};
use crate::section::Section;
use crate::suggest::did_you_mean;

/// Reads the policies of a proxy whose other keys have been read.
pub(super) fn read(section: &Section<'_>, proxy: &Proxy, scope: &Scope, draft: &mut Draft<'_>) -> Chain {
    let entries = section.list("policies");
    let report = section.report();
    let values: Option<Vec<Value>> = entries.iter().map(|entry| value(report, entry)).collect();
    // What cannot be said at all has been told.
    let Some(values) = values else { return Chain::default() };
    let tell = |problems: Vec<Problem>| {
        for Problem { path, message, unknown } in problems {
            let near = unknown.map(|(name, known)| did_you_mean(&name, known.iter().map(String::as_str)));
            report.error(place(section, entries, &path), format!("{message}{}", near.unwrap_or_default()));
        }
    };
    let chain = match Chain::read(&values) {
        Ok(chain) => chain,
        Err(problems) => {
            tell(problems);
            return Chain::default();
        }
    };
    tell(chain.problems_for(&ServiceOf::new(scope.credentials, proxy)));
    for step in chain.steps() {
        if let Policy::Anonymous(anonymous) = &step.policy {
            let path = [Step::At(step.written_at), Step::Key("application".into())];
            let place = place(section, entries, &path);
            draft.anonymous.extend(anonymous.application.clone().map(|application| (application, place)));
        }
    }
    chain
}

/// Says which of the applications that policies name there are not; all of the service's have been read.
pub(super) fn check_anonymous(section: &Section<'_>, scope: &Scope, draft: &mut Draft<'_>) {
    let named: Vec<(ApplicationId, Place)> = std::mem::take(&mut draft.anonymous);
    let there_are = || {
        let applications = draft.catalog.applications.iter().map(|application| &application.reference);
        applications.filter(|reference| Some(&reference.service) == scope.id.as_ref())
    };
    for (application, place) in named {
        if !there_are().any(|reference| reference.application == application) {
            let near =
                did_you_mean(application.as_str(), there_are().map(|other| other.application.as_str()));
            let message = format!("application {application} is not one of service {}{near}", scope.label());
            section.report().error(place, message);
        }
    }
}

fn value(report: &Report<'_>, written: &Spanned<DeValue<'_>>) -> Option<Value> {
    let wrong = |message: &str| {
        report.error(Place::Text(written.span().start), message);
        None
    };
    match written.get_ref() {
        DeValue::Boolean(flag) => Some(Value::Flag(*flag)),
        DeValue::String(text) => Some(Value::Text(text.to_string())),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Some(Value::Whole(number)),
            Err(_) => wrong("is too large a number"),
        },
        DeValue::Array(items) => {
            items.iter().map(|item| value(report, item)).collect::<Option<_>>().map(Value::List)
        }
        DeValue::Table(table) => {
            let named =
                table.iter().map(|(name, inner)| Some((name.get_ref().to_string(), value(report, inner)?)));
            named.collect::<Option<BTreeMap<_, _>>>().map(Value::Table)
        }
        DeValue::Float(_) => wrong("policies have no numbers with a fraction"),
        DeValue::Datetime(_) => wrong("policies have no dates and times"),
    }
}

/// Where a path leads to, as far as it goes; what is not known is told at its name.
fn place(section: &Section<'_>, entries: &[Spanned<DeValue<'_>>], path: &[Step]) -> Place {
    let mut steps = path.iter();
    let Some(mut found) = steps.next().and_then(|step| match step {
        Step::At(at) => entries.get(*at),
        Step::Key(_) | Step::Name(_) => None,
    }) else {
        return section.place();
    };
    for step in steps {
        if let (Step::Name(name), DeValue::Table(table)) = (step, found.get_ref())
            && let Some((name, _)) = table.get_key_value(name.as_str())
        {
            return Place::Text(name.span().start);
        }
        let inner = match (step, found.get_ref()) {
            (Step::At(at), DeValue::Array(items)) => items.get(*at),
            (Step::Key(name), DeValue::Table(table)) => table.get(name.as_str()),
            _ => None,
        };
        match inner {
            Some(inner) => found = inner,
            None => break,
        }
    }
    Place::Text(found.span().start)
}
