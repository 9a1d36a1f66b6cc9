//! Where an upstream is, as policies name it.

use std::str::FromStr;

/// `http://` or `https://`, a host, perhaps a port and a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UpstreamUrl(pub(super) String);

impl FromStr for UpstreamUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
        let rest = rest.ok_or("does not begin with http:// or https://")?;
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        if host.is_empty() || port.is_some_and(|port| port.parse::<u16>().is_err()) {
            Err("has no host, or no port where one should be")
        } else if authority.contains('@') {
            Err("holds a user name: the gateway would not send it")
        } else if text.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'#') {
            Err("has a blank, a fragment or a character that must be escaped")
        } else {
            Ok(Self(text.to_owned()))
        }
    }
}

/// The same without path and query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address(pub(super) String);

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let UpstreamUrl(url) = text.parse()?;
        let host = url.split_once("://").map_or("", |(_, rest)| rest);
        if host.trim_end_matches('/').contains(['/', '?']) {
            return Err("has a path: addresses have none, the one of api_backend holds for all");
        }
        Ok(Self(url.trim_end_matches('/').to_owned()))
    }
}
