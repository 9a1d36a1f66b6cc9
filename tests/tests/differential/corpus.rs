//! The corpus: requests as they should be and requests that smuggle, each with what has to come of it.
//!
//! A request stands in one line: `|` is CRLF, `{h}` the Host, `{m}` the credentials and the marker by which a request
//! is told from others, `{p}` the start of a POST, `{c}` the whole head of one whose body is chunked.
//!
//! What has to come of it stands in one line, too: what the upstream reads, bodies in brackets, or the status that
//! the gateway refuses with, and then whether a plain request behind it, the canary, passes or the connection is
//! closed; behind a refusal that says neither, both will do. ` or ` parts what may come. The tables are in the folder,
//! by theme.

mod chunks;
mod hosts;
mod lengths;
mod lines;
mod paths;
mod sound;

/// A request, and what has to come of it.
pub(crate) type Vector = (&'static [u8], &'static str);

/// The host that cases are written for; each route has its own in its place, of the same length.
pub(crate) const HOST: &str = "api.test";
/// Lets everything pass.
pub(crate) const KEY: &str = "key-of-the-test";

/// All vectors.
pub(crate) fn vectors() -> impl Iterator<Item = Vector> {
    let tables = [sound::TABLE, lengths::TABLE, chunks::TABLE, lines::TABLE, hosts::TABLE, paths::TABLE];
    tables.into_iter().flatten().copied()
}

/// A vector as bytes, its markers numbered under `name`.
pub(crate) fn render(text: &[u8], name: &str) -> Vec<u8> {
    let mut bytes = text.to_vec();
    replace(&mut bytes, "{c}", "{p}Transfer-Encoding: chunked|{m}||");
    replace(&mut bytes, "{p}", "POST /a HTTP/1.1|{h}|");
    replace(&mut bytes, "{h}", &format!("Host: {HOST}"));
    let mut number = 0;
    while let Some(at) = find(&bytes, b"{m}") {
        let mark = format!("user-key: {KEY}|x-case: {name}.{number}");
        bytes.splice(at..at + 3, mark.bytes());
        number += 1;
    }
    replace(&mut bytes, "|", "\r\n");
    bytes
}

/// What follows every case on its connection.
pub(crate) fn canary(name: &str) -> Vec<u8> {
    render(b"GET /canary HTTP/1.1|{h}|{m}||", &format!("{name}.canary"))
}

fn replace(bytes: &mut Vec<u8>, what: &str, with: &str) {
    let mut from = 0;
    while let Some(at) = find(&bytes[from..], what.as_bytes()) {
        bytes.splice(from + at..from + at + what.len(), with.bytes());
        from += at + with.len();
    }
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}
