//! Usage that has happened: checked whole before any of it is counted.
//!
//! A report asks for no key and no state; it must name applications and metrics that exist, and a moment that is
//! neither too old nor too far ahead. (Reference: Service Management API, section 1.6.)

use weir_core::counter::increments_of;
use weir_core::{
    ApplicationId, ApplicationRef, Denial, Proof, ResponseCode, Secret, Service, ServiceId, Timestamp, Usage,
};
use weir_store::{Entry, Report};

use super::{Engine, now};
use crate::records::Found;
use crate::status::Failure;

/// How old usage may be, and how far ahead, in seconds; both inclusive.
const AGE_S_MAX: i64 = 86_400;
const AHEAD_S_MAX: i64 = 3_600;

/// One transaction of a report.
#[derive(Default)]
pub(crate) struct Transaction {
    pub(crate) application: Reported,
    pub(crate) usage: Usage,
    /// Usage is not rolled up into ancestors: the caller has done it.
    pub(crate) flat: bool,
    /// Usage ends before what cannot be read, for this reason.
    pub(crate) cut_short: Option<Denial>,
    /// How the upstream answered.
    pub(crate) response_code: Option<ResponseCode>,
    pub(crate) at: Option<Timestamp>,
}

/// How a transaction names its application, whatever the service's mode.
#[derive(Default)]
pub(crate) enum Reported {
    UserKey(Secret),
    AppId(String),
    /// By both at once.
    Both,
    #[default]
    Nothing,
}

/// Why a report counts nothing.
pub(crate) enum ReportError {
    /// Its caller may not report for the service, or there is none.
    Denied(Denial),
    /// One of its transactions cannot be.
    Transaction {
        /// Which, from 0.
        place: usize,
        /// Why.
        fault: Fault,
    },
    /// It could not be looked at.
    Failure(Failure),
}

/// What is wrong with a transaction.
pub(crate) enum Fault {
    TooOld,
    TooNew,
    /// It names its application twice.
    NamedTwice,
    /// There is no such application.
    Application(Denial),
    Usage(Denial),
}

impl<E: Into<Failure>> From<E> for ReportError {
    fn from(error: E) -> Self {
        Self::Failure(error.into())
    }
}

impl Fault {
    /// The stable code.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::TooOld => "transaction_timestamp_too_old",
            Self::TooNew => "transaction_timestamp_too_new",
            Self::NamedTwice => "authentication_error",
            Self::Application(denial) | Self::Usage(denial) => denial.code(),
        }
    }

    /// A sentence for people. Names no key.
    pub(crate) fn sentence(&self) -> String {
        match self {
            Self::TooOld => format!("The transaction is more than {AGE_S_MAX} seconds old."),
            Self::TooNew => format!("The transaction is more than {AHEAD_S_MAX} seconds ahead."),
            Self::NamedTwice => "The transaction has both an app_id and a user_key.".into(),
            Self::Application(denial) | Self::Usage(denial) => denial.sentence(),
        }
    }
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
        proof: &Proof,
        idempotency_id: Vec<u8>,
        transactions: &[Transaction],
    ) -> Result<u32, ReportError> {
        let report = self.count_report(service, proof, idempotency_id, transactions);
        match tokio::time::timeout(self.timeout, report).await {
            Ok(counted) => counted,
            Err(_) => Err(Failure::Timeout.into()),
        }
    }

    async fn count_report(
        &self,
        service: &ServiceId,
        proof: &Proof,
        idempotency_id: Vec<u8>,
        transactions: &[Transaction],
    ) -> Result<u32, ReportError> {
        // What is new in the store must not be refused by what memory says, so a report reads the service anew.
        self.records.forget_service(service);
        let Some(service) = self.records.service(service).await? else {
            self.check_catalog()?;
            return Err(ReportError::Denied(Denial::ServiceIdInvalid));
        };
        proof.check(&service.value).map_err(ReportError::Denied)?;
        let mut entries = Vec::with_capacity(transactions.len());
        for (place, transaction) in transactions.iter().enumerate() {
            match self.entry(&service.value, transaction).await? {
                Ok(entry) => entries.extend(entry),
                Err(fault) => return Err(ReportError::Transaction { place, fault }),
            }
        }
        let idempotency_id = scoped(&service.value.id, &idempotency_id);
        if entries.is_empty() || !self.store.report(Report { idempotency_id, entries }).await? {
            return Ok(0);
        }
        Ok(u32::try_from(transactions.len()).unwrap_or(u32::MAX))
    }

    async fn entry(
        &self,
        service: &Service,
        transaction: &Transaction,
    ) -> Result<Result<Option<Entry>, Fault>, Failure> {
        let age_s = transaction.at.map_or(0, |at| now().unix_s().saturating_sub(at.unix_s()));
        if age_s > AGE_S_MAX {
            return Ok(Err(Fault::TooOld));
        } else if age_s < -AHEAD_S_MAX {
            return Ok(Err(Fault::TooNew));
        }
        let found = match &transaction.application {
            Reported::UserKey(key) => {
                self.records.find_by_user_key(service, key).await?.ok_or(Denial::UserKeyInvalid)
            }
            Reported::AppId(id) => {
                self.reported_application(service, id).await?.ok_or(Denial::ApplicationNotFound)
            }
            Reported::Both => return Ok(Err(Fault::NamedTwice)),
            Reported::Nothing => Err(Denial::ApplicationNotFound),
        };
        if found.is_err() {
            self.check_catalog()?;
        }
        Ok(found.map_err(Fault::Application).and_then(|found| entry(service, &found, transaction)))
    }

    async fn reported_application(&self, service: &Service, id: &str) -> Result<Option<Found>, Failure> {
        let Ok(application) = ApplicationId::parse(id) else { return Ok(None) };
        let reference = ApplicationRef { service: service.id.clone(), application };
        let found = self.records.application(&reference).await?;
        Ok(found.map(|application| Found { application, by: None }))
    }
}

/// `None`: nothing was used.
fn entry(service: &Service, found: &Found, transaction: &Transaction) -> Result<Option<Entry>, Fault> {
    let application = &found.application.value;
    let plan = service.plan(&application.plan).ok_or(Fault::Application(Denial::ApplicationNotFound))?;
    let Transaction { usage, .. } = transaction;
    let gains = if transaction.flat { usage.flat(&service.metrics) } else { usage.expand(&service.metrics) };
    let gains = gains.map_err(Fault::Usage)?;
    if let Some(denial) = &transaction.cut_short {
        return Err(Fault::Usage(denial.clone()));
    }
    if gains.is_empty() {
        return Ok(None);
    }
    let mut increments = increments_of(gains, &service.metrics, plan, service.alert_bins);
    increments.extend(transaction.response_code.into_iter().flat_map(ResponseCode::increments));
    let application = application.reference.clone();
    Ok(Some(Entry { application, increments, at: transaction.at }))
}
