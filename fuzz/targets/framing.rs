#![no_main]
//! Where requests of HTTP/1 begin and end: the bytes are what a client sends over one connection.
//!
//! What `framing.rs` makes of them must not depend on how they arrive. A head that it accepts must be well-formed to a
//! plain reading and to httparse, and all three must see the same request. What a connection makes of the bytes must be
//! those requests and nothing else.

use libfuzzer_sys::fuzz_target;
use weir_fuzz::{cut, is_text, is_token, lines, size, trim, ways};
use weir_gateway::framing::{Chunks, Framing, Head, LINES_MAX, head_length, inspect};
use weir_gateway::fuzzing::{End, requests};

/// Longest head that is taken here.
const HEAD_BYTES_MAX: usize = 600;

fuzz_target!(|bytes: &[u8]| {
    let _ = inspect(bytes, |_| Ok(()));
    heads(bytes);
    bodies(bytes);
    if let Some((_, rest)) = lines(bytes) {
        bodies(rest);
    }
    connections(bytes);
});

fn heads(bytes: &[u8]) {
    let whole = read_head(vec![bytes]);
    for pieces in ways(bytes) {
        assert_eq!(read_head(pieces), whole);
    }
    if let Ok(Some((length, head))) = whole {
        let bytes = &bytes[..length];
        assert_eq!(head, plain_head(bytes));
        assert_same_as_httparse(bytes);
    }
}

/// The head at the beginning, and its length; `None`: it is not whole.
fn read_head(pieces: Vec<&[u8]>) -> Result<Option<(usize, Head)>, ()> {
    let mut held = Vec::new();
    for piece in pieces {
        let searched = held.len();
        held.extend_from_slice(piece);
        if let Some(length) = head_length(&held, searched).map_err(drop)? {
            return inspect(&held[..length], |_| Ok(())).map(|head| Some((length, head))).map_err(drop);
        }
    }
    Ok(None)
}

/// Reads a head that was accepted; panics when it should not have been.
fn plain_head(bytes: &[u8]) -> Head {
    let bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let (lines, rest) = lines(bytes).expect("an empty line at the end");
    assert!(rest.is_empty(), "the head ends with its first empty line");
    assert!(lines.iter().all(|line| !line.contains(&b'\r') && !line.contains(&b'\n')), "a bare CR or LF");
    let (request, fields) = lines.split_first().expect("a request line");
    assert!(fields.len() <= LINES_MAX);
    let is_http_10 = plain_request_line(request);
    let fields: Vec<_> = fields.iter().map(|line| plain_field(line)).collect();
    let named = |name: &str| {
        let is_named = |field: &&(String, &[u8])| field.0 == name;
        fields.iter().filter(is_named).map(|(_, value)| *value).collect::<Vec<_>>()
    };
    let framing = match (&named("content-length")[..], &named("transfer-encoding")[..]) {
        ([], []) => Framing::Empty,
        ([length], []) => Framing::Length(plain_length(length)),
        ([], [coding]) if !is_http_10 && coding.eq_ignore_ascii_case(b"chunked") => Framing::Chunked,
        (lengths, codings) => panic!("{lengths:?} and {codings:?} leave open where the body ends"),
    };
    let options = named("connection").join(&b',');
    let mut options = options.split(|byte| *byte == b',').map(trim);
    let wishes_upgrade = !is_http_10
        && !named("upgrade").is_empty()
        && options.any(|option| option.eq_ignore_ascii_case(b"upgrade"));
    Head { framing, wishes_upgrade }
}

/// Whether it is HTTP/1.0.
fn plain_request_line(line: &[u8]) -> bool {
    let words: Vec<_> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = words[..] else { panic!("a request line of {} words", words.len()) };
    assert!(!method.is_empty() && method.iter().all(|byte| is_token(*byte)));
    assert!(!target.is_empty() && std::str::from_utf8(target).is_ok());
    assert!(!target.iter().any(|byte| byte.is_ascii_control() || *byte == b'#'));
    assert!(matches!(version, b"HTTP/1.0" | b"HTTP/1.1"));
    version == b"HTTP/1.0"
}

fn plain_field(line: &[u8]) -> (String, &[u8]) {
    let (name, value) = cut(line, b":").expect("a colon");
    assert!(!name.is_empty() && name.iter().all(|byte| is_token(*byte)));
    assert!(value.iter().all(|byte| is_text(*byte)));
    (String::from_utf8_lossy(name).to_ascii_lowercase(), trim(value))
}

fn plain_length(digits: &[u8]) -> u64 {
    assert!(!digits.is_empty() && digits.iter().all(u8::is_ascii_digit));
    digits.iter().fold(0_u64, |sum, digit| {
        let sum = sum.checked_mul(10).and_then(|sum| sum.checked_add(u64::from(digit - b'0')));
        sum.expect("a length that fits")
    })
}

fn assert_same_as_httparse(bytes: &[u8]) {
    let mut fields = [httparse::EMPTY_HEADER; LINES_MAX];
    let mut request = httparse::Request::new(&mut fields);
    assert_eq!(request.parse(bytes), Ok(httparse::Status::Complete(bytes.len())));
    let (lines, _) = lines(bytes.strip_prefix(b"\r\n").unwrap_or(bytes)).expect("it was accepted");
    let version = if plain_request_line(lines[0]) { 0 } else { 1 };
    let line = [request.method, request.path].map(|part| part.expect("it is whole"));
    assert_eq!(format!("{} {} HTTP/1.{version}", line[0], line[1]).as_bytes(), lines[0]);
    assert_eq!(request.version, Some(version));
    assert_eq!(request.headers.len(), lines.len() - 1);
    for (field, line) in request.headers.iter().zip(&lines[1..]) {
        let (name, value) = plain_field(line);
        assert_eq!(field.name.to_ascii_lowercase(), name);
        assert_eq!(trim(field.value), value);
    }
}

fn bodies(bytes: &[u8]) {
    let end = plain_chunks(bytes);
    for pieces in ways(bytes) {
        assert_eq!(read_chunks(pieces).ok().flatten(), end);
    }
}

/// How many bytes belong to the chunked body at the beginning; `None`: it is not whole.
fn read_chunks(pieces: Vec<&[u8]>) -> Result<Option<usize>, ()> {
    let (mut chunks, mut passed) = (Chunks::default(), 0);
    for piece in pieces {
        if let Some(count) = chunks.advance(piece).map_err(drop)? {
            return Ok(Some(passed + count));
        }
        passed += piece.len();
    }
    Ok(None)
}

/// The same, `None` for malformed bodies too.
fn plain_chunks(bytes: &[u8]) -> Option<usize> {
    let (mut rest, mut extension_bytes) = (bytes, 0);
    loop {
        let (line, behind) = cut(rest, b"\r\n")?;
        let (begin, extension) = cut(line, b";").unwrap_or((line, b""));
        let digits = if line.contains(&b';') { trim(begin) } else { begin };
        // Blanks may stand behind a size that an extension follows.
        let is_clean = begin.starts_with(digits) && extension.iter().all(|byte| is_text(*byte));
        extension_bytes += begin.len() - digits.len() + extension.len();
        let size = size(digits).filter(|_| is_clean && extension_bytes <= 4096)?;
        if size == 0 {
            rest = behind;
            break;
        }
        let size = usize::try_from(size).ok().filter(|size| *size <= behind.len())?;
        rest = behind[size..].strip_prefix(b"\r\n")?;
    }
    let (trailers, behind) = lines(rest)?;
    let is_trailer = |line: &&[u8]| {
        let (name, value) = cut(line, b":")?;
        let is_good = !name.is_empty()
            && name.iter().all(|byte| is_token(*byte))
            && value.iter().all(|byte| is_text(*byte));
        is_good.then_some(())
    };
    let is_good = trailers.len() <= LINES_MAX
        && trailers.iter().all(|line| is_trailer(line).is_some())
        && rest.len() - behind.len() <= 32 << 10;
    is_good.then_some(bytes.len() - behind.len())
}

fn connections(bytes: &[u8]) {
    let (expected, end) = plain_connection(bytes);
    for pieces in ways(bytes) {
        let (mut found, found_end) = requests(&pieces, HEAD_BYTES_MAX);
        assert_eq!(found_end, end);
        assert_eq!(found.len(), expected.len());
        if let (End::Broken, Some(last), Some(plain)) = (end, found.last_mut(), expected.last()) {
            // How much is seen of a body that breaks depends on when it does.
            assert!(plain.1.starts_with(&last.1) || last.1.is_empty());
            last.1.clone_from(&plain.1);
        }
        assert_eq!(found, expected);
    }
}

/// The methods of the requests of a connection, with their bodies as far as they are there.
fn plain_connection(bytes: &[u8]) -> (Vec<(String, Vec<u8>)>, End) {
    let (mut found, mut rest) = (Vec::new(), bytes);
    loop {
        let (length, head) = match read_head(vec![rest]) {
            Ok(Some((length, head))) if length <= HEAD_BYTES_MAX => (length, head),
            Ok(None) if rest.len() <= HEAD_BYTES_MAX => return (found, End::Open),
            _ => return (found, End::Refused),
        };
        let line = rest.strip_prefix(b"\r\n").unwrap_or(rest);
        let words: Vec<_> = lines(line).expect("it is whole").0[0].split(|byte| *byte == b' ').collect();
        if http::Uri::try_from(words[1]).is_err() {
            return (found, End::Refused);
        }
        let method = String::from_utf8_lossy(words[0]).into_owned();
        rest = &rest[length..];
        let (body, count) = match head.framing {
            Framing::Empty => (Vec::new(), Some(0)),
            Framing::Length(length) => {
                let there = usize::try_from(length).map_or(rest.len(), |length| length.min(rest.len()));
                (rest[..there].to_vec(), (there as u64 == length).then_some(there))
            }
            Framing::Chunked => match read_chunks(vec![rest]) {
                Ok(count) => (plain_data(rest), count),
                Err(()) => {
                    found.push((method, plain_data(rest)));
                    return (found, End::Broken);
                }
            },
        };
        found.push((method, body));
        match count {
            Some(count) => rest = &rest[count..],
            None => return (found, End::Open),
        }
    }
}

/// What is in the chunks at the beginning, as far as they are sound.
fn plain_data(mut rest: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    while let Some((line, behind)) = cut(rest, b"\r\n") {
        let digits = trim(cut(line, b";").map_or(line, |(digits, _)| digits));
        let Some(size @ 1..) = size(digits) else { break };
        let there = usize::try_from(size).map_or(behind.len(), |size| size.min(behind.len()));
        data.extend_from_slice(&behind[..there]);
        let Some(next) = behind[there..].strip_prefix(b"\r\n") else { break };
        rest = next;
    }
    data
}
