//! Which service answers to a host, for each gateway token: made of the catalog when somebody asks.
//!
//! A token that is not for all services has its own table, so that a host of somebody else's is as if it were not
//! there, wildcards included. What did not change between two revisions is not compiled again. Tables are as many as
//! the configuration has tokens.

use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::RwLock;
use weir_core::route::{Routes, Routing};
use weir_core::{Environment, ServiceId};
use weir_store::Version;

use super::service::EdgeService;
use crate::catalog::CatalogHandle;
use crate::config::GatewayToken;
use crate::status::Failure;
use crate::watch::Snapshot;

type Table = Arc<Routes<Arc<EdgeService>>>;

/// All tables.
#[derive(Default)]
pub(crate) struct Directory(RwLock<Compiled>);

/// A version, and the service as of it or, where that cannot be served, as of an earlier one.
type Known = (Version, Option<Arc<EdgeService>>);

#[derive(Default)]
struct Compiled {
    revision: u64,
    services: HashMap<(ServiceId, Environment), Known>,
    /// By the gateway's id.
    tables: HashMap<String, Table>,
}

impl Directory {
    /// The service of a gateway at a host, which is bare; `None`: there is none.
    ///
    /// # Errors
    /// When there is no catalog yet.
    pub(crate) fn find(
        &self,
        catalog: &CatalogHandle,
        gateway: &GatewayToken,
        host: &str,
    ) -> Result<Option<Arc<EdgeService>>, Failure> {
        let snapshot = catalog.seen.borrow().snapshot.clone().ok_or(Failure::NoCatalog)?;
        let table = self.table(&snapshot, gateway);
        Ok(table.at_host(host).and_then(|services| table.find(services, |_| false)).cloned())
    }

    /// The service of that id, if the gateway may ask about it.
    ///
    /// # Errors
    /// When there is no catalog yet.
    pub(crate) fn service(
        &self,
        catalog: &CatalogHandle,
        gateway: &GatewayToken,
        id: &ServiceId,
    ) -> Result<Option<Arc<EdgeService>>, Failure> {
        let snapshot = catalog.seen.borrow().snapshot.clone().ok_or(Failure::NoCatalog)?;
        self.table(&snapshot, gateway);
        let key = (id.clone(), gateway.environment);
        let found = self.0.read().services.get(&key).and_then(|(_, service)| service.clone());
        Ok(found.filter(|_| gateway.serves(id)))
    }

    fn table(&self, snapshot: &Snapshot, gateway: &GatewayToken) -> Table {
        {
            let compiled = self.0.read();
            if let Some(table) = compiled.tables.get(&gateway.id).filter(|_| compiled.is_of(snapshot)) {
                return Arc::clone(table);
            }
        }
        self.0.write().table(snapshot, gateway)
    }
}

impl Compiled {
    fn is_of(&self, snapshot: &Snapshot) -> bool {
        self.revision == snapshot.revision
    }

    fn table(&mut self, snapshot: &Snapshot, gateway: &GatewayToken) -> Table {
        if !self.is_of(snapshot) {
            self.revision = snapshot.revision;
            self.tables.clear();
            self.services.retain(|(id, _), _| snapshot.services.contains_key(id));
        }
        let services = snapshot.services.keys().filter(|id| gateway.serves(id));
        let services: Vec<_> =
            services.filter_map(|id| self.compile(snapshot, id, gateway.environment)).collect();
        let routes = Routes::new(Routing::Host, services, |service| (&service.id, &service.proxy.hosts));
        let table = Arc::new(routes);
        self.tables.insert(gateway.id.clone(), Arc::clone(&table));
        table
    }

    fn compile(
        &mut self,
        snapshot: &Snapshot,
        id: &ServiceId,
        environment: Environment,
    ) -> Option<Arc<EdgeService>> {
        let record = snapshot.services.get(id)?;
        let key = (id.clone(), environment);
        if let Some((version, known)) = self.services.get(&key)
            && *version == record.version
        {
            return known.clone();
        }
        let compiled = EdgeService::new(&record.value, environment).inspect_err(|problem| {
            tracing::error!(service.id = id.as_str(), %problem, "a service cannot be served to other proxies");
        });
        // A version that cannot be served leaves the last good one in place, as in gateways.
        let last_good = self.services.get(&key).and_then(|(_, service)| service.clone());
        let service = compiled.ok().map(Arc::new).or(last_good);
        self.services.insert(key, (record.version, service.clone()));
        service
    }
}
