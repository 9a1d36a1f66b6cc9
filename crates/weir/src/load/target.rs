//! What gets the load: URLs, looked up at once, and whether they are this machine's own.
//!
//! Load goes to loopback unless its owner says otherwise. The addresses found here are those that are connected to: a name
//! that leads elsewhere a moment later leads nowhere.

use std::net::{SocketAddr, ToSocketAddrs};

use http::Uri;
use weir_load::Target;

use crate::problem::Problem;

/// What the first part of a URL says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
    /// A listener, asked for decisions.
    Grpc,
    /// A listener over TLS.
    Grpcs,
}

impl Scheme {
    const ALL: [(&str, Self, Option<u16>); 4] = [
        ("http", Self::Http, Some(80)),
        ("https", Self::Https, Some(443)),
        ("grpc", Self::Grpc, None),
        ("grpcs", Self::Grpcs, None),
    ];

    /// Whether connections are TLS.
    pub(super) fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Grpcs)
    }

    /// Whether a listener is asked for decisions.
    pub(super) fn is_decisions(self) -> bool {
        matches!(self, Self::Grpc | Self::Grpcs)
    }
}

/// A URL whose host has been looked up.
#[derive(Debug)]
pub(super) struct Located {
    pub(super) scheme: Scheme,
    pub(super) target: Target,
    /// Path and query, where there is more than a slash.
    pub(super) path: Option<String>,
}

/// Reads a URL and looks up its host.
///
/// # Errors
/// When it is no URL, its host has no address, or one that is not loopback without its owner's word.
pub(super) fn locate(url: &str, is_owned: bool) -> Result<Located, Problem> {
    // Not the query, which may hold a key.
    let shown = url.split('?').next().unwrap_or_default();
    let wrong = |message: String| Problem::of_argument(shown, message);
    let (scheme, host, port, path) = read(url).ok_or_else(|| {
        wrong(
            "is not a URL such as http://127.0.0.1:8080 or https://…, or grpc://127.0.0.1:8090 or grpcs://…"
                .into(),
        )
    })?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let found = (bare, port).to_socket_addrs().map(Vec::from_iter);
    let addresses = found.map_err(|error| wrong(format!("{host} has no address: {error}")))?;
    if addresses.is_empty() {
        return Err(wrong(format!("{host} has no address")));
    }
    if let Some(foreign) = addresses.iter().find(|address| !is_loopback(address)).filter(|_| !is_owned) {
        return Err(wrong(format!(
            "{} is not this machine's loopback: load can take a host down, and may only be sent to your own; \
             if this one is, say so with --i-own-this-host",
            foreign.ip()
        )));
    }
    let target = Target { authority: format!("{host}:{port}"), host: bare.to_owned(), addresses };
    Ok(Located { scheme, target, path })
}

fn read(url: &str) -> Option<(Scheme, String, u16, Option<String>)> {
    let uri: Uri = url.parse().ok()?;
    let (_, scheme, default_port) =
        Scheme::ALL.into_iter().find(|(name, ..)| uri.scheme_str() == Some(name))?;
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
    let host = Some(authority.host()).filter(|host| !host.is_empty())?;
    let port = authority.port_u16().or(default_port)?;
    let path =
        uri.path_and_query().map(http::uri::PathAndQuery::as_str).filter(|path| !matches!(*path, "" | "/"));
    Some((scheme, host.to_owned(), port, path.map(str::to_owned)))
}

fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, expected: Option<(Scheme, &str, u16, Option<&str>)>) {
        let expected = expected
            .map(|(scheme, host, port, path)| (scheme, host.to_owned(), port, path.map(str::to_owned)));
        assert_eq!(read(url), expected, "{url}");
    }

    #[test]
    fn urls_are_read() {
        check("http://localhost:8080", Some((Scheme::Http, "localhost", 8080, None)));
        check("http://127.0.0.1/", Some((Scheme::Http, "127.0.0.1", 80, None)));
        check("https://[::1]:8443/a?b=c", Some((Scheme::Https, "[::1]", 8443, Some("/a?b=c"))));
        check("grpc://127.0.0.1:8090", Some((Scheme::Grpc, "127.0.0.1", 8090, None)));
        for bad in ["", "127.0.0.1:80", "ftp://a", "http://", "http://u@h", "grpc://127.0.0.1", "/a"] {
            check(bad, None);
        }
    }

    #[test]
    fn only_loopback_without_its_owners_word() {
        for url in
            ["http://127.0.0.1:1", "http://127.9.8.7:1", "http://[::1]:1", "http://[::ffff:127.0.0.1]:1"]
        {
            assert!(locate(url, false).is_ok(), "{url}");
        }
        // Addresses of documentation, looked at but never connected to.
        for url in ["http://192.0.2.1:1", "http://[2001:db8::1]:1", "http://0.0.0.0:1", "http://10.0.0.1:1"] {
            let problem = locate(url, false).unwrap_err().to_string();
            assert!(problem.contains("--i-own-this-host"), "{problem}");
            assert!(locate(url, true).is_ok(), "{url}");
        }
    }
}
