//! What counting costs in the embedded store: one step of an application among some, as the listener asks for it.
//!
//! Redis is measured by the load suite, since its cost is another process's.

use std::cell::Cell;
use std::sync::Arc;

use divan::{Bencher, black_box};
use futures_util::FutureExt;
use prost::Message;
use weir_benches::{application, service, usage};
use weir_core::{AlertBins, Application, increments};
use weir_proto::v1;
use weir_store::{
    Ask, Config, EmbeddedConfig, Mode, Outcome, Publication, PublishedApplication, Record, RequestId, Store,
    Subject, Write,
};

#[divan::bench(args = [10, 10_000])]
fn embedded_store_applies(bencher: Bencher<'_, '_>, applications: usize) {
    let world = World::new(applications);
    let next = Cell::new(0);
    bencher
        .with_inputs(|| {
            next.set(next.get() + 1);
            Arc::new(vec![world.ask(next.get())])
        })
        .bench_local_values(|asks| {
            let outcomes = world.store.apply_all(black_box(&asks), Write::Now).now_or_never();
            // Anything else would measure something else.
            assert!(matches!(outcomes.as_deref(), Some([Ok(Outcome::Admitted { .. })])), "{outcomes:?}");
        });
}

/// A store with a service and its applications.
struct World {
    store: Store,
    asks: Vec<Ask>,
    // Both outlive the store.
    _runtime: tokio::runtime::Runtime,
    _dir: tempfile::TempDir,
}

impl World {
    fn new(applications: usize) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("threads for the store");
        let service = service(10);
        let record = Record::new(v1::Service::from(&service).encode_to_vec());
        let applications: Vec<Application> = (0..applications).map(|number| application(number).0).collect();
        let publication = Publication {
            revision: 1,
            services: vec![(service.id.clone(), record.clone())],
            applications: applications.iter().map(published).collect(),
            ..Publication::default()
        };
        let store = runtime.block_on(async {
            let store = Store::open(Config::Embedded(EmbeddedConfig::new(dir.path().to_owned()))).await;
            let store = store.expect("an empty folder can be opened");
            store.publish(publication).await.expect("the first publication is taken");
            store
        });
        let wanted = increments(&usage(), &service.metrics, &service.plans[0], AlertBins::ALL)
            .expect("metrics of the tree");
        let ask = |application: &Application| Ask {
            request: RequestId([0; 16]),
            attempt: 0,
            application: Arc::new(Subject::new(application.reference.clone())),
            application_version: published(application).record.version,
            service_version: record.version,
            increments: wanted.clone(),
            mode: Mode::Count,
        };
        Self { store, asks: applications.iter().map(ask).collect(), _runtime: runtime, _dir: dir }
    }

    /// A request that nobody has made before, of one application after the other.
    fn ask(&self, number: u64) -> Ask {
        let place = usize::try_from(number).expect("64 bits") % self.asks.len();
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        Ask { request: RequestId(id), ..self.asks[place].clone() }
    }
}

fn published(application: &Application) -> PublishedApplication {
    PublishedApplication {
        application: application.reference.clone(),
        record: Record::new(v1::Application::from(application).encode_to_vec()),
        user_key: application.user_key.clone(),
    }
}
