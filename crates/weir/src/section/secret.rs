//! Secrets in configuration: `token` gives the text, `token_file` the file that holds it, and never both.
//!
//! Either may come from the environment, which then outranks whatever the file says of both. No message here
//! ever shows what was read.

use weir_core::Secret;

use super::{Located, Place, Raw, Section};

/// Longest secret file.
const SECRET_FILE_BYTES_MAX: u64 = 64 << 10;

impl<'a> Section<'a> {
    /// A secret, given as `key` or in the file that `key_file` names.
    pub(crate) fn secret(&self, key: &str) -> Option<Located<Secret>> {
        let file_key = format!("{key}_file");
        let (mut direct, mut file) = (self.raw(key), self.raw(&file_key));
        if is_variable(direct.as_ref()) || is_variable(file.as_ref()) {
            direct = direct.filter(|raw| is_variable(Some(raw)));
            file = file.filter(|raw| is_variable(Some(raw)));
        }
        match (direct, file) {
            (None, None) => None,
            (Some(_), Some(file)) => {
                self.report.error(file.place, format!("{key} and {file_key} are both given: leave one out"));
                None
            }
            (Some(direct), None) => {
                let text = self.raw_text(key, direct)?;
                self.not_empty(key, text.place, text.value)
            }
            (None, Some(file)) => {
                let path = self.raw_text(&file_key, file)?;
                let text = self.file_text(&file_key, path)?;
                self.not_empty(&file_key, path.place, text.trim_end_matches(['\r', '\n']))
            }
        }
    }

    /// A secret that must be given.
    pub(crate) fn secret_required(&self, key: &str) -> Option<Located<Secret>> {
        if !self.gives(key) && !self.gives(&format!("{key}_file")) {
            let name = self.full_name(key);
            self.report.error(self.place, format!("{name} is missing (or {name}_file)"));
        }
        self.secret(key)
    }

    /// The text of the file that a key names.
    pub(crate) fn file(&self, key: &str) -> Option<Located<String>> {
        let path = self.text(key)?;
        let value = self.file_text(key, path)?;
        Some(Located { value, place: path.place })
    }

    fn file_text(&self, key: &str, path: Located<&str>) -> Option<String> {
        let file = self.report.path(path.value);
        let read = std::fs::metadata(&file).and_then(|metadata| {
            if metadata.len() > SECRET_FILE_BYTES_MAX {
                return Err(std::io::Error::other(format!("longer than {SECRET_FILE_BYTES_MAX} bytes")));
            }
            std::fs::read_to_string(&file)
        });
        read.map_err(|error| {
            self.report.error(path.place, format!("{key} {} cannot be read: {error}", file.display()));
        })
        .ok()
    }

    fn raw_text(&self, key: &str, raw: Located<Raw<'a>>) -> Option<Located<&'a str>> {
        match raw.value {
            Raw::Variable(text) => Some(Located { value: text, place: raw.place }),
            Raw::Toml(toml::de::DeValue::String(text)) => Some(Located { value: text, place: raw.place }),
            Raw::Toml(other) => self.wrong_kind(key, raw.place, "text", other),
        }
    }

    fn not_empty(&self, key: &str, place: Place, text: &str) -> Option<Located<Secret>> {
        if text.is_empty() {
            self.report.error(place, format!("{key} is empty"));
            return None;
        }
        Some(Located { value: Secret::new(text), place })
    }
}

fn is_variable(raw: Option<&Located<Raw<'_>>>) -> bool {
    raw.is_some_and(|raw| matches!(raw.place, Place::Variable(_)))
}
