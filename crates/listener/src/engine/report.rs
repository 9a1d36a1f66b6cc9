//! Usage that has happened: checked whole before any of it is counted.
//!
//! A report asks for no key and no state; it must name applications and metrics that exist, and a moment that is
//! neither too old nor too far ahead.

use weir_core::counter::increments;
use weir_core::{Credentials, Service, ServiceId, Timestamp, Usage};
use weir_proto::FieldError;
use weir_store::{Entry, Report};

use super::{Engine, now};
use crate::status::Failure;

/// How old usage may be, and how far ahead, in seconds; both inclusive.
const AGE_S_MAX: i64 = 86_400;
const AHEAD_S_MAX: i64 = 3_600;

/// One transaction of a report.
pub(crate) struct Transaction {
    /// Names the application: a `user_key`, or an `app_id` whose key is not asked for.
    pub(crate) credentials: Credentials,
    pub(crate) usage: Usage,
    pub(crate) at: Option<Timestamp>,
}

/// Ids of one service do not meet those of another.
fn scoped(service: &ServiceId, idempotency_id: &[u8]) -> Vec<u8> {
    if idempotency_id.is_empty() {
        return vec![];
    }
    [service.as_str().as_bytes(), b"/", idempotency_id].concat()
}

impl Engine {
    /// Counts transactions; returns how many were counted.
    pub(crate) async fn report(
        &self,
        service: &ServiceId,
        idempotency_id: Vec<u8>,
        transactions: &[Transaction],
    ) -> Result<u32, Failure> {
        self.within_deadline(async {
            // What is new in the store must not be refused by what memory says, so a report reads the service anew.
            self.records.forget_service(service);
            let Some(service) = self.records.service(service).await? else {
                self.check_catalog()?;
                return Err(FieldError::new("service_id", "there is no such service").into());
            };
            let mut entries = Vec::with_capacity(transactions.len());
            for (place, transaction) in transactions.iter().enumerate() {
                let entry =
                    self.entry(&service.value, transaction).await.map_err(|failure| match failure {
                        Failure::Field(error) => error.within(&format!("transactions[{place}]")).into(),
                        other => other,
                    })?;
                entries.extend(entry);
            }
            let idempotency_id = scoped(&service.value.id, &idempotency_id);
            if entries.is_empty() || !self.store.report(Report { idempotency_id, entries }).await? {
                return Ok(0);
            }
            Ok(u32::try_from(transactions.len()).unwrap_or(u32::MAX))
        })
        .await
    }

    async fn entry(&self, service: &Service, transaction: &Transaction) -> Result<Option<Entry>, Failure> {
        if let Some(at) = transaction.at {
            let age_s = now().unix_s() - at.unix_s();
            if !(-AHEAD_S_MAX..=AGE_S_MAX).contains(&age_s) {
                let problem = format!("is more than {AGE_S_MAX} s ago or {AHEAD_S_MAX} s ahead");
                return Err(FieldError::new("at_unix_s", problem).into());
            }
        }
        let unknown = || FieldError::new("application", "there is no such application");
        let found = self.records.find(service, &transaction.credentials).await?;
        if found.is_none() {
            self.check_catalog()?;
        }
        let application = &found.ok_or_else(unknown)?.application.value;
        let plan = service.plan(&application.plan).ok_or_else(unknown)?;
        let increments = increments(&transaction.usage, &service.metrics, plan, service.alert_bins)
            .map_err(|denial| FieldError::new("usage", denial.sentence()))?;
        let application = application.reference.clone();
        Ok((!increments.is_empty()).then_some(Entry { application, increments, at: transaction.at }))
    }
}
