//! Connections of the HTTP port.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_util::sync::CancellationToken;

use super::route;
use crate::config::ServerTls;
use crate::server::Shared;

/// Most connections at a time; further ones wait to be accepted.
const CONNECTIONS_MAX: u32 = 4_096;
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest head of a request; a target alone may have 64 KiB.
const HEAD_BYTES_MAX: usize = 128 << 10;

/// What the port proves itself with.
#[derive(Clone)]
pub(crate) struct Tls(TlsAcceptor);

impl Tls {
    /// From certificate and key.
    ///
    /// # Errors
    /// When they cannot be used.
    pub(crate) fn new(config: &ServerTls) -> Result<Self, rustls::Error> {
        let unusable = |what: &str| rustls::Error::General(format!("the {what} is not PEM"));
        let certificates = |pem| CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
        let chain = certificates(&config.certificate_pem).map_err(|_| unusable("certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(config.key_pem.expose().as_bytes());
        let provider = Arc::new(ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions()?;
        let builder = match &config.client_ca_pem {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add_parsable_certificates(certificates(pem).map_err(|_| unusable("authority"))?);
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder
                    .with_client_cert_verifier(verifier.map_err(|e| rustls::Error::General(e.to_string()))?)
            }
        };
        let mut server = builder.with_single_cert(chain, key.map_err(|_| unusable("key"))?)?;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(TlsAcceptor::from(Arc::new(server))))
    }
}

/// Serves until stopped, and until what is in work then has ended.
pub(crate) async fn serve(listener: TcpListener, tls: Option<Tls>, shared: Arc<Shared>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX as usize));
    shared.stop.run_until_cancelled(accept(&listener, &room, tls, &shared)).await;
    drop(listener);
    // Each connection gives its place back when it ends.
    let _ = room.acquire_many(CONNECTIONS_MAX).await;
}

async fn accept(listener: &TcpListener, room: &Arc<Semaphore>, tls: Option<Tls>, shared: &Arc<Shared>) {
    loop {
        let Ok(place) = Arc::clone(room).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: accepting again at once would only spin.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (tls, shared) = (tls.clone(), Arc::clone(shared));
        tokio::spawn(async move {
            // A client that breaks off is its own affair.
            let _ = serve_stream(stream, tls, shared).await;
            drop(place);
        });
    }
}

async fn serve_stream(stream: TcpStream, tls: Option<Tls>, shared: Arc<Shared>) -> io::Result<()> {
    // An answer in two pieces would wait for the acknowledgement of the first.
    stream.set_nodelay(true)?;
    match tls {
        None => serve_connection(stream, shared).await,
        Some(Tls(acceptor)) => {
            let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream));
            let Some(stream) = shared.stop.run_until_cancelled(handshake).await else { return Ok(()) };
            serve_connection(stream??, shared).await;
        }
    }
    Ok(())
}

async fn serve_connection(stream: impl AsyncRead + AsyncWrite + Unpin, shared: Arc<Shared>) {
    let stop: CancellationToken = shared.stop.clone();
    let answer = async |request| Ok::<_, Infallible>(route(&shared, request).await);
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service_fn(answer));
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => {}
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}
