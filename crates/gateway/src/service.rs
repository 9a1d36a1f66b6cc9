//! A service as the gateway runs it: everything that can be worked out before a request comes is.
//!
//! Compiled from what a listener tells, kept in a snapshot, shared by the requests in flight. A service that
//! does not compile is reported with the field at fault and left out; the others go on.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use hashbrown::HashSet;
use http::{HeaderName, HeaderValue};
use parking_lot::Mutex;
use weir_core::backend::{BackendIndex, path_behind};
use weir_core::path::RequestPath;
use weir_core::policy::ServiceOf;
use weir_core::policy::upstream_pool::UpstreamPool;
use weir_core::target::bare_host;
use weir_core::{Backend, CredentialKind, MetricName, ProductRules, Proxy, ServiceId};
use weir_proto::{FieldError, v1};

use crate::explain::CredentialsShown;
use crate::meters::Meters;
use crate::oidc::{Door, Issuers, OidcConfig};
use crate::policy::{EdgeTables, Policies};
use crate::upstream::{Balance, BaseUrl, Connector, PoolLimits, Pools, Upstream, UrlError};

/// What services lead to: upstreams, and issuers of tokens.
pub(crate) struct Neighbours {
    pub(crate) pools: Pools,
    issuers: Issuers,
    connector: Arc<Connector>,
    /// Those that show a certificate, or trust authorities of their own.
    identities: HashMap<String, Arc<Connector>>,
    /// What edge limits have counted.
    pub(crate) edges: EdgeTables,
    /// Addresses of upstreams, by their service and settings: what is known of them outlives changes of others.
    balances: Mutex<HashMap<(ServiceId, String), Weak<Balance>>>,
}

impl Neighbours {
    pub(crate) fn new(
        connector: Connector,
        identities: HashMap<String, Arc<Connector>>,
        limits: PoolLimits,
        oidc: OidcConfig,
    ) -> Self {
        let connector = Arc::new(connector);
        Self {
            pools: Pools::new(limits),
            issuers: Issuers::new(Arc::clone(&connector), oidc),
            connector,
            identities,
            edges: EdgeTables::default(),
            balances: Mutex::default(),
        }
    }

    /// Where a base URL leads, with the Host that replaces its own, as one of the gateway's identities.
    ///
    /// # Errors
    /// When the URL cannot be used, or there is no such identity.
    pub(crate) fn upstream(
        &self,
        url: &str,
        host_rewrite: Option<&str>,
        identity: Option<&str>,
    ) -> Result<Upstream, ServiceError> {
        let url = BaseUrl::parse(url, host_rewrite)?;
        let pool = self.pools.of(&url.origin, self.connector(identity)?, identity);
        Ok(Upstream { url, pool, balance: None })
    }

    fn connector(&self, identity: Option<&str>) -> Result<&Arc<Connector>, ServiceError> {
        match identity {
            None => Ok(&self.connector),
            Some(name) => self.identities.get(name).ok_or_else(|| ServiceError::Identity(name.to_owned())),
        }
    }

    /// The addresses of an upstream.
    fn balance(
        &self,
        service: &ServiceId,
        pool: &UpstreamPool,
        host: &str,
        identity: Option<&str>,
    ) -> Result<Arc<Balance>, ServiceError> {
        let mut balances = self.balances.lock();
        let key = (service.clone(), format!("{pool:?} {host} {identity:?}"));
        if let Some(balance) = balances.get(&key).and_then(Weak::upgrade) {
            return Ok(balance);
        }
        balances.retain(|_, balance| balance.strong_count() > 0);
        let balance = Balance::start(pool, host, self.connector(identity)?, &self.pools, identity)?;
        balances.insert(key, Arc::downgrade(&balance));
        Ok(balance)
    }

    /// Small ones, which nothing is sent over.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    #[cfg(any(test, feature = "measuring"))]
    pub(crate) fn idle() -> Result<Self, crate::upstream::TlsError> {
        let limits = PoolLimits { in_flight_max: 1, waiting_max: 1, idle_max: 1, workers: 1 };
        Ok(Self::new(Connector::new(None)?, HashMap::new(), limits, OidcConfig::default()))
    }
}

/// One service, ready to serve.
pub(crate) struct Service {
    pub(crate) id: ServiceId,
    /// Which credentials its applications have.
    pub(crate) credentials: CredentialKind,
    /// Its mapping rules are in `rules` and no longer here.
    pub(crate) proxy: Proxy,
    pub(crate) rules: Arc<ProductRules>,
    /// Where it looks for credentials, in words.
    pub(crate) credentials_shown: Arc<CredentialsShown>,
    /// Where requests go that none of its backends has; `None`: they end with 404.
    upstream: Option<Upstream>,
    /// Those of its backends, as `proxy` lists them.
    backends: Vec<Upstream>,
    /// Whether some of its rules cost nothing with some answers.
    pub(crate) has_free_answers: bool,
    /// Where upstreams say what a call used besides.
    pub(crate) usage_header: Option<HeaderName>,
    /// What they may name there.
    pub(crate) metrics: HashSet<MetricName>,
    /// Where tokens are checked; `None`: tokens are no credentials.
    pub(crate) door: Option<Door>,
    /// What the provider adds; `None`: nothing.
    pub(crate) policies: Option<Box<Policies>>,
    /// The secret token's header, and the token.
    pub(crate) secret: (HeaderName, Option<HeaderValue>),
    pub(crate) meters: Meters,
}

/// Why a service cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServiceError {
    #[error("the message is not what the contract says")]
    Field(#[from] FieldError),
    #[error("the base URL of its upstream")]
    Upstream(#[from] UrlError),
    #[error("the name of the secret token's header")]
    SecretName(#[source] http::header::InvalidHeaderName),
    #[error("the name of the header in which upstreams tell usage")]
    UsageHeader(#[source] http::header::InvalidHeaderName),
    #[error("the secret token is no header value")]
    Secret,
    #[error(
        "the policy upstream_tls names {0:?}, and [[upstream_tls]] of the gateway's file has none of that name"
    )]
    Identity(String),
}

impl Service {
    /// Compiles what a listener told.
    pub(crate) fn compile(
        message: &v1::GatewayService,
        neighbours: &Neighbours,
    ) -> Result<Self, ServiceError> {
        let id = ServiceId::parse(&message.id).map_err(|e| FieldError::new("id", e))?;
        let credentials = CredentialKind::try_from(message.credentials())?;
        let missing = || FieldError::new("proxy", "is missing");
        let proxy = Proxy::try_from(message.proxy.as_ref().ok_or_else(missing)?)?;
        let metrics: Result<_, _> = message.metrics.iter().map(|name| MetricName::parse(name)).collect();
        let metrics = metrics.map_err(|e| FieldError::new("metrics", e))?;
        Ok(Self { metrics, ..Self::new(id, credentials, proxy, neighbours)? })
    }

    pub(crate) fn new(
        id: ServiceId,
        credentials: CredentialKind,
        mut proxy: Proxy,
        neighbours: &Neighbours,
    ) -> Result<Self, ServiceError> {
        let chain = std::mem::take(&mut proxy.policies);
        if let Some(problem) = chain.problems_for(&ServiceOf::new(credentials, &proxy)).first() {
            return Err(FieldError::new("proxy.policies", problem).into());
        }
        let policies = Policies::new(&id, chain, neighbours)?.map(Box::new);
        let by = policies.as_deref().map(Policies::upstreams_by).unwrap_or_default();
        let rewrite = proxy.host_rewrite.as_deref();
        let own = proxy.api_backend.as_deref().map(|url| neighbours.upstream(url, rewrite, by.identity));
        let mut upstream = own.transpose()?;
        if let (Some(upstream), Some(pool)) = (&mut upstream, by.pool) {
            let host = upstream.url.host.to_str().unwrap_or_default();
            upstream.balance = Some(neighbours.balance(&id, pool, host, by.identity)?);
        }
        let rules = Arc::new(ProductRules::new(&mut proxy));
        let has_free_answers = rules.all().any(|rule| !rule.free_answers.is_empty());
        let of_backend = |backend: &Backend| {
            neighbours.upstream(&backend.api_backend, backend.host_rewrite.as_deref(), by.identity)
        };
        let backends: Result<_, _> = proxy.backends.iter().map(of_backend).collect();
        let claims = policies.as_deref().map(|policies| Arc::clone(&policies.claims)).unwrap_or_default();
        let secret_name = proxy.secret_token_header.parse().map_err(ServiceError::SecretName)?;
        let header_name = |name: &String| name.parse().map_err(ServiceError::UsageHeader);
        let usage_header = proxy.usage_header.as_ref().map(header_name);
        let token = proxy.secret_token.as_ref().map(|token| {
            let mut value = HeaderValue::from_str(token.expose()).map_err(|_| ServiceError::Secret)?;
            value.set_sensitive(true);
            Ok::<_, ServiceError>(value)
        });
        for host in &mut proxy.hosts {
            *host = bare_host(host);
        }
        Ok(Self {
            meters: Meters::of(id.as_str()),
            door: proxy
                .oidc
                .clone()
                .map(|wanted| Door::new(id.as_str(), wanted, claims, &neighbours.issuers)),
            has_free_answers,
            usage_header: usage_header.transpose()?,
            metrics: HashSet::new(),
            rules,
            credentials_shown: Arc::new(CredentialsShown::of(credentials, &proxy)),
            secret: (secret_name, token.transpose()?),
            policies,
            id,
            credentials,
            proxy,
            upstream,
            backends: backends?,
        })
    }

    /// Whether the answer to a call may change what it cost, whatever its plan says.
    pub(crate) fn may_cost_otherwise(&self) -> bool {
        self.has_free_answers || self.usage_header.is_some()
    }

    /// Where requests of a backend go, or of none.
    pub(crate) fn upstream(&self, backend: Option<BackendIndex>) -> Option<&Upstream> {
        match backend {
            Some(at) => self.backends.get(at),
            None => self.upstream.as_ref(),
        }
    }

    /// The path that it gets of a request.
    pub(crate) fn path_for<'p>(&self, backend: Option<BackendIndex>, path: &'p RequestPath<'_>) -> &'p str {
        path_behind(backend.and_then(|at| self.proxy.backends.get(at)), &path.target)
    }

    /// A service with these hosts and patterns of GET rules that count hits.
    #[cfg(test)]
    pub(crate) fn for_tests(id: &str, hosts: &[&str], patterns: &[&str]) -> Self {
        use weir_core::{HttpMethod, MappingRule};
        let rule = |pattern: &&str| MappingRule {
            http_method: HttpMethod::Get,
            pattern: pattern.parse().unwrap(),
            metric: MetricName::parse("hits").unwrap(),
            delta: 1,
            position: 0,
            last: false,
            free_answers: weir_core::StatusSet::default(),
        };
        let proxy = Proxy {
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            mapping_rules: patterns.iter().map(rule).collect(),
            ..Proxy::default()
        };
        let neighbours = Neighbours::idle().unwrap();
        Self::new(ServiceId::parse(id).unwrap(), CredentialKind::UserKey, proxy, &neighbours).unwrap()
    }
}
