//! `maintenance_mode`, `statuscode_overwrite`, `payload_limits` and `logging`.

use serde_json::Value as Json;
use weir_core::policy::form::Value;

use super::{Reading, Table, has_condition, number, one, table, text, whole};

/// Most changes of statuses in one policy.
const STATUSES_MAX: usize = 32;

impl Reading<'_> {
    pub(super) fn maintenance_mode(&mut self) {
        if has_condition(&Json::Object(self.configuration.clone())) {
            self.left_out(
                "condition",
                "conditions on the upstream cannot be had, so the policy is left out and calls pass: \
                 write maintenance with when",
            );
            return;
        }
        let mut settings = Table::new();
        for (field, key) in
            [("status", "status"), ("message", "body"), ("message_content_type", "content_type")]
        {
            let Some(given) = self.field(field) else { continue };
            let value = match key {
                "status" => number(given).map(whole),
                _ => given.as_str().map(text),
            };
            let judged = value
                .ok_or_else(|| "it is of another kind".to_owned())
                .and_then(|value| self.judge("maintenance", &table([(key, value.clone())])).map(|()| value));
            match judged {
                Ok(value) => {
                    settings.insert(key.to_owned(), value);
                    self.mapped(field, &format!("maintenance.{key}"));
                }
                // The body may be long: it is not shown.
                Err(why) => self.left_out(field, &why),
            }
        }
        self.rest(&["status", "message", "message_content_type", "condition"]);
        if self.write("maintenance", settings) {
            self.account.mapped(self.place, "policies: maintenance");
        }
    }

    pub(super) fn statuscode_overwrite(&mut self) {
        let mut statuses = Vec::new();
        for (at, change) in self.list("http_statuses").iter().enumerate() {
            let field = format!("http_statuses[{at}]");
            let number = |name: &str| change.get(name).and_then(number);
            let (Some(from), Some(to)) = (number("upstream"), number("apicast")) else {
                self.left_out(&field, "it does not name two statuses");
                continue;
            };
            let entry = table([("from", text(from.to_string())), ("to", whole(to))]);
            match self.judge("status_overwrite", &table([("statuses", one(entry.clone()))])) {
                Ok(()) if statuses.len() < STATUSES_MAX => {
                    statuses.push(Value::Table(entry));
                    self.mapped(&field, "status_overwrite.statuses");
                }
                Ok(()) => self.left_out(&field, "a policy has 32 of them at most"),
                Err(why) => self.left_out(&field, &why),
            }
        }
        self.rest(&["http_statuses"]);
        if !statuses.is_empty() {
            self.changed(
                "http_statuses",
                "it is for what the upstream answers: the gateway's own answers stay",
            );
            self.write("status_overwrite", table([("statuses", Value::List(statuses))]));
        }
    }

    pub(super) fn payload_limits(&mut self) {
        let mut settings = Table::new();
        for (field, key) in [("request", "request_bytes_max"), ("response", "response_bytes_max")] {
            let Some(given) = self.field(field) else { continue };
            match number(given).ok_or_else(|| "it is no whole number".to_owned()) {
                Ok(0) => self.mapped(field, "0 is no limit"),
                Ok(bytes) => match self.judge("payload_limits", &table([(key, whole(bytes))])) {
                    Ok(()) => {
                        settings.insert(key.to_owned(), whole(bytes));
                        self.mapped(field, &format!("payload_limits.{key}"));
                    }
                    Err(why) => self.left_out(field, &why),
                },
                Err(why) => self.left_out(field, &why),
            }
        }
        self.rest(&["request", "response"]);
        if !settings.is_empty() {
            self.write("payload_limits", settings);
        }
    }

    pub(super) fn logging(&mut self) {
        match self.field("enable_access_logs").and_then(Json::as_bool) {
            Some(false) => {
                self.mapped("enable_access_logs", "access_log.lines: none");
                self.write("access_log", table([("lines", text("none"))]));
            }
            Some(true) => self.mapped("enable_access_logs", "calls are logged as gateway.toml says"),
            None => {}
        }
        for (field, why) in [
            ("custom_logging", "the access log's lines have a form of their own: access_log adds headers"),
            (
                "json_object_config",
                "the access log's lines have fields of their own: access_log adds headers",
            ),
            ("enable_json_logs", "the form of the access log is gateway.toml's"),
            ("condition", "write access_log with when"),
        ] {
            if self.configuration.get(field).is_some_and(|value| !super::is_nothing(value)) {
                self.left_out(field, why);
            }
        }
        self.rest(&[
            "enable_access_logs",
            "custom_logging",
            "json_object_config",
            "enable_json_logs",
            "condition",
        ]);
    }
}
