//! A head that `framing.rs` has judged, as the pipeline reads it.

use bytes::Bytes;
use http::{Method, Uri, Version};

use crate::fields::Fields;
use crate::framing::{self, Head, Malformed, Part};
use crate::message::RequestHead;

/// Longest target that the URL type takes.
const TARGET_BYTES_MAX: usize = u16::MAX as usize - 1;
/// Longest name of a header that HTTP/2's library takes.
const NAME_BYTES_MAX: usize = u16::MAX as usize;

/// Reads one whole head.
///
/// # Errors
/// When it is malformed, has what is not served, or its target is no URL.
pub(super) fn read(bytes: &Bytes) -> Result<(RequestHead, Head), Malformed> {
    let mut request = RequestHead {
        method: Method::GET,
        uri: Uri::default(),
        version: Version::HTTP_11,
        fields: Fields::new(),
    };
    let head = framing::inspect(bytes, |part| {
        match part {
            Part::Request { method, target, is_http_10 } => {
                request.method = Method::from_bytes(method).map_err(|_| Malformed::Method)?;
                request.uri = url(bytes.slice_ref(target))?;
                request.version = if is_http_10 { Version::HTTP_10 } else { Version::HTTP_11 };
            }
            Part::Field(name, _) if name.len() > NAME_BYTES_MAX => return Err(Malformed::HeaderName),
            Part::Field(name, value) => request.fields.push(name, value),
        }
        Ok(())
    })?;
    Ok((request, head))
}

fn url(target: Bytes) -> Result<Uri, Malformed> {
    if target.len() > TARGET_BYTES_MAX {
        return Err(Malformed::LongLine);
    }
    Uri::from_maybe_shared(target).map_err(|_| Malformed::Target)
}

/// Longest method that is told of a malformed head.
const METHOD_BYTES_MAX: usize = 32;

/// A request that says nothing but the method of a malformed head, or `-` if that is not sane either: so much of it
/// matters for the form of the answer, and for the log.
pub(super) fn without_content(head: &[u8]) -> RequestHead {
    let head = head.strip_prefix(b"\r\n").unwrap_or(head);
    let method = head.split(|byte| *byte == b' ').next().unwrap_or_default();
    let is_sane = (1..=METHOD_BYTES_MAX).contains(&method.len()) && method.iter().all(u8::is_ascii_uppercase);
    RequestHead {
        method: Method::from_bytes(if is_sane { method } else { b"-" }).unwrap_or_default(),
        uri: Uri::default(),
        version: Version::HTTP_11,
        fields: Fields::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_become_requests() {
        let text =
            "\r\nPOST /a?b=\u{e9} HTTP/1.1\r\nHost: a.test\r\nX-Many:  1\t\r\nx-many: 2\r\nempty:\r\n\r\n";
        let (request, head) = read(&Bytes::from(text)).unwrap();
        assert_eq!(request.method, Method::POST);
        assert_eq!(request.uri.path_and_query().unwrap().as_str(), "/a?b=\u{e9}");
        assert_eq!(request.version, Version::HTTP_11);
        assert_eq!(request.fields.all(b"x-many").collect::<Vec<_>>(), [b"1", b"2"]);
        assert_eq!(request.fields.text("empty"), Some(""));
        assert_eq!(head.framing, framing::Framing::Empty);
    }

    #[test]
    fn targets_that_are_no_url_are_refused() {
        let read = |target: &str| read(&Bytes::from(format!("GET {target} HTTP/1.1\r\n\r\n"))).map(drop);
        assert_eq!(read("http://"), Err(Malformed::Target));
        assert_eq!(read("//"), Ok(()));
        assert_eq!(read(&"/".repeat(TARGET_BYTES_MAX)), Ok(()));
        assert_eq!(read(&"/".repeat(TARGET_BYTES_MAX + 1)), Err(Malformed::LongLine));
    }

    #[test]
    fn of_a_malformed_head_only_the_method_is_told() {
        let method = |head: &str| without_content(head.as_bytes()).method.to_string();
        assert_eq!(method("PURGE / HTTP/1.1\n"), "PURGE");
        assert_eq!(method("\r\nGET /"), "GET");
        assert_eq!(method("secret-in-small-letters"), "-");
        assert_eq!(method(&"A".repeat(METHOD_BYTES_MAX + 1)), "-");
    }
}
