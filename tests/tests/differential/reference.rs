//! How a connection's bytes read by the strict letter of RFC 9112, and nothing else.
//!
//! The recording upstream reads with it what a proxy sent; the test reads with it what the client sent, to know what
//! a gateway may admit at most. It is small and slow on purpose, and shares no line with the gateway.
//!
//! Where the end of a request is not plain from its bytes, reading stops for good: [`End::Irregular`]. What is
//! framed well but must not be admitted, as an ambiguous path, is read on over: [`Request::fault`].

use std::fmt::{self, Display, Formatter};

use crate::target;

/// A request that was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// As it stands in the request line.
    pub(crate) target: String,
    /// HTTP/1.1, else 1.0.
    pub(crate) is_1_1: bool,
    /// Names in lower case, values without the blanks around them.
    pub(crate) headers: Vec<Header>,
    /// Chunks put together.
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<Header>,
}

/// A name and a value.
pub(crate) type Header = (String, Vec<u8>);

/// What is at the start of some bytes.
pub(crate) enum Reading {
    /// A request, and how many bytes it takes.
    Whole(Request, usize),
    /// The start of one; with its head if that is there, and as much of the body as there is.
    Partial(Option<Request>),
    /// Why nobody can say where the request ends; with its head if that was regular.
    Irregular(&'static str, Option<Request>),
}

/// All that is on a connection.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) requests: Vec<Request>,
    pub(crate) end: End,
}

/// What is behind the last whole request.
#[derive(Debug)]
pub(crate) enum End {
    /// Nothing.
    Clean,
    /// Whatever it is, the last request asked to close the connection.
    Closes,
    /// The start of another request.
    Partial(Option<Request>),
    /// Nobody can say what.
    Irregular(&'static str, Option<Request>),
}

/// Reads a whole connection.
pub(crate) fn read_all(mut bytes: &[u8]) -> Script {
    let mut requests: Vec<Request> = Vec::new();
    let end = loop {
        if requests.last().is_some_and(Request::closes) {
            break End::Closes;
        }
        if bytes.is_empty() {
            break End::Clean;
        }
        match read(bytes) {
            Reading::Whole(request, length) => {
                bytes = &bytes[length..];
                requests.push(request);
            }
            Reading::Partial(head) => break End::Partial(head),
            Reading::Irregular(why, head) => break End::Irregular(why, head),
        }
    };
    Script { requests, end }
}

impl Display for Script {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let behind = match &self.end {
            End::Clean => "nothing",
            End::Closes => "the connection closed",
            End::Partial(_) => "the start of another",
            End::Irregular(why, _) => why,
        };
        write!(f, "{} whole requests, behind them {behind}", self.requests.len())
    }
}

/// Reads one request.
pub(crate) fn read(bytes: &[u8]) -> Reading {
    let mut cursor = Cursor { bytes, at: 0 };
    // Empty lines in front of a request may be left out (section 2.2).
    while bytes[cursor.at..].starts_with(b"\r\n") {
        cursor.at += 2;
    }
    let mut request = match head(&mut cursor) {
        Ok(request) => request,
        Err(Stop::Partial) => return Reading::Partial(None),
        Err(Stop::Irregular(why)) => return Reading::Irregular(why, None),
    };
    match body(&mut cursor, &mut request) {
        Ok(()) => Reading::Whole(request, cursor.at),
        Err(Stop::Partial) => Reading::Partial(Some(request)),
        Err(Stop::Irregular(why)) => Reading::Irregular(why, Some(request)),
    }
}

impl Request {
    /// The values of a header.
    pub(crate) fn values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let name = name.to_owned();
        self.headers.iter().filter(move |(known, _)| *known == name).map(|(_, value)| value.as_slice())
    }

    /// Why it must not be admitted although it is plain where it ends.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        if self.method.bytes().any(|byte| byte.is_ascii_lowercase()) {
            return Some("a method in small letters");
        }
        let hosts: Vec<&[u8]> = self.values("host").collect();
        match hosts.as_slice() {
            [] if self.is_1_1 => return Some("no Host"),
            [] => {}
            [host] if target::is_authority(host) => {}
            [_] => return Some("a malformed Host"),
            _ => return Some("several Hosts"),
        }
        target::fault(&self.target)
    }

    /// Whether the connection ends with it. What is no list of options says nothing.
    fn closes(&self) -> bool {
        let options: Vec<&[u8]> = self
            .values("connection")
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(trimmed)
            .filter(|option| !option.is_empty())
            .collect();
        if options.iter().any(|option| !is_token(option)) {
            return false;
        }
        let has = |name: &[u8]| options.iter().any(|option| option.eq_ignore_ascii_case(name));
        has(b"close") || !(self.is_1_1 || has(b"keep-alive"))
    }
}

enum Stop {
    Partial,
    Irregular(&'static str),
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// A line without its CRLF.
    fn line(&mut self) -> Result<&'a [u8], Stop> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|byte| *byte == b'\n').ok_or(Stop::Partial)?;
        let line = rest[..end].strip_suffix(b"\r").ok_or(Stop::Irregular("a bare LF"))?;
        if line.contains(&b'\r') {
            return Err(Stop::Irregular("a bare CR"));
        }
        self.at += end + 1;
        Ok(line)
    }

    /// Moves as many bytes as there are, at most `length`.
    fn take(&mut self, length: u64, body: &mut Vec<u8>) -> Result<(), Stop> {
        let rest = &self.bytes[self.at..];
        let wanted = usize::try_from(length).unwrap_or(usize::MAX);
        let taken = &rest[..rest.len().min(wanted)];
        body.extend_from_slice(taken);
        self.at += taken.len();
        if taken.len() < wanted { Err(Stop::Partial) } else { Ok(()) }
    }
}

fn head(cursor: &mut Cursor<'_>) -> Result<Request, Stop> {
    let line = cursor.line()?;
    let parts: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = parts.as_slice() else {
        return Err(Stop::Irregular("a request line that is not of three parts"));
    };
    if !is_token(method) {
        return Err(Stop::Irregular("a method that is no token"));
    }
    if target.is_empty() || target.iter().any(u8::is_ascii_control) {
        return Err(Stop::Irregular("a target with a control byte"));
    }
    let is_1_1 = match *version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        _ => return Err(Stop::Irregular("another version")),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers = headers(cursor)?;
    Ok(Request { method: text(method), target: text(target), is_1_1, headers, ..Request::default() })
}

/// Header or trailer lines up to the empty one.
fn headers(cursor: &mut Cursor<'_>) -> Result<Vec<Header>, Stop> {
    let mut headers = Vec::new();
    loop {
        let line = cursor.line()?;
        if line.is_empty() {
            return Ok(headers);
        }
        if matches!(line[0], b' ' | b'\t') {
            return Err(Stop::Irregular("a folded line"));
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let colon = colon.ok_or(Stop::Irregular("a header without a colon"))?;
        let (name, value) = (&line[..colon], trimmed(&line[colon + 1..]));
        if !is_token(name) {
            return Err(Stop::Irregular("a header name that is no token"));
        }
        if !value.iter().all(|byte| is_field_byte(*byte)) {
            return Err(Stop::Irregular("a control byte in a header"));
        }
        headers.push((String::from_utf8_lossy(name).to_ascii_lowercase(), value.to_vec()));
    }
}

fn body(cursor: &mut Cursor<'_>, request: &mut Request) -> Result<(), Stop> {
    let lengths: Vec<&[u8]> = request.values("content-length").collect();
    let codings: Vec<&[u8]> = request.values("transfer-encoding").collect();
    match (lengths.as_slice(), codings.as_slice()) {
        ([], []) => Ok(()),
        ([length], []) => {
            let length = decimal(length).ok_or(Stop::Irregular("a Content-Length that is no number"))?;
            cursor.take(length, &mut request.body)
        }
        ([], [coding]) if request.is_1_1 && coding.eq_ignore_ascii_case(b"chunked") => {
            chunks(cursor, request)
        }
        ([], [_]) => Err(Stop::Irregular("a transfer coding other than chunked")),
        (_, []) => Err(Stop::Irregular("several Content-Lengths")),
        ([], _) => Err(Stop::Irregular("several Transfer-Encodings")),
        _ => Err(Stop::Irregular("both Content-Length and Transfer-Encoding")),
    }
}

fn chunks(cursor: &mut Cursor<'_>, request: &mut Request) -> Result<(), Stop> {
    loop {
        let line = cursor.line()?;
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (size, extension) = line.split_at(digits);
        let size = hexadecimal(size).ok_or(Stop::Irregular("a chunk size that is no number"))?;
        // Blanks may stand in front of an extension, but not of nothing (section 7.1.1).
        let is_extension = extension.is_empty() || extension.trim_ascii_start().starts_with(b";");
        if !is_extension || !extension.iter().all(|byte| is_field_byte(*byte)) {
            return Err(Stop::Irregular("a malformed chunk extension"));
        }
        if size == 0 {
            request.trailers = headers(cursor)?;
            return Ok(());
        }
        cursor.take(size, &mut request.body)?;
        let rest = &cursor.bytes[cursor.at..];
        match rest {
            [b'\r', b'\n', ..] => cursor.at += 2,
            [] | [b'\r'] => return Err(Stop::Partial),
            _ => return Err(Stop::Irregular("a chunk that does not end where it says")),
        }
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let is_plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| is_plain)?.parse().ok()
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok().and_then(|text| u64::from_str_radix(text, 16).ok())
}

/// Without the blanks around it: SP and HTAB, nothing else that some call white.
fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn is_token(bytes: &[u8]) -> bool {
    let is_token_byte = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(is_token_byte)
}

fn is_field_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

#[test]
fn the_reference_is_strict() {
    let check = |bytes: &[u8], expected: &str| {
        let found = read_all(bytes).to_string().replace(" whole requests, behind them", "");
        assert_eq!(found, expected, "{}", bytes.escape_ascii());
    };
    check(b"GET / HTTP/1.1\r\n\r\n\r\nGET / HTTP/1.0\r\n\r\nx", "2 the connection closed");
    check(b"GET / HTTP/1.1\r\nA:\tb\x80 \r\n\r\nGET", "1 the start of another");
    check(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\n", "1 a bare LF");
    check(
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2 ;x\r\nab\r\n0\r\nX: y\r\n\r\n",
        "1 nothing",
    );
    check(
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2 \r\nab\r\n0\r\n\r\n",
        "0 a malformed chunk extension",
    );
    check(b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", "0 a folded line");
    check(b"GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", "0 a bare CR");
}
