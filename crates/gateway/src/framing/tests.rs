//! Heads in short form: `|` stands for CR LF, and the empty line at the end is added.

use proptest::prelude::*;

use super::*;

/// What a head says, or why it is none.
fn read(head: &str) -> Result<Head, Malformed> {
    let bytes = format!("{head}||").replace('|', "\r\n");
    // Whatever follows is no part of it.
    let all = format!("{bytes}GET / HTTP/1.1\r\n\r\n").into_bytes();
    let length = head_length(&all, 0)?;
    assert_eq!(length, Some(bytes.len()), "{head:?}");
    inspect(bytes.as_bytes(), |_| Ok(()))
}

#[track_caller]
fn check(head: &str, expected: Framing) {
    let expected = Ok(Head { framing: expected, wishes_upgrade: false });
    assert_eq!(read(head), expected, "{head:?}");
}

#[track_caller]
fn refused(head: &str, expected: Malformed) {
    assert_eq!(read(head), Err(expected), "{head:?}");
}

#[test]
fn bodies_have_one_end() {
    check("GET / HTTP/1.1", Framing::Empty);
    check("GET / HTTP/1.0|Host: a", Framing::Empty);
    check("POST / HTTP/1.1|Content-Length: 5", Framing::Length(5));
    check("POST / HTTP/1.0|content-length:\t05 ", Framing::Length(5));
    check("POST / HTTP/1.1|CONTENT-LENGTH: 18446744073709551615", Framing::Length(u64::MAX));
    check("POST / HTTP/1.1|Transfer-Encoding: chunked", Framing::Chunked);
    check("POST / HTTP/1.1|transfer-ENCODING:CHUNKED\t", Framing::Chunked);
    check("POST / HTTP/1.1|Content-Lengths: 5|X-Transfer-Encoding: gzip", Framing::Empty);
}

#[test]
fn two_ends_are_one_too_many() {
    let post = |headers: &str, expected| refused(&format!("POST / HTTP/1.1|{headers}"), expected);
    for length in ["", "+5", "-5", "5, 5", "5,5", "5 5", "0x5", "5.", "18446744073709551616", "\u{b2}"] {
        post(&format!("Content-Length: {length}"), Malformed::Length);
    }
    post("Content-Length: 5|Content-Length: 5", Malformed::Lengths);
    post("Content-Length: 5|Host: a|content-length: 6", Malformed::Lengths);
    post("Content-Length: 5|Transfer-Encoding: chunked", Malformed::LengthAndCoding);
    post("Transfer-Encoding: chunked|Content-Length: 5", Malformed::LengthAndCoding);
    post("Transfer-Encoding: gzip|Content-Length: 5", Malformed::LengthAndCoding);
    post("Transfer-Encoding: chunked|Transfer-Encoding: chunked", Malformed::Codings);
    post("Transfer-Encoding: gzip|Transfer-Encoding: chunked", Malformed::Codings);
    refused("POST / HTTP/1.0|Transfer-Encoding: chunked", Malformed::OldCoding);
}

#[test]
fn bodies_are_chunked_or_not() {
    let post =
        |codings: &str, expected| refused(&format!("POST / HTTP/1.1|Transfer-Encoding: {codings}"), expected);
    for codings in ["gzip", "identity", "gzip, chunked", "xchunked", "gzip;q=1", "gzip ; a=b , chunked"] {
        post(codings, Malformed::Coding);
    }
    let garbage = ["", ",", "chunked,", ",chunked", "chunked, chunked", "chunked, gzip", "chunked;a=b"];
    for codings in garbage.into_iter().chain(["chun ked", "\"chunked\"", "chunked\u{a0}", "gzip,,chunked"]) {
        post(codings, Malformed::Codings);
    }
}

#[test]
fn request_lines_have_three_parts() {
    check("M-SEARCH * HTTP/1.1", Framing::Empty);
    check("GET http://a.test/?a=[b]&c='%zz\"<>\\^`{} HTTP/1.1", Framing::Empty);
    for line in ["GET", "GET /", "GET  HTTP/1.1", "GET / http/1.1", "GET / HTTPS/1.1", "GET / HTTP/1.1\t"] {
        refused(line, Malformed::RequestLine);
    }
    for version in ["HTTP/1", "HTTP/1.", "HTTP/11", "HTTP/1.10", "HTTP/+1.1", "HTTP/1.1a", "HTTP/a.1", "1.1"]
    {
        refused(&format!("GET / {version}"), Malformed::RequestLine);
    }
    for version in ["HTTP/2.0", "HTTP/0.9", "HTTP/1.2", "HTTP/1.9", "HTTP/9.9"] {
        refused(&format!("GET / {version}"), Malformed::Version);
    }
    for method in ["", "G@T", "GE(T", "G\u{c9}T", "\"GET\""] {
        refused(&format!("{method} / HTTP/1.1"), Malformed::Method);
    }
    for target in ["/a b", " /", "/ ", "/ HTTP/1.1 x", "/\ta", "/\u{e9}", "/\u{e9}?q"] {
        refused(&format!("GET {target} HTTP/1.1"), Malformed::Target);
    }
    assert!(inspect("GET /?q=\u{e9} HTTP/1.1\r\n\r\n".as_bytes(), |_| Ok(())).is_ok());
    assert_eq!(inspect(b"GET /?q=\xe9 HTTP/1.1\r\n\r\n", |_| Ok(())), Err(Malformed::Target));
    refused("GET /a#b HTTP/1.1", Malformed::Fragment);
    refused("GET /#?a=b HTTP/1.1", Malformed::Fragment);
}

#[test]
fn headers_have_a_name_and_a_value() {
    let get = |header: &str, expected| refused(&format!("GET / HTTP/1.1|Host: a|{header}"), expected);
    for header in ["no colon", "Blank : a", "Tab\t: a", ": nameless", "Na me: a", "Na\u{e9}me: a", "(a): b"] {
        get(header, Malformed::HeaderName);
    }
    get(" folded: a", Malformed::Folded);
    get("\tfolded", Malformed::Folded);
    for value in ["a\0b", "a\u{b}b", "a\u{7f}", "\u{1b}[1m"] {
        get(&format!("A: {value}"), Malformed::HeaderValue);
    }
    get("A: b\rc", Malformed::BareCr);
    get("A: b\r", Malformed::BareCr);
    get("A: b\nB: c", Malformed::LineEnd);
    refused("GET / HTTP/1.1\nHost: a", Malformed::LineEnd);
    check("GET / HTTP/1.1|!#$%&'*+-.^_`~9: a\tb \u{e9}|Empty:", Framing::Empty);
    check(&format!("GET / HTTP/1.1{}", "|A: b".repeat(LINES_MAX)), Framing::Empty);
    refused(&format!("GET / HTTP/1.1{}", "|A: b".repeat(LINES_MAX + 1)), Malformed::ManyHeaders);
}

#[test]
fn upgrades_are_wished_for() {
    let check = |version: &str, headers: &str, expected: bool| {
        let head = format!("GET / {version}|{headers}");
        assert_eq!(read(&head).unwrap().wishes_upgrade, expected, "{head}");
    };
    check("HTTP/1.1", "Connection: Upgrade|Upgrade: websocket", true);
    check("HTTP/1.1", "Upgrade: a|Connection: close|Connection: keep-alive ,\tupgrade", true);
    check("HTTP/1.1", "Connection: upgrades|Upgrade: websocket", false);
    check("HTTP/1.1", "Connection: upgrade", false);
    check("HTTP/1.1", "Upgrade: websocket", false);
    check("HTTP/1.0", "Connection: upgrade|Upgrade: websocket", false);
}

#[test]
fn one_empty_line_may_come_first() {
    check("|GET / HTTP/1.1", Framing::Empty);
    assert_eq!(head_length(b"\r\n", 0), Ok(None));
    assert_eq!(head_length(b"\r\n\r\n", 0), Err(Malformed::EmptyLines));
    assert_eq!(head_length(b"\r\n\r\n", 2), Err(Malformed::EmptyLines));
    assert_eq!(head_length(b"\n", 0), Err(Malformed::LineEnd));
}

#[test]
fn what_cannot_become_a_head_is_told_at_once() {
    for (bytes, expected) in [
        (&b"\x16\x03\x01\x02"[..], Malformed::Control),
        (b"GET / HTTP/1.1\r\nA: \0", Malformed::Control),
        (b"GET / HTTP/1.1\n", Malformed::LineEnd),
        (b"GET / HTTP/1.1\r\n\n", Malformed::LineEnd),
        (b"GET / HTTP/1.1\rA", Malformed::BareCr),
        (b"\r\r", Malformed::BareCr),
    ] {
        assert_eq!(head_length(bytes, 0), Err(expected), "{bytes:?}");
        assert_eq!(head_length(bytes, bytes.len() - 1), Err(expected), "{bytes:?}, searched but for a byte");
    }
    assert_eq!(head_length(b"GET / HTTP/1.1\r", 0), Ok(None));
    assert_eq!(head_length(b"", 0), Ok(None));
}

#[test]
fn statuses_and_labels() {
    for (malformed, status, label) in [
        (Malformed::LineEnd, 400, "header"),
        (Malformed::Fragment, 400, "request_line"),
        (Malformed::LengthAndCoding, 400, "framing"),
        (Malformed::ChunkSize, 400, "chunk"),
        (Malformed::LongLine, 414, "too_large"),
        (Malformed::LongHead, 431, "too_large"),
        (Malformed::ManyHeaders, 431, "too_large"),
        (Malformed::Coding, 501, "coding"),
        (Malformed::Version, 505, "version"),
    ] {
        assert_eq!((malformed.status().as_u16(), malformed.label()), (status, label), "{malformed}");
    }
}

/// Heads that are nearly well-formed.
fn heads() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "\r\n",
        "GET / HTTP/1.1\r\n",
        "A: b\r\n",
        "Content-Length: 5\r\n",
        "\r\n\r\n",
        "\r",
        "\n",
        " ",
        "\0",
    ]);
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    /// Where a head ends does not depend on how its bytes come.
    #[test]
    fn cuts_change_nothing(text in heads(), cut in 0_usize..60) {
        let bytes = text.as_bytes();
        let cut = cut.min(bytes.len());
        let whole = head_length(bytes, 0);
        match head_length(&bytes[..cut], 0) {
            Ok(None) => prop_assert_eq!(head_length(bytes, cut), whole),
            Ok(found) => prop_assert_eq!(whole, Ok(found)),
            // What is whole is told by the one who reads all of it.
            Err(_) => prop_assert!(whole.is_err() || inspect(bytes, |_| Ok(())).is_err(), "{whole:?}"),
        }
    }

    #[test]
    fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..60), searched in 0_usize..80) {
        let _ = head_length(&bytes, searched);
        let _ = inspect(&bytes, |_| Ok(()));
        let _ = Chunks::default().advance(&bytes);
    }
}
