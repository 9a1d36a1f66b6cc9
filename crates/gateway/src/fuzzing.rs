//! What fuzz targets (`fuzz/`) see of the inside of this crate. Normal builds do not have it.
//!
//! Each function is as thin as can be: bytes and the pieces they come in go in, what was read comes out. What is right
//! is said in the targets.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::stream::iter;
use http::HeaderMap;
use http::request::Parts;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::AsyncReadExt;
use tokio::runtime::Runtime;
use tokio_util::io::StreamReader;
use weir_core::arguments::{self, Arguments};
use weir_core::{CredentialKind, Credentials, Proxy, extract};

use crate::fields::Fields;
use crate::http1::{Body, BodyReader, Found, HeadReader};
use crate::message::RequestHead;
use crate::{form, headers, proxy_protocol};

pub use crate::oidc::fuzzing::{key_set, token};
pub use crate::upstream::answers;

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// More may come.
    Open,
    /// A head was malformed.
    Refused,
    /// A body was malformed.
    Broken,
}

/// The methods of the requests that come in these pieces, with the bodies as far as they are there.
pub fn requests(pieces: &[&[u8]], head_bytes_max: usize) -> (Vec<(String, Vec<u8>)>, End) {
    let reader = HeadReader::new(BytesMut::new(), head_bytes_max);
    let mut client = Client { reader, incoming: None, requests: Vec::new() };
    for piece in pieces {
        client.reader.held.extend_from_slice(piece);
        loop {
            match client.step() {
                Ok(true) => {}
                Ok(false) => break,
                Err(end) => return (client.requests, end),
            }
        }
    }
    (client.requests, End::Open)
}

struct Client {
    reader: HeadReader,
    incoming: Option<(BodyReader, Body)>,
    requests: Vec<(String, Vec<u8>)>,
}

impl Client {
    /// Whether there was something to do.
    fn step(&mut self) -> Result<bool, End> {
        let Some((incoming, body)) = &mut self.incoming else {
            return match self.reader.take_head() {
                None => Ok(false),
                Some(Found::Malformed(..)) => Err(End::Refused),
                Some(Found::Request(request, head)) => {
                    self.requests.push((request.method.to_string(), Vec::new()));
                    self.incoming = BodyReader::begin(head.framing);
                    Ok(true)
                }
            };
        };
        if !incoming.feed(&mut self.reader.held) {
            return Ok(false);
        }
        if let Some(Some(Ok(frame))) = body.frame().now_or_never()
            && let (Ok(data), Some((_, read))) = (frame.into_data(), self.requests.last_mut())
        {
            read.extend_from_slice(&data);
        }
        if incoming.is_broken() {
            return Err(End::Broken);
        }
        if incoming.is_over() {
            self.incoming = None;
        }
        Ok(true)
    }
}

/// The credentials of a request, as `extract.rs` finds them.
pub fn credentials(
    kind: CredentialKind,
    proxy: &Proxy,
    headers: &HeaderMap,
    query: &str,
    form: &[u8],
) -> Option<Credentials> {
    let fields = Fields::from(headers);
    extract::credentials(kind, proxy, fields.iter(), Arguments { query, form }).ok()
}

/// The last value of an argument, as mapping rules get it.
pub fn last_argument(query: &str, form: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    Arguments { query, form }.last(name)
}

/// A query or form without the arguments of these names; `None`: it has none of them.
pub fn without(text: &[u8], names: &[&str]) -> Option<Vec<u8>> {
    arguments::without(text, names)
}

/// Takes credentials out of headers.
pub fn strip_credentials(headers: &mut HeaderMap, proxy: &Proxy) {
    let mut fields = Fields::from(&*headers);
    headers::strip_credentials(&mut fields, proxy);
    *headers = fields.to_map();
}

/// What is read ahead of a body, and whether it is a whole form.
///
/// # Panics
/// When the system gives no runtime.
pub fn read_form(head: &Parts, pieces: &[&[u8]]) -> (Vec<u8>, bool) {
    thread_local! {
        static RUNTIME: Runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    }
    let frames = pieces.iter().map(|piece| Ok::<_, io::Error>(Frame::data(Bytes::copy_from_slice(piece))));
    let mut body = StreamBody::new(iter(frames));
    if !form::is_expected(&RequestHead::from(head), &body) {
        return (Vec::new(), false);
    }
    let ahead = form::read_ahead(&mut body, Duration::from_secs(1));
    let ahead = RUNTIME.with(|runtime| runtime.block_on(ahead)).expect("the body is there");
    assert_eq!(ahead.form(), if ahead.is_form { &ahead.bytes[..] } else { b"" });
    (ahead.bytes.into(), ahead.is_form)
}

/// The client's address in a PROXY header, and how many bytes are behind it; `None`: there is no header.
pub fn proxy_header(pieces: &[&[u8]]) -> Option<(Option<IpAddr>, usize)> {
    let pieces = pieces.iter().map(|piece| Ok::<_, io::Error>(Bytes::copy_from_slice(piece)));
    let mut stream = StreamReader::new(iter(pieces));
    let read = async {
        let address = proxy_protocol::read(&mut stream).await.ok()?;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.ok()?;
        Some((address, rest.len()))
    };
    read.now_or_never().flatten()
}
