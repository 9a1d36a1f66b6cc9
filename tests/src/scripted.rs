//! An upstream that does just what a test tells it, byte by byte: early answers, late ones, broken ones.
//!
//! Each connection carries one request: its head is read, then the script has the connection, then it is closed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A connection whose request head has been read.
pub struct Exchange {
    /// Request line and headers.
    pub head: String,
    stream: BufReader<TcpStream>,
}

impl Exchange {
    /// Sends bytes now. Errors are the gateway's business.
    pub fn send(&mut self, text: &str) {
        let _ = self.stream.get_mut().write_all(text.as_bytes());
    }

    /// Reads a piece of the body as it comes, framing included; empty at its end.
    pub fn receive(&mut self) -> Vec<u8> {
        let mut buffer = vec![0; 64 << 10];
        let count = self.stream.read(&mut buffer).unwrap_or_default();
        buffer.truncate(count);
        buffer
    }
}

/// A running upstream; takes no more connections when dropped.
pub struct Scripted {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
}

impl Scripted {
    /// Starts one on a free port of loopback.
    ///
    /// # Panics
    /// When there is none.
    pub fn start(script: impl Fn(Exchange) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound address");
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let script = Arc::new(script);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let script = Arc::clone(&script);
                std::thread::spawn(move || {
                    if let Some(exchange) = begin(stream) {
                        script(exchange);
                    }
                });
            }
        });
        Self { address, is_over }
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

fn begin(stream: TcpStream) -> Option<Exchange> {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    Some(Exchange { head, stream })
}
