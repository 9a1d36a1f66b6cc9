//! A service as other proxies' calls meet it: what can be worked out before a call comes is.
//!
//! The directory makes them of the catalog, once per version and environment. What a proxy will write into its request
//! is checked here: a header that is none would be the proxy's problem with every call.

use http::{HeaderName, HeaderValue, Uri};
use weir_core::extract::{credential_headers, same_header, stripped};
use weir_core::path::RequestPath;
use weir_core::target::{bare_host, below, own_host};
use weir_core::{CredentialKind, Environment, MappingRules, Proxy, Service, ServiceId};

/// One service in one environment.
pub(crate) struct EdgeService {
    pub(crate) id: ServiceId,
    pub(crate) credentials: CredentialKind,
    /// Its mapping rules are in `rules` and no longer here.
    pub(crate) proxy: Proxy,
    pub(crate) rules: MappingRules,
    /// In small letters.
    pub(crate) secret_header: String,
    /// Path and query of the upstream's base URL; the path is empty rather than a lone slash.
    base: (String, Option<String>),
    /// The Host for the upstream; `None`: there is neither an upstream nor a rewrite.
    pub(crate) upstream_host: Option<String>,
}

/// Why a service cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServiceError {
    #[error("the name of the secret token's header is none")]
    SecretName,
    #[error("the secret token is no header value")]
    Secret,
    #[error("the host that replaces the client's is no header value")]
    Host,
    #[error("the base URL of its upstream")]
    Upstream(#[from] http::uri::InvalidUri),
}

impl EdgeService {
    pub(crate) fn new(service: &Service, environment: Environment) -> Result<Self, ServiceError> {
        let mut proxy = service.proxy(environment).clone();
        let secret_header: HeaderName =
            proxy.secret_token_header.parse().map_err(|_| ServiceError::SecretName)?;
        let is_value = |text: &str| HeaderValue::from_str(text).is_ok();
        if proxy.secret_token.as_ref().is_some_and(|token| !is_value(token.expose())) {
            return Err(ServiceError::Secret);
        }
        if proxy.host_rewrite.as_ref().is_some_and(|host| !is_value(host)) {
            return Err(ServiceError::Host);
        }
        for host in &mut proxy.hosts {
            *host = bare_host(host);
        }
        let backend = proxy.api_backend.as_deref().map(str::parse::<Uri>).transpose()?;
        let path = backend.as_ref().map(Uri::path).filter(|path| *path != "/").unwrap_or_default();
        let query = backend.as_ref().and_then(Uri::query).map(str::to_owned);
        Ok(Self {
            base: (path.to_owned(), query),
            upstream_host: proxy.host_rewrite.clone().or_else(|| {
                let (authority, is_tls) =
                    (backend.as_ref()?.authority()?, backend.as_ref()?.scheme_str() == Some("https"));
                Some(own_host(authority.as_str(), is_tls).to_owned())
            }),
            id: service.id.clone(),
            credentials: service.credentials,
            rules: MappingRules::new(std::mem::take(&mut proxy.mapping_rules)),
            secret_header: secret_header.as_str().to_owned(),
            proxy,
        })
    }

    /// The target that the upstream gets.
    pub(crate) fn onward(&self, path: &RequestPath<'_>, query: Option<&str>) -> String {
        let stripped = query.and_then(|query| stripped(&self.proxy, query.as_bytes()));
        let stripped = stripped.as_deref().map(String::from_utf8_lossy);
        let query = stripped.as_deref().or(query).filter(|query| stripped.is_none() || !query.is_empty());
        let (base, base_query) = &self.base;
        below(base, base_query.as_deref(), &path.target, query)
    }

    /// Whether a header carries credentials that end here.
    pub(crate) fn strips(&self, name: &[u8]) -> bool {
        let mut names = credential_headers(&self.proxy);
        self.proxy.strip_credentials && names.any(|other| same_header(name, other.as_bytes()))
    }
}
