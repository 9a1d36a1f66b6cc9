//! What fuzz targets (`fuzz/`) see of the inside of this crate. Normal builds do not have it.
//!
//! Each function is as thin as can be: bytes and the pieces they come in go in, what was read comes out. What is right
//! is said in the targets.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream::iter;
use http::HeaderMap;
use http::request::Parts;
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::io::{AsyncReadExt, ReadBuf};
use tokio::runtime::Runtime;
use tokio_util::io::StreamReader;
use weir_core::{CredentialKind, Credentials, Proxy};

use crate::arguments::Arguments;
use crate::connection::guard::{Guard, Next};
use crate::framing::Malformed;
use crate::{arguments, extract, form, headers, proxy_protocol};

pub use crate::upstream::answers;

/// What hyper gets to read of a client that sends these pieces and is granted no upgrade, and what is wrong with a body
/// in it.
pub fn guard(pieces: &[&[u8]], head_bytes_max: usize) -> (Vec<u8>, Option<Malformed>) {
    let (mut guard, mut read) = (Guard::new(head_bytes_max), Vec::new());
    for piece in pieces {
        // Whatever it asks is answered before the next request comes; no request is shorter than a byte.
        piece.iter().for_each(|_| guard.requests().decide());
        give(&mut guard, &mut read);
        if guard.next() == Next::Read {
            let count = guard.take(piece);
            read.extend_from_slice(&piece[..count]);
        }
    }
    give(&mut guard, &mut read);
    match guard.next() {
        Next::Fail(malformed) => (read, Some(malformed)),
        Next::Read | Next::Wait => (read, None),
    }
}

fn give(guard: &mut Guard, read: &mut Vec<u8>) {
    let mut bytes = [0; 64];
    let mut buffer = ReadBuf::new(&mut bytes);
    while guard.give(&mut buffer) {
        read.extend_from_slice(buffer.filled());
        buffer.clear();
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
    extract::credentials(kind, proxy, headers, Arguments { query, form }).ok()
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
    headers::strip_credentials(headers, proxy);
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
    let ahead = form::read_ahead(head, &mut body, Duration::from_secs(1));
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
