//! Leases: what gateways say of them, and asking them back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use weir_core::authenticate::check_active;
use weir_core::counter::{first_exceeded, increments};
use weir_core::lease::Message;
use weir_core::lease::ledger::Ask;
use weir_core::{Application, ApplicationRef, Denial, Increment, MetricName, Service, Usage, UsageValue};
use weir_proto::LeaseAnswer;
use weir_store::{LeaseAsk, LeaseOutcome, Outcome, Subject, Version};

use super::{ATTEMPTS_MAX, Engine};
use crate::records::{Known, Versioned};
use crate::status::Failure;

/// How long a call waits for budget that sits idle in other gateways' leases.
pub(super) const RECALL_WAIT: Duration = Duration::from_millis(250);
/// How often it looks whether some has come back, unless somebody tells.
const RECALL_LOOK: Duration = Duration::from_millis(20);
/// Shortest pause between two looks.
const RECALL_PAUSE: Duration = Duration::from_millis(8);

/// Names a pair of records.
pub(super) fn records_version(application: Version, service: Version) -> u64 {
    // Never 0, which says that there is none.
    (application.0.rotate_left(1) ^ service.0).max(1)
}

/// Whether a refusal is only for what leases hold, which may come back.
pub(super) fn is_held_back(outcome: &Outcome, increments: &[Increment]) -> bool {
    match outcome {
        Outcome::Refused { used, held, .. } => {
            !held.is_empty() && first_exceeded(increments, used, &[]).is_none()
        }
        _ => false,
    }
}

impl Engine {
    /// Does what a gateway's message about a lease asks for. Returns the life of the store that answered, too.
    pub(crate) async fn lease(
        &self,
        holder: &Arc<str>,
        application: &ApplicationRef,
        message: &Message,
    ) -> Result<(LeaseAnswer, u64), Failure> {
        for _ in 0..ATTEMPTS_MAX {
            let attempt = self.within_deadline(self.attempt_lease(holder, application, message));
            if let Some(answer) = attempt.await? {
                if message.closes {
                    self.recalls.came_back();
                }
                return Ok(answer);
            }
        }
        Err(Failure::Unsettled)
    }

    /// `None`: judged by old records, which have been renewed.
    async fn attempt_lease(
        &self,
        holder: &Arc<str>,
        reference: &ApplicationRef,
        message: &Message,
    ) -> Result<Option<(LeaseAnswer, u64)>, Failure> {
        let service = self.records.service(&reference.service).await?;
        let application = self.records.application(reference).await?;
        let units = match (&service, &application) {
            (Some(service), Some(application)) => units(&service.value, &application.value, message),
            (None, _) => Err(Denial::ServiceIdInvalid),
            (_, None) => Err(Denial::ApplicationNotFound),
        };
        let units = match units {
            Ok(units) => units,
            // What was spent is counted all the same.
            Err(_) if message.closes => message.lines.iter().map(|_| vec![]).collect(),
            Err(denial) => return self.refuse_lease(denial, reference, service, application).await,
        };
        let subject = application.as_ref().map(|known| Arc::clone(&known.subject));
        let subject = subject.unwrap_or_else(|| Arc::new(Subject::new(reference.clone())));
        let application_version = application.as_ref().map_or(Version(0), |known| known.version);
        let service_version = service.as_ref().map_or(Version(0), |service| service.version);
        let message = Ask::new(Arc::clone(holder), message, units);
        let ask = LeaseAsk { application: subject, application_version, service_version, message };
        match self.store.lease(ask).await? {
            LeaseOutcome::Answered { reply, incarnation } => {
                let version = records_version(application_version, service_version);
                Ok(Some((LeaseAnswer::Reply(reply, version), incarnation)))
            }
            LeaseOutcome::Stale { application: record, service: version } => {
                let known = (application.map(|known| known.version), service.map(|service| service.version));
                self.records.renew_stale(reference, known, (record, version))?;
                Ok(None)
            }
        }
    }

    /// A refusal too is only given by records that are not old.
    async fn refuse_lease(
        &self,
        denial: Denial,
        reference: &ApplicationRef,
        service: Option<Arc<Versioned<Service>>>,
        application: Option<Arc<Known>>,
    ) -> Result<Option<(LeaseAnswer, u64)>, Failure> {
        self.check_catalog().await?;
        let record = self.store.application(reference).await?;
        let is_old = record.as_ref().map(|record| record.version) != application.map(|known| known.version);
        if is_old {
            self.records.renew_application(reference, record.as_ref())?;
        }
        let service_is_old = match &service {
            Some(service) => self.records.renew_service(&reference.service, service.version).await?,
            None => false,
        };
        Ok((!is_old && !service_is_old).then_some((LeaseAnswer::Denied(denial), 0)))
    }

    /// Asks gateways for what they hold of an application, and waits until some may have come back. `false`: the time
    /// for that is over.
    pub(super) async fn recall(&self, application: &ApplicationRef, begun: Instant) -> bool {
        if begun.elapsed() >= RECALL_WAIT {
            return false;
        }
        if self.recalls.is_time(application) {
            metrics::counter!("weir_listener_recalls_total").increment(1);
            self.store.recall(application).await;
        }
        tokio::time::sleep(RECALL_PAUSE).await;
        // Whether somebody told or not: the store is asked again.
        let _ = tokio::time::timeout(RECALL_LOOK, self.recalls.until_some_came_back()).await;
        true
    }
}

/// What a unit of each line adds.
fn units(
    service: &Service,
    application: &Application,
    message: &Message,
) -> Result<Vec<Vec<Increment>>, Denial> {
    let plan = service.plan(&application.plan).ok_or(Denial::ApplicationNotActive)?;
    if !message.closes {
        check_active(service, application)?;
    }
    let unit = |metric: &MetricName| {
        let one = Usage::new([(metric.clone(), UsageValue::Add(1))]);
        increments(&one, &service.metrics, plan, service.alert_bins)
    };
    message.lines.iter().map(|line| unit(&line.metric)).collect()
}
