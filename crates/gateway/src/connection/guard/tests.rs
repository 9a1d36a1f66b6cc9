//! A guard between a client whose bytes come in pieces and a hyper that reads all it gets.

use proptest::prelude::*;

use super::*;

const HEAD_BYTES_MAX: usize = 200;
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello";
const CHUNKED: &str = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nGET\r\n0\r\nA: b\r\n\r\n";
const UPGRADE: &str = "GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n";

/// What hyper reads of a malformed request.
fn instead(method: &str) -> String {
    format!("{method} / HTTP/1.1\r\nhost: -\r\nconnection: close\r\n\r\n")
}

fn read_held(guard: &mut Guard, seen: &mut Vec<u8>) {
    let mut bytes = [0; 7];
    let mut buffer = ReadBuf::new(&mut bytes);
    while guard.give(&mut buffer) {
        seen.extend_from_slice(buffer.filled());
        buffer.clear();
    }
}

/// What hyper reads when these pieces come.
fn read<'a>(guard: &mut Guard, pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut seen = Vec::new();
    for piece in pieces {
        read_held(guard, &mut seen);
        if guard.next() == Next::Read {
            let count = guard.take(piece);
            seen.extend_from_slice(&piece[..count]);
        }
    }
    read_held(guard, &mut seen);
    String::from_utf8(seen).unwrap()
}

fn guard() -> Guard {
    Guard::new(HEAD_BYTES_MAX)
}

/// However the client's bytes come, hyper reads these and is to do that then.
#[track_caller]
fn check(sent: &str, expected: &str, then: Next) {
    let mut whole = guard();
    assert_eq!(read(&mut whole, [sent.as_bytes()]), expected, "{sent:?}");
    assert_eq!(whole.next(), then, "{sent:?}");
    let mut bytewise = guard();
    assert_eq!(read(&mut bytewise, sent.as_bytes().chunks(1)), expected, "byte by byte: {sent:?}");
    assert_eq!(bytewise.next(), then, "byte by byte: {sent:?}");
}

/// After so many good requests one is malformed.
#[track_caller]
fn refused(good: &str, count: usize, bad: &str, method: &str, expected: Malformed) {
    let sent = format!("{good}{bad}");
    check(&sent, &format!("{good}{}", instead(method)), Next::Wait);
    let mut guard = guard();
    read(&mut guard, [sent.as_bytes()]);
    for _ in 0..count {
        assert_eq!(guard.requests.begin(), None, "{sent:?}");
    }
    assert_eq!(guard.requests.begin(), Some(expected), "{sent:?}");
    assert_eq!(guard.requests.begin(), None, "{sent:?}");
}

#[test]
fn good_requests_pass_as_they_are() {
    for sent in
        [GET, POST, CHUNKED, "HEAD / HTTP/1.0\r\n\r\n", "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n"]
    {
        check(sent, sent, Next::Read);
        check(&format!("\r\n{sent}"), &format!("\r\n{sent}"), Next::Read);
    }
    let all = [GET, POST, "\r\n", CHUNKED, GET, CHUNKED, POST].concat();
    check(&all, &all, Next::Read);
    check(&format!("{all}GET / HT"), &all, Next::Read);
}

#[test]
fn malformed_heads_are_replaced() {
    refused("", 0, "GET /#a HTTP/1.1\r\n\r\n", "GET", Malformed::Fragment);
    refused("", 0, "HEAD / HTTP/1.1\r\nA : b\r\n\r\n", "HEAD", Malformed::HeaderName);
    refused("", 0, "\r\nHEAD / HTTP/1.1\nHost: a\r\n\r\n", "HEAD", Malformed::LineEnd);
    refused("", 0, "CONNECT a:1 HTTP/2.0\r\n\r\n", "-", Malformed::Version);
    refused("", 0, "G@T / HTTP/1.1\r\n\r\n", "-", Malformed::Method);
    refused("", 0, "\x16\x03\x01", "-", Malformed::Control);
    let good = [GET, CHUNKED, POST].concat();
    refused(&good, 3, "GET / HTTP/1.1\r\n folded\r\n\r\n", "GET", Malformed::Folded);
    let hidden = format!("POST / HTTP/1.1\r\nContent-Length: 1, 2\r\n\r\n{GET}{GET}");
    refused(&good, 3, &hidden, "POST", Malformed::Length);
    let twice = "POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    refused(GET, 1, twice, "POST", Malformed::LengthAndCoding);
}

#[test]
fn heads_are_bounded() {
    let line = |bytes: usize| format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(bytes - 18));
    check(&line(HEAD_BYTES_MAX), &line(HEAD_BYTES_MAX), Next::Read);
    refused("", 0, &line(HEAD_BYTES_MAX + 3), "GET", Malformed::LongLine);
    refused(GET, 1, &"x".repeat(HEAD_BYTES_MAX + 1), "-", Malformed::LongLine);
    let header = |bytes: usize| format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(bytes - 23));
    check(&header(HEAD_BYTES_MAX), &header(HEAD_BYTES_MAX), Next::Read);
    refused(GET, 1, &header(HEAD_BYTES_MAX + 1), "GET", Malformed::LongHead);
}

#[test]
fn malformed_bodies_are_told_behind_what_was_good() {
    let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    check(&format!("{GET}{head}x\r\n"), &format!("{GET}{head}"), Next::Fail(Malformed::ChunkSize));
    let mut guard = guard();
    assert_eq!(
        read(&mut guard, [head.as_bytes(), b"1\r\na\r\n", b"1\r\nab\r\n"]),
        format!("{head}1\r\na\r\n")
    );
    assert_eq!(guard.next(), Next::Fail(Malformed::ChunkEnd));
    assert_eq!(read(&mut guard, [GET.as_bytes()]), "");
}

#[test]
fn what_follows_a_wish_to_upgrade_waits_for_the_answer() {
    let mut plain = guard();
    let sent = format!("{UPGRADE}{GET}");
    assert_eq!(read(&mut plain, [sent.as_bytes()]), UPGRADE);
    assert!(plain.keeps_end());
    plain.requests.decide();
    assert_eq!(read(&mut plain, [POST.as_bytes()]), format!("{GET}{POST}"));

    let mut upgraded = guard();
    assert_eq!(read(&mut upgraded, [format!("{UPGRADE}early").as_bytes()]), UPGRADE);
    assert_eq!(read(&mut upgraded, [&b" words\n"[..]]), "");
    upgraded.requests.upgrade();
    upgraded.requests.decide();
    assert_eq!(read(&mut upgraded, [&b"\0#"[..]]), "early words\n\0#");
    assert!(upgraded.held().is_empty());
}

#[test]
fn only_the_answer_to_the_wish_decides() {
    let mut guard = guard();
    assert_eq!(read(&mut guard, [format!("{GET}{UPGRADE}early").as_bytes()]), format!("{GET}{UPGRADE}"));
    guard.requests.decide();
    assert_eq!(read(&mut guard, [&b"!"[..]]), "");
    guard.requests.upgrade();
    guard.requests.decide();
    assert_eq!(read(&mut guard, []), "early!");
}

#[test]
fn a_wish_with_a_body_is_decided_behind_it() {
    let body = "Content-Length: 3\r\n\r\nabc";
    let wish = format!("POST / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: a\r\n{body}");
    let mut late = guard();
    assert_eq!(read(&mut late, [format!("{wish}{GET}").as_bytes()]), wish);
    late.requests.decide();
    assert_eq!(read(&mut late, []), GET);
    let mut early = guard();
    let (half, rest) = wish.split_at(wish.len() - 1);
    assert_eq!(read(&mut early, [half.as_bytes()]), half);
    early.requests.decide();
    assert_eq!(read(&mut early, [format!("{rest}{GET}").as_bytes()]), format!("{rest}{GET}"));
}

#[test]
fn waiting_for_an_answer_is_bounded() {
    let mut guard = guard();
    read(&mut guard, [UPGRADE.as_bytes(), &[b'x'; HEAD_BYTES_MAX - 1]]);
    assert_eq!(guard.next(), Next::Read);
    read(&mut guard, [&b"x"[..]]);
    assert_eq!(guard.next(), Next::Wait);
    guard.requests.upgrade();
    guard.requests.decide();
    assert_eq!(read(&mut guard, []).len(), HEAD_BYTES_MAX);
    assert_eq!(guard.next(), Next::Read);
}

#[test]
fn a_begun_head_is_known() {
    let mut guard = guard();
    for (piece, is_begun) in
        [(GET, false), ("\r", false), ("\n", false), ("G", true), (&GET[1..5], true), (&GET[5..], false)]
    {
        read(&mut guard, [piece.as_bytes()]);
        assert_eq!(guard.requests.is_head_begun(), is_begun, "{piece:?}");
    }
}

#[test]
fn an_open_guard_lets_everything_pass() {
    let mut guard = guard();
    guard.hold(b"PRI * HT");
    guard.open();
    assert_eq!(read(&mut guard, [&b"TP/2.0\0"[..]]), "PRI * HTTP/2.0\0");
}

proptest! {
    #[test]
    fn cuts_change_nothing(
        parts in prop::collection::vec(
            prop::sample::select(vec![GET, POST, CHUNKED, "\r\n", "GET / HTTP/1.1\r\n", "5\r\n", "a: b\n", "#"]),
            0..6,
        ),
        size in 1_usize..50,
    ) {
        let sent = parts.concat();
        let (mut whole, mut cut) = (guard(), guard());
        let expected = read(&mut whole, [sent.as_bytes()]);
        prop_assert_eq!(read(&mut cut, sent.as_bytes().chunks(size)), expected);
        prop_assert_eq!(cut.is_over(), whole.is_over());
    }
}
