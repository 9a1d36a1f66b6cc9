//! What comes before HTTP: who is connected, and two processes on one port.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use weir_tests::http::{get, raw, read_answer};
use weir_tests::process::Process;
use weir_tests::stack::TOKEN;
use weir_tests::wait::{free_port, until};

use crate::world::{PLAIN, start};

const GET: &str = "GET /x?user_key=key HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn balancers_say_for_whom_they_connect() {
    let lines = "proxy_protocol_from = [\"127.0.0.0/8\"]\n[limits]\nhead_timeout_ms = 500";
    let stack = start(&[PLAIN], lines).await;
    let address = stack.gateways[0].address;
    let seen = |header: &[u8]| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let _ = stream.write_all(&[header, GET.as_bytes()].concat());
        let answer = read_answer(&mut stream, false);
        if answer.status == 0 {
            return String::new();
        }
        let headers = answer.json()["headers"].clone();
        let real = headers.as_array().unwrap().iter().find(|pair| pair[0] == "x-real-ip").unwrap().clone();
        real[1].as_str().unwrap().to_owned()
    };
    assert_eq!(seen(b"PROXY TCP4 192.0.2.7 192.0.2.1 5000 80\r\n"), "192.0.2.7");
    assert_eq!(seen(b"PROXY UNKNOWN\r\n"), "127.0.0.1");
    let binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x08\xc0\0\x02\x01\0\x50\0\x51";
    assert_eq!(seen(binary), "192.0.2.8");
    assert_eq!(seen(b""), "", "a balancer has to say it");
    assert_eq!(seen(b"PROXY TCP4 nonsense\r\n"), "");
    let mut silent = TcpStream::connect(address).unwrap();
    silent.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    silent.write_all(b"PROXY TCP4 1").unwrap();
    assert_eq!(silent.read(&mut [0; 9]).unwrap(), 0, "who does not go on is left");
}

/// Who is no balancer may not say it.
#[tokio::test(flavor = "multi_thread")]
async fn others_speak_for_themselves() {
    let stack = start(&[PLAIN], "proxy_protocol_from = \"10.0.0.0/8\"").await;
    let address = stack.gateways[0].address;
    assert_eq!(raw(address, GET).status, 200);
    assert_eq!(raw(address, &format!("PROXY TCP4 192.0.2.7 192.0.2.1 5000 80\r\n{GET}")).status, 400);
}

/// Goal: a new process takes over a port that is never closed. Method: a second gateway on the port, then the first
/// is told to stop.
#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_share_a_port() {
    let mut stack = start(&[PLAIN], "reuse_port = true").await;
    let (address, listener) = (stack.gateways[0].address, stack.listeners[0].address);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("second.toml");
    let telemetry = format!("127.0.0.1:{}", free_port());
    let text = format!(
        "address = \"{address}\"\ntelemetry_address = \"{telemetry}\"\nlisteners = [\"http://{listener}\"]\n\
         token = \"{TOKEN}\"\nreuse_port = true\n"
    );
    std::fs::write(&file, text).unwrap();
    let second = Process::start(&["gateway", "--config", file.to_str().unwrap()], &dir.path().join("log"));
    let telemetry = telemetry.parse().unwrap();
    until("the second gateway", || {
        (TcpStream::connect(telemetry).is_ok() && get(telemetry, "/readyz").status == 200).then_some(())
    });
    assert!(stack.gateways[0].terminate().success());
    for _ in 0..20 {
        assert_eq!(raw(address, GET).status, 200, "{}", second.log());
    }
}
