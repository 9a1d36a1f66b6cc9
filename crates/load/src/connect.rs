//! Connections to a target: plain or TLS, always to the addresses that were looked up when the run was planned.
//!
//! All protocols come here, so that what the loopback check has seen is what is connected to.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use crate::plan::{Plan, Target};

/// How requests introduce themselves.
pub(crate) const USER_AGENT: &str = concat!("weir-load/", env!("CARGO_PKG_VERSION"));

/// An open connection.
pub(crate) type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// How the other side of a TLS connection is checked.
#[derive(Clone)]
pub struct TlsSettings {
    config: ClientConfig,
    server_name: Option<ServerName<'static>>,
}

/// What a TLS connection is made with, as far as it differs from the usual. PEM.
#[derive(Debug, Clone, Copy, Default)]
pub struct TlsOptions<'a> {
    /// Certificates must be under an authority of these; without them under those that browsers trust.
    pub authorities: Option<&'a [u8]>,
    /// Certificates must be for this name; without it for the target's host.
    pub server_name: Option<&'a str>,
    /// A certificate to show, and its key.
    pub identity: Option<(&'a [u8], &'a [u8])>,
}

/// Why TLS settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file of authorities.
    #[error("holds no certificate of an authority")]
    Authority,
    /// The name to ask for.
    #[error("{0:?} is not a host name")]
    Name(String),
    /// The certificate to show, or its key.
    #[error("certificate and key cannot be read or do not belong together")]
    Identity,
}

impl TlsSettings {
    /// Checks the options.
    ///
    /// # Errors
    /// When one of them is not what it should be.
    pub fn new(options: TlsOptions<'_>) -> Result<Self, TlsError> {
        let builder = ClientConfig::builder().with_root_certificates(roots(options.authorities)?);
        let config = match options.identity {
            None => builder.with_no_client_auth(),
            Some((certificates, key)) => {
                let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificates).collect();
                let certificates = certificates.map_err(|_| TlsError::Identity)?;
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::Identity)?;
                builder.with_client_auth_cert(certificates, key).map_err(|_| TlsError::Identity)?
            }
        };
        let name =
            |text: &str| ServerName::try_from(text.to_owned()).map_err(|_| TlsError::Name(text.to_owned()));
        Ok(Self { config, server_name: options.server_name.map(name).transpose()? })
    }
}

fn roots(authorities: Option<&[u8]>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let Some(pem) = authorities else {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        return Ok(roots);
    };
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let (taken, _) = roots.add_parsable_certificates(certificates.map_err(|_| TlsError::Authority)?);
    if taken == 0 { Err(TlsError::Authority) } else { Ok(roots) }
}

/// Opens connections to one target.
#[derive(Clone)]
pub(crate) struct Connector {
    target: Target,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    is_http2: bool,
}

impl Connector {
    /// For one of a plan's targets.
    ///
    /// # Errors
    /// When its host cannot be a certificate's name.
    pub(crate) fn new(plan: &Plan, target: &Target) -> io::Result<Self> {
        Self::over(plan.tls.as_ref(), target, plan.protocol.is_http2())
    }

    /// With TLS or without.
    ///
    /// # Errors
    /// When the host cannot be a certificate's name.
    pub(crate) fn over(tls: Option<&TlsSettings>, target: &Target, is_http2: bool) -> io::Result<Self> {
        let tls = tls.map(|settings| {
            let mut config = settings.config.clone();
            config.alpn_protocols = vec![if is_http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
            let name = match &settings.server_name {
                Some(name) => name.clone(),
                None => ServerName::try_from(target.host.clone())
                    .map_err(|_| io::Error::other("the target's host cannot be a certificate's name"))?,
            };
            Ok::<_, io::Error>((TlsConnector::from(Arc::new(config)), name))
        });
        Ok(Self { target: target.clone(), tls: tls.transpose()?, is_http2 })
    }

    /// Opens one.
    ///
    /// # Errors
    /// The last address's.
    pub(crate) async fn connect(&self) -> io::Result<Stream> {
        let stream = TcpStream::connect(self.target.addresses.as_slice()).await?;
        stream.set_nodelay(true)?;
        let Some((connector, name)) = &self.tls else { return Ok(Either::Left(stream)) };
        let stream = connector.connect(name.clone(), stream).await?;
        if self.is_http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(io::Error::other("it does not speak HTTP/2"));
        }
        Ok(Either::Right(Box::new(stream)))
    }

    /// Host and port as they were given.
    pub(crate) fn authority(&self) -> &str {
        &self.target.authority
    }

    /// `http` or `https`.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}

/// For tonic, which asks for a service and names the address again.
impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Stream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect().await.map(TokioIo::new) })
    }
}
