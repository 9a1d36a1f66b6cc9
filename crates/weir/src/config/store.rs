//! `[store]`: where a listener keeps ledger and catalog.
//!
//! Both kinds may be described in one file; only the chosen one is used, so that a variable can switch.

use weir_core::Secret;
use weir_store::{Config, EmbeddedConfig, RedisConfig};

use super::duration_ms;
use crate::report::Located;
use crate::section::Section;

#[derive(Clone, Copy)]
enum Kind {
    Embedded,
    Redis,
}

/// Reads the table; `None` when it said what is missing.
pub(super) fn read(section: &Section<'_>) -> Option<Config> {
    section.inside("store", |section| {
        section.require("kind");
        let kind = section.choice("kind", &[("embedded", Kind::Embedded), ("redis", Kind::Redis)]);
        let embedded =
            section.inside("embedded", |section| embedded(section, matches!(kind, Some(Kind::Embedded))));
        let redis = section.inside("redis", |section| redis(section, matches!(kind, Some(Kind::Redis))));
        match kind? {
            Kind::Embedded => embedded.map(Config::Embedded),
            Kind::Redis => redis.map(Config::Redis),
        }
    })
}

fn embedded(section: &Section<'_>, chosen: bool) -> Option<EmbeddedConfig> {
    if chosen {
        section.require("dir");
    }
    let dir = section.path("dir");
    let given = dir.is_some();
    let defaults = EmbeddedConfig::new(dir.unwrap_or_default());
    // Names every field, so that none which the store gains can be forgotten here.
    let config = EmbeddedConfig {
        dir: defaults.dir,
        sync_interval_ms: section.whole("sync_interval_ms", 0..=60_000).unwrap_or(defaults.sync_interval_ms),
        log_bytes_max: section
            .whole("log_bytes_max", (1 << 20)..=(1 << 40))
            .unwrap_or(defaults.log_bytes_max),
    };
    given.then_some(config)
}

fn redis(section: &Section<'_>, chosen: bool) -> Option<RedisConfig> {
    let url = if chosen { section.secret_required("url") } else { section.secret("url") };
    let url = url.filter(|url| is_redis_url(section, url)).map(|url| url.value);
    let given = url.is_some();
    let defaults = RedisConfig::new(url.unwrap_or_else(|| Secret::new("")));
    let config = RedisConfig {
        url: defaults.url,
        tls_ca_pem: section.file("tls_ca_file").map(|file| file.value.into_bytes()),
        response_timeout_ms: duration_ms(section, "response_timeout_ms", defaults.response_timeout_ms),
        allow_volatile: section.flag("allow_volatile").unwrap_or(defaults.allow_volatile),
        replicas: replicas(section).unwrap_or(defaults.replicas),
    };
    given.then_some(config)
}

#[derive(Clone, Copy, PartialEq)]
enum Durability {
    Primary,
    Replicated,
}

/// How many replicas have to have what is answered.
fn replicas(section: &Section<'_>) -> Option<u32> {
    let durability = section
        .choice("durability", &[("primary", Durability::Primary), ("replicated", Durability::Replicated)]);
    let replicas = section.whole("replicas", 1..=16);
    if durability != Some(Durability::Replicated) {
        if replicas.is_some() {
            section.report().error(section.place(), "replicas needs durability = \"replicated\"");
        }
        return None;
    }
    Some(replicas.and_then(|replicas| u32::try_from(replicas).ok()).unwrap_or(1))
}

fn is_redis_url(section: &Section<'_>, url: &Located<Secret>) -> bool {
    let text = url.value.expose();
    let rest = text.strip_prefix("redis://").or_else(|| text.strip_prefix("rediss://"));
    let usable = rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'));
    if !usable {
        // Not the URL itself, which may hold a password.
        let message = "url is not of the form redis://[user:password@]host:port[/db] (rediss:// for TLS)";
        section.report().error(url.place, message);
    }
    usable
}
