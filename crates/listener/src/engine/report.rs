//! Usage that has happened: checked whole before any of it is counted.
//!
//! A report asks for no key and no state; it must name applications and metrics that exist, and a moment that is
//! neither too old nor too far ahead. (Reference: Service Management API, section 1.6.)

use std::sync::Arc;

use hashbrown::HashMap;
use weir_core::counter::increments_of;
use weir_core::{
    ApplicationId, ApplicationRef, Denial, Proof, ResponseCode, Secret, Service, ServiceId, Timestamp, Usage,
};
use weir_store::{Ask, Entry, Mode, Outcome, Report, RequestId, Write};

use super::{ATTEMPTS_MAX, Engine, now};
use crate::records::{Found, Known, Versioned};
use crate::status::Failure;

/// How old usage may be, and how far ahead, in seconds; both inclusive.
const AGE_S_MAX: i64 = 86_400;
const AHEAD_S_MAX: i64 = 3_600;
/// So many times as long as a decision a report may take: it may name thousands of applications.
const PATIENCE: u32 = 10;

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

/// How a report is booked.
#[derive(Default)]
pub(crate) struct Booking {
    /// Empty: it has none.
    pub(crate) idempotency_id: Vec<u8>,
    /// It takes away what was counted before.
    pub(crate) gives_back: bool,
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

/// A report judged by what memory says.
struct JudgedReport {
    service: Option<Arc<Versioned<Service>>>,
    /// Whose records were judged by.
    applications: HashMap<ApplicationRef, Arc<Known>>,
    entries: Result<Vec<Entry>, ReportError>,
}

impl JudgedReport {
    fn denied(service: Option<Arc<Versioned<Service>>>, denial: Denial) -> Self {
        Self { service, applications: HashMap::new(), entries: Err(ReportError::Denied(denial)) }
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
    /// Counts transactions; returns how many were counted. What had no answer in time may be counted all the same: sent
    /// again under the same id, it is not counted again.
    pub(crate) async fn report(
        &self,
        service: &ServiceId,
        proof: &Proof,
        booking: Booking,
        transactions: &[Transaction],
    ) -> Result<u32, ReportError> {
        let report = self.count_report(service, proof, booking, transactions);
        match tokio::time::timeout(self.timeout * PATIENCE, report).await {
            Ok(counted) => counted,
            Err(_) => Err(Failure::Timeout.into()),
        }
    }

    async fn count_report(
        &self,
        id: &ServiceId,
        proof: &Proof,
        Booking { idempotency_id, gives_back }: Booking,
        transactions: &[Transaction],
    ) -> Result<u32, ReportError> {
        for _ in 0..ATTEMPTS_MAX {
            let judged = self.judge_report(id, proof, transactions).await?;
            // Memory is believed once the store has said that it is not old, of a refusal, too.
            if !self.is_report_current(&judged).await? {
                continue;
            }
            let entries = judged.entries?;
            let idempotency_id = scoped(id, &idempotency_id);
            if entries.is_empty()
                || !self.store.report(Report { idempotency_id, gives_back, entries }).await?
            {
                return Ok(0);
            }
            return Ok(u32::try_from(transactions.len()).unwrap_or(u32::MAX));
        }
        Err(Failure::Unsettled.into())
    }

    async fn judge_report(
        &self,
        id: &ServiceId,
        proof: &Proof,
        transactions: &[Transaction],
    ) -> Result<JudgedReport, Failure> {
        let Some(service) = self.records.service(id).await? else {
            self.check_catalog().await?;
            return Ok(JudgedReport::denied(None, Denial::ServiceIdInvalid));
        };
        if let Err(denial) = proof.check(&service.value) {
            return Ok(JudgedReport::denied(Some(service), denial));
        }
        let (mut applications, mut entries) = (HashMap::new(), Vec::with_capacity(transactions.len()));
        for (place, transaction) in transactions.iter().enumerate() {
            let (found, entry) = self.entry(&service.value, transaction).await?;
            if let Some(Found { application, .. }) = found {
                applications.insert(application.value.reference.clone(), application);
            }
            match entry {
                Ok(entry) => entries.extend(entry),
                Err(fault) => {
                    let entries = Err(ReportError::Transaction { place, fault });
                    return Ok(JudgedReport { service: Some(service), applications, entries });
                }
            }
        }
        Ok(JudgedReport { service: Some(service), applications, entries: Ok(entries) })
    }

    /// Whether a report was judged by what the store has now; if not, what was old has been renewed.
    async fn is_report_current(&self, judged: &JudgedReport) -> Result<bool, Failure> {
        let Some(service) = &judged.service else { return Ok(true) };
        if judged.applications.is_empty() {
            return Ok(!self.records.renew_service(&service.value.id, service.version).await?);
        }
        let known: Vec<&Arc<Known>> = judged.applications.values().collect();
        let asks = known.iter().map(|known| Ask {
            request: RequestId([0; 16]),
            attempt: 0,
            application: Arc::clone(&known.subject),
            application_version: known.version,
            service_version: service.version,
            increments: vec![],
            mode: Mode::Check,
        });
        let outcomes = self.store.apply_all(&Arc::new(asks.collect()), Write::WithOthers).await;
        let mut is_current = true;
        for (known, outcome) in known.into_iter().zip(outcomes) {
            if let Outcome::Stale { application: record, service: version } = outcome? {
                let versions = (Some(known.version), Some(service.version));
                self.records.renew_stale(&known.value.reference, versions, (record, version))?;
                is_current = false;
            }
        }
        Ok(is_current)
    }

    /// The application, if there is one, and what is to be counted.
    async fn entry(
        &self,
        service: &Service,
        transaction: &Transaction,
    ) -> Result<(Option<Found>, Result<Option<Entry>, Fault>), Failure> {
        let age_s = transaction.at.map_or(0, |at| now().unix_s().saturating_sub(at.unix_s()));
        let found = match &transaction.application {
            _ if age_s > AGE_S_MAX => return Ok((None, Err(Fault::TooOld))),
            _ if age_s < -AHEAD_S_MAX => return Ok((None, Err(Fault::TooNew))),
            Reported::Both => return Ok((None, Err(Fault::NamedTwice))),
            Reported::Nothing => Err(Denial::ApplicationNotFound),
            Reported::UserKey(key) => {
                let found = self.records.find_by_user_key(service, key).await?;
                // Led there by an index that is ahead of the record, or behind it.
                let is_its = |found: &Found| found.by == found.application.value.user_key;
                found.filter(is_its).ok_or(Denial::UserKeyInvalid)
            }
            Reported::AppId(id) => {
                self.reported_application(service, id).await?.ok_or(Denial::ApplicationNotFound)
            }
        };
        match found {
            Ok(found) => {
                let entry = entry(service, &found, transaction);
                Ok((Some(found), entry))
            }
            Err(denial) => {
                self.check_catalog().await?;
                Ok((None, Err(Fault::Application(denial))))
            }
        }
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
