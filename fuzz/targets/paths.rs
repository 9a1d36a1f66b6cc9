#![no_main]
//! What request paths are accepted, and what they are decoded to: the bytes are the path of a request target.
//!
//! A plain reading must accept the same paths. What is accepted must leave nothing for anybody to read differently,
//! and reading the form that goes upstream once more must change nothing.

use libfuzzer_sys::fuzz_target;
use percent_encoding::percent_decode_str;
use weir_core::path::RequestPath;

fuzz_target!(|bytes: &[u8]| {
    let Ok(raw) = std::str::from_utf8(bytes) else { return };
    let path = match RequestPath::parse(raw) {
        Ok(path) => path,
        Err(error) => {
            assert!(!is_plain(raw), "{error}: {raw:?}");
            return;
        }
    };
    assert!(is_plain(raw), "{raw:?}");
    let decoded: Vec<u8> = percent_decode_str(&path.target).collect();
    assert_eq!(path.decoded, decoded);
    assert!(!path.target.contains("//") && merge(raw) == path.target);
    assert!(!decoded.windows(2).any(|pair| pair == b"//"));
    let again = RequestPath::parse(&path.target).expect("it was accepted");
    assert_eq!(again, path);
});

/// Whether there is only one way to read it.
fn is_plain(raw: &str) -> bool {
    let decoded: Vec<u8> = percent_decode_str(raw).collect();
    let lower = raw.to_ascii_lowercase();
    let is_escape = |rest: &str| {
        rest.len() >= 2 && rest.is_char_boundary(2) && rest[..2].bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    raw.starts_with('/')
        && raw.split('%').skip(1).all(is_escape)
        && !["%2f", "%5c", "%00", "#", "\\"].iter().any(|part| lower.contains(part))
        && raw.bytes().all(|byte| (0x21..0x7f).contains(&byte))
        && !decoded.split(|byte| *byte == b'/').any(is_dots)
}

/// One or two dots, perhaps with parameters.
fn is_dots(segment: &[u8]) -> bool {
    let dots = segment.iter().take_while(|byte| **byte == b'.').count();
    matches!(dots, 1 | 2) && matches!(segment.get(dots), None | Some(b';'))
}

fn merge(raw: &str) -> String {
    let mut merged = raw.to_owned();
    while merged.contains("//") {
        merged = merged.replace("//", "/");
    }
    merged
}
