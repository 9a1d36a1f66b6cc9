//! The answer to a request over HTTP/1: how its head is written, and how its body is framed for this client.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use http::header::{CONTENT_LENGTH, DATE};
use http::{Method, StatusCode, Version};
use http_body::Body;

use super::transfer::{Framing, Transfer, TransferError, write_field};
use crate::body::ReplyBody;
use crate::connection::ClientStream;
use crate::fields::Fields;
use crate::headers::{names_option, takes_trailers};
use crate::message::{Reply, RequestHead};

/// About as long as a head with a short body is.
const HEAD_BYTES: usize = 1024;

/// What a request says about how it is to be answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// Whether another request may follow.
    pub(super) keeps: bool,
    is_http_10: bool,
    is_for_head: bool,
    takes_trailers: bool,
}

impl Terms {
    pub(super) fn of(request: &RequestHead, may_keep: bool) -> Self {
        let is_http_10 = request.version == Version::HTTP_10;
        let headers = &request.fields;
        let keeps =
            if is_http_10 { names_option(headers, "keep-alive") } else { !names_option(headers, "close") };
        Self {
            keeps: keeps && may_keep,
            is_http_10,
            is_for_head: request.method == Method::HEAD,
            takes_trailers: !is_http_10 && takes_trailers(request.version, headers),
        }
    }
}

/// An answer on its way.
pub(super) struct Sending {
    transfer: Transfer<ReplyBody>,
    keeps: bool,
}

impl Sending {
    pub(super) fn new(reply: Reply<ReplyBody>, terms: Terms) -> Self {
        let Reply { status, fields, body } = reply;
        let framing = framing(status, &body, terms);
        let keeps = terms.keeps && framing != Some(Framing::UntilClose);
        let mut head = BytesMut::with_capacity(HEAD_BYTES);
        write_status(status, terms.is_http_10, &mut head);
        write_headers(&fields, framing, terms, &mut head);
        if terms.is_for_head && !fields.has(CONTENT_LENGTH) {
            // As long as it would be.
            if let Some(length @ 1..) = body.size_hint().exact() {
                write_length(length, &mut head);
            }
        }
        match (keeps, terms.is_http_10) {
            (false, _) if status != StatusCode::SWITCHING_PROTOCOLS => {
                write_field("connection", b"close", &mut head);
            }
            (true, true) => write_field("connection", b"keep-alive", &mut head),
            _ => {}
        }
        head.extend_from_slice(b"\r\n");
        let transfer = match framing {
            Some(framing) => Transfer::new(head, Some(body), framing, terms.takes_trailers),
            None => Transfer::new(head, None, Framing::Length(0), false),
        };
        Self { transfer, keeps }
    }

    /// Whether the client was told that another request may follow.
    pub(super) fn keeps(&self) -> bool {
        self.keeps
    }

    /// Sends what can be sent; ready when all is.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        stream: &mut ClientStream,
    ) -> Poll<io::Result<()>> {
        self.transfer.poll(context, stream).map_err(|error| match error {
            TransferError::Closed(problem) => problem,
            TransferError::Body(problem) => io::Error::other(problem),
        })
    }
}

/// How the client knows where the body ends; `None`: there is none, whatever the headers say.
fn framing(status: StatusCode, body: &ReplyBody, terms: Terms) -> Option<Framing> {
    let has_none = terms.is_for_head
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    match body.size_hint().exact() {
        _ if has_none => None,
        Some(length) => Some(Framing::Length(length)),
        None if terms.is_http_10 => Some(Framing::UntilClose),
        None => Some(Framing::Chunked),
    }
}

fn write_status(status: StatusCode, is_http_10: bool, head: &mut BytesMut) {
    let version = if is_http_10 { "HTTP/1.0 " } else { "HTTP/1.1 " };
    for part in [version, status.as_str(), " ", status.canonical_reason().unwrap_or_default(), "\r\n"] {
        head.extend_from_slice(part.as_bytes());
    }
}

fn write_headers(headers: &Fields, framing: Option<Framing>, terms: Terms, head: &mut BytesMut) {
    // Of an answer to HEAD it says how long the body would be.
    headers.write(head, |name| terms.is_for_head || name != b"content-length");
    match framing {
        Some(Framing::Length(length)) => write_length(length, head),
        Some(Framing::Chunked) => write_field("transfer-encoding", b"chunked", head),
        Some(Framing::UntilClose) | None => {}
    }
    if !headers.has(DATE) {
        write_date(head);
    }
}

fn write_length(length: u64, head: &mut BytesMut) {
    // A buffer takes whatever is written.
    let _ = write!(head, "{CONTENT_LENGTH}: {length}\r\n");
}

thread_local! {
    /// The last date that was written, and its second.
    static WRITTEN: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

fn write_date(head: &mut BytesMut) {
    let second = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    WRITTEN.with_borrow_mut(|(at, text)| {
        if *at != second {
            *at = second;
            *text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
        }
        write_field(DATE.as_str(), text.as_bytes(), head);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{Request, Response};

    /// The head of an answer to a request, without its date.
    fn head(request: http::request::Builder, reply: http::response::Builder, body: &'static str) -> String {
        let request = request.body(()).unwrap().into_parts().0;
        let reply = reply.header("date", "today").body(ReplyBody::text(body)).unwrap();
        let mut sending = Sending::new(reply.into(), Terms::of(&RequestHead::from(&request), true));
        let bytes = sending.transfer.take_buffer();
        let text = std::str::from_utf8(&bytes).unwrap();
        text.replace("date: today\r\n", "").replace("\r\n", "|")
    }

    #[test]
    fn answers_are_framed_for_their_client() {
        let ok = || Response::builder();
        let get = || Request::get("/");
        assert_eq!(head(get(), ok(), "abc"), "HTTP/1.1 200 OK|content-length: 3||");
        assert_eq!(
            head(get(), ok().header("content-length", 3), "abc"),
            "HTTP/1.1 200 OK|content-length: 3||"
        );
        assert_eq!(
            head(Request::head("/"), ok().header("content-length", 9), ""),
            "HTTP/1.1 200 OK|content-length: 9||"
        );
        assert_eq!(head(get(), ok().status(204), ""), "HTTP/1.1 204 No Content||");
        assert_eq!(head(get(), ok().status(299), ""), "HTTP/1.1 299 |content-length: 0||");
    }

    #[test]
    fn connections_are_kept_as_the_client_says() {
        let with = |version, option: &str| {
            let request = Request::get("/").version(version).header("connection", option);
            head(request, Response::builder(), "")
        };
        assert_eq!(
            with(Version::HTTP_11, "foo, Close"),
            "HTTP/1.1 200 OK|content-length: 0|connection: close||"
        );
        assert_eq!(with(Version::HTTP_11, "foo"), "HTTP/1.1 200 OK|content-length: 0||");
        assert_eq!(with(Version::HTTP_10, "foo"), "HTTP/1.0 200 OK|content-length: 0|connection: close||");
        assert_eq!(
            with(Version::HTTP_10, "Keep-Alive"),
            "HTTP/1.0 200 OK|content-length: 0|connection: keep-alive||"
        );
    }

    #[test]
    fn answers_have_a_date() {
        let mut head = BytesMut::new();
        write_date(&mut head);
        write_date(&mut head);
        let text = std::str::from_utf8(&head).unwrap();
        assert!(text.starts_with("date: ") && text.ends_with(" GMT\r\n") && text.len() == 2 * 37, "{text}");
    }
}
