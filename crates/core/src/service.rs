//! An API offered under plans: metrics, plans, credential mode and how the gateway proxies it.

use crate::alert::AlertBins;
use crate::credentials::CredentialKind;
use crate::id::{PlanId, ServiceId};
use crate::key_hash::KeyHash;
use crate::metric::MetricTree;
use crate::plan::Plan;
use crate::provider::Provider;
use crate::proxy::{Environment, Proxy};

/// Most `service_token`s of one service at a time.
pub const SERVICE_TOKENS_MAX: usize = 25;

/// Whether a service may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServiceState {
    /// It may.
    #[default]
    Active,
    /// Every call is refused; usage that happened is still counted.
    Suspended,
}

/// A service, one immutable snapshot.
#[derive(Debug, Clone)]
pub struct Service {
    /// Unique in the installation.
    pub id: ServiceId,
    /// What people read.
    pub name: String,
    /// Who offers it.
    pub provider: Provider,
    /// The one that is meant where its provider's key names none.
    pub is_default: bool,
    /// Hashes of its `service_token`s, at most [`SERVICE_TOKENS_MAX`]: each opens 3scale's API for this service.
    pub tokens: Vec<KeyHash>,
    /// Only an active one admits calls.
    pub state: ServiceState,
    /// How its applications prove themselves.
    pub credentials: CredentialKind,
    /// Whether applications with referrer filters are held to them.
    pub referrer_filters_required: bool,
    /// At which use of their limits its applications raise an alert.
    pub alert_bins: AlertBins,
    /// What is counted.
    pub metrics: MetricTree,
    /// Its plans.
    pub plans: Vec<Plan>,
    /// How production gateways serve it.
    pub production: Proxy,
    /// How staging gateways serve it; `None`: as in production.
    pub staging: Option<Proxy>,
}

impl Service {
    /// Whether calls without credentials are those of an application, in one of its deployments.
    pub fn takes_anonymous_calls_for(&self, application: &str) -> bool {
        let proxies = std::iter::once(&self.production).chain(&self.staging);
        let mut named = proxies.filter_map(|proxy| proxy.policies.anonymous());
        named.any(|named| named.as_str() == application)
    }

    /// How gateways of an environment serve it.
    pub fn proxy(&self, environment: Environment) -> &Proxy {
        match (environment, &self.staging) {
            (Environment::Staging, Some(staging)) => staging,
            _ => &self.production,
        }
    }

    /// The plan of that id.
    pub fn plan(&self, id: &PlanId) -> Option<&Plan> {
        self.plans.iter().find(|plan| plan.id == *id)
    }
}
