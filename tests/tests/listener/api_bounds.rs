//! What is too much, or nonsense, for 3scale's API: refused with the documented error, in bounded time and memory.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use weir_tests::http::{raw, read_answer};
use weir_tests::management_api::{ask, outcome, report, start, usage};
use weir_tests::stack::Plan;

/// Longest that anything refused may take, on a busy machine too.
const LONG: Duration = Duration::from_secs(5);
/// Most memory that a listener may have taken when it has refused all this.
const MEMORY_BYTES_MAX: u64 = 256 << 20;

/// Of `name` and ascending numbers: `name0]=1&name1]=1…`.
fn many(name: &str, count: usize) -> String {
    (0..count).map(|number| format!("{name}{number}]=1")).collect::<Vec<_>>().join("&")
}

#[tokio::test]
async fn too_much() {
    let (stack, address) = start(Plan::small("")).await;
    let usage_of =
        |count| format!("transactions[0][app_id]=open&{}", many("transactions[0][usage][m", count));
    let long = |bytes: usize| format!("transactions[0][app_id]=open&x={}", "y".repeat(bytes));
    let deep = format!("transactions{}=1", "[a]".repeat(200_000));
    for (form, expected) in [
        (usage_of(1_000_000), "400 bad_request"),
        (usage_of(5_000), "400 bad_request"),
        (usage_of(4_094), "202"),
        (long(5_000_000), "400 bad_request"),
        (deep, "400 bad_request"),
        (format!("{}&a=%", many("transactions[", 4_000)), "400 bad_request"),
        (many("transactions[0][usage][", 4_000), "202"),
        (many("a[][b", 4_000), "400 transactions_is_blank"),
        (many("a[b][c][d][e][", 4_000), "400 transactions_is_blank"),
        ((0..3_000).map(|n| format!("a{n}[b][c][d]=1&")).collect(), "400 bad_request"),
        ("transactions[0][usage][hits]=1&".repeat(4_000), "202"),
    ] {
        let began = Instant::now();
        let answer = report(address, &form, &[]);
        assert_eq!(outcome(&answer), expected, "{} bytes: {:.60}", form.len(), form);
        assert!(began.elapsed() < LONG, "{:?} for {:.60}", began.elapsed(), form);
    }
    let (began, named) = (Instant::now(), many("usage[m", 4_000));
    assert_eq!(
        outcome(&ask(address, "authorize", &format!("app_id=open&{named}"), "")),
        "404 metric_invalid"
    );
    assert!(began.elapsed() < LONG);
    assert_eq!(ask(address, "authorize", &format!("app_id={}", "a".repeat(70_000)), "").status, 414);
    assert!(stack.listeners[0].memory_peak_bytes() < MEMORY_BYTES_MAX);
    assert_eq!(usage(&ask(address, "authorize", "app_id=open", ""), "hits", "eternity"), "0/10");
}

#[tokio::test]
async fn who_only_says_that_much_will_come_is_in_nobodys_way() {
    let (stack, address) = start(Plan::small("")).await;
    let head = "POST /transactions.xml HTTP/1.1\r\nHost: l\r\nContent-Length: 4194304\r\n\r\n";
    let mut silent: Vec<TcpStream> = (0..128).map(|_| begun(address, head)).collect();
    assert_eq!(report(address, "transactions[0][app_id]=open", &[]).status, 202);
    // Those that send most of it take up what room there is, and no more.
    let mut half = head.to_owned();
    half.extend(std::iter::repeat_n('x', 3 << 20));
    let mut full: Vec<TcpStream> = (0..24).map(|_| begun(address, &half)).collect();
    let (busy, waiting): (Vec<u16>, Vec<u16>) = full
        .iter_mut()
        .chain(&mut silent)
        .map(|stream| read_answer(stream, false).status)
        .partition(|status| *status == 503);
    assert!((1..=24).contains(&busy.len()), "{} without room", busy.len());
    assert!(waiting.iter().all(|status| *status == 408), "{waiting:?}");
    assert_eq!(report(address, "transactions[0][app_id]=open", &[]).status, 202);
    assert!(stack.listeners[0].memory_peak_bytes() < MEMORY_BYTES_MAX);
}

fn begun(address: SocketAddr, head: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("somebody listens");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    stream.write_all(head.as_bytes()).expect("it is read");
    stream
}

#[tokio::test]
async fn nonsense() {
    let (_stack, address) = start(Plan::small("")).await;
    for (request, statuses) in [
        ("GET /transactions/authrep.xml?a=\x01 HTTP/1.1\r\nHost: l\r\n\r\n", &[400][..]),
        ("GET  HTTP/1.1\r\n\r\n", &[400]),
        ("\x16\x03\x01\x02\x00\x01\x00\x01", &[400, 0]),
        ("POST /transactions.xml HTTP/1.1\r\nHost: l\r\nContent-Length: x\r\n\r\n", &[400]),
        (
            "POST /transactions.xml HTTP/1.1\r\nHost: l\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            &[400, 403],
        ),
        ("POST /transactions.xml HTTP/1.1\r\nHost: l\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", &[400]),
    ] {
        let status = raw(address, request).status;
        assert!(statuses.contains(&status), "{request:?}: {status}");
    }
    let mut broken = begun(
        address,
        "POST /transactions.xml HTTP/1.1\r\nHost: l\r\nContent-Length: 50\r\n\r\nprovider_key=",
    );
    broken.shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    let _ = broken.read_to_end(&mut rest);
    assert!(!String::from_utf8_lossy(&rest).contains(" 202 "), "half a report is none");
    assert_eq!(ask(address, "authorize", "app_id=open", "").status, 200);
}
