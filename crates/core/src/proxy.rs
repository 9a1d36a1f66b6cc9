//! How gateways serve a service: where requests come from, what they cost, where they go, how refusals read.
//!
//! Plain data: the catalog fills it, the gateway follows it. Numbers carry their unit in their name.

use crate::backend::Backend;
use crate::mapping_rule::MappingRule;
use crate::oidc::Oidc;
use crate::policy::Chain;
use crate::secret::Secret;

/// Which of a service's two deployments a gateway runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Environment {
    /// Where the provider tries a change.
    Staging,
    /// Where customers call.
    Production,
}

impl Environment {
    /// `staging` or `production`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Staging => "staging",
            Self::Production => "production",
        }
    }
}

/// Not an environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not an environment: use staging or production")]
pub struct EnvironmentError;

impl std::str::FromStr for Environment {
    type Err = EnvironmentError;
    fn from_str(text: &str) -> Result<Self, EnvironmentError> {
        match text {
            "staging" => Ok(Self::Staging),
            "production" => Ok(Self::Production),
            _ => Err(EnvironmentError),
        }
    }
}

/// Where a request carries its credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CredentialLocation {
    /// Query arguments (and form fields for what the query lacks).
    #[default]
    Query,
    /// Headers; `-` and `_` in their names are the same.
    Headers,
    /// `Authorization: Basic` or `Bearer`.
    Authorization,
}

/// The names of the arguments or headers that carry credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialNames {
    /// Default `user_key`.
    pub user_key: String,
    /// Default `app_id`.
    pub app_id: String,
    /// Default `app_key`.
    pub app_key: String,
    /// Default `access_token`.
    pub access_token: String,
}

impl Default for CredentialNames {
    fn default() -> Self {
        Self {
            user_key: "user_key".into(),
            app_id: "app_id".into(),
            app_key: "app_key".into(),
            access_token: "access_token".into(),
        }
    }
}

/// A refusal's text, as the provider wants its customers to read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusalReply {
    /// HTTP status, 200 to 599.
    pub status: u16,
    /// The body.
    pub body: String,
    /// Its Content-Type.
    pub content_type: String,
}

impl RefusalReply {
    fn plain(status: u16, body: &str) -> Self {
        Self { status, body: body.into(), content_type: "text/plain; charset=utf-8".into() }
    }
}

/// The four refusals of a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusals {
    /// No credentials: default 401.
    pub auth_missing: RefusalReply,
    /// Credentials or state refused, or a metric outside the plan: default 403.
    pub auth_failed: RefusalReply,
    /// No mapping rule: default 404.
    pub no_match: RefusalReply,
    /// A limit is reached: default 429.
    pub limits_exceeded: RefusalReply,
}

impl Default for Refusals {
    fn default() -> Self {
        Self {
            auth_missing: RefusalReply::plain(401, "Authentication parameters missing"),
            auth_failed: RefusalReply::plain(403, "Authentication failed"),
            no_match: RefusalReply::plain(404, "No Mapping Rule matched"),
            limits_exceeded: RefusalReply::plain(429, "Limits exceeded"),
        }
    }
}

/// Bounds on one exchange with the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpstreamTimeouts {
    /// To open a connection. Default 5,000 ms.
    pub connect_ms: u32,
    /// From the request's end to the head of the response. Default 60,000 ms.
    pub response_ms: u32,
    /// Longest pause within a body, either way. Default 60,000 ms.
    pub idle_ms: u32,
}

impl Default for UpstreamTimeouts {
    fn default() -> Self {
        Self { connect_ms: 5_000, response_ms: 60_000, idle_ms: 60_000 }
    }
}

/// Who decides whether a call may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Decisions {
    /// The gateway, within what it holds on lease; the listener where it holds nothing.
    #[default]
    Leased,
    /// The listener, each.
    Synchronous,
}

/// What a gateway does with calls while no listener answers and it holds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenAway {
    /// 503.
    #[default]
    Deny,
    /// Applications that were seen valid in the last minutes go on within an allowance that was granted before.
    AllowKnown,
    /// Every call goes on, beyond limits if need be.
    Allow,
}

/// The secret token's header as backends behind 3scale's gateway know it.
pub const SECRET_TOKEN_HEADER: &str = "X-3scale-proxy-secret-token";

/// How gateways serve one service.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// Hosts it answers to: `api.example.org`, or `*.example.org` for one or more labels in front. Lower case.
    pub hosts: Vec<String>,
    /// Where requests go: `http://` or `https://`, host, perhaps a path. `None`: 404, nothing is counted.
    pub api_backend: Option<String>,
    /// APIs behind this one, each with its own place to go and rules of its own; at most [`BACKENDS_MAX`].
    ///
    /// [`BACKENDS_MAX`]: crate::backend::BACKENDS_MAX
    pub backends: Vec<Backend>,
    /// Where credentials are looked for, and nowhere else.
    pub credential_location: CredentialLocation,
    /// Under which names.
    pub credential_names: CredentialNames,
    /// Whose tokens are credentials; `None`: nobody's.
    pub oidc: Option<Oidc>,
    /// Whether credentials are taken out before the request goes upstream.
    pub strip_credentials: bool,
    /// What requests cost. Sorted by position.
    pub mapping_rules: Vec<MappingRule>,
    /// How refusals read.
    pub refusals: Refusals,
    /// Proves to the upstream that a request came through the gateway.
    pub secret_token: Option<Secret>,
    /// The header it travels in.
    pub secret_token_header: String,
    /// The Host that the upstream sees; `None`: the upstream's own.
    pub host_rewrite: Option<String>,
    /// Longest request body. Default 100 MiB; 0 = none may come.
    pub request_body_bytes_max: u64,
    /// Deadlines towards the upstream.
    pub timeouts: UpstreamTimeouts,
    /// The header in which upstreams say what a call used besides; `None`: they do not.
    pub usage_header: Option<String>,
    /// The most that one answer may add so to one metric. Default 1,000.
    pub usage_header_max: u64,
    /// Who decides.
    pub decisions: Decisions,
    /// What becomes of calls while no listener answers.
    pub when_away: WhenAway,
    /// What the provider adds, in its order.
    pub policies: Chain,
}

impl Default for Proxy {
    fn default() -> Self {
        Self {
            hosts: vec![],
            api_backend: None,
            backends: vec![],
            credential_location: CredentialLocation::default(),
            credential_names: CredentialNames::default(),
            oidc: None,
            strip_credentials: false,
            mapping_rules: vec![],
            refusals: Refusals::default(),
            secret_token: None,
            secret_token_header: SECRET_TOKEN_HEADER.into(),
            host_rewrite: None,
            request_body_bytes_max: 100 << 20,
            timeouts: UpstreamTimeouts::default(),
            usage_header: None,
            usage_header_max: 1_000,
            decisions: Decisions::default(),
            when_away: WhenAway::default(),
            policies: Chain::default(),
        }
    }
}
