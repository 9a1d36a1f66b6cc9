//! Watch: every service of an environment, then every change.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use weir_core::{Environment, ServiceId};
use weir_proto::v1;
use weir_proto::v1::gateways_server::Gateways;
use weir_proto::v1::watch_response::Event;
use weir_store::Version;

use crate::caller;
use crate::config::GatewayToken;
use crate::server::Shared;
use crate::status::Failure;
use crate::watch::Snapshot;

/// Events that wait for the socket; then the watching task waits too.
const EVENTS_WAITING_MAX: usize = 64;

pub(crate) struct Service(pub(crate) Arc<Shared>);

type Events = mpsc::Sender<Result<v1::WatchResponse, Status>>;

#[tonic::async_trait]
impl Gateways for Service {
    type WatchStream =
        Pin<Box<dyn tokio_stream::Stream<Item = Result<v1::WatchResponse, Status>> + Send + 'static>>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let gateway = caller::gateway(&self.0.config.gateways, request.metadata())?.clone();
        let wanted = request.into_inner().environment();
        let environment = Environment::try_from(wanted).map_err(Failure::Field)?;
        if environment != gateway.environment {
            let text = format!("the token is for {}", gateway.environment.as_str());
            return Err(Status::permission_denied(text));
        }
        let (events, receiver) = mpsc::channel(EVENTS_WAITING_MAX);
        tokio::spawn(tell(Arc::clone(&self.0), gateway, events));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// Tells one gateway until it or the listener goes.
async fn tell(shared: Arc<Shared>, gateway: GatewayToken, events: Events) {
    let mut seen = shared.catalog.seen.subscribe();
    let mut told = BTreeMap::new();
    let mut revision = None;
    loop {
        let snapshot = seen.borrow_and_update().snapshot.clone();
        if let Some(snapshot) = snapshot.filter(|snapshot| revision != Some(snapshot.revision)) {
            revision = Some(snapshot.revision);
            for event in changes(&snapshot, &gateway, &mut told) {
                if events.send(Ok(v1::WatchResponse { event: Some(event) })).await.is_err() {
                    return;
                }
            }
        }
        tokio::select! {
            changed = seen.changed() => if changed.is_err() { return },
            () = events.closed() => return,
            () = shared.stop.cancelled() => return,
        }
    }
}

/// What a gateway does not know yet; `told` is brought up to date.
fn changes(
    snapshot: &Snapshot,
    gateway: &GatewayToken,
    told: &mut BTreeMap<ServiceId, Version>,
) -> Vec<Event> {
    let mut events = Vec::new();
    let gone: Vec<ServiceId> =
        told.keys().filter(|id| !snapshot.services.contains_key(*id)).cloned().collect();
    for id in gone {
        told.remove(&id);
        events.push(Event::Removed(id.to_string()));
    }
    for (id, service) in snapshot.services.iter().filter(|(id, _)| gateway.serves(id)) {
        if told.insert(id.clone(), service.version) != Some(service.version) {
            let message = v1::GatewayService::new(&service.value, gateway.environment);
            events.push(Event::Put(message));
        }
    }
    events.push(Event::Synced(v1::Synced { revision: snapshot.revision }));
    events
}
