//! Mapping rules: `[[providers.services.mapping_rules]]`.
//!
//! A rule in the file may name several methods and several metrics; core's rules have one of each. It becomes
//! one core rule for each pair, all at the same place, `last` on the last metric's only: all of them match the
//! same requests, so the walk has counted the others by the time it stops.

use weir_core::mapping_rule::Pattern;
use weir_core::status_set::STATUS_NAMES_MAX;
use weir_core::{COUNT_MAX, HttpMethod, MappingRule, MetricName, StatusSet};

use super::service::Scope;
use crate::report::Located;
use crate::section::Section;

/// The rules of a service or of its staging.
pub(super) struct Rules {
    /// Sorted by position.
    pub(super) rules: Vec<MappingRule>,
    /// How many there are in the file.
    pub(super) written: usize,
}

/// Reads the rules that a table holds.
pub(super) fn read(section: &Section<'_>, scope: &Scope) -> Rules {
    let mut written = 0;
    let groups = section.each("mapping_rules", |section| {
        written += 1;
        rule(section, scope, u32::try_from(written).unwrap_or(u32::MAX))
    });
    let mut rules: Vec<MappingRule> = groups.into_iter().flatten().collect();
    rules.sort_by_key(|rule| rule.position);
    Rules { rules, written }
}

fn rule(section: &Section<'_>, scope: &Scope, order: u32) -> Option<Vec<MappingRule>> {
    for key in ["method", "pattern", "metrics"] {
        section.require(key);
    }
    let methods = methods(section);
    let pattern = section.parsed::<Pattern>("pattern");
    let metrics = metrics(section, scope);
    let last = section.flag("last").unwrap_or(false);
    let free_answers = statuses(section, "free_answers");
    let position = section.whole("position", 0..=u32::MAX.into());
    let position = position.and_then(|position| u32::try_from(position).ok()).unwrap_or(order);
    let pattern = pattern?.value;
    let mut rules = Vec::with_capacity(methods.len() * metrics.len());
    for http_method in methods {
        for (at, (metric, delta)) in metrics.iter().enumerate() {
            rules.push(MappingRule {
                http_method,
                pattern: pattern.clone(),
                metric: metric.clone(),
                delta: *delta,
                position,
                last: last && at + 1 == metrics.len(),
                free_answers: free_answers.clone(),
            });
        }
    }
    Some(rules)
}

/// Sets of statuses, such as `["5xx", "404"]`.
pub(super) fn statuses(section: &Section<'_>, key: &str) -> StatusSet {
    let texts = section.texts(key).unwrap_or_default();
    if let Some(excess) = texts.get(STATUS_NAMES_MAX) {
        section.report().error(excess.place, format!("{key} holds more than {STATUS_NAMES_MAX}"));
    }
    let name = |text: &Located<&str>| {
        let read = text.value.parse();
        read.map_err(|error| section.report().error(text.place, format!("{key}: {:?} {error}", text.value)))
            .ok()
    };
    StatusSet::new(texts.iter().filter_map(name))
}

fn methods(section: &Section<'_>) -> Vec<HttpMethod> {
    let Some(texts) = section.texts("method") else { return vec![] };
    if texts.is_empty() {
        section.report().error(section.place(), "method names no method: the rule would match nothing");
    }
    let mut methods = Vec::with_capacity(texts.len());
    for text in &texts {
        let problem = match text.value.parse::<HttpMethod>() {
            Err(error) => format!("method {:?} {error}", text.value),
            Ok(HttpMethod::Any) if texts.len() > 1 => {
                "method \"ANY\" stands alone: it covers the others".into()
            }
            Ok(method) if methods.contains(&method) => format!("method {:?} is listed twice", text.value),
            Ok(method) => {
                methods.push(method);
                continue;
            }
        };
        section.report().error(text.place, problem);
    }
    methods
}

fn metrics(section: &Section<'_>, scope: &Scope) -> Vec<(MetricName, u64)> {
    let Some(amounts) = section.amounts("metrics") else { return vec![] };
    if amounts.is_empty() {
        section.report().error(section.place(), "metrics names no metric: the rule would count nothing");
    }
    let mut metrics = Vec::with_capacity(amounts.len());
    for amount in amounts {
        let (name, delta) = amount.value;
        let known = scope.metric(section.report(), Located { value: name, place: amount.place });
        let delta = u64::try_from(delta).ok().filter(|delta| (1..=COUNT_MAX).contains(delta));
        if delta.is_none() {
            let message = format!("metric {name:?} must be raised by at least 1 and at most {COUNT_MAX}");
            section.report().error(amount.place, message);
        }
        metrics.extend(known.zip(delta).map(|(at, by)| (scope.metrics().metric(at).name.clone(), by)));
    }
    metrics
}
