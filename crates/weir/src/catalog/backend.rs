//! The backends of a product: `[[providers.services.backends]]`.
//!
//! A backend is told once for both deployments, which differ at most in where it is. Its metrics are metrics of the
//! service, and are read with those.

use weir_core::backend::{BACKENDS_MAX, Mount};
use weir_core::{Backend, Environment};

use super::service::Scope;
use super::{mapping_rule, proxy};
use crate::names::Names;
use crate::section::Section;

/// A backend as written.
pub(super) struct Written {
    production: Backend,
    /// Where staging gateways find it, if that is elsewhere.
    staging_api_backend: Option<String>,
    /// Rules in the file.
    pub(super) rules: usize,
}

/// Reads the backends of a service.
pub(super) fn read(section: &Section<'_>, scope: &Scope) -> Vec<Written> {
    let (mut ids, mut mounts) = (Names::new("backend"), Names::new("mount"));
    let backends = section.each("backends", |section| backend(section, scope, &mut ids, &mut mounts));
    if backends.len() > BACKENDS_MAX {
        section.report().error(section.place(), format!("backends holds more than {BACKENDS_MAX}"));
    }
    backends
}

fn backend(section: &Section<'_>, scope: &Scope, ids: &mut Names, mounts: &mut Names) -> Option<Written> {
    for key in ["id", "mount", "api_backend"] {
        section.require(key);
    }
    // They have been read.
    section.gives("metrics");
    let id = section.text("id");
    if let Some(id) = &id {
        ids.claim(section.report(), id.value, id.place);
    }
    let mount = section.parsed::<Mount>("mount");
    if let Some(mount) = &mount {
        mounts.claim(section.report(), &mount.value.to_string(), mount.place);
    }
    let api_backend = proxy::base_url(section, "api_backend");
    let staging_api_backend = proxy::base_url(section, "staging_api_backend");
    let host_rewrite = proxy::host_rewrite(section);
    let rules = mapping_rule::read(section, scope);
    let production = Backend {
        id: id?.value.to_owned(),
        mount: mount?.value,
        api_backend: api_backend?,
        host_rewrite,
        mapping_rules: rules.rules,
    };
    Some(Written { production, staging_api_backend, rules: rules.written })
}

impl Written {
    /// As gateways of an environment serve it.
    pub(super) fn of(&self, environment: Environment) -> Backend {
        let mut backend = self.production.clone();
        if let (Environment::Staging, Some(url)) = (environment, &self.staging_api_backend) {
            backend.api_backend.clone_from(url);
        }
        backend
    }

    /// Whether staging gateways find it elsewhere.
    pub(super) fn differs_in_staging(&self) -> bool {
        self.staging_api_backend.is_some()
    }
}
