//! Why bytes are no request, in words, as a status and as a metric's label.
//!
//! `framing.rs` and `framing/chunks.rs` find the causes; what is said about them is here and nowhere else. Texts name
//! what is wrong and never what the client sent.

use http::StatusCode;

/// Why bytes are no request that can be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not `METHOD target HTTP/version` with single blanks.
    #[error("the request line is not METHOD, target and version with one blank between")]
    RequestLine,
    /// More than one empty line in front of the request line.
    #[error("there are empty lines in front of the request line")]
    EmptyLines,
    /// The method is no token.
    #[error("the method is no token")]
    Method,
    /// The target has a byte that has to be escaped.
    #[error("the request target has a character that must be escaped")]
    Target,
    /// The target has a raw `#`.
    #[error("the request target has a #")]
    Fragment,
    /// A version that is neither HTTP/1.0 nor HTTP/1.1.
    #[error("the HTTP version is neither 1.0 nor 1.1")]
    Version,
    /// A LF without CR, or bytes that stop before a line's end.
    #[error("a line does not end with CR LF")]
    LineEnd,
    /// A CR that no LF follows.
    #[error("a CR stands alone")]
    BareCr,
    /// A control character in a head.
    #[error("the head has a control character")]
    Control,
    /// A header goes on in a line that begins with a blank.
    #[error("a header line is folded")]
    Folded,
    /// A header line without a token and a colon directly behind it.
    #[error("a header line does not begin with a name and a colon")]
    HeaderName,
    /// A control character in a header's value.
    #[error("a header value has a control character")]
    HeaderValue,
    /// The request line alone is longer than a head may be.
    #[error("the request line is too long")]
    LongLine,
    /// The head is longer than it may be.
    #[error("the head is too long")]
    LongHead,
    /// More than [`LINES_MAX`](super::LINES_MAX) header lines.
    #[error("there are too many header lines")]
    ManyHeaders,
    /// A `Content-Length` that is not digits, or too large a number.
    #[error("the Content-Length is not one whole number")]
    Length,
    /// Several `Content-Length`s, be they the same.
    #[error("there is more than one Content-Length")]
    Lengths,
    /// A `Transfer-Encoding` that is no list of codings, or one in which `chunked` is not last and once.
    #[error("the Transfer-Encoding is malformed")]
    Codings,
    /// A well-formed `Transfer-Encoding` other than `chunked`.
    #[error("the transfer coding is not served")]
    Coding,
    /// A `Transfer-Encoding` in HTTP/1.0, which has none.
    #[error("HTTP/1.0 has no Transfer-Encoding")]
    OldCoding,
    /// `Content-Length` and `Transfer-Encoding`: two ends for one body.
    #[error("there are both Content-Length and Transfer-Encoding")]
    LengthAndCoding,
    /// A chunk's size is not 1 to 16 hexadecimal digits.
    #[error("the size of a chunk is malformed")]
    ChunkSize,
    /// A chunk's extension has a control character, or extensions are too long.
    #[error("the extension of a chunk is malformed or too long")]
    ChunkExtension,
    /// No CR LF where a chunk has to end.
    #[error("a chunk does not end where its size says")]
    ChunkEnd,
    /// The lines behind the chunks are too long or too many.
    #[error("the trailer is too long")]
    LongTrailer,
}

impl Malformed {
    /// The status that a client gets for it.
    pub fn status(self) -> StatusCode {
        match self {
            Self::LongLine => StatusCode::URI_TOO_LONG,
            Self::LongHead | Self::ManyHeaders => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Coding => StatusCode::NOT_IMPLEMENTED,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// What a metric calls it; one of seven words.
    pub fn label(self) -> &'static str {
        match self {
            Self::RequestLine | Self::EmptyLines | Self::Method | Self::Target | Self::Fragment => {
                "request_line"
            }
            Self::LineEnd
            | Self::BareCr
            | Self::Control
            | Self::Folded
            | Self::HeaderName
            | Self::HeaderValue => "header",
            Self::Length | Self::Lengths | Self::Codings | Self::OldCoding | Self::LengthAndCoding => {
                "framing"
            }
            Self::ChunkSize | Self::ChunkExtension | Self::ChunkEnd | Self::LongTrailer => "chunk",
            Self::LongLine | Self::LongHead | Self::ManyHeaders => "too_large",
            Self::Version => "version",
            Self::Coding => "coding",
        }
    }
}
