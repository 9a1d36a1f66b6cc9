//! Bodies on their way out of a connection: where they end, and what is in them.
//!
//! Both directions read by it. Of clients it only gets what `framing/chunks.rs` has judged; what an upstream sends is
//! its own business as long as the end of a body can be read in one way only.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::headers::remove_control_trailers;

/// Longest trailers behind a body.
const TRAILER_BYTES_MAX: usize = 64 << 10;
/// Most fields of trailers.
const TRAILERS_MAX: usize = 256;
/// Longest line that says how long a chunk is, its end included.
pub(crate) const CHUNK_LINE_BYTES_MAX: usize = 4 << 10;

/// The other side does not speak HTTP/1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The fields that were parsed of the first `length` bytes of what was read, which are copied.
pub(crate) fn headers(
    read: &[u8],
    length: usize,
    fields: &[httparse::Header<'_>],
) -> Result<HeaderMap, Malformed> {
    let bytes = Bytes::copy_from_slice(&read[..length]);
    let mut headers = HeaderMap::with_capacity(fields.len() + 8);
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed)?;
        let value = HeaderValue::from_maybe_shared(same_part(read, field.value, &bytes));
        headers.append(name, value.map_err(|_| Malformed)?);
    }
    Ok(headers)
}

/// What `part` is of `whole`, of a copy of it.
fn same_part(whole: &[u8], part: &[u8], copy: &Bytes) -> Bytes {
    // Values without bytes need not lie in what was read.
    if part.is_empty() {
        return Bytes::new();
    }
    let start = part.as_ptr().addr() - whole.as_ptr().addr();
    copy.slice(start..start + part.len())
}

/// What a decoder found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
    /// More has to be read first.
    Nothing,
}

/// Tells where the body of an answer ends.
#[derive(Debug)]
pub(crate) enum Decoder {
    /// So much of it is to come.
    Length(u64),
    Chunked(Chunks),
    UntilClose {
        is_over: bool,
    },
}

impl Decoder {
    /// Takes the next piece out of what was read.
    pub(crate) fn take(&mut self, read: &mut BytesMut) -> Result<Piece, Malformed> {
        match self {
            Self::Length(0) | Self::UntilClose { is_over: true } => Ok(Piece::End),
            Self::Chunked(chunks) => chunks.take(read),
            _ if read.is_empty() => Ok(Piece::Nothing),
            Self::Length(left) => Ok(Piece::Data(take_up_to(left, read))),
            Self::UntilClose { .. } => Ok(Piece::Data(take(read, read.len()))),
        }
    }

    /// The connection ended.
    pub(crate) fn close(&mut self) -> Result<(), Malformed> {
        match self {
            Self::UntilClose { is_over } => {
                *is_over = true;
                Ok(())
            }
            _ => Err(Malformed),
        }
    }

    /// Whether nothing more is to come.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => chunks.is_over(),
            Self::UntilClose { is_over } => *is_over,
        }
    }

    /// How much is to come, if that is known.
    pub(crate) fn left(&self) -> Option<u64> {
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
pub(crate) struct Chunks {
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
    pub(crate) fn new() -> Self {
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
        let mut fields = [httparse::EMPTY_HEADER; TRAILERS_MAX];
        let (length, fields) = match httparse::parse_headers(read, &mut fields) {
            Ok(httparse::Status::Complete((length, fields))) if length <= TRAILER_BYTES_MAX => {
                (length, fields)
            }
            Ok(httparse::Status::Partial) if read.len() < TRAILER_BYTES_MAX => return Ok(false),
            _ => return Err(Malformed),
        };
        let mut trailers = headers(read, length, fields)?;
        read.advance(length);
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
