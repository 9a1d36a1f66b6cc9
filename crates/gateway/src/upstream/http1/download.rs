//! An answer on its way out of a connection: its head, and where its body ends.
//!
//! An answer whose end two readers may see in different places is no answer: two lengths, a length beside a
//! transfer coding, a coding that is not `chunked`.

#[cfg(fuzzing)]
pub mod answers;

use std::mem::MaybeUninit;
use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::framing::read_length;
use crate::headers::{names_option, remove_control_trailers};

/// Longest head of an answer, and longest trailers behind one.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Most headers of an answer.
const HEADERS_MAX: usize = 256;
/// Longest line that says how long a chunk is, its end included.
const CHUNK_LINE_BYTES_MAX: usize = 4 << 10;

/// The upstream does not speak HTTP/1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// The head of an answer.
#[derive(Debug)]
pub(crate) struct Head {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    is_http_10: bool,
}

/// Takes the head of an answer out of what was read; `None`: it is not whole yet.
pub(super) fn take_head(read: &mut BytesMut) -> Result<Option<Head>, Malformed> {
    let mut fields = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    let length = match parser.parse_response_with_uninit_headers(&mut parsed, read, &mut fields) {
        Ok(httparse::Status::Complete(length)) if length <= HEAD_BYTES_MAX => length,
        Ok(httparse::Status::Partial) if read.len() < HEAD_BYTES_MAX => return Ok(None),
        _ => return Err(Malformed),
    };
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Malformed)?;
    let is_http_10 = parsed.version == Some(0);
    let fields: Vec<_> = parsed.headers.iter().map(|field| Field::of(read, field)).collect();
    let bytes = take(read, length);
    Ok(Some(Head { status, headers: headers(&bytes, &fields)?, is_http_10 }))
}

/// Where a field is.
struct Field {
    name: Range<usize>,
    value: Range<usize>,
}

impl Field {
    fn of(read: &[u8], field: &httparse::Header<'_>) -> Self {
        let range = |part: &[u8]| {
            let start = part.as_ptr().addr() - read.as_ptr().addr();
            start..start + part.len()
        };
        // Values without bytes need not lie in what was read.
        let value = if field.value.is_empty() { 0..0 } else { range(field.value) };
        Self { name: range(field.name.as_bytes()), value }
    }
}

fn headers(bytes: &Bytes, fields: &[Field]) -> Result<HeaderMap, Malformed> {
    let mut headers = HeaderMap::with_capacity(fields.len() + 8);
    for field in fields {
        let name = HeaderName::from_bytes(&bytes[field.name.clone()]).map_err(|_| Malformed)?;
        let value = HeaderValue::from_maybe_shared(bytes.slice(field.value.clone()));
        headers.append(name, value.map_err(|_| Malformed)?);
    }
    Ok(headers)
}

impl Head {
    /// Whether further requests may follow over the same connection.
    pub(super) fn keeps_connection(&self) -> bool {
        if self.is_http_10 {
            names_option(&self.headers, "keep-alive")
        } else {
            !names_option(&self.headers, "close")
        }
    }

    /// How the body of this answer is read (RFC 9112, section 6.3).
    pub(super) fn decoder(&self, method: &Method) -> Result<Decoder, Malformed> {
        let length = self.content_length()?;
        let is_coded = self.is_chunked()?;
        let has_no_body = method == Method::HEAD
            || self.status.is_informational()
            || matches!(self.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        match (length, is_coded) {
            _ if has_no_body => Ok(Decoder::Length(0)),
            (Some(_), true) => Err(Malformed),
            (_, true) if self.is_http_10 => Err(Malformed),
            (None, true) => Ok(Decoder::Chunked(Chunks::new())),
            (Some(length), false) => Ok(Decoder::Length(length)),
            (None, false) => Ok(Decoder::UntilClose { is_over: false }),
        }
    }

    fn content_length(&self) -> Result<Option<u64>, Malformed> {
        let mut found = None;
        for value in self.headers.get_all(CONTENT_LENGTH) {
            let length = read_length(value.as_bytes()).map_err(|_| Malformed)?;
            if found.is_some_and(|other| other != length) {
                return Err(Malformed);
            }
            found = Some(length);
        }
        Ok(found)
    }

    fn is_chunked(&self) -> Result<bool, Malformed> {
        let mut codings = self.headers.get_all(TRANSFER_ENCODING).iter();
        match (codings.next(), codings.next()) {
            (None, _) => Ok(false),
            (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(true),
            _ => Err(Malformed),
        }
    }
}

/// What a decoder found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
    /// More has to be read first.
    Nothing,
}

/// Tells where the body of an answer ends.
#[derive(Debug)]
pub(super) enum Decoder {
    /// So much of it is to come.
    Length(u64),
    Chunked(Chunks),
    UntilClose {
        is_over: bool,
    },
}

impl Decoder {
    /// Takes the next piece out of what was read.
    pub(super) fn take(&mut self, read: &mut BytesMut) -> Result<Piece, Malformed> {
        match self {
            Self::Length(0) | Self::UntilClose { is_over: true } => Ok(Piece::End),
            Self::Chunked(chunks) => chunks.take(read),
            _ if read.is_empty() => Ok(Piece::Nothing),
            Self::Length(left) => Ok(Piece::Data(take_up_to(left, read))),
            Self::UntilClose { .. } => Ok(Piece::Data(take(read, read.len()))),
        }
    }

    /// The connection ended.
    pub(super) fn close(&mut self) -> Result<(), Malformed> {
        match self {
            Self::UntilClose { is_over } => {
                *is_over = true;
                Ok(())
            }
            _ => Err(Malformed),
        }
    }

    /// Whether nothing more is to come.
    pub(super) fn is_over(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => chunks.is_over(),
            Self::UntilClose { is_over } => *is_over,
        }
    }

    /// How much is to come, if that is known.
    pub(super) fn left(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            _ => self.is_over().then_some(0),
        }
    }
}

fn take_up_to(left: &mut u64, read: &mut BytesMut) -> Bytes {
    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(read.len());
    *left -= count as u64;
    take(read, count)
}

/// Up to this size a copy costs less than a new buffer for the connection.
const COPIED_BYTES_MAX: usize = 4 << 10;

/// Takes bytes off the front.
fn take(read: &mut BytesMut, count: usize) -> Bytes {
    if count > COPIED_BYTES_MAX {
        return read.split_to(count).freeze();
    }
    let bytes = Bytes::copy_from_slice(&read[..count]);
    read.advance(count);
    bytes
}

/// A chunked body.
#[derive(Debug)]
pub(super) struct Chunks {
    state: ChunkState,
    trailers: Option<HeaderMap>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChunkState {
    /// In front of the line that says how long the next chunk is.
    Size,
    Data(u64),
    /// In front of the line end behind a chunk.
    DataEnd,
    Trailers,
    Over,
    /// Malformed, for good.
    Broken,
}

impl Chunks {
    fn new() -> Self {
        Self { state: ChunkState::Size, trailers: None }
    }

    fn is_over(&self) -> bool {
        self.state == ChunkState::Over && self.trailers.is_none()
    }

    fn take(&mut self, read: &mut BytesMut) -> Result<Piece, Malformed> {
        self.skip_to_data(read)?;
        match &mut self.state {
            ChunkState::Over => Ok(self.trailers.take().map_or(Piece::End, Piece::Trailers)),
            ChunkState::Data(left) if !read.is_empty() => {
                let data = take_up_to(left, read);
                // The end may be there already; what is wrong behind the data is told when it is asked for.
                let _ = self.skip_to_data(read);
                Ok(Piece::Data(data))
            }
            _ => Ok(Piece::Nothing),
        }
    }

    /// Reads what is between the data, as far as it is there.
    fn skip_to_data(&mut self, read: &mut BytesMut) -> Result<(), Malformed> {
        let skipped = self.skip(read);
        if skipped.is_err() {
            // What is malformed was taken out: whoever asks again would read on behind it.
            self.state = ChunkState::Broken;
        }
        skipped
    }

    fn skip(&mut self, read: &mut BytesMut) -> Result<(), Malformed> {
        loop {
            let next = match self.state {
                ChunkState::Data(0) => Some(ChunkState::DataEnd),
                ChunkState::Data(_) | ChunkState::Over => return Ok(()),
                ChunkState::Broken => return Err(Malformed),
                ChunkState::Size => take_line(read)?
                    .map(|line| chunk_size(&line))
                    .transpose()?
                    .map(|size| if size == 0 { ChunkState::Trailers } else { ChunkState::Data(size) }),
                ChunkState::DataEnd => match read.get(..2) {
                    None => None,
                    Some(b"\r\n") => {
                        read.advance(2);
                        Some(ChunkState::Size)
                    }
                    Some(_) => return Err(Malformed),
                },
                ChunkState::Trailers => self.take_trailers(read)?.then_some(ChunkState::Over),
            };
            match next {
                Some(state) => self.state = state,
                None => return Ok(()),
            }
        }
    }

    fn take_trailers(&mut self, read: &mut BytesMut) -> Result<bool, Malformed> {
        let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let (length, fields) = match httparse::parse_headers(read, &mut fields) {
            Ok(httparse::Status::Complete((length, fields))) if length <= HEAD_BYTES_MAX => (length, fields),
            Ok(httparse::Status::Partial) if read.len() < HEAD_BYTES_MAX => return Ok(false),
            _ => return Err(Malformed),
        };
        let fields: Vec<_> = fields.iter().map(|field| Field::of(read, field)).collect();
        let bytes = take(read, length);
        let mut trailers = headers(&bytes, &fields)?;
        remove_control_trailers(&mut trailers);
        self.trailers = Some(trailers).filter(|trailers| !trailers.is_empty());
        Ok(true)
    }
}

/// A line without its end; `None`: it is not whole yet.
fn take_line(read: &mut BytesMut) -> Result<Option<Bytes>, Malformed> {
    let Some(end) = read.iter().position(|byte| *byte == b'\n') else {
        return if read.len() < CHUNK_LINE_BYTES_MAX { Ok(None) } else { Err(Malformed) };
    };
    let line = read.split_to(end + 1).freeze();
    if line.len() > CHUNK_LINE_BYTES_MAX || !line.ends_with(b"\r\n") {
        return Err(Malformed);
    }
    Ok(Some(line.slice(..end - 1)))
}

/// What a size line says, extensions aside.
fn chunk_size(line: &[u8]) -> Result<u64, Malformed> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii_end();
    if digits.is_empty() || digits.len() > 16 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(Malformed);
    }
    let text = std::str::from_utf8(digits).map_err(|_| Malformed)?;
    u64::from_str_radix(text, 16).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads an answer that comes in pieces of `size` bytes, and then ends.
    fn read_answer(
        text: &str,
        method: &Method,
        size: usize,
    ) -> Result<(Head, String, bool, usize), Malformed> {
        let mut pieces = text.as_bytes().chunks(size);
        let mut read = BytesMut::new();
        let head = loop {
            if let Some(head) = take_head(&mut read)? {
                break head;
            }
            read.extend_from_slice(pieces.next().ok_or(Malformed)?);
        };
        let mut decoder = head.decoder(method)?;
        let (mut body, mut trailers) = (String::new(), false);
        loop {
            match decoder.take(&mut read)? {
                Piece::Data(data) => body.push_str(std::str::from_utf8(&data).unwrap()),
                Piece::Trailers(found) => trailers = !found.is_empty(),
                Piece::End => break,
                Piece::Nothing => match pieces.next() {
                    Some(piece) => read.extend_from_slice(piece),
                    None => decoder.close()?,
                },
            }
        }
        let left = read.len() + pieces.map(<[u8]>::len).sum::<usize>();
        Ok((head, body, trailers, left))
    }

    #[track_caller]
    fn check(head: &str, rest: &str, expected: Result<(&str, usize), Malformed>) {
        let text = format!("HTTP/1.1 200 OK\r\n{head}\r\n{rest}");
        for size in [1, 2, 3, 7, text.len()] {
            let found = read_answer(&text, &Method::GET, size);
            let found = found.map(|(_, body, _, left)| (body, left));
            assert_eq!(found, expected.map(|(body, left)| (body.to_owned(), left)), "{size}");
        }
    }

    #[test]
    fn bodies_end_where_the_head_says() {
        check("content-length: 3\r\n", "abcHTTP", Ok(("abc", 4)));
        check("content-length: 0\r\n", "HTTP", Ok(("", 4)));
        check("Content-Length: 3\r\ncontent-length: 3\r\n", "abc", Ok(("abc", 0)));
        check("", "to the end", Ok(("to the end", 0)));
        check("transfer-encoding: Chunked\r\n", "3\r\nabc\r\n0a;x=y\r\n0123456789\r\n0\r\n\r\nH", {
            Ok(("abc0123456789", 1))
        });
    }

    #[test]
    fn bodies_that_end_early_are_broken() {
        check("content-length: 3\r\n", "ab", Err(Malformed));
        check("transfer-encoding: chunked\r\n", "3\r\nabc\r\n", Err(Malformed));
        check("transfer-encoding: chunked\r\n", "3\r\nabc\r\n0\r\n", Err(Malformed));
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_not_read() {
        check("content-length: 3\r\ncontent-length: 4\r\n", "abcd", Err(Malformed));
        check("content-length: 3\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n", Err(Malformed));
        for value in ["+3", "3, 3", "0x3", "", "-1", "18446744073709551616"] {
            check(&format!("content-length: {value}\r\n"), "abc", Err(Malformed));
        }
        for value in ["gzip", "gzip, chunked", "chunked, chunked", "identity"] {
            check(&format!("transfer-encoding: {value}\r\n"), "0\r\n\r\n", Err(Malformed));
        }
        for size in ["", "+3", "0x3", "3 3", "g", "-1", "00000000000000003", "3\n"] {
            check("transfer-encoding: chunked\r\n", &format!("{size}\r\nabc\r\n0\r\n\r\n"), Err(Malformed));
        }
        check("transfer-encoding: chunked\r\n", "3\r\nabcd\r\n0\r\n\r\n", Err(Malformed));
        for wrong in ["zz\r\n", "\r\n", "2\n", "0\r\n:\r\n"] {
            let text = format!("3\r\nabc\r\n{wrong}2\r\nde\r\n0\r\n\r\n");
            check("transfer-encoding: chunked\r\n", &text, Err(Malformed));
        }
        check("x: a\r\n b\r\n", "", Err(Malformed));
    }

    #[test]
    fn some_answers_have_no_body() {
        for (status, method) in [("204 No", Method::GET), ("304 No", Method::GET), ("200 OK", Method::HEAD)] {
            let text = format!("HTTP/1.1 {status}\r\ncontent-length: 5\r\n\r\n");
            let (_, body, _, left) = read_answer(&text, &method, text.len()).unwrap();
            assert_eq!((body.as_str(), left), ("", 0), "{status}");
        }
    }

    #[test]
    fn trailers_come_last() {
        let text =
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nSum: 1\r\nempty:\r\n\r\n";
        for size in [1, 5, text.len()] {
            let (_, body, has_trailers, left) = read_answer(text, &Method::GET, size).unwrap();
            assert_eq!((body.as_str(), has_trailers, left), ("a", true, 0));
        }
    }

    #[test]
    fn connections_that_are_kept() {
        let keeps = |text: &str| {
            let head = take_head(&mut BytesMut::from(text)).unwrap().unwrap();
            head.keeps_connection()
        };
        assert!(keeps("HTTP/1.1 200 OK\r\n\r\n"));
        assert!(!keeps("HTTP/1.1 200 OK\r\nConnection: foo, Close\r\n\r\n"));
        assert!(!keeps("HTTP/1.0 200 OK\r\n\r\n"));
        assert!(keeps("HTTP/1.0 200 OK\r\nconnection: Keep-Alive\r\n\r\n"));
    }

    #[test]
    fn bounds_do_not_depend_on_how_bytes_come() {
        #[track_caller]
        fn check(text: &str, is_whole: bool) {
            for size in [text.len(), 4000] {
                assert_eq!(read_answer(text, &Method::GET, size).is_ok(), is_whole, "{size}");
            }
        }
        let head = |bytes: usize| format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "a".repeat(bytes - 24));
        check(&head(HEAD_BYTES_MAX), true);
        check(&head(HEAD_BYTES_MAX + 1), false);
        let chunked = |line: String, trailers: String| {
            format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{line}a\r\n0\r\n{trailers}")
        };
        let line = |bytes: usize| format!("1;{}\r\n", "x".repeat(bytes - 4));
        check(&chunked(line(CHUNK_LINE_BYTES_MAX), "\r\n".into()), true);
        check(&chunked(line(CHUNK_LINE_BYTES_MAX + 1), "\r\n".into()), false);
        let trailers = |bytes: usize| format!("x: {}\r\n\r\n", "a".repeat(bytes - 7));
        check(&chunked(line(4), trailers(HEAD_BYTES_MAX)), true);
        check(&chunked(line(4), trailers(HEAD_BYTES_MAX + 1)), false);
    }

    #[test]
    fn heads_are_bounded() {
        let mut read = BytesMut::from("HTTP/1.1 200 OK\r\nx: ");
        read.resize(HEAD_BYTES_MAX, b'a');
        assert_eq!(take_head(&mut read).err(), Some(Malformed));
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX + 1));
        assert_eq!(take_head(&mut BytesMut::from(many.as_str())).err(), Some(Malformed));
    }
}
