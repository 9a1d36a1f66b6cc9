//! What happened to applications, until who may publish or operate has acknowledged it.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use weir_core::alert::Alert;
use weir_proto::v1::events_server::Events;
use weir_proto::{FieldError, v1};
use weir_store::{EVENTS_LISTED_MAX, Event, EventId, EventKind};

use crate::caller;
use crate::server::Shared;
use crate::status::Failure;

/// Events in an answer, unless the caller says how many.
const COUNT: u32 = 100;

pub(crate) struct Service(pub(crate) Arc<Shared>);

fn read_count(count: u32) -> Result<usize, Failure> {
    let count = if count == 0 { COUNT } else { count };
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if count > EVENTS_LISTED_MAX {
        return Err(FieldError::new("count", format!("is more than {EVENTS_LISTED_MAX}")).into());
    }
    Ok(count)
}

fn read_ids(ids: &[String]) -> Result<Vec<EventId>, Failure> {
    if ids.len() > EVENTS_LISTED_MAX {
        return Err(FieldError::new("ids", format!("has more than {EVENTS_LISTED_MAX} entries")).into());
    }
    let read = |(place, id): (usize, &String)| {
        id.parse().map_err(|problem| FieldError::new(&format!("ids[{place}]"), problem).into())
    };
    ids.iter().enumerate().map(read).collect()
}

fn message(event: Event) -> v1::Event {
    let (kind, alert) = match event.kind {
        EventKind::FirstTraffic => (v1::EventType::FirstTraffic, None),
        EventKind::FirstDailyTraffic => (v1::EventType::FirstDailyTraffic, None),
        EventKind::Alert(alert) => (v1::EventType::Alert, Some(alert_message(&alert))),
    };
    v1::Event {
        id: event.id.to_string(),
        r#type: kind.into(),
        service_id: event.application.service.to_string(),
        app_id: event.application.application.to_string(),
        at_unix_ms: event.at.unix_ms().unsigned_abs(),
        alert,
    }
}

fn alert_message(alert: &Alert) -> v1::Alert {
    v1::Alert {
        utilization: alert.bin.into(),
        max_utilization: alert.utilization(),
        metric: alert.metric.to_string(),
        period: v1::Period::from(alert.period).into(),
        current_value: alert.current,
        max_value: alert.max,
        limit: alert.to_string(),
    }
}

#[tonic::async_trait]
impl Events for Service {
    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Result<Response<v1::ListEventsResponse>, Status> {
        caller::operator(&self.0.config, request.metadata())?;
        let count = read_count(request.into_inner().count)?;
        let events = self.0.engine.store.events(count).await.map_err(Failure::Store)?;
        Ok(Response::new(v1::ListEventsResponse { events: events.into_iter().map(message).collect() }))
    }

    async fn acknowledge_events(
        &self,
        request: Request<v1::AcknowledgeEventsRequest>,
    ) -> Result<Response<v1::AcknowledgeEventsResponse>, Status> {
        caller::operator(&self.0.config, request.metadata())?;
        let ids = read_ids(&request.into_inner().ids)?;
        self.0.engine.store.acknowledge(&ids).await.map_err(Failure::Store)?;
        Ok(Response::new(v1::AcknowledgeEventsResponse {}))
    }
}
