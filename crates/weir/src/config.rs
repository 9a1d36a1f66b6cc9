//! The files that start a role: `gateway.toml` and `listener.toml`.
//!
//! Each becomes the plain `Config` structs of the crates that run, plus what only the binary knows (telemetry,
//! logging, where the catalog comes from). The subcommands and `weir check` call it. Keys, units and defaults
//! are described in `docs/configuration.md`, which a test holds against what is asked for here.
//!
//! Nothing here binds, connects or starts anything.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::HeaderValue;
use weir_core::Secret;

use crate::report::Located;
use crate::section::Section;

pub(crate) mod gateway;
pub(crate) mod listener;
mod log;
mod store;
#[cfg(test)]
mod tests;
mod tracing;

pub(crate) use log::{LogConfig, LogFormat};
pub(crate) use tracing::TracingConfig;

/// An address to listen on; by default a port on all interfaces.
fn address(section: &Section<'_>, key: &str, default_port: u16) -> SocketAddr {
    let default = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), default_port);
    let Some(text) = section.text(key) else { return default };
    text.value.parse().unwrap_or_else(|_| {
        let message = format!("{key} {:?} is not an address and port such as {default}", text.value);
        section.report().error(text.place, message);
        default
    })
}

/// A number of things, at least one.
fn count(section: &Section<'_>, key: &str, default: usize) -> usize {
    let bounds = 1..=u32::MAX.into();
    section.whole(key, bounds).and_then(|n| usize::try_from(n).ok()).unwrap_or(default)
}

/// A length of time in milliseconds: at least one, at most a day.
fn duration_ms(section: &Section<'_>, key: &str, default: u64) -> u64 {
    section.whole(key, 1..=86_400_000).unwrap_or(default)
}

/// Says so when a token could not travel in a header.
fn check_token(section: &Section<'_>, key: &str, token: &Located<Secret>) {
    let text = token.value.expose();
    if text.contains(char::is_whitespace) || HeaderValue::from_str(text).is_err() || !text.is_ascii() {
        let message = format!("{key} must be visible ASCII without blanks: it travels in a header");
        section.report().error(token.place, message);
    }
}
