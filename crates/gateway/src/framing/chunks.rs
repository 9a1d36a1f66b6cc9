//! Follows a chunked body to its end, however its bytes are cut into pieces.
//!
//! Stricter than RFC 9112 asks for: each line ends with CR LF, a size has 1 to 16 digits and no blank behind it but in
//! front of an extension, and extensions and trailers are bounded. Data is passed over, not looked at.
//!
//! Keeps nothing of what it sees: whoever passes the body on reads chunks and trailers again.

use super::{LINES_MAX, Malformed, is_text, is_token};

/// Most bytes of all extensions of a body.
const EXTENSION_BYTES_MAX: usize = 4 << 10;
/// Most bytes of a trailer.
const TRAILER_BYTES_MAX: usize = 32 << 10;
/// More digits do not fit.
const SIZE_DIGITS_MAX: u8 = 16;

/// Where in a chunked body its reader is.
#[derive(Debug, Clone, Default)]
pub struct Chunks {
    place: Place,
    /// Of a chunk: its size as far as it is read, then how much of its data is still to come.
    left: u64,
    digits: u8,
    extension_bytes: usize,
    trailer_bytes: usize,
    trailer_lines: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Size,
    /// Behind the size, in front of a `;`.
    Blank,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// Where a line of the trailer, or the end, begins.
    Line,
    Name,
    Value,
    LineLf,
    EndLf,
    Over,
}

impl Chunks {
    /// Goes on with the next bytes: how many of them belong to the body if it ends in them; `None`: all of them, and
    /// there is more to come.
    ///
    /// # Errors
    /// When the body is malformed. It is not to be asked again then.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let mut at = 0;
        while self.place != Place::Over {
            let Some(byte) = bytes.get(at) else { return Ok(None) };
            if self.place == Place::Data {
                at += self.pass_data(bytes.len() - at);
            } else {
                self.place = self.step(*byte)?;
                at += 1;
            }
        }
        Ok(Some(at))
    }

    /// How many of these many bytes are data of the chunk.
    fn pass_data(&mut self, bytes: usize) -> usize {
        let count = usize::try_from(self.left).map_or(bytes, |left| left.min(bytes));
        self.left -= count as u64;
        if self.left == 0 {
            self.place = Place::DataCr;
        }
        count
    }

    fn step(&mut self, byte: u8) -> Result<Place, Malformed> {
        match (self.place, byte) {
            (Place::Size, _) => self.size(byte),
            (Place::Blank, b';') => Ok(Place::Extension),
            (Place::Blank, b' ' | b'\t') => self.extend(Place::Blank),
            (Place::Blank, _) => Err(Malformed::ChunkSize),
            (Place::Extension, b'\r') => Ok(Place::SizeLf),
            (Place::Extension, _) if is_text(byte) => self.extend(Place::Extension),
            (Place::Extension, b'\n') => Err(Malformed::LineEnd),
            (Place::Extension, _) => Err(Malformed::ChunkExtension),
            (Place::SizeLf, b'\n') if self.left == 0 => Ok(Place::Line),
            (Place::SizeLf, b'\n') => Ok(Place::Data),
            (Place::DataCr, b'\r') => Ok(Place::DataLf),
            (Place::DataLf, b'\n') => {
                self.digits = 0;
                Ok(Place::Size)
            }
            (Place::Data | Place::DataCr | Place::DataLf, _) => Err(Malformed::ChunkEnd),
            (Place::LineLf, b'\n') => Ok(Place::Line),
            (Place::EndLf, b'\n') => Ok(Place::Over),
            (Place::SizeLf | Place::LineLf | Place::EndLf, _) => Err(Malformed::BareCr),
            (Place::Line | Place::Name | Place::Value, _) => self.trailer(byte),
            (Place::Over, _) => Ok(Place::Over),
        }
    }

    fn size(&mut self, byte: u8) -> Result<Place, Malformed> {
        let Some(digit) = char::from(byte).to_digit(16) else {
            return match byte {
                _ if self.digits == 0 => Err(Malformed::ChunkSize),
                b'\r' => Ok(Place::SizeLf),
                b';' => Ok(Place::Extension),
                b' ' | b'\t' => self.extend(Place::Blank),
                b'\n' => Err(Malformed::LineEnd),
                _ => Err(Malformed::ChunkSize),
            };
        };
        if self.digits == SIZE_DIGITS_MAX {
            return Err(Malformed::ChunkSize);
        }
        self.digits += 1;
        self.left = self.left << 4 | u64::from(digit);
        Ok(Place::Size)
    }

    fn extend(&mut self, place: Place) -> Result<Place, Malformed> {
        self.extension_bytes += 1;
        if self.extension_bytes > EXTENSION_BYTES_MAX {
            return Err(Malformed::ChunkExtension);
        }
        Ok(place)
    }

    fn trailer(&mut self, byte: u8) -> Result<Place, Malformed> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES_MAX {
            return Err(Malformed::LongTrailer);
        }
        match (self.place, byte) {
            (Place::Line, b'\r') => Ok(Place::EndLf),
            (Place::Line, b' ' | b'\t') => Err(Malformed::Folded),
            (Place::Line, _) if self.trailer_lines == LINES_MAX => Err(Malformed::LongTrailer),
            (Place::Line, _) if is_token(byte) => {
                self.trailer_lines += 1;
                Ok(Place::Name)
            }
            (Place::Name, b':') => Ok(Place::Value),
            (Place::Name, _) if is_token(byte) => Ok(Place::Name),
            (Place::Value, b'\r') => Ok(Place::LineLf),
            (Place::Value, _) if is_text(byte) => Ok(Place::Value),
            (_, b'\n') => Err(Malformed::LineEnd),
            (Place::Value, _) => Err(Malformed::HeaderValue),
            _ => Err(Malformed::HeaderName),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What comes of a body, and how many bytes it has, when it is cut at these places.
    fn read(body: &[u8], cuts: &[usize]) -> Result<Option<usize>, Malformed> {
        let mut chunks = Chunks::default();
        let mut at = 0;
        for end in cuts.iter().copied().chain([body.len()]) {
            if let Some(count) = chunks.advance(&body[at..end])? {
                return Ok(Some(at + count));
            }
            at = end;
        }
        Ok(None)
    }

    #[track_caller]
    fn check(body: &str, expected: Result<Option<usize>, Malformed>) {
        assert_eq!(read(body.as_bytes(), &[]), expected, "{body:?}");
        let everywhere: Vec<usize> = (0..body.len()).collect();
        assert_eq!(read(body.as_bytes(), &everywhere), expected, "byte by byte: {body:?}");
    }

    #[track_caller]
    fn ends(body: &str) {
        check(body, Ok(Some(body.len())));
        check(&format!("{body}GET / HTTP/1.1\r\n"), Ok(Some(body.len())));
        check(&body[..body.len() - 1], Ok(None));
    }

    #[test]
    fn bodies_end_behind_their_trailer() {
        ends("0\r\n\r\n");
        ends("5\r\nhello\r\n0\r\n\r\n");
        ends("1\r\na\r\n00a\r\n0123456789\r\n0\r\n\r\n");
        ends("A\r\n\r\n0\r\n\r\nGET\r\n0\r\n\r\n");
        ends("5;name=value\r\nhello\r\n0 ;\tlast=\"\u{e9}\"\r\n\r\n");
        ends("0\r\nX-Sum: 1\r\nEmpty:\r\n\r\n");
        ends("0000000000000000\r\n\r\n");
    }

    #[test]
    fn sizes_are_digits() {
        for size in ["", " 5", "+5", "-5", "0x5", "g", "5 ", "5\t5", "00000000000000005", "5,5", "5\u{b}"] {
            check(&format!("{size}\r\nhello\r\n0\r\n\r\n"), Err(Malformed::ChunkSize));
        }
        check("ffffffffffffffff\r\nhello", Ok(None));
        check("10000000000000000\r\nhello", Err(Malformed::ChunkSize));
    }

    #[test]
    fn lines_end_with_cr_and_lf() {
        check("5\nhello\r\n0\r\n\r\n", Err(Malformed::LineEnd));
        check("5;a\nhello\r\n0\r\n\r\n", Err(Malformed::LineEnd));
        check("5\rhello\r\n0\r\n\r\n", Err(Malformed::BareCr));
        check("5;a\rb\r\nhello\r\n0\r\n\r\n", Err(Malformed::BareCr));
        check("5\r\nhello\n0\r\n\r\n", Err(Malformed::ChunkEnd));
        check("5\r\nhello0\r\n\r\n", Err(Malformed::ChunkEnd));
        check("5\r\nhello!\r\n0\r\n\r\n", Err(Malformed::ChunkEnd));
        check("5\r\nhello\r0\r\n\r\n", Err(Malformed::ChunkEnd));
        check("0\r\n\n", Err(Malformed::LineEnd));
        check("0\r\n\r\r\n", Err(Malformed::BareCr));
        check("0\r\nA: b\n\r\n", Err(Malformed::LineEnd));
        check("0\r\nA: b\rc\r\n\r\n", Err(Malformed::BareCr));
    }

    #[test]
    fn trailers_are_header_lines() {
        check("0\r\nno colon\r\n\r\n", Err(Malformed::HeaderName));
        check("0\r\n: nameless\r\n\r\n", Err(Malformed::HeaderName));
        check("0\r\nblank : a\r\n\r\n", Err(Malformed::HeaderName));
        check("0\r\nA: b\r\n folded\r\n\r\n", Err(Malformed::Folded));
        check("0\r\nA: b\0\r\n\r\n", Err(Malformed::HeaderValue));
        check("0\r\nGET / HTTP/1.1\r\n\r\n", Err(Malformed::HeaderName));
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let extensions = |bytes: usize| format!("0;{}\r\n\r\n", "x".repeat(bytes));
        ends(&extensions(EXTENSION_BYTES_MAX));
        check(&extensions(EXTENSION_BYTES_MAX + 1), Err(Malformed::ChunkExtension));
        check(&format!("5{}", " ".repeat(EXTENSION_BYTES_MAX + 1)), Err(Malformed::ChunkExtension));
        check(&"1;xxx\r\na\r\n".repeat(2_000), Err(Malformed::ChunkExtension));
        check("0;a\0\r\n\r\n", Err(Malformed::ChunkExtension));
        let lines = |count: usize| format!("0\r\n{}\r\n", "A: b\r\n".repeat(count));
        ends(&lines(LINES_MAX));
        check(&lines(LINES_MAX + 1), Err(Malformed::LongTrailer));
        check(&format!("0\r\nA: {}\r\n\r\n", "x".repeat(TRAILER_BYTES_MAX)), Err(Malformed::LongTrailer));
    }

    /// Bodies that are nearly well-formed.
    fn pieces() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "5\r\nhello\r\n",
            "0\r\n\r\n",
            "a;x=y\r\n0123456789\r\n",
            "0\r\nA: b\r\n",
            "A: b\r\n",
            "\r\n",
            "\r",
            "\n",
            "3",
            ";",
            " ",
            "hello",
        ]);
        prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(body in pieces(), cuts in prop::collection::vec(0_usize..100, 0..6)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|at| at.min(body.len())).collect();
            cuts.sort_unstable();
            prop_assert_eq!(read(body.as_bytes(), &cuts), read(body.as_bytes(), &[]));
        }
    }
}
