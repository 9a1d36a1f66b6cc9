//! A plain HTTP client: sends what it is told byte for byte, reads what comes back.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(15);

/// An answer.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// 0 when the connection was closed without one.
    pub status: u16,
    /// In the order they came, names as sent.
    pub headers: Vec<(String, String)>,
    /// De-chunked.
    pub body: String,
}

impl Answer {
    /// The values of a header, joined; empty when absent.
    pub fn header(&self, name: &str) -> String {
        let values = self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        values.map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }
}

/// Makes a request with a `Host` of `api.test` unless the headers name one, on a connection of its own.
///
/// # Panics
/// When nobody listens.
pub fn call(address: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut head = format!("{method} {target} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head += "Host: api.test\r\n";
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("transfer-encoding")) {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    raw(address, &format!("{head}Connection: close\r\n\r\n{body}"))
}

/// A GET without further headers.
pub fn get(address: SocketAddr, target: &str) -> Answer {
    call(address, "GET", target, &[], "")
}

/// Sends these bytes and reads one answer.
///
/// # Panics
/// When nobody listens.
pub fn raw(address: SocketAddr, bytes: &str) -> Answer {
    let mut stream = TcpStream::connect(address).expect("somebody listens");
    stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    // A server may refuse before it has read everything.
    let _ = stream.write_all(bytes.as_bytes());
    read_answer(&mut stream, bytes.starts_with("HEAD "))
}

/// Reads one answer from a connection.
pub fn read_answer(stream: &mut TcpStream, to_head: bool) -> Answer {
    let mut bytes = Vec::new();
    let Some(end) = read_until(stream, &mut bytes, |bytes| find(bytes, b"\r\n\r\n")) else {
        return Answer::default();
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|n| n.parse().ok());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    let mut answer = Answer { status: status.unwrap_or_default(), headers, body: String::new() };
    let rest = bytes.split_off(end + 4);
    let bodiless = to_head || matches!(answer.status, 100..=199 | 204 | 304);
    if !bodiless {
        answer.body = String::from_utf8_lossy(&read_body(stream, &answer, rest)).into_owned();
    }
    answer
}

fn read_body(stream: &mut TcpStream, answer: &Answer, mut bytes: Vec<u8>) -> Vec<u8> {
    if answer.header("transfer-encoding").contains("chunked") {
        let end = read_until(stream, &mut bytes, |bytes| find(bytes, b"0\r\n\r\n"));
        bytes.truncate(end.map_or(bytes.len(), |end| end + 5));
        return dechunk(&bytes);
    }
    match answer.header("content-length").parse::<usize>() {
        Ok(length) => {
            read_until(stream, &mut bytes, |bytes| (bytes.len() >= length).then_some(length));
            bytes.truncate(length);
        }
        Err(_) => {
            read_until(stream, &mut bytes, |_| None);
        }
    }
    bytes
}

fn read_until(
    stream: &mut TcpStream,
    bytes: &mut Vec<u8>,
    done: impl Fn(&[u8]) -> Option<usize>,
) -> Option<usize> {
    let mut buffer = [0; 16 << 10];
    loop {
        if let Some(found) = done(bytes) {
            return Some(found);
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

fn dechunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = find(bytes, b"\r\n") {
        let size = std::str::from_utf8(&bytes[..end]).ok().and_then(|text| {
            usize::from_str_radix(text.split(';').next().unwrap_or_default().trim(), 16).ok()
        });
        let (Some(size @ 1..), true) = (size, bytes.len() >= end + 2) else { break };
        let start = end + 2;
        body.extend_from_slice(&bytes[start..bytes.len().min(start + size)]);
        bytes = &bytes[bytes.len().min(start + size + 2)..];
    }
    body
}
