//! Application plans and their limits: `[[providers.services.plans]]`.

use weir_core::{COUNT_MAX, MetricIndex, Period, Plan, PlanId, UsageLimit};

use super::mapping_rule;
use super::service::Scope;
use crate::names::Names;
use crate::section::Section;

/// Reads a service's plans. One with wrong limits is a plan all the same, so that applications find it.
pub(super) fn read(section: &Section<'_>, scope: &Scope) -> Vec<Plan> {
    let mut names = Names::new("plan");
    section.each("plans", |section| plan(section, scope, &mut names))
}

fn plan(section: &Section<'_>, scope: &Scope, names: &mut Names) -> Option<Plan> {
    section.require("id");
    let id = section.parsed::<PlanId>("id");
    let name = section.text("name").map(|name| name.value.to_owned());
    let mut limits: Vec<UsageLimit> = Vec::new();
    section.each("limits", |section| {
        let limit = limit(section, scope)?;
        let same = |other: &UsageLimit| (other.metric, other.period) == (limit.metric, limit.period);
        if limits.iter().any(same) {
            let metric = &scope.metrics().metric(limit.metric).name;
            let message = format!("metric \"{metric}\" is limited per {} twice", limit.period);
            section.report().error(section.place(), message);
        } else {
            limits.push(limit);
        }
        Some(())
    });
    let free_answers = mapping_rule::statuses(section, "free_answers");
    let id = id?;
    names.claim(section.report(), id.value.as_str(), id.place);
    let name = name.unwrap_or_else(|| id.value.to_string());
    let plan = Plan::new(id.value, name, limits, scope.metrics()).ok()?;
    Some(plan.with_free_answers(free_answers))
}

fn limit(section: &Section<'_>, scope: &Scope) -> Option<UsageLimit> {
    for key in ["metric", "period", "max"] {
        section.require(key);
    }
    let metric: Option<MetricIndex> =
        section.text("metric").and_then(|name| scope.metric(section.report(), name));
    let period = section.parsed::<Period>("period");
    let max = section.whole("max", 0..=COUNT_MAX);
    Some(UsageLimit { metric: metric?, period: period?.value, max: max? })
}
