//! The header `3scale-options`: what a caller wants beyond the API's first version.
//!
//! Reference: Service Management API, section 2. Its value is written like a query string; what is not known is left
//! alone, so that callers may ask for what a later version has.

use http::HeaderMap;

use super::parameters::{ParameterError, decode};

/// The header's name.
pub(super) const NAME: &str = "3scale-options";

/// What is switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Options {
    /// Answers come without a body. `None`: nothing is said, a parameter of the URL may.
    pub(super) no_body: Option<bool>,
    pub(super) rejection_reason_header: bool,
    pub(super) limit_headers: bool,
    pub(super) flat_usage: bool,
    pub(super) hierarchy: bool,
    pub(super) list_app_keys: bool,
}

impl Options {
    /// Those of a request. Several headers of the name are read as one, joined by commas.
    ///
    /// # Errors
    /// When an escape in it is broken.
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, ParameterError> {
        let mut lines = headers.get_all(NAME).into_iter().map(|line| line.as_bytes());
        let Some(first) = lines.next() else { return Ok(Self::default()) };
        let rest: Vec<&[u8]> = lines.collect();
        if rest.is_empty() {
            return Self::parse(first);
        }
        Self::parse(&[&[first], &rest[..]].concat().join(&b", "[..]))
    }

    fn parse(text: &[u8]) -> Result<Self, ParameterError> {
        let mut options = Self::default();
        for pair in text.split(|byte| *byte == b'&').map(<[u8]>::trim_ascii_start) {
            let mut parts = pair.splitn(2, |byte| *byte == b'=');
            let name = decode(parts.next().unwrap_or_default())?;
            let value = parts.next().map(decode).transpose()?;
            options.set(&name, value.as_deref());
        }
        Ok(options)
    }

    fn set(&mut self, name: &[u8], value: Option<&[u8]>) {
        let is_one = value == Some(b"1");
        match name {
            b"no_body" => self.no_body = Some(is_on(value)),
            b"rejection_reason_header" => self.rejection_reason_header = is_one,
            b"limit_headers" => self.limit_headers = is_one,
            b"flat_usage" => self.flat_usage = is_one,
            b"hierarchy" => self.hierarchy = is_one,
            b"list_app_keys" => self.list_app_keys = is_one,
            _ => {}
        }
    }
}

/// Whether a value of `no_body` switches it on: any but `0` and `false`, the empty one, too.
pub(super) fn is_on(value: Option<&[u8]>) -> bool {
    value.is_some_and(|value| value != b"0" && value != b"false")
}

/// A value of `no_body` in the URL.
pub(super) fn is_on_in_url(value: Option<&str>) -> bool {
    is_on(value.map(str::as_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let found = match Options::parse(text.as_bytes()) {
            Err(error) => format!("{error:?}"),
            Ok(options) => {
                let switches = [
                    (options.rejection_reason_header, "reason"),
                    (options.limit_headers, "limits"),
                    (options.flat_usage, "flat"),
                    (options.hierarchy, "hierarchy"),
                    (options.list_app_keys, "keys"),
                    (options.no_body == Some(true), "no_body"),
                    (options.no_body == Some(false), "body"),
                ];
                switches
                    .iter()
                    .filter(|(is_on, _)| *is_on)
                    .map(|(_, name)| *name)
                    .collect::<Vec<_>>()
                    .join(" ")
            }
        };
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn options_are_switched_on_by_one() {
        check("", "");
        check("rejection_reason_header=1&limit_headers=1&no_body=1", "reason limits no_body");
        check("flat_usage=1& hierarchy=1&  list_app_keys=1", "flat hierarchy keys");
        check("limit_headers=true&flat_usage=0&hierarchy&list_app_keys=11", "");
        check("limit_headers=1&limit_headers=0", "");
        check("limit_headers=1;flat_usage=1", "");
        check("limit%5Fheaders=%31&unknown=1", "limits");
        check("limit_headers=%zz", "Escape");
    }

    #[test]
    fn no_body_is_switched_on_by_nearly_anything() {
        for (text, expected) in [
            ("no_body=1", "no_body"),
            ("no_body=", "no_body"),
            ("no_body=x", "no_body"),
            ("no_body=0", "body"),
            ("no_body=false", "body"),
            ("no_body", "body"),
        ] {
            check(text, expected);
        }
    }

    #[test]
    fn lines_are_joined() {
        let mut headers = HeaderMap::new();
        headers.append(NAME, "limit_headers=1".parse().unwrap());
        headers.append(NAME, "flat_usage=1&no_body=1".parse().unwrap());
        let options = Options::read(&headers).unwrap();
        assert!(!options.limit_headers && !options.flat_usage && options.no_body == Some(true));
    }
}
