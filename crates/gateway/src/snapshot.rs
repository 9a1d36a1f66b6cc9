//! The configuration in force, replaced whole and never changed in place.
//!
//! The watcher hands in what a listener told between two `synced`; what compiles is swapped in at once, requests
//! in flight finish under the configuration they began with. A service whose new version does not compile keeps
//! its last good one. What did not change is not compiled again and keeps its warm connections.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tracing::{error, info, warn};
use weir_core::route::{Routes, Routing};
use weir_proto::v1::GatewayService;

use crate::meters;
use crate::service::{Neighbours, Service};

/// Where requests read their configuration.
pub(crate) type Snapshot = Arc<ArcSwap<Routes<Arc<Service>>>>;

/// Changes between two `synced`.
#[derive(Default)]
pub(crate) struct Changes {
    /// Whether they are all there is: services that are not among them are gone.
    pub(crate) is_complete: bool,
    /// New or changed services by id; `None`: removed.
    pub(crate) services: BTreeMap<String, Option<GatewayService>>,
}

/// A service's last good version, as told and as compiled.
type Loaded = (GatewayService, Arc<Service>);

/// Compiles configurations and puts them into force.
pub(crate) struct Loader {
    snapshot: Snapshot,
    routing: Routing,
    neighbours: Arc<Neighbours>,
    loaded: BTreeMap<String, Loaded>,
    revision: u64,
}

impl Loader {
    pub(crate) fn new(snapshot: Snapshot, routing: Routing, neighbours: Arc<Neighbours>) -> Self {
        Self { snapshot, routing, neighbours, loaded: BTreeMap::new(), revision: 0 }
    }

    /// Puts changes into force.
    pub(crate) fn apply(&mut self, changes: Changes, revision: u64) {
        let Changes { is_complete, services } = changes;
        if is_complete {
            self.loaded.retain(|id, _| services.contains_key(id));
        }
        for (id, message) in services {
            match message {
                Some(message) => self.put(id, message),
                None => drop(self.loaded.remove(&id)),
            }
        }
        self.revision = revision;
        let services: Vec<_> = self.loaded.values().map(|(_, service)| Arc::clone(service)).collect();
        info!(revision, services = services.len(), "configuration is in force");
        let routes = Routes::new(self.routing, services, |service| (&service.id, &service.proxy.hosts));
        warn_of_contested(&routes);
        self.snapshot.store(Arc::new(routes));
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a double")]
        meters::revision().set(revision as f64);
    }

    /// The services in force and their revision, to be kept.
    pub(crate) fn in_force(&self) -> (Vec<GatewayService>, u64) {
        (self.loaded.values().map(|(message, _)| message.clone()).collect(), self.revision)
    }

    fn put(&mut self, id: String, message: GatewayService) {
        if self.loaded.get(&id).is_some_and(|(known, _)| *known == message) {
            return;
        }
        match Service::compile(&message, &self.neighbours) {
            Ok(service) => {
                self.loaded.insert(id, (message, Arc::new(service)));
            }
            Err(problem) => {
                let has_last_good = self.loaded.contains_key(&id);
                let cause = problem.source().map(ToString::to_string).unwrap_or_default();
                error!(service.id = id, %problem, cause, has_last_good, "a service cannot be served");
            }
        }
    }
}

fn warn_of_contested(routes: &Routes<Arc<Service>>) {
    for services in routes.contested() {
        let ids: Vec<_> = services.iter().map(|service| service.id.as_str()).collect();
        warn!(services = ids.join(", "), "services claim the same host: the first of them has it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_core::{Environment, MetricTree, Proxy, ServiceId};

    fn message(id: &str, backend: &str) -> GatewayService {
        let proxy = Proxy {
            hosts: vec![format!("{id}.test")],
            api_backend: Some(backend.to_owned()),
            ..Proxy::default()
        };
        let service = weir_core::Service {
            id: ServiceId::parse(id).unwrap(),
            name: String::new(),
            state: weir_core::ServiceState::Active,
            credentials: weir_core::CredentialKind::UserKey,
            referrer_filters_required: false,
            provider: weir_core::Provider::default(),
            is_default: false,
            tokens: vec![],
            alert_bins: weir_core::AlertBins::default(),
            metrics: MetricTree::new(&[]).unwrap(),
            plans: vec![],
            production: proxy,
            staging: None,
        };
        GatewayService::new(&service, Environment::Production)
    }

    /// Changes as `"complete a=http://x b- "`; what is served afterwards.
    #[track_caller]
    fn check(loader: &mut Loader, changes: &str, expected: &str) {
        let mut read = Changes::default();
        for word in changes.split_whitespace() {
            match word.split_once('=') {
                Some((id, backend)) => read.services.insert(id.into(), Some(message(id, backend))),
                None if word == "complete" => {
                    read.is_complete = true;
                    None
                }
                None => read.services.insert(word.trim_end_matches('-').into(), None),
            };
        }
        loader.apply(read, 1);
        let (services, _) = loader.in_force();
        let served: Vec<_> = services
            .iter()
            .filter(|service| loader.snapshot.load().at_host(&format!("{}.test", service.id)).is_some())
            .map(|service| format!("{}={}", service.id, service.proxy.as_ref().unwrap().api_backend))
            .collect();
        assert_eq!(served.join(" "), expected);
    }

    #[test]
    fn bad_services_keep_their_last_good_version() {
        let mut loader =
            Loader::new(Snapshot::default(), Routing::Host, Arc::new(Neighbours::idle().unwrap()));
        check(&mut loader, "complete a=http://1 b=http://1", "a=http://1 b=http://1");
        check(&mut loader, "a=nonsense b=http://2 c=nonsense", "a=http://1 b=http://2");
        check(&mut loader, "b-", "a=http://1");
        check(&mut loader, "complete a=nonsense d=http://4", "a=http://1 d=http://4");
        check(&mut loader, "complete", "");
    }
}
