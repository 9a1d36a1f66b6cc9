//! The HTTP port beneath its API: TLS, certificates of callers, and a stop while an answer is in work.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use weir_tests::certificates::{Authority, Certificate};
use weir_tests::http::{call, read_answer};
use weir_tests::stack::{Plan, Stack, catalog};
use weir_tests::wait::until;

/// The service that all share, with a token for the API.
fn open_catalog() -> String {
    catalog(1, "")
        .replace("credentials = \"user_key\"", "credentials = \"user_key\"\nservice_tokens = [\"token\"]")
}

const AUTHREP: &str =
    "/transactions/authrep.xml?service_token=token&service_id=api&user_key=key&usage[hits]=1";

fn put(dir: &Path, name: &str, text: &str) -> String {
    std::fs::write(dir.join(name), text).unwrap();
    dir.join(name).display().to_string()
}

async fn start(dir: &Path, authority: &Authority, more: &str) -> Stack {
    let server = authority.issue("listener.test");
    let (certificate, key) = (put(dir, "server.pem", &server.pem), put(dir, "server.key", &server.key_pem));
    let listener_tables =
        format!("[http_tls]\ncertificate_file = \"{certificate}\"\nkey_file = \"{key}\"\n{more}");
    Stack::start(&Plan { gateways: 0, listener_tables, ..Plan::small(&open_catalog()) }).await
}

/// The first line of the answer to an authrep over TLS.
fn authrep(address: SocketAddr, authority: &Authority, shown: Option<&Certificate>) -> io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match shown {
        None => config.with_no_client_auth(),
        Some(Certificate { pem, key_pem }) => {
            let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).unwrap();
            config.with_client_auth_cert(vec![certificate], key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = "listener.test".try_into().unwrap();
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(15)))?;
    let mut stream = StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream);
    write!(stream, "GET {AUTHREP} HTTP/1.1\r\nHost: listener.test\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_port_speaks_tls_and_nothing_else() {
    let (dir, ours) = (tempfile::tempdir().unwrap(), Authority::new());
    let stack = start(dir.path(), &ours, "").await;
    let address = stack.listeners[0].http.unwrap();
    assert_eq!(authrep(address, &ours, None).unwrap(), "HTTP/1.1 200 OK");
    let stranger = authrep(address, &Authority::new(), None).unwrap_err();
    assert!(stranger.to_string().contains("certificate"), "{stranger}");
    assert_eq!(call(address, "GET", AUTHREP, &[], "").status, 0, "it answers in the clear");
    stack.counter_settles_at("app", "hits", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_may_have_to_show_a_certificate() {
    let (dir, ours, theirs) = (tempfile::tempdir().unwrap(), Authority::new(), Authority::new());
    let authority = put(dir.path(), "ca.pem", &ours.pem());
    let stack = start(dir.path(), &ours, &format!("client_ca_file = \"{authority}\"")).await;
    let address = stack.listeners[0].http.unwrap();
    let [known, stranger] = [&ours, &theirs].map(|issuer| issuer.issue("caller.test"));
    assert_eq!(authrep(address, &ours, Some(&known)).unwrap(), "HTTP/1.1 200 OK");
    assert!(authrep(address, &ours, Some(&stranger)).is_err());
    assert!(authrep(address, &ours, None).is_err());
    stack.counter_settles_at("app", "hits", 1).await;
}

/// Goal: a stop cuts no answer off, and waits for nobody who asks nothing. Method: a report of which a half has arrived
/// when the listener is told to stop; that it is in work shows by the interim answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_what_is_in_work_end() {
    let mut stack = Stack::start(&Plan { gateways: 0, ..Plan::small(&open_catalog()) }).await;
    let address = stack.listeners[0].http.unwrap();
    let connect = || {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        stream
    };
    let mut idle = connect();
    write!(idle, "GET {AUTHREP} HTTP/1.1\r\nHost: api.test\r\n\r\n").unwrap();
    assert_eq!(read_answer(&mut idle, false).status, 200);

    let mut busy = connect();
    let body =
        "service_token=token&service_id=api&transactions[0][user_key]=key&transactions[0][usage][hits]=4";
    let (head, tail) = body.split_at(40);
    let length = body.len();
    write!(
        busy,
        "POST /transactions.xml HTTP/1.1\r\nHost: api.test\r\nContent-Length: {length}\r\n\
         Expect: 100-continue\r\n\r\n"
    )
    .unwrap();
    assert_eq!(read_answer(&mut busy, false).status, 100);
    busy.write_all(head.as_bytes()).unwrap();

    stack.listeners[0].signal("TERM");
    until("the port to be closed", || TcpStream::connect(address).err());
    assert_eq!(idle.read(&mut [0]).unwrap(), 0, "nothing is asked there");
    busy.write_all(tail.as_bytes()).unwrap();
    assert_eq!(read_answer(&mut busy, false).status, 202);
    assert!(stack.listeners[0].wait_stopped().success());
    stack.listeners[0].start();
    stack.counter_settles_at("app", "hits", 5).await;
}
