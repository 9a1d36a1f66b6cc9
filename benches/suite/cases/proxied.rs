//! A gateway and its listener before an origin, and the load that goes through: what several groups measure.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::catalog::{self, Api};
use crate::lab::Lab;
use crate::load::http::{Body, HttpLoad, IN_FLIGHT_MAX, get};
use crate::load::{Load, Random};
use crate::origin::Origin;
use crate::question::TOKEN;
use crate::turns::{Case, Part};
use crate::weir::{AccessLog, Catalog, Gateway, Listener, Store};

/// Different requests that a load chooses from.
const REQUESTS: usize = 10_000;
/// Mapping rules where their number is not the point.
pub(super) const RULES: usize = 10;
/// Applications where their number is not the point.
pub(super) const APPLICATIONS: usize = 100;
/// Requests of a turn.
pub(super) const OPERATIONS: u64 = 40_000;

/// A running data plane over the embedded store.
pub(super) struct Proxied {
    /// The gateway.
    pub(super) gateway: Gateway,
    /// Its listener.
    pub(super) listener: Listener,
    /// The API behind it.
    pub(super) origin: Origin,
}

impl Proxied {
    /// Starts everything for these services and waits until a request to each comes through.
    pub(super) async fn start(lab: &Lab, name: &str, apis: &[Api]) -> anyhow::Result<Self> {
        let origin = Origin::start().await?;
        let catalog = catalog::text(origin.address, apis);
        let listener = start_listener(lab, name, &catalog, &[]).await?;
        let mut gateway =
            Gateway::start(lab, &format!("{name}-gateway"), &listener, TOKEN, AccessLog::Off).await?;
        // Who shows tokens waits for nothing else.
        for api in apis.iter().filter(|api| api.issuer.is_none()) {
            gateway.wait_for(&api.host(), &api.target(0, 0)).await?;
        }
        Ok(Self { gateway, listener, origin })
    }

    /// Both of its processes.
    pub(super) fn parts(&self) -> Vec<Part> {
        vec![self.gateway.part(), self.listener.part()]
    }

    /// Requests to services at random, through the gateway.
    pub(super) fn case(&self, lab: &Lab, name: &str, apis: &[Api]) -> Case {
        self.case_over(lab, name, apis, IN_FLIGHT_MAX)
    }

    /// The same over another number of connections.
    pub(super) fn case_over(&self, lab: &Lab, name: &str, apis: &[Api], connections: usize) -> Case {
        let load = load_over(self.gateway.address, apis, connections);
        // One request at a time takes many times as long.
        let full = if connections == 1 { OPERATIONS / 8 } else { OPERATIONS };
        Case::new(name, self.parts(), load, lab.scale.operations(full))
    }
}

/// A listener over the embedded store.
pub(super) async fn start_listener(
    lab: &Lab,
    name: &str,
    catalog: &str,
    tokens: &[(String, Vec<String>)],
) -> anyhow::Result<Listener> {
    Listener::start(lab, &format!("{name}-listener"), &Store::Embedded, &Catalog::File(catalog), tokens).await
}

/// Requests to a server: services, rules and applications at random, over 64 connections.
pub(super) fn load(address: SocketAddr, apis: &[Api]) -> Load {
    load_over(address, apis, IN_FLIGHT_MAX)
}

fn load_over(address: SocketAddr, apis: &[Api], connections: usize) -> Load {
    let mut random = Random::new(11);
    let request = |_| {
        let api = &apis[random.below(apis.len())];
        let target = api.target(random.below(api.rules), random.below(api.applications));
        get(&api.host(), &target)
    };
    let requests: Vec<Vec<u8>> = (0..REQUESTS).map(request).collect();
    Load::Http(HttpLoad { address, requests: Arc::from(requests), connections, body: Body::Origin })
}
