//! How a request target reads: which host, path and query, and whether two servers would agree on them.
//!
//! Part of the [reference](crate::reference): written from RFC 3986 and RFC 9112, not from the gateway.

/// The parts of a target.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    /// Of the absolute form.
    pub(crate) authority: Option<&'a str>,
    /// Not decoded.
    pub(crate) path: &'a str,
    /// With its `?`; empty: none.
    pub(crate) query: &'a str,
}

/// Takes a target apart; `None`: it is neither a path nor an HTTP URL.
pub(crate) fn parse(text: &str) -> Option<Target<'_>> {
    if text.starts_with('/') {
        let (path, query) = text.split_at(text.find('?').unwrap_or(text.len()));
        return Some(Target { authority: None, path, query });
    }
    let (scheme, rest) = text.split_once("://")?;
    if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return None;
    }
    let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (path, query) = rest.split_at(rest.find('?').unwrap_or(rest.len()));
    let path = if path.is_empty() { "/" } else { path };
    Some(Target { authority: Some(authority), path, query })
}

/// Why a target must not be admitted.
pub(crate) fn fault(text: &str) -> Option<&'static str> {
    // Queries in raw UTF-8 are common, and read alike where they are read.
    let path_and_before = text.split('?').next().unwrap_or_default();
    if !path_and_before.is_ascii() {
        return Some("a byte in the target that has to be escaped");
    }
    if text.contains('#') {
        return Some("a fragment");
    }
    let Some(target) = parse(text) else { return Some("neither a path nor a URL") };
    if target.authority.is_some_and(|authority| !is_authority(authority.as_bytes())) {
        return Some("a malformed authority");
    }
    let Some(path) = decode(target.path) else { return Some("a broken escape in the path") };
    let raw = target.path.to_ascii_lowercase();
    if path.contains(&b'\\') || path.contains(&0) || raw.contains("%2f") {
        return Some("an encoded slash, a backslash or a NUL in the path");
    }
    let is_dots = |segment: &[u8]| segment == b"." || segment == b"..";
    path.split(|byte| *byte == b'/').any(is_dots).then_some("a dot segment in the path")
}

/// A path with its escapes decoded and runs of slashes merged; `None`: an escape is broken.
pub(crate) fn decode(path: &str) -> Option<Vec<u8>> {
    let mut bytes = path.bytes();
    let mut decoded: Vec<u8> = Vec::new();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
                decoded.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
            }
            b'/' if decoded.last() == Some(&b'/') => {}
            byte => decoded.push(byte),
        }
    }
    Some(decoded)
}

/// What an upstream should see of a target: path with runs of slashes merged, query as it is.
pub(crate) fn origin_form(text: &str) -> Option<String> {
    let target = parse(text)?;
    let mut path = String::new();
    for character in target.path.chars() {
        if character != '/' || !path.ends_with('/') {
            path.push(character);
        }
    }
    Some(path + target.query)
}

/// `host`, `host:port`, `[address]:port`; no user.
pub(crate) fn is_authority(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            let is_address = |c: char| c.is_ascii_hexdigit() || c == ':' || c == '.';
            return !address.is_empty() && address.chars().all(is_address) && is_port(port);
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte);
    !host.is_empty() && host.bytes().all(is_host) && is_port(port)
}

fn is_port(text: &str) -> bool {
    text.is_empty() || text.strip_prefix(':').is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()))
}

/// The host alone, as names are compared.
pub(crate) fn bare_host(authority: &str) -> String {
    let host = authority.split(':').next().unwrap_or_default();
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

#[test]
fn targets_are_taken_apart() {
    let parts = |text| parse(text).map(|t| (t.authority.unwrap_or("-"), t.path, t.query));
    assert_eq!(parts("/a?b?c"), Some(("-", "/a", "?b?c")));
    assert_eq!(parts("http://a.test:1"), Some(("a.test:1", "/", "")));
    assert_eq!(parts("HTTP://a.test?b"), Some(("a.test", "/", "?b")));
    assert_eq!(parts("*"), None);
    assert_eq!(origin_form("http://a.test//b//c?d//e").as_deref(), Some("/b/c?d//e"));
    for text in ["/a#", "/%2F", "/a/%2e./b", "/a\\b", "/%00", "/%4", "/..", "http://u@a.test/", "http://a:b/"]
    {
        assert!(fault(text).is_some(), "{text}");
    }
    for text in ["/", "//a", "/...", "/%25", "/a?../%2f%zz\\", "http://[::1]:80/a", "http://a.test:/"] {
        assert_eq!(fault(text), None, "{text}");
    }
}
