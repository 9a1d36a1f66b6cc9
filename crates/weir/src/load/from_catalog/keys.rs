//! What of a catalog can be sent: keys and tokens that stand in it in the clear.
//!
//! The mix made of a catalog needs them; hashes are left out. The text is known to be a catalog.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};
use weir_core::Secret;
use weir_load::Proof;

use crate::report::Source;

/// What a catalog has in the clear.
#[derive(Default)]
pub(super) struct Keys {
    /// By service and application.
    pub(super) applications: BTreeMap<(String, String), Written>,
    /// What opens 3scale's API, by service: a token of its own, or its provider's key.
    pub(super) proofs: BTreeMap<String, Proof>,
}

/// What stands at an application.
#[derive(Default)]
pub(super) struct Written {
    pub(super) offset: usize,
    pub(super) user_key: Option<Secret>,
    pub(super) app_keys: Vec<Key>,
}

/// One of the keys of an application.
pub(super) struct Key {
    /// Its place among all keys of the application.
    pub(super) number: usize,
    pub(super) secret: Secret,
}

impl Keys {
    /// Of a text that is known to be a catalog.
    pub(super) fn read(source: &Source) -> Self {
        let mut keys = Self::default();
        let Ok(catalog) = DeTable::parse(&source.text) else { return keys };
        for (provider, _) in tables(catalog.get_ref(), "providers") {
            let key = first(provider, "provider_keys");
            for (service, _) in tables(provider, "services") {
                let token = first(service, "service_tokens").map(Proof::ServiceToken);
                if let Some(proof) = token.or_else(|| key.clone().map(Proof::ProviderKey)) {
                    keys.proofs.insert(id(service), proof);
                }
                keys.read_applications(service);
            }
        }
        keys
    }

    fn read_applications(&mut self, service: &DeTable<'_>) {
        for (application, offset) in tables(service, "applications") {
            let written = Written {
                offset,
                user_key: text(application, "user_key").and_then(in_the_clear),
                app_keys: app_keys(application),
            };
            self.applications.insert((id(service), id(application)), written);
        }
    }
}

fn id(table: &DeTable<'_>) -> String {
    text(table, "id").unwrap_or_default().to_owned()
}

/// The first key of a list that is in the clear; a single one may stand without its brackets.
fn first(table: &DeTable<'_>, key: &str) -> Option<Secret> {
    let clear = |value: &DeValue<'_>| match value {
        DeValue::String(key) => in_the_clear(key),
        _ => None,
    };
    match table.get(key)?.get_ref() {
        DeValue::Array(items) => items.iter().find_map(|item| clear(item.get_ref())),
        single => clear(single),
    }
}

/// The tables of a list, with where they begin.
fn tables<'t>(table: &'t DeTable<'t>, key: &str) -> Vec<(&'t DeTable<'t>, usize)> {
    let Some(DeValue::Array(items)) = table.get(key).map(|value| value.get_ref()) else { return vec![] };
    let table = |item: &'t toml::Spanned<DeValue<'t>>| match item.get_ref() {
        DeValue::Table(table) => Some((table, item.span().start)),
        _ => None,
    };
    items.iter().filter_map(table).collect()
}

fn text<'t>(table: &'t DeTable<'t>, key: &str) -> Option<&'t str> {
    match table.get(key)?.get_ref() {
        DeValue::String(text) => Some(text),
        _ => None,
    }
}

fn in_the_clear(key: &str) -> Option<Secret> {
    (!key.starts_with("hmac:")).then(|| Secret::new(key))
}

fn app_keys(application: &DeTable<'_>) -> Vec<Key> {
    let Some(DeValue::Array(items)) = application.get("app_keys").map(|value| value.get_ref()) else {
        return vec![];
    };
    let key = |(number, item): (usize, &toml::Spanned<DeValue<'_>>)| {
        let secret = match item.get_ref() {
            DeValue::String(key) => in_the_clear(key)?,
            DeValue::Table(table) => in_the_clear(text(table, "key")?)?,
            _ => return None,
        };
        Some(Key { number, secret })
    };
    items.iter().enumerate().filter_map(key).collect()
}
