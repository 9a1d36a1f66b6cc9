//! The path of a request, read once so that gateway and upstream cannot read it differently.
//!
//! Mapping rules match the decoded form; the upstream gets the form it was decoded from. Runs of slashes
//! become one in both. What two servers are known to read differently (encoded slashes, dot segments,
//! backslashes, NUL, broken escapes) is refused before anything is matched.
//!
//! Knows nothing of queries.

use std::borrow::Cow;

/// A path, decoded and as it goes upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestPath<'a> {
    /// Percent-decoded bytes; starts with `/`.
    pub decoded: Cow<'a, [u8]>,
    /// As received, with runs of slashes merged.
    pub target: Cow<'a, str>,
}

/// Why a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not start with a slash.
    #[error("the path does not start with a slash")]
    NotAbsolute,
    /// A `%` without two hexadecimal digits behind it.
    #[error("the path has a broken percent escape")]
    Escape,
    /// An escaped slash, a backslash or a NUL.
    #[error("the path has an encoded slash, a backslash or a NUL")]
    Ambiguous,
    /// A segment `.` or `..`, escaped or not, with parameters (`..;x`) or without.
    #[error("the path has a dot segment")]
    DotSegment,
    /// A raw `#`, blank, control or non-ASCII character.
    #[error("the path has a character that must be escaped")]
    Character,
}

impl<'a> RequestPath<'a> {
    /// Reads the path of a request target.
    ///
    /// # Errors
    /// When it is not absolute, malformed or ambiguous.
    pub fn parse(raw: &'a str) -> Result<Self, PathError> {
        if !raw.starts_with('/') {
            return Err(PathError::NotAbsolute);
        }
        let target = merge_slashes(raw);
        let decoded = match &target {
            Cow::Borrowed(text) => decode(text)?,
            Cow::Owned(text) => Cow::Owned(decode(text)?.into_owned()),
        };
        let mut segments = decoded.split(|byte| *byte == b'/');
        if segments.any(|segment| matches!(before_parameters(segment), b"." | b"..")) {
            return Err(PathError::DotSegment);
        }
        Ok(Self { decoded, target })
    }
}

/// A segment up to its parameters, which some servers drop before they look for dots.
fn before_parameters(segment: &[u8]) -> &[u8] {
    segment.split(|byte| *byte == b';').next().unwrap_or_default()
}

fn merge_slashes(raw: &str) -> Cow<'_, str> {
    if !raw.contains("//") {
        return Cow::Borrowed(raw);
    }
    let mut merged = String::with_capacity(raw.len());
    for character in raw.chars() {
        if !(character == '/' && merged.ends_with('/')) {
            merged.push(character);
        }
    }
    Cow::Owned(merged)
}

fn decode(text: &str) -> Result<Cow<'_, [u8]>, PathError> {
    let bytes = text.as_bytes();
    if bytes.iter().any(|b| !b.is_ascii_graphic() || *b == b'#') {
        return Err(PathError::Character);
    }
    if bytes.contains(&b'\\') {
        return Err(PathError::Ambiguous);
    }
    if !bytes.contains(&b'%') {
        return Ok(Cow::Borrowed(bytes));
    }
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            decoded.push(*first);
            continue;
        }
        let byte = escaped_byte(rest).ok_or(PathError::Escape)?;
        if matches!(byte, b'/' | b'\\' | 0) {
            return Err(PathError::Ambiguous);
        }
        decoded.push(byte);
        rest = &rest[2..];
    }
    Ok(Cow::Owned(decoded))
}

/// The byte that two hexadecimal digits at the start of `text` stand for.
pub(crate) fn escaped_byte(text: &[u8]) -> Option<u8> {
    let digit = |at: usize| text.get(at).and_then(|b| char::from(*b).to_digit(16));
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(raw: &str, expected: &str) {
        let found = match RequestPath::parse(raw) {
            Ok(path) => format!("{} | {}", String::from_utf8_lossy(&path.decoded), path.target),
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected, "{raw}");
    }

    #[test]
    fn decoded_for_rules_and_as_sent_for_the_upstream() {
        check("/", "/ | /");
        check("/v3/mail%2esend", "/v3/mail.send | /v3/mail%2esend");
        check("/caf%C3%A9", "/café | /caf%C3%A9");
        check("//a///b", "/a/b | /a/b");
        check("/100%25", "/100% | /100%25");
        check("/a+b", "/a+b | /a+b");
    }

    #[test]
    fn what_servers_read_differently_is_refused() {
        for raw in
            ["/a/../b", "/a/./b", "/..", "/a/%2e%2e/b", "/a/.%2E", "/a/..;/b", "/.;x=1/b", "/a/%2e.%3bx"]
        {
            check(raw, "the path has a dot segment");
        }
        for raw in ["/a%2fb", "/a%2Fb", "/a\\b", "/a%5cb", "/a%00b"] {
            check(raw, "the path has an encoded slash, a backslash or a NUL");
        }
        for raw in ["/%", "/%4", "/%zz"] {
            check(raw, "the path has a broken percent escape");
        }
        for raw in ["/a b", "/a#b", "/café", "/a\u{7f}"] {
            check(raw, "the path has a character that must be escaped");
        }
        check("", "the path does not start with a slash");
        check("*", "the path does not start with a slash");
        check("/...", "/... | /...");
    }
}
