//! Which methods and hosts a request may name, whatever protocol brought it.
//!
//! The gateway reads requests with it, the listener what other proxies say of theirs, so that all refuse alike what
//! two servers may read differently. Host names compare in lower case, without port and trailing dot.
//!
//! Knows no headers and no services; paths are next door.

use crate::path::PathError;

/// Why a request is refused before its host is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetError {
    /// TRACE.
    Method,
    /// An `Expect` other than 100-continue.
    Expectation,
    /// A path that is malformed, or that two servers may read differently.
    Path(PathError),
    /// Everything else; says what.
    Malformed(&'static str),
}

impl TargetError {
    /// The HTTP status that says so.
    pub fn status(&self) -> u16 {
        match self {
            Self::Method => 405,
            Self::Expectation => 417,
            Self::Path(_) | Self::Malformed(_) => 400,
        }
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Method => "method_not_allowed",
            Self::Expectation => "expectation_failed",
            Self::Path(_) | Self::Malformed(_) => "request_malformed",
        }
    }

    /// A sentence for people.
    pub fn sentence(&self) -> String {
        match self {
            Self::Method => "The method is not served.".into(),
            Self::Expectation => "Nothing but 100-continue can be expected.".into(),
            Self::Path(error) => format!("The request is malformed: {error}."),
            Self::Malformed(why) => format!("The request is malformed: {why}."),
        }
    }
}

/// A host in the form that is compared: lower case, no port, no trailing dot.
pub fn bare_host(authority: &str) -> String {
    let host = match (authority.starts_with('['), authority.split_once(']')) {
        (true, Some((address, _))) => return format!("{address}]").to_ascii_lowercase(),
        _ => authority.split_once(':').map_or(authority, |(host, _port)| host),
    };
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// Refuses methods that cannot be passed on, or that servers read differently.
///
/// # Errors
/// TRACE, CONNECT, small letters.
pub fn check_method(method: &str) -> Result<(), TargetError> {
    match method {
        "TRACE" => Err(TargetError::Method),
        "CONNECT" => Err(TargetError::Malformed("CONNECT is not served")),
        // Some servers read `get` as GET, others do not.
        name if name.bytes().any(|b| b.is_ascii_lowercase()) => {
            Err(TargetError::Malformed("the method has small letters"))
        }
        _ => Ok(()),
    }
}

/// The methods that are served, as `Allow` says them.
pub const METHODS_SERVED: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Refuses what a client expects beyond 100-continue, given its `Expect` lines.
///
/// # Errors
/// [`TargetError::Expectation`].
pub fn check_expectations<'a>(mut expected: impl Iterator<Item = &'a [u8]>) -> Result<(), TargetError> {
    let is_known = expected.all(|value| value.eq_ignore_ascii_case(b"100-continue"));
    if is_known { Ok(()) } else { Err(TargetError::Expectation) }
}

/// The host of a base URL as the upstream wants to be called: with its port only where that is not the usual one.
pub fn own_host(authority: &str, is_tls: bool) -> &str {
    let behind_address = authority.rfind(']').unwrap_or(0);
    let Some(colon) = authority.rfind(':').filter(|at| *at > behind_address) else { return authority };
    let (host, port) = (&authority[..colon], &authority[colon + 1..]);
    let usual = if is_tls { 443 } else { 80 };
    if port.is_empty() || port.parse() == Ok(usual) { host } else { authority }
}

/// What is asked of an upstream: base path (empty rather than a lone slash) and path joined by one slash, the base's
/// query before the client's.
pub fn below(base: &str, base_query: Option<&str>, path: &str, query: Option<&str>) -> String {
    let mut target = match (base, path) {
        ("", path) => path.to_owned(),
        (base, "/") => base.to_owned(),
        (base, path) => format!("{}{path}", base.strip_suffix('/').unwrap_or(base)),
    };
    for (at, query) in [base_query, query].into_iter().flatten().enumerate() {
        target.push(if at == 0 { '?' } else { '&' });
        target.push_str(query);
    }
    target
}

/// Whether a text is a host, perhaps with a port; an empty one is.
pub fn is_authority(text: &str) -> bool {
    let (is_host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            (address.bytes().all(|b| b.is_ascii_alphanumeric() || b":.%-_~".contains(&b)), port)
        }
        None => {
            let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            (host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(&b)), port)
        }
    };
    let is_port = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit());
    is_host && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_compare_bare() {
        for (written, bare) in [("API.Test.:8080", "api.test"), ("[::1]:80", "[::1]"), ("", "")] {
            assert_eq!(bare_host(written), bare);
        }
    }

    #[test]
    fn authorities_have_nothing_but_host_and_port() {
        for text in ["a.test", "a.test:80", "[::1]", "[::1]:80", ""] {
            assert!(is_authority(text), "{text}");
        }
        for text in ["a b", "a@b", "a,b", "a:b", "[::1", "[::1]x"] {
            assert!(!is_authority(text), "{text}");
        }
    }

    #[test]
    fn the_usual_port_is_not_named() {
        for (authority, is_tls, host) in [
            ("a.test", false, "a.test"),
            ("a.test:80", false, "a.test"),
            ("a.test:80", true, "a.test:80"),
            ("a.test:443", true, "a.test"),
            ("a.test:", true, "a.test"),
            ("a.test:8080", false, "a.test:8080"),
            ("[::1]", false, "[::1]"),
            ("[::1]:80", false, "[::1]"),
            ("[::1]:81", false, "[::1]:81"),
        ] {
            assert_eq!(own_host(authority, is_tls), host, "{authority}");
        }
    }

    #[test]
    fn nothing_but_to_go_on_may_be_expected() {
        let check = |lines: &[&'static str]| check_expectations(lines.iter().map(|line| line.as_bytes()));
        assert_eq!([check(&[]), check(&["100-Continue"])], [Ok(()), Ok(())]);
        assert_eq!(check(&["100-continue", "a-cake"]), Err(TargetError::Expectation));
    }

    #[test]
    fn methods_that_are_not_passed_on() {
        assert_eq!(check_method("PURGE"), Ok(()));
        assert_eq!(check_method("TRACE"), Err(TargetError::Method));
        for method in ["CONNECT", "get"] {
            assert!(matches!(check_method(method), Err(TargetError::Malformed(_))), "{method}");
        }
    }
}
