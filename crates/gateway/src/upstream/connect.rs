//! Opens connections to upstreams: name, address, TCP, TLS.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::UpstreamError;
use super::url::Origin;
use crate::config::{CertificateFiles, UpstreamIdentity};
use crate::socket::Socket;
use crate::tls::CertificateError;

/// What bytes to and from an upstream go over.
pub(crate) type Stream = Socket<TlsStream<TcpStream>>;

/// Which HTTP a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

impl Protocol {
    /// As TLS names it.
    fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }
}

/// Why TLS towards upstreams cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The library does not take the settings.
    #[error("TLS cannot be set up")]
    Settings(#[from] rustls::Error),
    /// The certificate to be shown cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The file of authorities cannot be used.
    #[error("{path} has no certificate of an authority that can be used")]
    Authorities {
        /// As configured.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
}

/// Opens connections.
pub(crate) struct Connector {
    http1: TlsConnector,
    http2: TlsConnector,
}

impl Connector {
    /// Trusts the public authorities, and those of a PEM file.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub(crate) fn new(authorities: Option<&PathBuf>) -> Result<Self, TlsError> {
        let mut roots = public_authorities();
        if let Some(path) = authorities {
            add_authorities(&mut roots, path)?;
        }
        Self::trusting(&roots, None)
    }

    /// Shows a certificate, and trusts authorities of its own, where those are given.
    ///
    /// # Errors
    /// When a file cannot be used.
    pub(crate) fn of_identity(
        files: &UpstreamIdentity,
        authorities: Option<&PathBuf>,
    ) -> Result<Self, TlsError> {
        let mut roots = match &files.ca_file {
            Some(path) => {
                let mut roots = RootCertStore::empty();
                add_authorities(&mut roots, path)?;
                roots
            }
            None => public_authorities(),
        };
        if let (Some(path), None) = (authorities, &files.ca_file) {
            add_authorities(&mut roots, path)?;
        }
        let key = files.certificate.as_ref().map(CertificateFiles::load).transpose()?;
        Self::trusting(&roots, key)
    }

    fn trusting(roots: &RootCertStore, key: Option<CertifiedKey>) -> Result<Self, TlsError> {
        let key = key.map(|key| Arc::new(SingleCertAndKey::from(key)));
        let config = |protocol: Protocol| {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config =
                ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
            let config = config.with_root_certificates(roots.clone());
            let mut config = match &key {
                Some(key) => config.with_client_cert_resolver(Arc::<SingleCertAndKey>::clone(key)),
                None => config.with_no_client_auth(),
            };
            config.alpn_protocols = vec![protocol.alpn().to_vec()];
            Ok::<_, rustls::Error>(TlsConnector::from(Arc::new(config)))
        };
        Ok(Self { http1: config(Protocol::Http1)?, http2: config(Protocol::Http2)? })
    }

    /// Connects, giving up after a time that covers name, address and TLS together.
    ///
    /// # Errors
    /// What failed.
    pub(crate) async fn connect(
        &self,
        origin: &Origin,
        protocol: Protocol,
        within: Duration,
    ) -> Result<Stream, UpstreamError> {
        let deadline = Instant::now() + within;
        timeout_at(deadline, self.connect_by(origin, protocol, deadline))
            .await
            .unwrap_or(Err(UpstreamError::Timeout))
    }

    async fn connect_by(
        &self,
        origin: &Origin,
        protocol: Protocol,
        deadline: Instant,
    ) -> Result<Stream, UpstreamError> {
        self.connect_at(origin, &Self::addresses(origin).await?, protocol, deadline).await
    }

    /// The same at addresses that are known; nothing ends it but what fails.
    ///
    /// # Errors
    /// What failed.
    pub(crate) async fn connect_at(
        &self,
        origin: &Origin,
        addresses: &[SocketAddr],
        protocol: Protocol,
        deadline: Instant,
    ) -> Result<Stream, UpstreamError> {
        let tcp = open(addresses, deadline).await.map_err(|problem| match problem.kind() {
            io::ErrorKind::TimedOut => UpstreamError::Timeout,
            _ => UpstreamError::NoConnection,
        })?;
        tcp.set_nodelay(true).map_err(|_| UpstreamError::NoConnection)?;
        if !origin.is_tls {
            return Ok(Socket::Plain(tcp));
        }
        let name = ServerName::try_from(origin.host.clone()).map_err(|_| UpstreamError::NoAddress)?;
        let connector = match protocol {
            Protocol::Http1 => &self.http1,
            Protocol::Http2 => &self.http2,
        };
        let tls = connector.connect(name, tcp).await.map_err(|_| UpstreamError::NoConnection)?;
        if protocol == Protocol::Http2 && tls.get_ref().1.alpn_protocol() != Some(protocol.alpn()) {
            return Err(UpstreamError::BadAnswer);
        }
        Ok(Socket::Tls(Box::new(tls)))
    }

    /// Where an origin is; at least one.
    ///
    /// # Errors
    /// When it has no address.
    pub(crate) async fn addresses(origin: &Origin) -> Result<Vec<SocketAddr>, UpstreamError> {
        if let Ok(address) = origin.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, origin.port)]);
        }
        let found = lookup_host((origin.host.as_str(), origin.port)).await;
        let found: Vec<_> = found.map_err(|_| UpstreamError::NoAddress)?.collect();
        if found.is_empty() { Err(UpstreamError::NoAddress) } else { Ok(found) }
    }
}

fn public_authorities() -> RootCertStore {
    RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }
}

fn add_authorities(roots: &mut RootCertStore, path: &PathBuf) -> Result<(), TlsError> {
    let unusable = |source| TlsError::Authorities { path: path.clone(), source };
    let certificates = CertificateDer::pem_file_iter(path).map_err(unusable)?;
    let certificates = certificates.collect::<Result<Vec<_>, _>>().map_err(unusable)?;
    if roots.add_parsable_certificates(certificates).0 == 0 {
        return Err(unusable(rustls::pki_types::pem::Error::NoItemsFound));
    }
    Ok(())
}

/// Tries one address after the other, each for its share of the time that is left.
async fn open(addresses: &[SocketAddr], deadline: Instant) -> io::Result<TcpStream> {
    let mut problem = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for (at, address) in addresses.iter().enumerate() {
        let left = u32::try_from(addresses.len() - at).unwrap_or(u32::MAX);
        let share = deadline.saturating_duration_since(Instant::now()) / left;
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => return Ok(tcp),
            Ok(Err(failed)) => problem = failed,
            Err(_) => problem = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(problem)
}
