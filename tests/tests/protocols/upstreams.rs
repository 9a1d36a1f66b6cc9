//! Connections to upstreams: TLS under an authority of one's own, reuse, bounds.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio_stream::wrappers::TcpListenerStream;
use tonic::Request;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use weir_tests::certificates::Authority;
use weir_tests::http::{self, Answer};
use weir_tests::stack::Stack;
use weir_tests::wait::until;

use crate::world::{Api, PLAIN, hits, start};

fn get(stack: &Stack, service: &str) -> Answer {
    let host = format!("{service}.test");
    http::call(stack.gateways[0].address, "GET", "/?user_key=key", &[("host", &host)], "")
}

/// The value of a metric of the first gateway, whose line begins so.
fn metric(stack: &Stack, line: &str) -> f64 {
    let body = http::get(stack.gateways[0].telemetry, "/metrics").body;
    let values = body.lines().filter(|text| text.starts_with(line));
    values.filter_map(|text| text.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// How many connections were taken, and how many are over.
#[derive(Default)]
struct Count {
    taken: AtomicUsize,
    over: AtomicUsize,
}

/// Serves HTTP/1 in threads; perhaps closes each connection behind an answer that does not say so.
fn plain_upstream(closes_silently: bool) -> (SocketAddr, Arc<Count>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(Count::default());
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            counted.taken.fetch_add(1, Ordering::SeqCst);
            let counted = Arc::clone(&counted);
            std::thread::spawn(move || {
                answer_all(stream, closes_silently);
                counted.over.fetch_add(1, Ordering::SeqCst);
            });
        }
    });
    (address, count)
}

fn answer_all(stream: TcpStream, closes_silently: bool) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            if stream.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
        }
        let answer =
            "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
        if stream.get_mut().write_all(answer.as_bytes()).is_err() || closes_silently {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_reused() {
    let (kept, kept_count) = plain_upstream(false);
    let (closing, closing_count) = plain_upstream(true);
    let (kept, closing) = (format!("http://{kept}"), format!("http://{closing}/base"));
    let stack = start(
        &[
            Api { id: "kept", backend: &kept, ..PLAIN },
            Api { id: "same", backend: &kept, ..PLAIN },
            Api { id: "closing", backend: &closing, ..PLAIN },
        ],
        "workers = 1",
    )
    .await;
    for _ in 0..10 {
        assert_eq!((get(&stack, "kept").status, get(&stack, "same").body.as_str()), (200, "hi"));
    }
    assert_eq!(
        kept_count.taken.load(Ordering::SeqCst),
        1,
        "services that share an upstream share connections"
    );
    let idle = format!("weir_gateway_upstream_idle{{upstream=\"{kept}\"}}");
    assert_eq!(metric(&stack, &idle), 1.0);
    until("idle connections are closed", || (metric(&stack, &idle) == 0.0).then_some(()));
    assert_eq!(get(&stack, "kept").status, 200);
    assert_eq!(kept_count.taken.load(Ordering::SeqCst), 2);

    for count in 1..=5 {
        let answer = get(&stack, "closing");
        assert_eq!((answer.status, answer.body.as_str()), (200, "hi"));
        // The closing is with the gateway before the next request: nothing is sent into it.
        until("the connection is closed", || {
            (closing_count.over.load(Ordering::SeqCst) == count).then_some(())
        });
    }
    assert_eq!(metric(&stack, "weir_gateway_upstream_connects_total{"), 7.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_requests_for_one_upstream_are_refused_uncounted() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let backend = format!("http://{}", listener.local_addr().unwrap());
    let limits = "[limits]\nupstream_in_flight_max = 1\nupstream_waiting_max = 1\n";
    let stack = Arc::new(start(&[Api { backend: &backend, ..PLAIN }], limits).await);
    let ask = || {
        let stack = Arc::clone(&stack);
        std::thread::spawn(move || get(&stack, "api"))
    };
    let first = ask();
    let (mut upstream, _) = listener.accept().unwrap();
    let second = ask();
    until("one waits", || (metric(&stack, "weir_gateway_upstream_waiting{") == 1.0).then_some(()));
    let refused = get(&stack, "api");
    assert_eq!((refused.status, refused.header("retry-after").as_str()), (503, "1"), "{refused:?}");

    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi";
    upstream.write_all(answer).unwrap();
    assert_eq!(first.join().unwrap().status, 200);
    let (mut upstream, _) = listener.accept().unwrap();
    let mut head = [0; 4];
    upstream.read_exact(&mut head).unwrap();
    upstream.write_all(answer).unwrap();
    assert_eq!(second.join().unwrap().status, 200);
    until("nothing is in flight", || {
        (metric(&stack, "weir_gateway_upstream_in_flight{") == 0.0).then_some(())
    });
    let taken_back = || async { (hits(&stack, "api").await == 2).then_some(()) };
    weir_tests::wait::until_async("the refused one is taken back", taken_back).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upstreams_are_verified() {
    let (ours, other) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, ours.pem()).unwrap();
    let trusted = grpc_upstream(&ours).await;
    let strange = grpc_upstream(&other).await;
    let (trusted, strange) =
        (format!("https://localhost:{}", trusted.port()), format!("https://localhost:{}", strange.port()));
    let proxy = "credentials_location = \"headers\"\nhost_rewrite = \"inner.test\"";
    let stack = start(
        &[
            Api { backend: &trusted, proxy, ..PLAIN },
            Api { id: "strange", backend: &strange, proxy, ..PLAIN },
        ],
        &format!("upstream_ca_file = \"{}\"", ca_file.display()),
    )
    .await;
    let ask = async |service: &str| {
        let origin: tonic::transport::Uri = format!("http://{service}.test").parse().unwrap();
        let url = format!("http://{}", stack.gateways[0].address);
        let channel = tonic::transport::Endpoint::from_shared(url).unwrap().origin(origin.clone());
        let mut request = Request::new(HealthCheckRequest { service: "api".into() });
        request.metadata_mut().insert("user_key", "key".parse().unwrap());
        HealthClient::with_origin(channel.connect_lazy(), origin).check(request).await
    };
    assert_eq!(ask("api").await.unwrap().into_inner().status, 1);
    assert_eq!(ask("strange").await.unwrap_err().code(), tonic::Code::Unavailable);

    // tonic speaks HTTP/2 alone: whoever comes with HTTP/1 finds TLS working, and no agreement.
    let host = ("host", "strange.test");
    let answer = http::call(stack.gateways[0].address, "GET", "/", &[host, ("user_key", "key")], "");
    assert_eq!(answer.status, 502, "{answer:?}");
}

/// A health service over TLS, as tonic has it.
async fn grpc_upstream(authority: &Authority) -> SocketAddr {
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter.set_service_status("api", ServingStatus::Serving).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let certificate = authority.issue("localhost");
    let identity = Identity::from_pem(certificate.pem, certificate.key_pem);
    let tls = ServerTlsConfig::new().identity(identity);
    let server = Server::builder().tls_config(tls).unwrap().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}
