//! The policies of a service, carried out.
//!
//! What they decide is core's; here it is done to requests and answers, in four moments: [`Policies::enter`] in front of
//! authorisation, [`Passing::behind`] it as far as the call is known, [`Passing::admitted`] once it is counted, and
//! [`Passing::answer`] for whatever the client is told. A service without policies has none of this.
//!
//! What applies to one call is kept in a [`Passing`]. A policy that cannot be carried out refuses the call.

mod address;
mod cors;
mod edge;
mod passing;
mod retry;

use std::sync::Arc;
use std::time::Instant;

use weir_core::policy::edge_limits::EdgeLimit;
use weir_core::policy::maintenance::Maintenance;
use weir_core::policy::upstream_pool::UpstreamPool;
use weir_core::policy::{Chain, Policy};
use weir_core::{Credentials, ServiceId};

pub(crate) use self::address::client_address;
use self::edge::EdgeTable;
pub(crate) use self::edge::{EdgeTables, Held};
pub(crate) use self::passing::{Caller, Entered, Passing};
pub(crate) use self::retry::Attempts;
use self::retry::Budget;
use crate::service::{Neighbours, ServiceError};
use crate::upstream::Upstream;

/// The policies of a service, ready to be carried out.
pub(crate) struct Policies {
    chain: Chain,
    /// Of the steps in their places.
    ready: Vec<Ready>,
    /// Whose calls those without credentials are, and which step says so.
    anonymous: Option<(usize, Credentials)>,
    /// What tokens are asked for.
    pub(crate) claims: Arc<[String]>,
}

/// What a step needs beside its settings.
enum Ready {
    Nothing,
    /// Where its routes lead.
    Routes(Vec<Upstream>),
    /// What its limits have counted.
    Edges(Vec<Arc<EdgeTable>>),
    Retry(Arc<Budget>),
}

/// What of the policies the service's upstreams are made by.
#[derive(Default)]
pub(crate) struct UpstreamsBy<'a> {
    pub(crate) identity: Option<&'a str>,
    pub(crate) pool: Option<&'a UpstreamPool>,
}

impl<'a> UpstreamsBy<'a> {
    pub(crate) fn of(chain: &'a Chain) -> Self {
        let identity = chain.steps().iter().find_map(|step| match &step.policy {
            Policy::UpstreamTls(tls) => Some(tls.identity.as_str()),
            _ => None,
        });
        let pool = chain.steps().iter().find_map(|step| match &step.policy {
            Policy::UpstreamPool(pool) => Some(pool),
            _ => None,
        });
        Self { identity, pool }
    }
}

impl Policies {
    /// Whether browsers are answered here.
    pub(crate) fn has_cors(&self) -> bool {
        self.chain.steps().iter().any(|step| matches!(step.policy, Policy::Cors(_)))
    }

    /// What a step answers in the API's place.
    pub(crate) fn maintenance(&self, at: usize) -> Option<&Maintenance> {
        match &self.chain.steps().get(at)?.policy {
            Policy::Maintenance(maintenance) => Some(maintenance),
            _ => None,
        }
    }

    /// What the service's upstreams are made by.
    pub(crate) fn upstreams_by(&self) -> UpstreamsBy<'_> {
        UpstreamsBy::of(&self.chain)
    }

    /// Those of a list; `None`: there are none.
    pub(crate) fn new(
        service: &ServiceId,
        chain: Chain,
        neighbours: &Neighbours,
    ) -> Result<Option<Self>, ServiceError> {
        if chain.steps().is_empty() {
            return Ok(None);
        }
        let by = UpstreamsBy::of(&chain);
        let mut counted: Vec<&EdgeLimit> = Vec::new();
        let mut ready = Vec::with_capacity(chain.steps().len());
        for step in chain.steps() {
            ready.push(match &step.policy {
                Policy::Routing(routing) => {
                    let upstream = |route: &weir_core::policy::routing::Route| {
                        neighbours.upstream(&route.api_backend, route.host_rewrite.as_deref(), by.identity)
                    };
                    Ready::Routes(routing.routes.iter().map(upstream).collect::<Result<_, _>>()?)
                }
                Policy::EdgeLimits(edge) => {
                    let mut tables = Vec::with_capacity(edge.limits.len());
                    for limit in &edge.limits {
                        let nth = counted.iter().filter(|other| **other == limit).count();
                        tables.push(neighbours.edges.of(service, limit, nth));
                        counted.push(limit);
                    }
                    Ready::Edges(tables)
                }
                Policy::Retry(_) => Ready::Retry(Arc::new(Budget::new(Instant::now()))),
                _ => Ready::Nothing,
            });
        }
        let anonymous = chain.steps().iter().enumerate().find_map(|(at, step)| match &step.policy {
            Policy::Anonymous(anonymous) => {
                let application = anonymous.application.as_ref()?;
                Some((at, Credentials::Anonymous(application.to_string())))
            }
            _ => None,
        });
        let claims = chain.claims().into();
        Ok(Some(Self { chain, ready, anonymous, claims }))
    }
}
