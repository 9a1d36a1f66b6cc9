//! What an application has used: every counter of some metrics, in the windows of now.
//!
//! Asked of the store as a check that nothing could fail, so that it is as exact as a decision.

use std::sync::Arc;

use weir_core::counter::{Ceiling, Increment};
use weir_core::decide::limit_statuses;
use weir_core::lease::ledger::Lease;
use weir_core::response_code::RESPONSES_PREFIX;
use weir_core::{
    AlertBins, COUNT_MAX, Credentials, LimitStatus, MetricName, Period, Plan, Presented, Service, ServiceId,
    UsageValue,
};
use weir_proto::FieldError;
use weir_store::{Ask, Mode, Outcome, RequestId};

use super::{ATTEMPTS_MAX, Engine};
use crate::status::Failure;

/// What an application has used, and what is out on lease.
pub(crate) struct Standing {
    /// [`COUNT_MAX`]: no limit.
    pub(crate) counters: Vec<LimitStatus>,
    pub(crate) leases: Vec<Lease>,
}

impl Engine {
    /// Reads the counters of an application; no metrics named: all of the service.
    pub(crate) async fn usage(
        &self,
        service: &ServiceId,
        app_id: &str,
        metrics: &[MetricName],
    ) -> Result<Standing, Failure> {
        self.within_deadline(async {
            let credentials = Presented::from(Credentials::ClientId(app_id.to_owned()));
            for _ in 0..ATTEMPTS_MAX {
                if let Some(standing) = self.read_usage(service, &credentials, metrics).await? {
                    return Ok(standing);
                }
            }
            Err(Failure::Unsettled)
        })
        .await
    }

    /// `None`: read by old records, which have been renewed.
    async fn read_usage(
        &self,
        id: &ServiceId,
        credentials: &Presented,
        metrics: &[MetricName],
    ) -> Result<Option<Standing>, Failure> {
        let service = self.records.service(id).await?;
        let service = service.ok_or_else(|| FieldError::new("service_id", "there is no such service"))?;
        let found = self.records.find(&service.value, credentials).await?;
        let found = found.ok_or_else(|| FieldError::new("app_id", "there is no such application"))?;
        let application = found.application;
        let increments = every_counter(&service.value, metrics)?;
        let ask = Ask {
            request: RequestId([0; 16]),
            attempt: 0,
            application: Arc::clone(&application.subject),
            application_version: application.version,
            service_version: service.version,
            increments: increments.clone(),
            mode: Mode::Check,
        };
        match self.store.apply(ask).await? {
            Outcome::Admitted { used, held, at } | Outcome::Refused { used, held, at, .. } => {
                let mut counters = limit_statuses(&increments, &used, &held, at);
                let plan = service.value.plan(&application.value.plan);
                for counter in &mut counters {
                    counter.max = max_of(&service.value, plan, counter).unwrap_or(COUNT_MAX);
                }
                // Read after the counters: what is settled in between is shown in both, never in neither.
                let leases = self.store.leases(&application.subject).await?;
                Ok(Some(Standing { counters, leases }))
            }
            Outcome::Stale { application: record, service: version } => {
                let known = (Some(application.version), Some(service.version));
                self.records.renew_stale(&application.value.reference, known, (record, version))?;
                Ok(None)
            }
        }
    }
}

/// The plan's limit of a counter.
fn max_of(service: &Service, plan: Option<&Plan>, counter: &LimitStatus) -> Option<u64> {
    let metric = service.metrics.find(counter.metric.as_str())?;
    let limits = plan?.limits_of(metric);
    limits.iter().find(|limit| limit.period == counter.window.period).map(|limit| limit.max)
}

fn every_counter(service: &Service, metrics: &[MetricName]) -> Result<Vec<Increment>, FieldError> {
    let is_metric = |name: &&MetricName| service.metrics.find(name.as_str()).is_some();
    let is_known = |name: &&MetricName| is_metric(name) || name.as_str().starts_with(RESPONSES_PREFIX);
    if let Some(unknown) = metrics.iter().find(|name| !is_known(name)) {
        return Err(FieldError::new("metrics", format!("{unknown} is no metric of the service")));
    }
    let ceilings: Vec<Ceiling> =
        Period::ALL.iter().map(|period| Ceiling { period: *period, max: COUNT_MAX }).collect();
    let of_service = service.metrics.iter().map(|(_, metric)| &metric.name);
    let of_service = of_service.filter(|name| metrics.is_empty() || metrics.contains(name));
    Ok(of_service
        .chain(metrics.iter().filter(|name| !is_metric(name)))
        .map(|name| Increment {
            metric: name.clone(),
            value: UsageValue::Add(0),
            ceilings: ceilings.clone(),
            alert_bins: AlertBins::NONE,
        })
        .collect())
}
