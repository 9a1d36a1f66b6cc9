//! `upstream`, `upstream_connection` and `retry`: where calls go, how long that may take, and when they are sent again.

use std::time::Duration;

use serde_json::Value as Json;
use weir_core::policy::form::Value;

use super::expression::prefix;
use super::{Reading, Table, number, one, table, text, whole};

/// Most routes of one policy.
const ROUTES_MAX: usize = 100;
/// Most times that a call is sent again.
const RETRIES_MAX: u64 = 5;

impl Reading<'_> {
    pub(super) fn upstream(&mut self) {
        let mut routes = Vec::new();
        for (at, rule) in self.list("rules").iter().enumerate() {
            let field = format!("rules[{at}]");
            match self.route(rule) {
                Ok(_) if routes.len() == ROUTES_MAX => {
                    self.left_out(&field, &format!("a policy has {ROUTES_MAX} of them at most"));
                }
                Ok(route) => {
                    routes.push(Value::Table(route));
                    self.mapped(&field, "routing.routes");
                }
                Err(why) => {
                    self.left_out(&field, &format!("{why}; its calls go where they would go without it"));
                }
            }
        }
        self.rest(&["rules"]);
        if !routes.is_empty() {
            self.write("routing", table([("routes", Value::List(routes))]));
        }
    }

    fn route(&self, rule: &Json) -> Result<Table, String> {
        let regex = rule.get("regex").and_then(Json::as_str).ok_or("it has no regex")?;
        let path = prefix(regex).ok_or_else(|| {
            format!("{regex:?} is more than what a path begins with: write routing with a pattern")
        })?;
        let url = rule.get("url").and_then(Json::as_str).unwrap_or_default();
        if url.contains('@') {
            // It may hold a password, which whoever refuses it would show.
            return Err("its url holds a user name: the gateway would not send it".to_owned());
        }
        let when = table([("paths", text(path))]);
        let route = table([("api_backend", text(url)), ("when", Value::Table(when))]);
        self.judge("routing", &table([("routes", one(route.clone()))]))?;
        Ok(route)
    }

    /// Seconds there, of pauses between two reads or writes; milliseconds here, of the head and of pauses.
    pub(super) fn upstream_connection(&mut self) {
        let mut settings = Table::new();
        let mut idle_ms = 0;
        for (field, key) in
            [("connect_timeout", "connect_ms"), ("read_timeout", "response_ms"), ("send_timeout", "")]
        {
            let Some(given) = self.field(field) else { continue };
            let ms = milliseconds(given)
                .filter(|ms| self.judge("upstream_timeouts", &table([("idle_ms", whole(*ms))])).is_ok());
            let Some(ms) = ms else {
                self.left_out(field, "it is no time that a deadline can have");
                continue;
            };
            if !key.is_empty() {
                settings.insert(key.to_owned(), whole(ms));
            }
            if field != "connect_timeout" {
                idle_ms = ms.max(idle_ms);
            }
            match key {
                "connect_ms" => self.mapped(field, "upstream_timeouts.connect_ms"),
                "response_ms" => self.mapped(field, "upstream_timeouts.response_ms and idle_ms"),
                _ => {
                    self.changed(field, "policies: upstream_timeouts.idle_ms, the longer pause of both ways")
                }
            }
        }
        if idle_ms > 0 {
            settings.insert("idle_ms".to_owned(), whole(idle_ms));
        }
        self.rest(&["connect_timeout", "read_timeout", "send_timeout"]);
        if !settings.is_empty() {
            self.write("upstream_timeouts", settings);
        }
    }

    pub(super) fn retry(&mut self) {
        self.rest(&["retries"]);
        let Some(given) = self.field("retries") else { return };
        let retries = match number(given) {
            Some(0) => return self.mapped("retries", "none, as without the policy"),
            Some(retries) => retries,
            None => return self.left_out("retries", "it is no whole number"),
        };
        if !self.write("retry", table([("retries_max", whole(retries.min(RETRIES_MAX)))])) {
            return;
        }
        let fewer = if retries > RETRIES_MAX { "is 5, which is the most; " } else { "" };
        self.changed(
            "retries",
            &format!(
                "policies: retry.retries_max; {fewer}answers 502, 503 and 504 are tried again, too, within a budget"
            ),
        );
    }
}

/// Seconds, perhaps with a fraction, in milliseconds.
fn milliseconds(value: &Json) -> Option<u64> {
    let seconds = value.as_f64().or_else(|| value.as_str()?.parse().ok())?;
    u64::try_from(Duration::try_from_secs_f64(seconds).ok()?.as_millis()).ok()
}
