//! Whole answers, read as [`Answer`](super::super::Answer) reads them: for fuzz targets alone.

use bytes::BytesMut;
use http::{HeaderMap, Method, StatusCode};

use super::{Head, take_head};
use crate::http1::decoder::{Decoder, Malformed, Piece};

/// What was read of an answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Whole {
    /// Of its head, if there is one.
    pub head: Option<(StatusCode, HeaderMap)>,
    /// Of its body, before whatever is wrong with it.
    pub body: Vec<u8>,
    /// Behind its body.
    pub trailers: HeaderMap,
    /// Whether it came to its end.
    pub is_whole: bool,
    /// Bytes behind its end.
    pub left: usize,
}

/// Reads the answer to a request of this method; the connection ends behind these pieces.
pub fn read<'a>(method: &Method, pieces: impl IntoIterator<Item = &'a [u8]>) -> Whole {
    let mut pieces = pieces.into_iter();
    let mut whole = Whole::default();
    whole.is_whole = read_into(&mut whole, method, &mut pieces).is_ok();
    whole.left += pieces.map(<[u8]>::len).sum::<usize>();
    whole
}

fn read_into<'a>(
    whole: &mut Whole,
    method: &Method,
    pieces: &mut impl Iterator<Item = &'a [u8]>,
) -> Result<(), Malformed> {
    let mut read = BytesMut::new();
    let head = loop {
        if let Some(head) = take_head(&mut read)? {
            break head;
        }
        read.extend_from_slice(pieces.next().ok_or(Malformed)?);
    };
    let decoder = head.decoder(method)?;
    let Head { status, fields, .. } = head;
    whole.head = Some((status, fields.to_map()));
    read_body(whole, decoder, &mut read, pieces)?;
    whole.left = read.len();
    Ok(())
}

fn read_body<'a>(
    whole: &mut Whole,
    mut decoder: Decoder,
    read: &mut BytesMut,
    pieces: &mut impl Iterator<Item = &'a [u8]>,
) -> Result<(), Malformed> {
    while !decoder.is_over() {
        match decoder.take(read)? {
            Piece::Data(data) => whole.body.extend_from_slice(&data),
            Piece::Trailers(trailers) => whole.trailers = trailers,
            Piece::End => return Ok(()),
            Piece::Nothing => match pieces.next() {
                Some(piece) => read.extend_from_slice(piece),
                None => decoder.close()?,
            },
        }
    }
    Ok(())
}
