//! The body of a client's request: read by its connection, taken by whoever serves the request.
//!
//! The connection asks [`BodyReader`] what to do with what the client sends: it judges chunks strictly before anything
//! in them is believed, and reads no faster than the body is taken. Both ends live in one task, as the connection runs
//! what serves its requests; the lock between them is never waited for.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;

use super::decoder::{self, Decoder, Piece};
use crate::body::BodyError;
use crate::framing::{Chunks, Framing, Malformed};
use crate::meters;

/// What both ends share.
#[derive(Default)]
struct Feed {
    frame: Option<Frame<Bytes>>,
    /// What is to come behind the frame, if that is known.
    left: Option<u64>,
    is_wanted: bool,
    is_over: bool,
    is_broken: bool,
    waker: Option<Waker>,
}

/// The taker's end.
pub(crate) struct Body(Arc<Mutex<Feed>>);

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut feed = self.0.lock();
        if let Some(frame) = feed.frame.take() {
            return Poll::Ready(Some(Ok(frame)));
        }
        if feed.is_broken {
            return Poll::Ready(Some(Err(BodyError::Broken)));
        }
        if feed.is_over {
            return Poll::Ready(None);
        }
        feed.is_wanted = true;
        feed.waker = Some(context.waker().clone());
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        let feed = self.0.lock();
        feed.is_over && feed.frame.is_none() && !feed.is_broken
    }

    fn size_hint(&self) -> SizeHint {
        let feed = self.0.lock();
        let held = feed.frame.as_ref().and_then(Frame::data_ref).map_or(0, |data| data.len() as u64);
        feed.left.map_or_else(SizeHint::default, |left| SizeHint::with_exact(left + held))
    }
}

/// The connection's end.
pub(crate) struct BodyReader {
    feed: Arc<Mutex<Feed>>,
    decoder: Decoder,
    /// Of a body in chunks: who judges them, and what was judged.
    chunks: Option<(Chunks, BytesMut)>,
}

impl BodyReader {
    /// Begins with a body, if there is one.
    pub(crate) fn begin(framing: Framing) -> Option<(Self, Body)> {
        let (decoder, chunks) = match framing {
            Framing::Empty | Framing::Length(0) => return None,
            Framing::Length(length) => (Decoder::Length(length), None),
            Framing::Chunked => {
                (Decoder::Chunked(decoder::Chunks::new()), Some((Chunks::default(), BytesMut::new())))
            }
        };
        let feed = Arc::new(Mutex::new(Feed { left: decoder.left(), ..Feed::default() }));
        Some((Self { feed: Arc::clone(&feed), decoder, chunks }, Body(feed)))
    }

    /// Whether somebody waits for more of it.
    pub(super) fn is_wanted(&self) -> bool {
        let feed = self.feed.lock();
        feed.is_wanted && !feed.is_over && !feed.is_broken
    }

    /// How much more is to come at least.
    pub(super) fn left(&self) -> u64 {
        self.decoder.left().unwrap_or(0)
    }

    /// Whether all of it was read.
    pub(crate) fn is_over(&self) -> bool {
        self.feed.lock().is_over
    }

    /// Whether its end can no longer be found.
    pub(crate) fn is_broken(&self) -> bool {
        self.feed.lock().is_broken
    }

    /// Hands on the next piece of what was `read`; `false`: more has to be read first.
    /// When the body is malformed, whoever takes it learns that it is broken.
    pub(crate) fn feed(&mut self, read: &mut BytesMut) -> bool {
        let piece = match self.next(read) {
            Ok(piece) => piece,
            Err(malformed) => {
                if let Some(malformed) = malformed {
                    meters::malformed(malformed.label());
                }
                self.break_off();
                return true;
            }
        };
        let mut feed = self.feed.lock();
        match piece {
            Piece::Nothing => return false,
            Piece::Data(data) => feed.frame = Some(Frame::data(data)),
            Piece::Trailers(trailers) => feed.frame = Some(Frame::trailers(trailers)),
            Piece::End => {}
        }
        feed.left = self.decoder.left();
        feed.is_over = self.decoder.is_over();
        feed.is_wanted = false;
        if let Some(waker) = feed.waker.take() {
            waker.wake();
        }
        true
    }

    /// Reads on without anybody taking it; `false`: more has to be read first.
    pub(super) fn skip(&mut self, read: &mut BytesMut) -> bool {
        let is_fed = self.feed(read);
        self.feed.lock().frame = None;
        is_fed
    }

    fn next(&mut self, read: &mut BytesMut) -> Result<Piece, Option<Malformed>> {
        let Some((chunks, judged)) = &mut self.chunks else {
            return self.decoder.take(read).map_err(|_| None);
        };
        if !read.is_empty() {
            let count = chunks.advance(read).map_err(Some)?.unwrap_or(read.len());
            judged.unsplit(read.split_to(count));
        }
        self.decoder.take(judged).map_err(|_| None)
    }

    /// The client does not send the rest.
    pub(super) fn break_off(&mut self) {
        let mut feed = self.feed.lock();
        feed.is_broken = true;
        if let Some(waker) = feed.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http_body::Body as _;
    use http_body_util::BodyExt;

    use super::*;

    /// What a taker gets of a body that comes in pieces of `size` bytes, and what is left behind it.
    fn taken(framing: Framing, text: &str, size: usize) -> (String, bool, Result<usize, BodyError>) {
        let (mut reader, mut body) = BodyReader::begin(framing).unwrap();
        let (mut read, mut pieces) = (BytesMut::new(), text.as_bytes().chunks(size));
        let (mut found, mut has_trailers) = (String::new(), false);
        loop {
            match body.frame().now_or_never() {
                None => {
                    assert!(reader.is_wanted());
                    while !reader.feed(&mut read) {
                        match pieces.next() {
                            Some(piece) => read.extend_from_slice(piece),
                            None => reader.break_off(),
                        }
                        if reader.is_broken() {
                            break;
                        }
                    }
                }
                Some(None) => {
                    assert!(reader.is_over() && body.is_end_stream());
                    return (found, has_trailers, Ok(read.len() + pieces.map(<[u8]>::len).sum::<usize>()));
                }
                Some(Some(Err(error))) => return (found, has_trailers, Err(error)),
                Some(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => found.push_str(std::str::from_utf8(&data).unwrap()),
                    Err(_) => has_trailers = true,
                },
            }
        }
    }

    #[track_caller]
    fn check(framing: Framing, text: &str, expected: (&str, bool, Result<usize, BodyError>)) {
        for size in [1, 2, 3, 7, text.len()] {
            let (found, has_trailers, end) = taken(framing, text, size);
            assert_eq!((has_trailers, end), (expected.1, expected.2), "{text} by {size}");
            // How much is seen of a body that breaks depends on when it does.
            assert!(
                if end.is_ok() { found == expected.0 } else { expected.0.starts_with(&found) },
                "{found}"
            );
        }
    }

    #[test]
    fn bodies_end_where_the_head_says() {
        check(Framing::Length(3), "abcGET", ("abc", false, Ok(3)));
        check(Framing::Chunked, "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\nGET", ("abcde", false, Ok(3)));
        check(Framing::Chunked, "1\r\na\r\n0\r\nSum: 1\r\n\r\n", ("a", true, Ok(0)));
    }

    #[test]
    fn bodies_break() {
        check(Framing::Length(3), "ab", ("ab", false, Err(BodyError::Broken)));
        check(Framing::Chunked, "3\r\nabc\r\n", ("abc", false, Err(BodyError::Broken)));
        check(Framing::Chunked, "3\r\nabcd\r\n0\r\n\r\n", ("abc", false, Err(BodyError::Broken)));
        check(Framing::Chunked, "3\nabc\r\n0\r\n\r\n", ("", false, Err(BodyError::Broken)));
    }

    #[test]
    fn what_is_not_asked_for_is_not_wanted() {
        assert!(
            BodyReader::begin(Framing::Empty).is_none() && BodyReader::begin(Framing::Length(0)).is_none()
        );
        let (mut reader, mut body) = BodyReader::begin(Framing::Length(4)).unwrap();
        assert!(!reader.is_wanted());
        assert_eq!(body.size_hint().exact(), Some(4));
        assert!(body.frame().now_or_never().is_none() && reader.is_wanted());
        assert!(reader.feed(&mut BytesMut::from("ab")) && !reader.is_wanted());
        assert_eq!(body.size_hint().exact(), Some(4));
        assert!(body.frame().now_or_never().is_some());
        assert_eq!(body.size_hint().exact(), Some(2));
    }
}
