//! The API behind all proxies: the same 200 bytes for every request, as cheaply as it goes.
//!
//! It runs in the suite's own thread, beside the generator, so that while a turn keeps that thread awake neither of
//! them has to be woken by the server under test.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::load::http::BODY_BYTES;

/// Longest run of requests read at once.
const READ_BYTES: usize = 8 << 10;

/// A running origin; takes no more connections once dropped.
pub(crate) struct Origin {
    /// Where it answers.
    pub(crate) address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Origin {
    /// Binds a port and answers from now on.
    ///
    /// # Errors
    /// When there is no port.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind(crate::server::free_address()?).await?;
        let address = listener.local_addr()?;
        Ok(Self { address, accepting: tokio::spawn(accept(listener)) })
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener) {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {BODY_BYTES}\r\n\r\n");
    let answer: &'static [u8] = [head.into_bytes(), vec![b'x'; BODY_BYTES]].concat().leak();
    while let Ok((stream, _)) = listener.accept().await {
        // A proxy that closes its connection ends this task, nothing else.
        tokio::spawn(async move { converse(stream, answer).await });
    }
}

/// Requests come without bodies, so each ends with its head.
async fn converse(mut stream: TcpStream, answer: &[u8]) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; READ_BYTES];
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        let heads = buffer[..filled].windows(4).enumerate().filter(|(_, bytes)| bytes == b"\r\n\r\n");
        let ends: Vec<usize> = heads.map(|(at, _)| at + 4).collect();
        for _ in &ends {
            stream.write_all(answer).await?;
        }
        let end = ends.last().copied().unwrap_or(0);
        buffer.copy_within(end..filled, 0);
        filled -= end;
    }
}
