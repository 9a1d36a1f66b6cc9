//! Mapping rules: of the product, and of the backends that its chain names.

use serde_json::{Map, Value};
use weir_core::mapping_rule::Pattern;
use weir_core::{HttpMethod, MetricName};

use super::{Reader, shown};
use crate::import::draft::Rule;

impl Reader<'_> {
    pub(super) fn read_rules(&mut self, proxy: &Map<String, Value>) {
        let rules = proxy.get("proxy_rules").and_then(Value::as_array);
        for (at, rule) in rules.into_iter().flatten().enumerate() {
            let field = format!("proxy.proxy_rules[{at}]");
            let Some(read) = self.rule(&field, rule) else { continue };
            if !self.service.metrics.contains(&read.metric) {
                self.service.metrics.push(read.metric.clone());
            }
            let owner = rule
                .get("owner_id")
                .and_then(shown)
                .filter(|_| rule.get("owner_type").and_then(Value::as_str) == Some("BackendApi"));
            let backend = owner.and_then(|owner| self.service.backends.iter_mut().find(|b| b.id == owner));
            match backend {
                Some(backend) => {
                    let below = read.pattern.strip_prefix(backend.mount.trim_end_matches('/'));
                    let pattern = match below {
                        Some(below) if below.starts_with('/') => below.to_owned(),
                        _ => {
                            self.left_out(&field, "it is not below the mount of its backend");
                            continue;
                        }
                    };
                    backend.rules.push(Rule { pattern, ..read });
                    self.mapped(&field, "mapping_rules of its backend");
                }
                None => {
                    self.service.rules.push(read);
                    self.mapped(&field, "mapping_rules");
                }
            }
        }
        if !self.service.metrics.is_empty() {
            self.changed(
                "proxy.proxy_rules",
                "metrics are those that rules name: which of them are methods is not said",
            );
        }
    }

    fn rule(&mut self, field: &str, rule: &Value) -> Option<Rule> {
        let text = |name: &str| rule.get(name).and_then(Value::as_str);
        let method = text("http_method").unwrap_or("GET").to_ascii_uppercase();
        if method.parse::<HttpMethod>().is_err() {
            self.left_out(field, &format!("method {method:?} is none that rules have"));
            return None;
        }
        let metric = text("metric_system_name").unwrap_or_default();
        if metric.parse::<MetricName>().is_err() {
            self.left_out(field, &format!("metric {metric:?} is no name of one"));
            return None;
        }
        let delta =
            rule.get("delta").and_then(|delta| delta.as_i64().or_else(|| delta.as_str()?.parse().ok()));
        let Some(delta) = delta.and_then(|delta| u64::try_from(delta).ok()).filter(|delta| *delta > 0) else {
            self.left_out(field, "it counts nothing");
            return None;
        };
        let given = text("pattern").unwrap_or("/");
        let (path, query) = given.split_once('?').map_or((given, None), |(path, query)| (path, Some(query)));
        let conditions = rule.get("querystring_parameters").and_then(Value::as_object);
        let count = conditions.map_or(0, Map::len);
        let conditions: Vec<String> = conditions.into_iter().flatten().filter_map(condition).collect();
        if conditions.len() < count {
            self.left_out(field, "a condition on its query is no text");
            return None;
        }
        if query.is_some() && conditions.is_empty() {
            self.changed(field, "the query in its pattern is dropped: 3scale's gateway does not look at it");
        }
        let joint = if conditions.is_empty() { "" } else { "?" };
        let pattern = format!("{path}{joint}{}", conditions.join("&"));
        if let Err(error) = pattern.parse::<Pattern>() {
            self.left_out(field, &format!("pattern {pattern:?} {error}"));
            return None;
        }
        let last = rule.get("last").and_then(Value::as_bool).unwrap_or(false);
        Some(Rule { method, pattern, metric: metric.to_owned(), delta, last })
    }
}

/// A condition on the query; `{name}` in the value means any.
fn condition((name, value): (&String, &Value)) -> Option<String> {
    let encode = |text: &str| {
        percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
    };
    let value = value.as_str()?;
    let is_any = value.find('{').is_some_and(|open| value[open..].contains('}'));
    Some(format!("{}={}", encode(name), if is_any { "{any}".to_owned() } else { encode(value) }))
}
