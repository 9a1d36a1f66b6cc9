//! What fuzz targets share: the ways in which bytes may arrive, and plain readings of what they all have.
//!
//! Every target gets bytes, which the files in `seeds/` are examples of, reads them with the code under test and with
//! the simplest code that could be right, and panics when the two differ. Nothing of the code under test is used in
//! the simple reading.

use percent_encoding::percent_decode;

/// Longest input that is also read byte by byte: readers that begin anew with each piece take their square.
const BYTEWISE_MAX: usize = 512;

/// Ways in which the same bytes may arrive: all at once, byte by byte, in two halves, and in pieces whose lengths the
/// bytes themselves choose.
pub fn ways(bytes: &[u8]) -> Vec<Vec<&[u8]>> {
    let (one, other) = bytes.split_at(bytes.len() / 2);
    let step = if bytes.len() > BYTEWISE_MAX { 31 } else { 1 };
    vec![vec![bytes], bytes.chunks(step).collect(), vec![one, other], uneven(bytes)]
}

fn uneven(bytes: &[u8]) -> Vec<&[u8]> {
    // FNV-1a, so that nearly the same bytes are cut quite differently.
    let mut state = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| next(hash ^ u64::from(*byte)));
    let (mut pieces, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        state = next(state);
        let longest = if state & 0x100 == 0 { 4 } else { 64 };
        let length = ((state >> 32) as usize % longest + 1).min(rest.len());
        let (piece, behind) = rest.split_at(length);
        pieces.push(piece);
        rest = behind;
    }
    pieces
}

fn next(state: u64) -> u64 {
    state.wrapping_mul(0x0100_0000_01b3)
}

/// Cuts at the first place where `mark` stands; without it.
pub fn cut<'a>(bytes: &'a [u8], mark: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = bytes.windows(mark.len()).position(|window| window == mark)?;
    Some((&bytes[..at], &bytes[at + mark.len()..]))
}

/// The lines in front of the first empty one, without their CR LF, and what is behind that; `None`: there is none.
pub fn lines(mut bytes: &[u8]) -> Option<(Vec<&[u8]>, &[u8])> {
    let mut lines = Vec::new();
    loop {
        let (line, rest) = cut(bytes, b"\r\n")?;
        if line.is_empty() {
            return Some((lines, rest));
        }
        lines.push(line);
        bytes = rest;
    }
}

/// Without blanks and tabs around it.
pub fn trim(mut bytes: &[u8]) -> &[u8] {
    while let Some(rest) = bytes.strip_prefix(b" ").or_else(|| bytes.strip_prefix(b"\t")) {
        bytes = rest;
    }
    while let Some(rest) = bytes.strip_suffix(b" ").or_else(|| bytes.strip_suffix(b"\t")) {
        bytes = rest;
    }
    bytes
}

/// Whether names and methods may consist of it (RFC 9110, section 5.6.2).
pub fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether values may have it.
pub fn is_text(byte: u8) -> bool {
    byte == b'\t' || !byte.is_ascii_control()
}

/// A size in hexadecimal digits, 16 at most.
pub fn size(digits: &[u8]) -> Option<u64> {
    let is_size = (1..=16).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
    u64::from_str_radix(std::str::from_utf8(digits).ok().filter(|_| is_size)?, 16).ok()
}

/// The arguments of a query or form, decoded, in order; one without `=` has no value.
pub fn arguments(text: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let parts = text.split(|byte| *byte == b'&').filter(|part| !part.is_empty());
    let pair = |part| cut(part, b"=").unwrap_or((part, b""));
    parts.map(pair).map(|(name, value)| (argument(name), argument(value))).collect()
}

/// The name or value of an argument, decoded.
pub fn argument(text: &[u8]) -> Vec<u8> {
    let blanks: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    percent_decode(&blanks).collect()
}
