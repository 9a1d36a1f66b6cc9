//! Catalog files: providers, services, plans and applications, written by hand in TOML.
//!
//! The listener reads one at start and whenever it changes, `weir check` reads any number. The schema is in
//! `docs/catalog.md`. Keys stand in the clear or as hashes; in the clear they are hashed here, at once, and
//! nothing keeps the text.
//!
//! A catalog is used as a whole or not at all. Whether its revision may follow the one in force is the
//! listener's part.

use std::collections::HashMap;
use std::fmt;

use weir_core::{ApplicationId, Catalog, KeyHash};

use crate::names::Names;
use crate::problem::Reading;
use crate::report::{self, Place, Source};
use crate::section::Section;

mod application;
mod backend;
mod key;
mod mapping_rule;
mod metric;
mod plan;
mod policy;
mod proxy;
mod service;
#[cfg(test)]
mod tests;

pub(crate) use key::KeyHashing;

/// A catalog as read from a file.
#[derive(Debug)]
pub(crate) struct CatalogFile {
    /// What the listener publishes.
    pub(crate) catalog: Catalog,
    /// Production rules as written: core has one for each method and metric of them.
    mapping_rules: usize,
}

impl fmt::Display for CatalogFile {
    /// `1 service, 5 plans, 12 mapping rules, 4 applications`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plans = self.catalog.services.iter().map(|service| service.plans.len()).sum();
        let counts = [
            (self.catalog.services.len(), "service"),
            (plans, "plan"),
            (self.mapping_rules, "mapping rule"),
            (self.catalog.applications.len(), "application"),
        ];
        let counts = counts.map(|(n, word)| format!("{n} {word}{}", if n == 1 { "" } else { "s" }));
        f.write_str(&counts.join(", "))
    }
}

/// What has been read so far of a catalog, beside its providers.
struct Draft<'k> {
    hashing: &'k KeyHashing,
    service_names: Names,
    hosts: proxy::Hosts,
    /// Where each of the keys and tokens of 3scale's API is given.
    tokens: HashMap<KeyHash, Place>,
    catalog: Catalog,
    mapping_rules: usize,
    /// The applications that policies of the service at hand name, and where.
    anonymous: Vec<(ApplicationId, Place)>,
}

/// Reads a catalog.
///
/// # Errors
/// Everything that is wrong with it.
pub(crate) fn parse(source: &Source, hashing: &KeyHashing) -> Reading<CatalogFile> {
    report::read(source, |section| Some(read(section, hashing)))
}

fn read(section: &Section<'_>, hashing: &KeyHashing) -> CatalogFile {
    let mut draft = Draft {
        hashing,
        service_names: Names::new("service"),
        hosts: proxy::Hosts::default(),
        tokens: HashMap::new(),
        catalog: Catalog::default(),
        mapping_rules: 0,
        anonymous: vec![],
    };
    section.require("revision");
    section.require("providers");
    let revision = section.whole("revision", 1..=i64::MAX.unsigned_abs());
    let mut provider_names = Names::new("provider");
    section.each("providers", |section| service::provider(section, &mut provider_names, &mut draft));
    draft.catalog.revision = revision.unwrap_or_default();
    CatalogFile { catalog: draft.catalog, mapping_rules: draft.mapping_rules }
}
