//! HTTP/1.1 over connections that stay open: at most 64 requests in flight, each on a connection of its own.
//!
//! Requests are bytes made beforehand and one of them is chosen at random each time; answers are read just far enough
//! to check status and length. With more connections than that, every one has its turn, so that all of them are
//! alive while the number of requests at a time stays the same.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{Budget, Random};

/// Most requests at a time.
pub(crate) const IN_FLIGHT_MAX: usize = 64;
/// Length of every answer's body: the origin's.
pub(crate) const BODY_BYTES: usize = 200;
/// Longest answer, head and body.
const ANSWER_BYTES_MAX: usize = 2048;
const HEADERS_MAX: usize = 32;

/// Requests to a server.
#[derive(Clone)]
pub(crate) struct HttpLoad {
    /// The server.
    pub(crate) address: SocketAddr,
    /// What is sent, at random.
    pub(crate) requests: Arc<[Vec<u8>]>,
    /// Open connections.
    pub(crate) connections: usize,
    /// What answers have to bring.
    pub(crate) body: Body,
}

/// The body of every answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// The origin's.
    Origin,
    /// There is none.
    None,
    /// Some text.
    Some,
    /// Whatever a refusal with this status says.
    Refused(u16),
}

impl HttpLoad {
    /// Opens all connections.
    pub(super) async fn open(&self) -> anyhow::Result<HttpDriver> {
        let lane = |number: u64| Lane { connections: vec![], next: 0, random: Random::new(number) };
        let mut lanes: Vec<Lane> = (0..IN_FLIGHT_MAX.min(self.connections) as u64).map(lane).collect();
        let count = lanes.len();
        for number in 0..self.connections {
            let stream = TcpStream::connect(self.address).await.context("cannot connect")?;
            stream.set_nodelay(true)?;
            let buffer = vec![0; ANSWER_BYTES_MAX];
            lanes[number % count].connections.push(Connection { stream, buffer, body: self.body });
        }
        Ok(HttpDriver { lanes, requests: Arc::clone(&self.requests), budget: Arc::default() })
    }
}

/// Open connections.
pub(crate) struct HttpDriver {
    lanes: Vec<Lane>,
    requests: Arc<[Vec<u8>]>,
    budget: Arc<Budget>,
}

impl HttpDriver {
    pub(super) async fn run(&mut self, operations: u64) -> anyhow::Result<()> {
        self.budget.put(operations);
        let mut tasks = JoinSet::new();
        for lane in self.lanes.drain(..) {
            tasks.spawn(lane.run(Arc::clone(&self.requests), Arc::clone(&self.budget)));
        }
        while let Some(lane) = tasks.join_next().await {
            self.lanes.push(lane??);
        }
        Ok(())
    }
}

/// One request after the other, each on the next connection.
struct Lane {
    connections: Vec<Connection>,
    next: usize,
    random: Random,
}

impl Lane {
    async fn run(mut self, requests: Arc<[Vec<u8>]>, budget: Arc<Budget>) -> anyhow::Result<Self> {
        while budget.take() {
            let request = &requests[self.random.below(requests.len())];
            self.connections[self.next].exchange(request).await?;
            self.next = (self.next + 1) % self.connections.len();
        }
        Ok(self)
    }
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    body: Body,
}

impl Connection {
    async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<()> {
        self.stream.write_all(request).await.context("cannot send a request")?;
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await.context("no answer")?;
            ensure!(read > 0, "the connection was closed, or the answer is too long");
            filled += read;
            if is_answered(&self.buffer[..filled], self.body)? {
                return Ok(());
            }
        }
    }
}

/// Whether a good answer is there in full.
fn is_answered(bytes: &[u8], body: Body) -> anyhow::Result<bool> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head_bytes) = head.parse(bytes)? else { return Ok(false) };
    let expected = if let Body::Refused(status) = body { status } else { 200 };
    if head.code != Some(expected) {
        bail!("answered {:?}: {}", head.code, String::from_utf8_lossy(&bytes[head_bytes..]));
    }
    let length = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length: usize = length
        .and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok())
        .context("an answer without length")?;
    let is_good = match body {
        Body::Origin => length == BODY_BYTES,
        Body::None => length == 0,
        Body::Some | Body::Refused(_) => length > 0,
    };
    ensure!(is_good, "answered {length} bytes");
    ensure!(bytes.len() <= head_bytes + length, "more than an answer came");
    Ok(bytes.len() == head_bytes + length)
}

/// A GET of a target, as a client library would send it.
pub(crate) fn get(host: &str, target: &str) -> Vec<u8> {
    get_with(host, target, "")
}

/// The same with further header lines.
pub(crate) fn get_with(host: &str, target: &str, lines: &str) -> Vec<u8> {
    let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: weir-bench\r\nAccept: */*\r\n");
    format!("{head}{lines}\r\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: u16, length: usize, body: usize, expected: Option<bool>) {
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n");
        let answer = [head.into_bytes(), vec![b'x'; body]].concat();
        assert_eq!(is_answered(&answer, Body::Origin).ok(), expected, "{status} {length} {body}");
    }

    #[test]
    fn answers_are_checked() {
        check(200, 200, 200, Some(true));
        check(200, 200, 199, Some(false));
        check(200, 200, 201, None);
        check(200, 199, 199, None);
        check(503, 200, 200, None);
        assert_eq!(is_answered(b"HTTP/1.1 200 OK\r\nConte", Body::Origin).ok(), Some(false));
        assert!(is_answered(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Body::None).is_err());
    }
}
