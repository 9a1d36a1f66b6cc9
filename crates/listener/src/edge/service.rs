//! A service as other proxies' calls meet it: what can be worked out before a call comes is.
//!
//! The directory makes them of the catalog, once per version and environment. What a proxy will write into its request
//! is checked here: a header that is none would be the proxy's problem with every call.

use http::{HeaderName, HeaderValue, Uri};
use weir_core::backend::{BackendIndex, path_behind};
use weir_core::extract::{credential_headers, same_header, stripped};
use weir_core::path::RequestPath;
use weir_core::target::{bare_host, below, own_host};
use weir_core::{Backend, CredentialKind, Environment, ProductRules, Proxy, Service, ServiceId};

/// One service in one environment.
pub(crate) struct EdgeService {
    pub(crate) id: ServiceId,
    pub(crate) credentials: CredentialKind,
    /// Its mapping rules are in `rules` and no longer here.
    pub(crate) proxy: Proxy,
    pub(crate) rules: ProductRules,
    /// In small letters.
    pub(crate) secret_header: String,
    base: Base,
    /// Those of its backends, as `proxy` lists them.
    backends: Vec<Base>,
}

/// A base URL, as far as the proxy in front does not know it.
struct Base {
    /// Empty rather than a lone slash.
    path: String,
    query: Option<String>,
    /// The Host for the upstream; `None`: there is neither an upstream nor a rewrite.
    host: Option<String>,
}

impl Base {
    fn read(url: Option<&str>, host_rewrite: Option<&str>) -> Result<Self, ServiceError> {
        if host_rewrite.is_some_and(|host| HeaderValue::from_str(host).is_err()) {
            return Err(ServiceError::Host);
        }
        let url = url.map(str::parse::<Uri>).transpose()?;
        let path = url.as_ref().map(Uri::path).filter(|path| *path != "/").unwrap_or_default();
        let own_host = || {
            let url = url.as_ref()?;
            Some(own_host(url.authority()?.as_str(), url.scheme_str() == Some("https")).to_owned())
        };
        Ok(Self {
            path: path.to_owned(),
            query: url.as_ref().and_then(Uri::query).map(str::to_owned),
            host: host_rewrite.map(str::to_owned).or_else(own_host),
        })
    }
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
        for host in &mut proxy.hosts {
            *host = bare_host(host);
        }
        let rules = ProductRules::new(&mut proxy);
        let of_backend = |b: &Backend| Base::read(Some(&b.api_backend), b.host_rewrite.as_deref());
        let backends: Result<_, _> = proxy.backends.iter().map(of_backend).collect();
        Ok(Self {
            base: Base::read(proxy.api_backend.as_deref(), proxy.host_rewrite.as_deref())?,
            backends: backends?,
            id: service.id.clone(),
            credentials: service.credentials,
            rules,
            secret_header: secret_header.as_str().to_owned(),
            proxy,
        })
    }

    fn base(&self, backend: Option<BackendIndex>) -> &Base {
        backend.and_then(|at| self.backends.get(at)).unwrap_or(&self.base)
    }

    /// The Host for the upstream of a backend, or of none; `None`: there is neither an upstream nor a rewrite.
    pub(crate) fn upstream_host(&self, backend: Option<BackendIndex>) -> Option<&str> {
        self.base(backend).host.as_deref()
    }

    /// The target that this upstream gets.
    pub(crate) fn onward(
        &self,
        backend: Option<BackendIndex>,
        path: &RequestPath<'_>,
        query: Option<&str>,
    ) -> String {
        let stripped = query.and_then(|query| stripped(&self.proxy, query.as_bytes()));
        let stripped = stripped.as_deref().map(String::from_utf8_lossy);
        let query = stripped.as_deref().or(query).filter(|query| stripped.is_none() || !query.is_empty());
        let base = self.base(backend);
        let path = path_behind(backend.and_then(|at| self.proxy.backends.get(at)), &path.target);
        below(&base.path, base.query.as_deref(), path, query)
    }

    /// Whether a header carries credentials that end here.
    pub(crate) fn strips(&self, name: &[u8]) -> bool {
        let mut names = credential_headers(&self.proxy);
        self.proxy.strip_credentials && names.any(|other| same_header(name, other.as_bytes()))
    }
}
