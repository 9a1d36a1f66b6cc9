//! A way between two programs that takes its time: what goes in comes out a fixed time later, in order, and is counted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// What is read at a time.
const CHUNK_BYTES: usize = 64 << 10;
/// Chunks under way in one direction of a connection; more, and the sender waits.
const CHUNKS_MAX: usize = 1_024;

/// A running one; ended when dropped.
pub(crate) struct Delay {
    /// Where to connect instead.
    pub(crate) address: SocketAddr,
    bytes: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Delay {
    /// In front of a server, with so much of it in each direction.
    ///
    /// # Errors
    /// When there is no port.
    pub(crate) async fn start(to: SocketAddr, each_way: Duration) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let bytes = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&bytes);
        let task = tokio::spawn(async move {
            // An accept that fails ends it, and with it the connections' hope: the measurement fails then.
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(join(near, to, each_way, Arc::clone(&counted)));
            }
        });
        Ok(Self { address, bytes, task })
    }

    /// All that has gone through, both ways.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn join(near: TcpStream, to: SocketAddr, each_way: Duration, bytes: Arc<AtomicU64>) {
    let Ok(far) = TcpStream::connect(to).await else { return };
    for stream in [&near, &far] {
        // Without it only small writes are slower than they need be.
        let _ = stream.set_nodelay(true);
    }
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    tokio::join!(
        pass(near_in, far_out, each_way, Arc::clone(&bytes)),
        pass(far_in, near_out, each_way, bytes)
    );
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, later: Duration, bytes: Arc<AtomicU64>) {
    let (sender, mut under_way) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS_MAX);
    let reading = async move {
        let mut buffer = vec![0; CHUNK_BYTES];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            bytes.fetch_add(read as u64, Ordering::Relaxed);
            if sender.send((Instant::now() + later, buffer[..read].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((due, chunk)) = under_way.recv().await {
            sleep_until(due).await;
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(reading, writing);
}
