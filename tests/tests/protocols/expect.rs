//! `Expect: 100-continue`: a client sends its body once the call is admitted, not before.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use weir_tests::http::read_answer;

use crate::world::{PLAIN, hits, start};

fn ask(address: SocketAddr, key: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let head = format!(
        "POST /x?user_key={key} HTTP/1.1\r\nHost: api.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn only_admitted_calls_are_told_to_go_on() {
    let stack = start(&[PLAIN], "").await;
    let address = stack.gateways[0].address;
    let mut stream = ask(address, "key");
    assert_eq!(read_answer(&mut stream, false).status, 100);
    assert_eq!(hits(&stack, "api").await, 1, "the decision came first");
    stream.write_all(b"hello").unwrap();
    let answer = read_answer(&mut stream, false);
    assert_eq!((answer.status, answer.json()["body"].as_str()), (200, Some("hello")));

    let cake = [("Expect", "a-cake")];
    assert_eq!(weir_tests::http::call(address, "GET", "/x?user_key=key", &cake, "").status, 417);

    let mut refused = ask(address, "wrong");
    let answer = read_answer(&mut refused, false);
    assert_eq!(answer.status, 403, "no 100 before it");
    assert_eq!(refused.read(&mut [0; 9]).unwrap(), 0, "the body that was not sent is not waited for");
}
