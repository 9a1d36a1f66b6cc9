//! Waiting for something to become true, with an end.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Longest wait for anything in a test.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where ports are taken from: below those that the system gives to outgoing connections, so that a role finds its
/// port free when it is started again.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// How many ports this process has tried.
static TRIED: AtomicU32 = AtomicU32::new(0);

/// A port of loopback that nobody listened on a moment ago, and that this process gave to nobody.
///
/// # Panics
/// When there is none.
pub fn free_port() -> u16 {
    let count = u32::from(PORTS.end - PORTS.start);
    // Test programs that run side by side begin at different places.
    let begin = std::process::id().wrapping_mul(1_009);
    let mut ports = (0..count).map(|_| {
        let place = begin.wrapping_add(TRIED.fetch_add(1, Ordering::Relaxed)) % count;
        PORTS.start + u16::try_from(place).expect("a place in the range")
    });
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    ports.find(is_free).expect("loopback has a free port")
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

/// Seconds since 1970 by this machine's clock.
///
/// # Panics
/// When the clock is before that.
pub fn unix_s() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("it is later than 1970")
        .as_secs()
}
