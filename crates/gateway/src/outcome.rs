//! What the answer to a call changes of what it costs: what it gives back, and what the upstream says it used besides.
//!
//! A rule or the application's plan may say with which answers a call is free; the gateway's own answers for an upstream
//! that failed are judged like the upstream's. An upstream may add to what a call used, by a header that ends here.

use tracing::warn;
use weir_core::backend::BackendIndex;
use weir_core::mapping_rule::Matched;
use weir_core::{COUNT_MAX, MetricName, StatusSet, Usage};

use crate::fields::{self, Fields};
use crate::service::Service;

/// Most metrics in one header.
const EXTRA_METRICS_MAX: usize = 16;

/// What a call does not cost after all, having been answered so.
pub(crate) fn given_back(
    service: &Service,
    backend: Option<BackendIndex>,
    matched: &Matched,
    of_plan: Option<&StatusSet>,
    status: u16,
) -> Usage {
    if of_plan.is_some_and(|free| free.contains(status)) {
        return matched.usage.clone();
    }
    let mut free = Usage::default();
    if service.has_free_answers {
        let rules = matched.rules.iter().filter_map(|place| service.rules.rule(backend, *place));
        for rule in rules.filter(|rule| rule.free_answers.contains(status)) {
            free.add(&rule.metric, rule.delta);
        }
    }
    free
}

/// What the upstream says that a call used besides, `search=3, mails=2`; its header goes no further. What cannot be
/// read, or is beyond the service's bound, is told in the log and not counted.
pub(crate) fn extra(service: &Service, answer: &mut Fields) -> Usage {
    let Some(name) = &service.usage_header else { return Usage::default() };
    let lines: Vec<String> =
        answer.all(name.as_str().as_bytes()).filter_map(fields::text).map(str::to_owned).collect();
    answer.remove(name);
    let (mut usage, mut is_clear) = (Usage::default(), true);
    let max = service.proxy.usage_header_max.min(COUNT_MAX);
    let parts = lines.iter().flat_map(|line| line.split(',')).map(str::trim).filter(|part| !part.is_empty());
    for part in parts {
        let known = read(part).filter(|(metric, _)| service.metrics.contains(metric));
        let has_room =
            |metric: &MetricName| usage.added(metric) > 0 || usage.iter().count() < EXTRA_METRICS_MAX;
        match known.filter(|(metric, _)| has_room(metric)) {
            Some((metric, by)) => {
                let by = by.min(max.saturating_sub(usage.added(&metric)));
                if by > 0 {
                    usage.add(&metric, by);
                }
            }
            None => is_clear = false,
        }
    }
    if !is_clear {
        let service = service.id.as_str();
        warn!(service.id = service, header = name.as_str(), "an upstream's usage cannot be read");
    }
    usage
}

fn read(part: &str) -> Option<(MetricName, u64)> {
    let (metric, by) = part.split_once('=')?;
    let by = by.trim();
    let is_whole = !by.is_empty() && by.bytes().all(|b| b.is_ascii_digit());
    Some((metric.trim().parse().ok()?, by.parse().ok().filter(|_| is_whole)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_upstreams_say_is_read_and_bounded() {
        let mut service = Service::for_tests("api", &["api.test"], &["/"]);
        service.usage_header = Some("x-usage".parse().unwrap());
        service.proxy.usage_header_max = 100;
        service.metrics = ["search", "mails", "hits"].map(|name| name.parse().unwrap()).into();
        let said = |lines: &[&str]| {
            let mut answer = Fields::default();
            answer.push("x-other".parse::<http::HeaderName>().unwrap(), "1");
            for line in lines {
                answer.push("x-usage".parse::<http::HeaderName>().unwrap(), line);
            }
            let usage = extra(&service, &mut answer);
            assert!(!answer.has("x-usage".parse::<http::HeaderName>().unwrap()), "it ends here");
            let told: Vec<String> = usage.iter().map(|(metric, by)| format!("{metric}={by}")).collect();
            told.join(" ")
        };
        assert_eq!(said(&[]), "");
        assert_eq!(said(&["search=3, mails = 2"]), "search=3 mails=2");
        assert_eq!(said(&["search=3", "search=4,"]), "search=7");
        assert_eq!(said(&["search=1000, search=1"]), "search=100");
        assert_eq!(said(&["search=99999999999999999999"]), "");
        assert_eq!(said(&["search=-1, =2, search, se arch=1, nothing=1, mails=0, hits=1"]), "hits=1");
    }
}
