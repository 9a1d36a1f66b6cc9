//! What a request asks for: which host, which path, which query.
//!
//! The pipeline reads it before anything else. The host of an absolute-form target beats the `Host` header;
//! names compare in lower case, without port and trailing dot. What cannot be proxied (TRACE, CONNECT,
//! `OPTIONS *`) and what two servers may read differently (no or several `Host`s) ends here.
//!
//! Knows no services, and leaves the path to [`weir_core::path::RequestPath`].

use http::{Version, header};
use weir_core::target::{TargetError, bare_host, check_expectations, check_method, is_authority};

use crate::fields;
use crate::message::RequestHead;

/// A request target whose host is known.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    /// Host and perhaps port, as the client wrote them; `None`: HTTP/1.0 without any.
    pub(crate) authority: Option<&'a str>,
    /// Not decoded, not checked.
    pub(crate) path: &'a str,
    /// As sent, without `?`.
    pub(crate) query: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// Reads the head of a request.
    pub(crate) fn read(head: &'a RequestHead) -> Result<Self, TargetError> {
        check_method(head.method.as_str())?;
        let uri = &head.uri;
        let text = uri.path_and_query().map_or("/", |target| target.as_str());
        if uri.scheme().is_none() && !text.starts_with('/') {
            return Err(TargetError::Malformed("the request target is not a path"));
        }
        if uri.scheme_str().is_some_and(|scheme| scheme != "http" && scheme != "https") {
            return Err(TargetError::Malformed("the request target is not an HTTP URL"));
        }
        let named = host_header(head)?;
        let authority = uri.authority().map(http::uri::Authority::as_str);
        if head.version == Version::HTTP_2 && !agree(authority, named) {
            return Err(TargetError::Malformed("the Host header and :authority differ"));
        }
        let authority = authority.or(named);
        if authority.is_some_and(|text| !is_authority(text)) {
            return Err(TargetError::Malformed("the host is malformed"));
        }
        check_expectations(head.fields.all(header::EXPECT.as_str().as_bytes()))?;
        Ok(Self { authority, path: uri.path(), query: uri.query() })
    }

    /// The host as services name it: lower case, no port, no trailing dot.
    pub(crate) fn host(&self) -> Option<String> {
        self.authority.map(bare_host)
    }
}

fn host_header(head: &RequestHead) -> Result<Option<&str>, TargetError> {
    let mut named = head.fields.all(header::HOST.as_str().as_bytes());
    match (named.next(), named.next()) {
        // HTTP/2 has :authority in its place.
        (None, _) if head.version == Version::HTTP_2 && head.uri.authority().is_some() => Ok(None),
        (None, _) if head.version >= Version::HTTP_11 => {
            Err(TargetError::Malformed("the Host header is missing"))
        }
        (None, _) => Ok(None),
        (Some(_), Some(_)) => Err(TargetError::Malformed("there is more than one Host header")),
        (Some(value), None) => {
            fields::text(value).map(Some).ok_or(TargetError::Malformed("the host is malformed"))
        }
    }
}

fn agree(authority: Option<&str>, host: Option<&str>) -> bool {
    authority.zip(host).is_none_or(|(authority, host)| authority.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(request: &str, expected: &str) {
        let mut lines = request.split('|');
        let mut first = lines.next().unwrap().split(' ');
        let mut builder = http::Request::builder().method(first.next().unwrap()).uri(first.next().unwrap());
        builder = builder.version(match first.next() {
            Some("1.0") => Version::HTTP_10,
            Some("2") => Version::HTTP_2,
            _ => Version::HTTP_11,
        });
        for host in lines {
            builder = builder.header(header::HOST, host);
        }
        let head = builder.body(()).unwrap().into_parts().0;
        let found = match Target::read(&RequestHead::from(&head)) {
            Ok(target) => {
                let host = target.host().unwrap_or_else(|| "-".into());
                format!("{host} {} {}", target.path, target.query.unwrap_or("-"))
            }
            Err(TargetError::Method) => "405".into(),
            Err(TargetError::Expectation) => "417".into(),
            Err(TargetError::Malformed(why)) => why.into(),
            Err(TargetError::Path(error)) => error.to_string(),
        };
        assert_eq!(found, expected, "{request}");
    }

    #[test]
    fn hosts_compare_bare() {
        check("GET /a?b=c|api.test", "api.test /a b=c");
        check("GET /|API.Test.:8080", "api.test / -");
        check("GET /|[::1]:80", "[::1] / -");
        check("GET http://one.test/x?y|two.test", "one.test /x y");
        check("GET http://one.test|two.test", "one.test / -");
        check("GET / 1.0", "- / -");
        check("GET /|", " / -");
    }

    #[test]
    fn hosts_that_servers_read_differently_are_refused() {
        check("GET /", "the Host header is missing");
        check("GET /|a.test|a.test", "there is more than one Host header");
        check("GET /|a b", "the host is malformed");
        check("GET /|a@b", "the host is malformed");
        check("GET /|a,b", "the host is malformed");
        check("GET http://me@one.test/|two.test", "the host is malformed");
    }

    #[test]
    fn authority_and_host_agree() {
        check("GET http://one.test/x 2", "one.test /x -");
        check("GET http://one.test/x 2|One.test", "one.test /x -");
        check("GET /x 2|one.test", "one.test /x -");
        check("GET http://one.test/x 2|two.test", "the Host header and :authority differ");
        check("GET http://one.test/x 2|one.test|one.test", "there is more than one Host header");
        check("GET /x 2", "the Host header is missing");
    }

    #[test]
    fn only_one_thing_can_be_expected() {
        for (value, is_served) in [("100-continue", true), ("100-Continue", true), ("a-cake", false)] {
            let request =
                http::Request::builder().header(header::HOST, "a.test").header(header::EXPECT, value);
            let head = request.body(()).unwrap().into_parts().0;
            assert_eq!(
                Target::read(&RequestHead::from(&head)) != Err(TargetError::Expectation),
                is_served,
                "{value}"
            );
        }
    }

    #[test]
    fn what_is_not_proxied() {
        check("TRACE /|a.test", "405");
        check("CONNECT a.test:443|a.test", "CONNECT is not served");
        check("OPTIONS *|a.test", "the request target is not a path");
        check("get /|a.test", "the method has small letters");
        check("GET ftp://a.test/|a.test", "the request target is not an HTTP URL");
        check("PURGE /|a.test", "a.test / -");
    }
}
