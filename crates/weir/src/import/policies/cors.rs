//! `cors`: origins, methods and headers that pages may use.

use weir_core::policy::form::Value;

use super::expression::origins;
use super::{Reading, Table, number, table, text, texts, whole};

/// Longest time that browsers remember an answer, in seconds.
const MAX_AGE_S: u64 = 86_400;

impl Reading<'_> {
    /// 3scale's gateway lets pages of every origin call where none is named, and credentials come along.
    pub(super) fn cors(&mut self) {
        let Some(origins) = self.origins() else { return };
        let is_for_all = origins == ["*"];
        let mut settings = table([("origins", texts(origins.iter().map(String::as_str)))]);
        self.cors_names(&mut settings, "allow_methods", "methods");
        self.cors_names(&mut settings, "allow_headers", "headers");
        self.cors_credentials(&mut settings, is_for_all);
        if let Some(value) = self.field("max_age") {
            match number(value) {
                Some(seconds @ ..=MAX_AGE_S) => {
                    settings.insert("max_age_s".to_owned(), whole(seconds));
                    self.mapped("max_age", "cors.max_age_s");
                }
                _ => {
                    settings.insert("max_age_s".to_owned(), whole(MAX_AGE_S));
                    self.changed("max_age", "is 86,400 seconds now, which is the most");
                }
            }
        }
        self.rest(&["allow_origin", "allow_methods", "allow_headers", "allow_credentials", "max_age"]);
        self.write("cors", settings);
    }

    /// Who may call; `None`: it cannot be said.
    fn origins(&mut self) -> Option<Vec<String>> {
        let Some(given) = self.text("allow_origin") else {
            self.changed("allow_origin", "none is named, so pages of all may call: *, without credentials");
            return Some(vec!["*".to_owned()]);
        };
        let judge = |origin: &str| self.judge("cors", &table([("origins", text(origin))])).is_ok();
        let plain = given.to_ascii_lowercase();
        if judge(&plain) {
            self.mapped("allow_origin", "cors.origins");
            return Some(vec![plain]);
        }
        let meant = origins(given).filter(|origins| origins.iter().all(|origin| judge(origin)));
        match &meant {
            Some(_) => {
                self.changed("allow_origin", "is a list of origins now, each of which must be just so")
            }
            None => self.left_out(
                "allow_origin",
                &format!(
                    "{given:?} is neither an origin nor an expression for a few, so the policy is left out: \
                     list the origins in cors"
                ),
            ),
        }
        meant
    }

    fn cors_names(&mut self, settings: &mut Table, field: &str, key: &'static str) {
        let Some(value) = self.field(field) else { return };
        let mut names = Vec::new();
        for name in value.as_array().map_or(&[][..], Vec::as_slice) {
            let entry = table([("origins", text("*")), (key, text(name.as_str().unwrap_or_default()))]);
            match (name.as_str(), self.judge("cors", &entry)) {
                (Some(name), Ok(())) => names.push(name),
                (_, Err(why)) => self.left_out(field, &why),
                (None, _) => {}
            }
        }
        if names.is_empty() {
            self.changed(field, "names none: here that leaves them to the policy's default");
        } else {
            settings.insert(key.to_owned(), texts(names));
            self.mapped(field, &format!("cors.{key}"));
        }
    }

    fn cors_credentials(&mut self, settings: &mut Table, is_for_all: bool) {
        let given = self.field("allow_credentials").and_then(serde_json::Value::as_bool);
        let is_allowed = given.unwrap_or(true) && !is_for_all;
        settings.insert("credentials".to_owned(), Value::Flag(is_allowed));
        match given {
            Some(true) if is_for_all => {
                self.changed("allow_credentials", "is false now: nobody may have it together with *");
            }
            Some(_) => self.mapped("allow_credentials", "cors.credentials"),
            None if is_allowed => self.mapped("allow_credentials", "cors.credentials: true, as without it"),
            None => {}
        }
    }
}
