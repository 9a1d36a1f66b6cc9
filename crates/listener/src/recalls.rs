//! Asking gateways for what they hold on lease and do not spend, and telling them that records have changed.
//!
//! A recall goes through the store to all its listeners. Each tells every stream that has said something of a lease and may
//! ask about the service; a gateway that holds nothing of the application does nothing. A recall is not repeated for the
//! same application for a moment, and one that is lost is made good by the end of the lease.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tonic::Status;
use weir_core::ApplicationRef;
use weir_proto::v1;
use weir_store::Recall;

use crate::config::GatewayToken;

/// Pause before the same application is asked back again.
const PAUSE: Duration = Duration::from_millis(100);
/// Most applications whose last recall is remembered; beyond them, all are forgotten.
const REMEMBERED_MAX: usize = 4_096;

type Outbound = mpsc::Sender<Result<v1::AuthRepStreamResponse, Status>>;
/// Does not keep a stream open.
type WeakOutbound = mpsc::WeakSender<Result<v1::AuthRepStreamResponse, Status>>;

/// The streams of gateways that hold leases.
#[derive(Default)]
pub(crate) struct Recalls {
    streams: Mutex<Vec<(Arc<GatewayToken>, WeakOutbound)>>,
    asked: Mutex<HashMap<ApplicationRef, Instant>>,
    came_back: Notify,
}

impl Recalls {
    /// A stream has begun to say something of leases.
    pub(crate) fn join(&self, gateway: &Arc<GatewayToken>, stream: &Outbound) {
        let mut streams = self.streams.lock();
        streams.retain(|(_, stream)| stream.strong_count() > 0);
        streams.push((Arc::clone(gateway), stream.downgrade()));
    }

    /// Tells the gateways of this listener to look at their leases: each in one message, since few of these may wait.
    pub(crate) fn tell(&self, recalls: &[Recall]) {
        for (gateway, stream) in self.streams.lock().iter() {
            let Some(stream) = stream.upgrade() else { continue };
            let own = recalls.iter().filter(|recall| gateway.serves(recall.service()));
            let answers: Vec<v1::StreamAnswer> = own.map(answer).collect();
            if !answers.is_empty() {
                // A stream that is full hears of it when its leases are renewed, or end.
                let _ = stream.try_send(Ok(v1::AuthRepStreamResponse { answers }));
            }
        }
    }

    /// Whether an application may be asked back: it was not just now.
    pub(crate) fn is_time(&self, application: &ApplicationRef) -> bool {
        let mut asked = self.asked.lock();
        if asked.get(application).is_some_and(|at| at.elapsed() < PAUSE) {
            return false;
        }
        if asked.len() >= REMEMBERED_MAX {
            asked.clear();
        }
        asked.insert(application.clone(), Instant::now());
        true
    }

    /// A lease was given back.
    pub(crate) fn came_back(&self) {
        self.came_back.notify_waiters();
    }

    /// Ends when the next lease is given back.
    pub(crate) async fn until_some_came_back(&self) {
        self.came_back.notified().await;
    }
}

fn answer(recall: &Recall) -> v1::StreamAnswer {
    let app_id = match recall {
        Recall::Needed(application) | Recall::Changed(application) => application.application.to_string(),
        Recall::ServiceChanged(_) => String::new(),
    };
    let recall = v1::LeaseRecall {
        service_id: recall.service().to_string(),
        app_id,
        records_changed: !matches!(recall, Recall::Needed(_)),
    };
    v1::StreamAnswer { correlation_id: 0, answer: Some(v1::stream_answer::Answer::Recall(recall)) }
}
