//! A service's base URL, and the targets of requests below it.

use std::fmt;

use http::uri::{Authority, InvalidUri, PathAndQuery, Scheme};
use http::{HeaderValue, Uri};
use weir_core::target::{below, own_host};

/// Scheme, host and port: what connections lead to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    pub(crate) is_tls: bool,
    /// A name or an address; IPv6 without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl fmt::Display for Origin {
    /// `https://api.internal:443`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        let brackets = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{scheme}://{}{}{}:{}", brackets.0, self.host, brackets.1, self.port)
    }
}

/// Where a service's requests go.
#[derive(Debug, Clone)]
pub(crate) struct BaseUrl {
    pub(crate) origin: Origin,
    /// Without a lone slash.
    path: String,
    query: Option<String>,
    /// The Host that the upstream sees.
    pub(crate) host: HeaderValue,
    /// The same for HTTP/2.
    authority: Authority,
}

/// Why a base URL cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UrlError {
    #[error("is no URL")]
    NotUrl(#[from] InvalidUri),
    #[error("does not start with http:// or https://")]
    Scheme,
    #[error("has no host, or a user in front of it")]
    Host,
    #[error("has a host rewrite that is no host")]
    Rewrite(#[source] InvalidUri),
    #[error("has a host rewrite that is no header value")]
    RewriteBytes(#[from] http::header::InvalidHeaderValue),
}

impl BaseUrl {
    /// Reads a base URL, and the Host that replaces its own.
    pub(crate) fn parse(url: &str, host_rewrite: Option<&str>) -> Result<Self, UrlError> {
        let parts = url.parse::<Uri>()?.into_parts();
        let is_tls = match parts.scheme.as_ref().map(Scheme::as_str) {
            Some("http" | "ws") => false,
            Some("https" | "wss") => true,
            _ => return Err(UrlError::Scheme),
        };
        let authority = parts.authority.filter(|authority| !authority.as_str().contains('@'));
        let authority = authority.ok_or(UrlError::Host)?;
        let default_port = if is_tls { 443 } else { 80 };
        let port = authority.port_u16().unwrap_or(default_port);
        let host = host_rewrite.unwrap_or_else(|| own_host(authority.as_str(), is_tls));
        let target = parts.path_and_query.unwrap_or(PathAndQuery::from_static("/"));
        Ok(Self {
            origin: Origin {
                is_tls,
                host: authority.host().trim_matches(['[', ']']).to_ascii_lowercase(),
                port,
            },
            path: if target.path() == "/" { String::new() } else { target.path().to_owned() },
            query: target.query().map(str::to_owned),
            host: HeaderValue::from_str(host)?,
            authority: host.parse().map_err(UrlError::Rewrite)?,
        })
    }

    /// What is asked of the upstream.
    pub(crate) fn target(&self, path: &str, query: Option<&str>) -> Result<PathAndQuery, InvalidUri> {
        PathAndQuery::try_from(below(&self.path, self.query.as_deref(), path, query))
    }

    /// The URL of a target, as HTTP/2 sends it in pieces.
    pub(crate) fn absolute(&self, target: PathAndQuery) -> Result<Uri, http::Error> {
        let scheme = if self.origin.is_tls { Scheme::HTTPS } else { Scheme::HTTP };
        Uri::builder().scheme(scheme).authority(self.authority.clone()).path_and_query(target).build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(base: &str, path: &str, query: Option<&str>, expected: &str) {
        let target = BaseUrl::parse(base, None).unwrap().target(path, query).unwrap();
        assert_eq!(target.as_str(), expected);
    }

    #[test]
    fn paths_are_joined_by_one_slash() {
        check("http://up.test", "/", None, "/");
        check("http://up.test/", "/foo", None, "/foo");
        check("http://up.test/v1", "/", None, "/v1");
        check("http://up.test/v1/", "/", None, "/v1/");
        check("http://up.test/v1", "/foo", None, "/v1/foo");
        check("http://up.test/v1/", "/foo/", None, "/v1/foo/");
        check("http://up.test/a/b", "/%c3%a9", None, "/a/b/%c3%a9");
    }

    #[test]
    fn the_bases_query_comes_first() {
        check("http://up.test/v1?fixed=1", "/x", Some("a=1"), "/v1/x?fixed=1&a=1");
        check("http://up.test?fixed=1", "/x", None, "/x?fixed=1");
        check("http://up.test", "/x", Some("b=%41+c&&c=%zz"), "/x?b=%41+c&&c=%zz");
        check("http://up.test", "/x", Some(""), "/x?");
    }

    #[test]
    fn hosts_and_schemes() {
        let host = |url, rewrite| BaseUrl::parse(url, rewrite).unwrap().host;
        assert_eq!(host("http://up.test:80/x", None), "up.test");
        assert_eq!(host("http://up.test:8080", None), "up.test:8080");
        assert_eq!(host("https://up.test:443", Some("in.test:8443")), "in.test:8443");
        for url in ["up.test", "ftp://up.test", "http://a:b@up.test", "", "http://"] {
            assert!(BaseUrl::parse(url, None).is_err(), "{url}");
        }
    }

    #[test]
    fn origins() {
        let origin = |url| BaseUrl::parse(url, None).unwrap().origin.to_string();
        assert_eq!(origin("ws://Up.test"), "http://up.test:80");
        assert_eq!(origin("https://[::1]/x"), "https://[::1]:443");
        let url = BaseUrl::parse("https://up.test/a", Some("in.test")).unwrap();
        let target = url.target("/b", None).unwrap();
        assert_eq!(url.absolute(target).unwrap(), "https://in.test/a/b");
    }
}
