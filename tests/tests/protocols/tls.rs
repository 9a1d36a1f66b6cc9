//! TLS towards clients: names pick certificates, files may change, the rest is as without.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use weir_tests::certificates::{Authority, Certificate};
use weir_tests::http::get;
use weir_tests::process::weir;
use weir_tests::stack::Stack;
use weir_tests::wait::{free_port, until, until_async};

use crate::world::{Http2, PLAIN, start};

/// A gateway with TLS, and where its certificates are.
struct Secure {
    stack: Stack,
    authority: Authority,
    folder: tempfile::TempDir,
    address: SocketAddr,
}

fn put(folder: &Path, name: &str, certificate: &Certificate) {
    std::fs::write(folder.join(format!("{name}.key")), &certificate.key_pem).unwrap();
    std::fs::write(folder.join(format!("{name}.pem")), &certificate.pem).unwrap();
}

fn table(folder: &Path, address: SocketAddr, names: &[&str]) -> String {
    let folder = folder.display();
    let pair = |name: &&str| {
        format!("{{ certificate_file = \"{folder}/{name}.pem\", key_file = \"{folder}/{name}.key\" }}")
    };
    let pairs: Vec<String> = names.iter().map(pair).collect();
    format!(
        "[tls]\naddress = \"{address}\"\nhandshake_timeout_ms = 500\ncertificates = [{}]\n",
        pairs.join(", ")
    )
}

impl Secure {
    async fn start() -> Self {
        let authority = Authority::new();
        let folder = tempfile::tempdir().unwrap();
        for (file, name) in [("first", "first.test"), ("api", "api.test"), ("wild", "*.wild.test")] {
            put(folder.path(), file, &authority.issue(name));
        }
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let stack = start(&[PLAIN], &table(folder.path(), address, &["first", "api", "wild"])).await;
        Self { stack, authority, folder, address }
    }

    async fn connect(
        &self,
        name: &str,
        alpn: &[&str],
        versions: &[&'static SupportedProtocolVersion],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        connect(self.address, &self.authority, name, alpn, versions).await
    }
}

async fn connect(
    address: SocketAddr,
    authority: &Authority,
    name: &str,
    alpn: &[&str],
    versions: &[&'static SupportedProtocolVersion],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let tcp = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(name.to_owned()).unwrap(), tcp).await
}

fn shown(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

fn der(certificate: &Certificate) -> Vec<u8> {
    CertificateDer::from_pem_slice(certificate.pem.as_bytes()).unwrap().to_vec()
}

async fn http1(mut stream: TlsStream<TcpStream>) -> String {
    let request = b"GET /x?user_key=key HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn names_pick_certificates_and_both_protocols_are_spoken() {
    let secure = Secure::start().await;
    for name in ["first.test", "api.test", "a.wild.test", "API.test"] {
        let stream = secure.connect(name, &[], rustls::ALL_VERSIONS).await;
        assert!(stream.is_ok(), "{name}: {stream:?}");
    }
    for name in ["a.b.wild.test", "wild.test", "other.test"] {
        let error = secure.connect(name, &[], rustls::ALL_VERSIONS).await.unwrap_err().to_string();
        assert!(error.contains("first.test"), "the first certificate is for all others: {error}");
    }
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let stream = secure.connect("api.test", &["http/1.1"], &[version]).await.unwrap();
        let answer = http1(stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.contains(r#"["x-forwarded-proto","https"]"#), "{answer}");
        let stream = secure.connect("api.test", &["h2", "http/1.1"], &[version]).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let answer = Http2::over(stream).await.get("https://api.test/x?user_key=key").await;
        assert_eq!((answer.status, answer.seen("x-forwarded-proto").as_str()), (200, "https"));
    }
    let mut silent = TcpStream::connect(secure.address).await.unwrap();
    assert_eq!(silent.read(&mut [0; 9]).await.unwrap(), 0, "who does not shake hands is left");
    until("the bound to be counted", || {
        let metrics = get(secure.stack.gateways[0].telemetry, "/metrics").body;
        let line = metrics.lines().find(|line| line.contains("{bound=\"handshake_timeout_ms\"}"))?;
        (!line.ends_with(" 0")).then_some(())
    });
    let mut plain = TcpStream::connect(secure.address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/"));
}

/// Goal: a new certificate is taken without a failed connection, a bad one is not taken.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_change_while_connections_come() {
    let secure = Arc::new(Secure::start().await);
    let (is_over, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let load = tokio::spawn({
        let (secure, is_over, served) = (Arc::clone(&secure), Arc::clone(&is_over), Arc::clone(&served));
        async move {
            while !is_over.load(Ordering::SeqCst) {
                let stream = secure.connect("api.test", &["http/1.1"], rustls::ALL_VERSIONS).await.unwrap();
                assert!(http1(stream).await.starts_with("HTTP/1.1 200 "));
                served.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let is_shown = async |wanted: &Certificate| {
        let stream = secure.connect("api.test", &[], rustls::ALL_VERSIONS).await.unwrap();
        (shown(&stream) == der(wanted)).then_some(())
    };
    let first = secure.authority.issue("api.test");
    for _ in 0..2 {
        let next = secure.authority.issue("api.test");
        put(secure.folder.path(), "api", &next);
        until_async("the new certificate", || is_shown(&next)).await;
    }
    let good = secure.authority.issue("api.test");
    put(secure.folder.path(), "api", &good);
    until_async("the new certificate", || is_shown(&good)).await;
    let before = secure.stack.gateways[0].log().matches("the old one stays").count();
    std::fs::write(secure.folder.path().join("api.key"), &first.key_pem).unwrap();
    until("the fault to be logged", || {
        let count = secure.stack.gateways[0].log().matches("the old one stays").count();
        (count > before).then_some(())
    });
    assert_eq!(is_shown(&good).await, Some(()));
    let so_far = served.load(Ordering::SeqCst);
    until("further connections", || (served.load(Ordering::SeqCst) > so_far + 3).then_some(()));
    is_over.store(true, Ordering::SeqCst);
    load.await.unwrap();
}

#[test]
fn weir_check_names_the_key_at_fault() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    put(folder.path(), "good", &authority.issue("good.test"));
    put(folder.path(), "mixed", &authority.issue("mixed.test"));
    std::fs::copy(folder.path().join("good.key"), folder.path().join("mixed.key")).unwrap();
    std::fs::write(folder.path().join("empty.pem"), "").unwrap();
    let check = |names: &[&str]| {
        let file = folder.path().join("gateway.toml");
        let tls = table(folder.path(), address, names);
        std::fs::write(&file, format!("listeners = [\"http://l:1\"]\ntoken = \"t\"\n{tls}")).unwrap();
        let output = weir(&["check", file.to_str().unwrap()]);
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(check(&["good"]), "");
    for (name, problem) in [
        ("mixed", "does not fit the certificate"),
        ("missing", "cannot be read: No such file"),
        ("empty", "it holds no certificate"),
    ] {
        let found = check(&["good", name]);
        assert!(found.contains("gateway.toml:6:") && found.contains(problem), "{name}: {found}");
    }
    assert!(check(&[]).contains("gateway.toml:3:2: tls.certificates is missing or empty"));
}
