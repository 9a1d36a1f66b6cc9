//! An answer on its way out of a connection: its head, and where its body ends.
//!
//! An answer whose end two readers may see in different places is no answer: two lengths, a length beside a
//! transfer coding, a coding that is not `chunked`.

#[cfg(fuzzing)]
pub mod answers;

use std::mem::MaybeUninit;

use bytes::{Buf, BytesMut};
use http::{Method, StatusCode};

use crate::fields::Fields;
use crate::framing::read_length;
use crate::headers::names_option;
use crate::http1::decoder::{Chunks, Decoder, Malformed};

/// Longest head of an answer.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Most headers of an answer.
const HEADERS_MAX: usize = 256;

/// The head of an answer.
pub(crate) struct Head {
    pub(super) status: StatusCode,
    pub(super) fields: Fields,
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
    let mut fields = Fields::new();
    for field in parsed.headers.iter() {
        fields.push(field.name, field.value);
    }
    read.advance(length);
    Ok(Some(Head { status, fields, is_http_10 }))
}

impl Head {
    /// Whether further requests may follow over the same connection.
    pub(super) fn keeps_connection(&self) -> bool {
        if self.is_http_10 {
            names_option(&self.fields, "keep-alive")
        } else {
            !names_option(&self.fields, "close")
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
        for value in self.fields.all(b"content-length") {
            let length = read_length(value).map_err(|_| Malformed)?;
            if found.is_some_and(|other| other != length) {
                return Err(Malformed);
            }
            found = Some(length);
        }
        Ok(found)
    }

    fn is_chunked(&self) -> Result<bool, Malformed> {
        let mut codings = self.fields.all(b"transfer-encoding");
        match (codings.next(), codings.next()) {
            (None, _) => Ok(false),
            (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(true),
            _ => Err(Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::decoder::{CHUNK_LINE_BYTES_MAX, Piece};

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
