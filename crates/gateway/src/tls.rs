//! TLS towards clients: which certificate a connection gets, and new ones while it runs.
//!
//! The name that a client asks for (SNI) picks the certificate by the names inside: the exact one before a
//! wildcard, the first certificate where nothing fits. Files are looked at twice a second; what changed and can be
//! used is taken for the next handshake, what cannot is logged and the one in force stays. Connections that are
//! open keep what they have.
//!
//! `weir check` asks [`CertificateFiles::check`] what a gateway would ask.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hashbrown::HashMap;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::config::{CertificateFiles, TlsConfig};

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Longest certificate or key file; longer ones are none.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// What is spoken inside, most wanted first.
pub(crate) const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// When a file or its name was changed last, which file it is, its length.
type Stamp = (i64, i64, u64, u64);

/// Why a certificate and its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The certificate's file cannot be read.
    #[error("the certificate {path} cannot be read: {problem}", path = .path.display())]
    Certificate {
        /// Which.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// The key's file cannot be read.
    #[error("the key {path} cannot be read: {problem}", path = .path.display())]
    Key {
        /// Which.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// They do not belong together, or are of a kind that is not served.
    #[error("the key {key} does not fit the certificate {certificate}: {problem}",
        key = .key.display(), certificate = .certificate.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What the TLS library says.
        problem: String,
    },
}

impl CertificateFiles {
    /// Whether a gateway could use them now.
    ///
    /// # Errors
    /// When it could not.
    pub fn check(&self) -> Result<(), CertificateError> {
        self.load().map(drop)
    }

    pub(crate) fn load(&self) -> Result<CertifiedKey, CertificateError> {
        let chain = self.chain().map_err(|problem| CertificateError::Certificate {
            path: self.certificate_file.clone(),
            problem,
        })?;
        let key = read(&self.key_file)
            .and_then(|pem| PrivateKeyDer::from_pem_slice(&pem).map_err(|_| "it holds no key".to_owned()))
            .map_err(|problem| CertificateError::Key { path: self.key_file.clone(), problem })?;
        CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|error| {
            CertificateError::Mismatch {
                certificate: self.certificate_file.clone(),
                key: self.key_file.clone(),
                problem: error.to_string(),
            }
        })
    }

    fn chain(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        let pem = read(&self.certificate_file)?;
        let chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
        match chain {
            Ok(chain) if !chain.is_empty() => Ok(chain),
            Ok(_) | Err(_) => Err("it holds no certificate".to_owned()),
        }
    }

    /// Changes whenever one of the files does.
    fn stamp(&self) -> [Option<Stamp>; 2] {
        [&self.certificate_file, &self.key_file].map(|path| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.ctime(), metadata.ctime_nsec(), metadata.ino(), metadata.len()))
        })
    }
}

fn read(path: &PathBuf) -> Result<Vec<u8>, String> {
    let read = std::fs::metadata(path).and_then(|metadata| {
        if metadata.len() > FILE_BYTES_MAX {
            return Err(io::Error::other(format!("longer than {FILE_BYTES_MAX} bytes")));
        }
        std::fs::read(path)
    });
    read.map_err(|error| error.to_string())
}

/// Loads the certificates; until `end` they are followed.
///
/// # Errors
/// When one cannot be used.
pub(crate) fn acceptor(config: &TlsConfig) -> Result<(TlsAcceptor, Followed), AcceptorError> {
    let mut pairs = Vec::new();
    for files in &config.certificates {
        let stamp = files.stamp();
        pairs.push(Pair { stamp, files: files.clone(), key: Arc::new(files.load()?) });
    }
    let by_name = ByName::new(&pairs).ok_or(AcceptorError::NoCertificate)?;
    let resolver = Arc::new(Resolver(ArcSwap::from_pointee(by_name)));
    let mut server = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(&resolver) as Arc<dyn ResolvesServerCert>);
    server.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
    Ok((TlsAcceptor::from(Arc::new(server)), Followed { pairs, resolver }))
}

/// Why TLS cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum AcceptorError {
    /// A certificate cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// There is none.
    #[error("there is no certificate")]
    NoCertificate,
    /// The TLS library.
    #[error("TLS cannot be set up")]
    Library(#[from] rustls::Error),
}

/// Certificates whose files are looked at.
pub(crate) struct Followed {
    pairs: Vec<Pair>,
    resolver: Arc<Resolver>,
}

struct Pair {
    files: CertificateFiles,
    /// Of what was looked at last, good or bad.
    stamp: [Option<Stamp>; 2],
    /// In force.
    key: Arc<CertifiedKey>,
}

impl Followed {
    /// Takes new certificates until `end`.
    pub(crate) async fn follow(mut self, end: CancellationToken) {
        loop {
            tokio::select! {
                () = end.cancelled() => return,
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
            let looked = tokio::task::spawn_blocking(move || {
                self.look();
                self
            });
            match looked.await {
                Ok(followed) => self = followed,
                Err(_) => return error!("certificates are no longer followed"),
            }
        }
    }

    fn look(&mut self) {
        let mut is_changed = false;
        for pair in &mut self.pairs {
            let stamp = pair.files.stamp();
            if stamp == pair.stamp {
                continue;
            }
            pair.stamp = stamp;
            match pair.files.load() {
                Ok(key) => {
                    info!(file = %pair.files.certificate_file.display(), "a new certificate is in force");
                    pair.key = Arc::new(key);
                    is_changed = true;
                }
                Err(problem) => error!(%problem, "a new certificate cannot be used; the old one stays"),
            }
        }
        if let Some(by_name) = ByName::new(&self.pairs).filter(|_| is_changed) {
            self.resolver.0.store(Arc::new(by_name));
        }
    }
}

#[derive(Debug)]
struct Resolver(ArcSwap<ByName>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(self.0.load().find(hello.server_name())))
    }
}

#[derive(Debug)]
struct ByName {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By what follows the star: `.example.org`.
    wildcards: HashMap<String, Arc<CertifiedKey>>,
    default: Arc<CertifiedKey>,
}

impl ByName {
    /// `None`: there is no certificate.
    fn new(pairs: &[Pair]) -> Option<Self> {
        let default = Arc::clone(&pairs.first()?.key);
        let mut by_name = Self { exact: HashMap::new(), wildcards: HashMap::new(), default };
        for pair in pairs {
            for name in names(&pair.key) {
                let (map, name) = match name.strip_prefix('*') {
                    Some(suffix) => (&mut by_name.wildcards, suffix.to_owned()),
                    None => (&mut by_name.exact, name),
                };
                map.entry(name).or_insert_with(|| Arc::clone(&pair.key));
            }
        }
        Some(by_name)
    }

    /// A star stands for one label. The TLS library gives names without a trailing dot.
    fn find(&self, name: Option<&str>) -> &Arc<CertifiedKey> {
        let name = name.unwrap_or_default().to_ascii_lowercase();
        let wildcard = || self.wildcards.get(&name[name.find('.')?..]);
        self.exact.get(&name).or_else(wildcard).unwrap_or(&self.default)
    }
}

fn names(key: &CertifiedKey) -> Vec<String> {
    let certificate = key.cert.first().and_then(|der| webpki::EndEntityCert::try_from(der).ok());
    let names = |certificate: &webpki::EndEntityCert<'_>| {
        certificate.valid_dns_names().map(str::to_ascii_lowercase).collect()
    };
    certificate.as_ref().map(names).unwrap_or_default()
}
