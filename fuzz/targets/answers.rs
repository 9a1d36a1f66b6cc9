#![no_main]
//! Where answers of upstreams end: the bytes are what comes over one connection, behind a line with the request's
//! method.
//!
//! What the gateway reads must not depend on how the bytes arrive, and must be what a plain reading finds: the same
//! head, the same body up to whatever is wrong with it, and the same bytes left behind its end.

use http::{HeaderMap, Method, StatusCode};
use libfuzzer_sys::fuzz_target;
use weir_fuzz::{cut, size, trim, ways};
use weir_gateway::fuzzing::answers::{Whole, read};

fuzz_target!(|bytes: &[u8]| {
    let (method, bytes) = cut(bytes, b"\n").unwrap_or((b"GET", bytes));
    let method = if method == b"HEAD" { Method::HEAD } else { Method::GET };
    let whole = read(&method, [bytes]);
    for pieces in ways(bytes) {
        let count = pieces.len();
        let found = read(&method, pieces);
        // What is left behind something malformed was never looked at.
        let is_same = found == whole || !whole.is_whole && Whole { left: whole.left, ..found } == whole;
        assert!(is_same, "in {count} pieces");
    }
    match plain_head(bytes) {
        Some((length, fields)) if whole.head.is_some() => check(&method, &bytes[length..], &fields, &whole),
        None => assert!(whole.head.is_none(), "a head without an end"),
        Some(_) => {}
    }
});

/// The length of a head, and its fields; names are in lower case.
type Fields<'a> = Vec<(String, &'a [u8])>;

/// Reads a head as leniently as the gateway: lines may end with LF alone.
fn plain_head(bytes: &[u8]) -> Option<(usize, Fields<'_>)> {
    let is_blank = |byte: &&u8| matches!(**byte, b'\r' | b'\n');
    let start = bytes.iter().take_while(is_blank).count();
    let (fields, rest) = plain_fields(cut(&bytes[start..], b"\n")?.1)?;
    Some((bytes.len() - rest.len(), fields))
}

/// Header lines up to the empty one, and what is behind it.
fn plain_fields(mut bytes: &[u8]) -> Option<(Fields<'_>, &[u8])> {
    let mut fields = Vec::new();
    loop {
        let (line, rest) = cut(bytes, b"\n")?;
        bytes = rest;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return Some((fields, bytes));
        }
        let (name, value) = cut(line, b":").unwrap_or((line, b""));
        fields.push((String::from_utf8_lossy(name).to_ascii_lowercase(), trim(value)));
    }
}

fn check(method: &Method, bytes: &[u8], fields: &Fields<'_>, whole: &Whole) {
    let (status, headers) = whole.head.as_ref().expect("there is a head");
    assert_same_fields(fields, headers);
    let (body, end) = plain_body(method, *status, bytes, fields);
    assert_eq!(whole.body, body);
    assert_eq!(whole.is_whole, end.is_some());
    if let Some((mut trailers, left)) = end {
        trailers.retain(|(name, _)| !CONTROL.contains(&name.as_str()));
        assert_same_fields(&trailers, &whole.trailers);
        assert_eq!(whole.left, left);
    }
}

/// What has no place in trailers and is left out.
const CONTROL: [&str; 12] = [
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

fn assert_same_fields(fields: &Fields<'_>, headers: &HeaderMap) {
    let mut expected = fields.clone();
    let mut found: Fields<'_> =
        headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes())).collect();
    // A map keeps order within a name only.
    expected.sort_by(|one, other| one.0.cmp(&other.0));
    found.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(found, expected);
}

/// A body as far as it is well-formed, and if all of it is, its trailers and how many bytes are behind it.
type Body<'a> = (Vec<u8>, Option<(Fields<'a>, usize)>);

fn plain_body<'a>(method: &Method, status: StatusCode, bytes: &'a [u8], fields: &Fields<'_>) -> Body<'a> {
    let named = |name: &str| {
        let is_named = |field: &&(String, &[u8])| field.0 == name;
        fields.iter().filter(is_named).map(|(_, value)| *value).collect::<Vec<_>>()
    };
    let (lengths, codings) = (named("content-length"), named("transfer-encoding"));
    if method == Method::HEAD || status.is_informational() || matches!(status.as_u16(), 204 | 304) {
        return (vec![], Some((vec![], bytes.len())));
    }
    match (&lengths[..], &codings[..]) {
        ([], []) => (bytes.to_vec(), Some((vec![], 0))),
        ([length, others @ ..], []) => {
            let length = plain_length(length);
            assert!(others.iter().all(|other| plain_length(other) == length), "two lengths");
            match usize::try_from(length) {
                Ok(length) if length <= bytes.len() => {
                    (bytes[..length].to_vec(), Some((vec![], bytes.len() - length)))
                }
                _ => (bytes.to_vec(), None),
            }
        }
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => plain_chunks(bytes),
        _ => panic!("{lengths:?} and {codings:?} leave open where the body ends"),
    }
}

fn plain_length(digits: &[u8]) -> u64 {
    assert!(!digits.is_empty() && digits.iter().all(u8::is_ascii_digit));
    std::str::from_utf8(digits).expect("digits").parse().expect("a length that fits")
}

fn plain_chunks(bytes: &[u8]) -> Body<'_> {
    let (mut body, mut rest) = (Vec::new(), bytes);
    loop {
        let line = cut(rest, b"\n").and_then(|(line, behind)| Some((line.strip_suffix(b"\r")?, behind)));
        let Some((line, behind)) = line else { return (body, None) };
        let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii_end();
        let Some(size) = size(digits) else { return (body, None) };
        rest = behind;
        if size == 0 {
            break;
        }
        let count = usize::try_from(size).map_or(rest.len(), |size| size.min(rest.len()));
        body.extend_from_slice(&rest[..count]);
        match rest[count..].strip_prefix(b"\r\n") {
            Some(behind) => rest = behind,
            None => return (body, None),
        }
    }
    match plain_trailers(rest) {
        Some((trailers, behind)) => (body, Some((trailers, behind.len()))),
        None => (body, None),
    }
}

/// Trailers, if httparse takes them for some; what they say is read without it.
fn plain_trailers(bytes: &[u8]) -> Option<(Fields<'_>, &[u8])> {
    let mut fields = [httparse::EMPTY_HEADER; 256];
    let Ok(httparse::Status::Complete(_)) = httparse::parse_headers(bytes, &mut fields) else { return None };
    plain_fields(bytes)
}
