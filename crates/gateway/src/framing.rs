//! Where a request of HTTP/1 begins and ends, read strictly (RFC 9112).
//!
//! `http1.rs` asks it about all that clients send, and fuzz targets do. Whatever two servers are
//! known to read differently (a line that ends without CR, two lengths, a coding beside `chunked`) is refused, so that
//! nobody in front of the gateway or behind it can be made to see another request than was authorised.
//!
//! Pure: bytes in, verdict out. What a request asks for is judged elsewhere, in `target.rs` for one.

mod chunks;
mod malformed;

use memchr::{memchr, memchr_iter, memrchr};

pub use chunks::Chunks;
pub use malformed::Malformed;

/// Most header lines of a request, and most lines of a trailer.
pub const LINES_MAX: usize = 256;

/// How a request's body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Empty,
    /// It has this many bytes, perhaps 0.
    Length(u64),
    /// It comes in chunks, which [`Chunks`] follows.
    Chunked,
}

/// What the head of a request says about what comes behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Where its body ends.
    pub framing: Framing,
    /// Whether the client would like to speak another protocol behind the body.
    pub wishes_upgrade: bool,
}

/// The length of the head that `bytes` begin with, up to and with the empty line at its end; `None`: the end is not
/// there yet. One empty line in front of the request line is a part of it. `searched` bytes were given to an earlier
/// call, which did not find the end in them.
///
/// # Errors
/// When these bytes cannot become a head whatever follows; [`inspect`] finds what else is wrong.
pub fn head_length(bytes: &[u8], searched: usize) -> Result<Option<usize>, Malformed> {
    let searched = searched.min(bytes.len());
    for at in memchr_iter(b'\n', &bytes[searched..]).map(|at| searched + at) {
        if at == 0 || bytes[at - 1] != b'\r' {
            return Err(Malformed::LineEnd);
        }
        let is_empty = at == 1 || bytes[at - 2] == b'\n';
        match at {
            _ if !is_empty => {}
            1 => {}
            3 => return Err(Malformed::EmptyLines),
            _ => return Ok(Some(at + 1)),
        }
    }
    // Who speaks another protocol, TLS for one, is not to wait for the end of a head that never comes.
    let unsearched = &bytes[searched.saturating_sub(1)..];
    if !all(unsearched, |byte| is_text(byte) || byte == b'\r' || byte == b'\n') {
        return Err(Malformed::Control);
    }
    let is_bare = |at: usize| unsearched.get(at + 1).is_some_and(|next| *next != b'\n');
    if memchr_iter(b'\r', unsearched).any(is_bare) { Err(Malformed::BareCr) } else { Ok(None) }
}

/// A part of a head that was found sound by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// The first line.
    Request {
        /// A token.
        method: &'a [u8],
        /// Visible characters, perhaps UTF-8 in its query.
        target: &'a [u8],
        /// Whether it is HTTP/1.0, not 1.1.
        is_http_10: bool,
    },
    /// A header line: its name, a token, and its value without the blanks around it.
    Field(&'a [u8], &'a [u8]),
}

/// Reads one whole head, as [`head_length`] measures it, and hands on its parts, which are worth nothing if it errs in
/// the end. Bytes behind the empty line are not looked at.
///
/// # Errors
/// When it is malformed, or has what is not served; or what `take` says.
pub fn inspect<'a>(
    head: &'a [u8],
    mut take: impl FnMut(Part<'a>) -> Result<(), Malformed>,
) -> Result<Head, Malformed> {
    let mut lines = Lines(head.strip_prefix(b"\r\n").unwrap_or(head));
    let (method, target, version) = read_request_line(lines.next()?)?;
    take(Part::Request { method, target, is_http_10: version == Version::Http10 })?;
    let mut fields = Fields::default();
    for count in 0.. {
        let line = lines.next()?;
        if line.is_empty() {
            break;
        }
        if count == LINES_MAX {
            return Err(Malformed::ManyHeaders);
        }
        let (name, value) = read_field(line)?;
        fields.note(name, value)?;
        take(Part::Field(name, value))?;
    }
    Ok(Head {
        framing: fields.framing(version)?,
        wishes_upgrade: version == Version::Http11 && fields.names_upgrade && fields.has_upgrade,
    })
}

/// The lines of a head, without their ends.
struct Lines<'a>(&'a [u8]);

impl<'a> Lines<'a> {
    fn next(&mut self) -> Result<&'a [u8], Malformed> {
        let end = memchr(b'\n', self.0).ok_or(Malformed::LineEnd)?;
        let line = self.0[..end].strip_suffix(b"\r").ok_or(Malformed::LineEnd)?;
        self.0 = &self.0[end + 1..];
        Ok(line)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Http10,
    Http11,
}

fn read_request_line(line: &[u8]) -> Result<(&[u8], &[u8], Version), Malformed> {
    let (method, rest) = memchr(b' ', line).map(|at| line.split_at(at)).ok_or(Malformed::RequestLine)?;
    let (target, version) =
        memrchr(b' ', &rest[1..]).map(|at| rest[1..].split_at(at)).ok_or(Malformed::RequestLine)?;
    if method.is_empty() || !all(method, is_token) {
        return Err(Malformed::Method);
    }
    if target.is_empty() {
        return Err(Malformed::RequestLine);
    }
    let (path, query) = target.split_at(memchr(b'?', target).unwrap_or(target.len()));
    // Some clients write queries in raw UTF-8, and all servers read those alike.
    if !all(path, |byte| byte.is_ascii_graphic())
        || !all(query, |byte| byte.is_ascii_graphic() || byte >= 0x80)
        || std::str::from_utf8(query).is_err()
    {
        return Err(Malformed::Target);
    }
    if memchr(b'#', target).is_some() {
        return Err(Malformed::Fragment);
    }
    match version[1..].strip_prefix(b"HTTP/") {
        Some(b"1.1") => Ok((method, target, Version::Http11)),
        Some(b"1.0") => Ok((method, target, Version::Http10)),
        // Also 1.2 and later: there never was one, and what it would say of lengths nobody knows.
        Some([major, b'.', minor]) if major.is_ascii_digit() && minor.is_ascii_digit() => {
            Err(Malformed::Version)
        }
        _ => Err(Malformed::RequestLine),
    }
}

/// A header line's name, and its value without the blanks around it.
fn read_field(line: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(Malformed::Folded);
    }
    let (name, value) = memchr(b':', line).map(|at| line.split_at(at)).ok_or(Malformed::HeaderName)?;
    if name.is_empty() || !all(name, is_token) {
        return Err(Malformed::HeaderName);
    }
    if !all(value, is_text) {
        let is_bare = memchr(b'\r', value).is_some();
        return Err(if is_bare { Malformed::BareCr } else { Malformed::HeaderValue });
    }
    Ok((name, trim(&value[1..])))
}

/// What headers say about what comes behind them.
#[derive(Default)]
struct Fields<'a> {
    length: Option<u64>,
    codings: Option<&'a [u8]>,
    names_upgrade: bool,
    has_upgrade: bool,
}

impl<'a> Fields<'a> {
    fn note(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), Malformed> {
        // Nearly all names are out by their length.
        match name.len() {
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.has_upgrade = true,
            10 if name.eq_ignore_ascii_case(b"connection") => {
                let mut options = value.split(|byte| *byte == b',').map(trim);
                self.names_upgrade |= options.any(|option| option.eq_ignore_ascii_case(b"upgrade"));
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                once(&mut self.length, read_length(value)?, Malformed::Lengths)?;
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                once(&mut self.codings, value, Malformed::Codings)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn framing(&self, version: Version) -> Result<Framing, Malformed> {
        match (self.codings, self.length) {
            (None, None) => Ok(Framing::Empty),
            (None, Some(length)) => Ok(Framing::Length(length)),
            (Some(_), Some(_)) => Err(Malformed::LengthAndCoding),
            (Some(_), None) if version == Version::Http10 => Err(Malformed::OldCoding),
            (Some(codings), None) => check_codings(codings).map(|()| Framing::Chunked),
        }
    }
}

fn once<T>(place: &mut Option<T>, value: T, twice: Malformed) -> Result<(), Malformed> {
    if place.replace(value).is_some() { Err(twice) } else { Ok(()) }
}

/// The digits of a length, and nothing else.
pub(crate) fn read_length(value: &[u8]) -> Result<u64, Malformed> {
    let is_digits = !value.is_empty() && all(value, |byte| byte.is_ascii_digit());
    let text = std::str::from_utf8(value).ok().filter(|_| is_digits);
    text.and_then(|text| text.parse().ok()).ok_or(Malformed::Length)
}

/// A body may be chunked, and nothing else: other codings are not served.
fn check_codings(value: &[u8]) -> Result<(), Malformed> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let mut codings = value.split(|byte| *byte == b',').peekable();
    while let Some(coding) = codings.next() {
        let end = memchr(b';', coding).unwrap_or(coding.len());
        let (name, parameters) = (trim(&coding[..end]), &coding[end..]);
        // Only the last coding can say where a body ends.
        let is_misplaced =
            name.eq_ignore_ascii_case(b"chunked") && (codings.peek().is_some() || !parameters.is_empty());
        if name.is_empty() || !all(name, is_token) || is_misplaced {
            return Err(Malformed::Codings);
        }
    }
    Err(Malformed::Coding)
}

/// Without blanks around it; `trim_ascii` takes off more.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Looks at every byte, found wrong or not: without a way out the loop is turned into a few wide instructions.
fn all(bytes: &[u8], is_good: impl Fn(u8) -> bool) -> bool {
    bytes.iter().fold(true, |good, byte| good & is_good(*byte))
}

/// What values consist of: visible characters, blanks, and whatever is not ASCII.
fn is_text(byte: u8) -> bool {
    (byte >= b' ' && byte != 0x7f) | (byte == b'\t')
}

/// What names and methods consist of.
fn is_token(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

/// RFC 9110, section 5.6.2.
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte: u8 = 0;
    while byte < 0x80 {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let marks = b"!#$%&'*+-.^_`|~";
    let mut at = 0;
    while at < marks.len() {
        table[marks[at] as usize] = true;
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests;
