//! Waiting for something to become true, with an end.

use std::time::{Duration, Instant};

/// Longest wait for anything in a test.
const PATIENCE: Duration = Duration::from_secs(30);

/// A port of loopback that nobody listened on a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("loopback has a free port")
        .port()
}

/// Asks again every 10 ms until `probe` gives something.
///
/// # Panics
/// When it does not within 30 seconds.
#[track_caller]
pub fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// As [`until`], for probes that wait themselves.
///
/// # Panics
/// When it does not within 30 seconds.
pub async fn until_async<T, F: Future<Output = Option<T>>>(what: &str, mut probe: impl FnMut() -> F) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
