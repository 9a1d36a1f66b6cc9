//! The upstream behind every proxy: keeps what it receives, byte for byte and as it reads it, and answers 200.
//!
//! It reads by the [reference](crate::reference) alone. At the first irregularity it notes it and closes. An answer
//! has the marker of its request, so that the client sees which one it belongs to.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::reference::{self, Reading, Request};

/// Longest request that is taken.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// Something that a proxy sent.
#[derive(Debug)]
pub(crate) struct Record {
    /// As it came.
    pub(crate) raw: Vec<u8>,
    pub(crate) what: What,
}

/// How it read.
#[derive(Debug)]
pub(crate) enum What {
    Whole(Request),
    /// The connection ended in the middle of it.
    Partial(Option<Request>),
    Irregular(&'static str),
}

/// A running upstream; ended when dropped.
pub(crate) struct Recorder {
    address: SocketAddr,
    records: Arc<Mutex<Vec<Record>>>,
    _stop: DropGuard,
}

impl Recorder {
    /// Starts one on a free port of loopback.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let records = Arc::<Mutex<Vec<Record>>>::default();
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(accept(listener, Arc::clone(&records))));
        Self { address, records, _stop: stop.drop_guard() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What came since this was last asked.
    pub(crate) fn take(&self) -> Vec<Record> {
        std::mem::take(&mut self.records.lock().unwrap())
    }
}

async fn accept(listener: TcpListener, records: Arc<Mutex<Vec<Record>>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(serve(stream, Arc::clone(&records)));
    }
}

async fn serve(mut stream: TcpStream, records: Arc<Mutex<Vec<Record>>>) {
    let mut bytes = Vec::new();
    let note = |raw, what| records.lock().unwrap().push(Record { raw, what });
    loop {
        let partial = match reference::read(&bytes) {
            Reading::Whole(request, length) => {
                let answer = answer_to(&request);
                note(bytes.drain(..length).collect(), What::Whole(request));
                // Whether anybody still listens is seen at the next read.
                let _ = stream.write_all(answer.as_bytes()).await;
                continue;
            }
            Reading::Partial(_) if bytes.len() > REQUEST_BYTES_MAX => {
                return note(bytes, What::Irregular("a request that is too long"));
            }
            Reading::Partial(partial) => partial,
            Reading::Irregular(why, _) => return note(bytes, What::Irregular(why)),
        };
        match stream.read_buf(&mut bytes).await {
            Ok(1..) => {}
            Ok(0) | Err(_) if bytes.is_empty() => return,
            Ok(0) | Err(_) => return note(bytes, What::Partial(partial)),
        }
    }
}

fn answer_to(request: &Request) -> String {
    let marker = request.values("x-case").last().filter(|marker| marker.iter().all(u8::is_ascii_graphic));
    let marker = String::from_utf8_lossy(marker.unwrap_or_default());
    let body = if request.method == "HEAD" { "" } else { "read\n" };
    format!("HTTP/1.1 200 OK\r\nX-Case: {marker}\r\nContent-Length: 5\r\n\r\n{body}")
}
