//! Decisions and where limits stand.

use weir_core::{COUNT_MAX, Decision, Denial, LimitStatus, MetricName, Period, StatusSet, Timestamp};

use crate::catalog::{read_statuses, status_names};
use crate::{FieldError, v1};

impl From<&LimitStatus> for v1::LimitStatus {
    fn from(limit: &LimitStatus) -> Self {
        Self {
            metric: limit.metric.to_string(),
            period: v1::Period::from(limit.window.period).into(),
            max: limit.max,
            used: limit.used,
            held: limit.held,
            window_start_unix_ms: limit.window.start.unix_ms(),
            window_end_unix_ms: limit.window.end.map(Timestamp::unix_ms),
        }
    }
}

impl From<&LimitStatus> for v1::Counter {
    fn from(limit: &LimitStatus) -> Self {
        Self {
            held: limit.held,
            max: (limit.max < COUNT_MAX).then_some(limit.max),
            metric: limit.metric.to_string(),
            period: v1::Period::from(limit.window.period).into(),
            used: limit.used,
            window_start_unix_ms: limit.window.start.unix_ms(),
            window_end_unix_ms: limit.window.end.map(Timestamp::unix_ms),
        }
    }
}

impl TryFrom<&v1::LimitStatus> for LimitStatus {
    type Error = FieldError;
    fn try_from(limit: &v1::LimitStatus) -> Result<Self, FieldError> {
        let period = Period::try_from(limit.period())?;
        let start = Timestamp::from_unix_ms(limit.window_start_unix_ms);
        Ok(Self {
            metric: MetricName::parse(&limit.metric).map_err(|e| FieldError::new("metric", e))?,
            window: period.window(start),
            max: limit.max,
            used: limit.used,
            held: limit.held,
        })
    }
}

/// Whose credentials were accepted, and how far that goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Acceptance<'a> {
    /// The application that the credentials led to; empty where they led to none.
    pub application_id: &'a str,
    /// Of the records that they were accepted by; 0: they were not.
    pub records_version: u64,
    /// How long they are good, where a key ends.
    pub for_ms: Option<u64>,
    /// The referrer made no difference.
    pub for_any_referrer: bool,
    /// Of the application's plan; `None`: all answers cost.
    pub free_answers: Option<&'a StatusSet>,
}

impl v1::Decision {
    /// The message for a decision made at `now`.
    pub fn new(decision: &Decision, accepted: Acceptance<'_>, now: Timestamp) -> Self {
        let (denial, limits) = match decision {
            Decision::Allow(limits) => (None, limits.iter().map(Into::into).collect()),
            Decision::Deny(denial) => (Some(v1::Denial::from(denial)), vec![]),
        };
        Self {
            denial,
            limits,
            application_id: accepted.application_id.to_owned(),
            decided_at_unix_ms: now.unix_ms(),
            records_version: accepted.records_version,
            accepted_for_ms: accepted.for_ms,
            accepted_for_any_referrer: accepted.for_any_referrer,
            free_answers: accepted.free_answers.map(status_names).unwrap_or_default(),
        }
    }
}

impl v1::Decision {
    /// The answers with which the call counts nothing after all; `None`: all cost.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn read_free_answers(&self) -> Result<Option<StatusSet>, FieldError> {
        if self.free_answers.is_empty() {
            return Ok(None);
        }
        read_statuses("free_answers", &self.free_answers).map(Some)
    }
}

impl TryFrom<&v1::Decision> for Decision {
    type Error = FieldError;
    fn try_from(message: &v1::Decision) -> Result<Self, FieldError> {
        match &message.denial {
            Some(denial) => Ok(Self::Deny(denial.try_into()?)),
            None => {
                let limits: Result<_, _> = message.limits.iter().map(LimitStatus::try_from).collect();
                Ok(Self::Allow(limits?))
            }
        }
    }
}

impl From<&Denial> for v1::Denial {
    fn from(denial: &Denial) -> Self {
        let limit = match denial {
            Denial::LimitsExceeded(limit) => Some(limit.into()),
            _ => None,
        };
        let metric = match denial {
            Denial::MetricInvalid(metric) => metric.clone(),
            _ => String::new(),
        };
        Self { code: denial.code().to_owned(), message: denial.sentence(), limit, metric }
    }
}

impl TryFrom<&v1::Denial> for Denial {
    type Error = FieldError;
    fn try_from(message: &v1::Denial) -> Result<Self, FieldError> {
        let plain = [
            Self::CredentialsMissing,
            Self::ProviderKeyInvalid,
            Self::ServiceTokenInvalid,
            Self::ServiceIdInvalid,
            Self::ServiceNotActive,
            Self::ApplicationNotFound,
            Self::UserKeyInvalid,
            Self::ApplicationKeyInvalid,
            Self::ApplicationNotActive,
            Self::ReferrerNotAllowed,
            Self::OauthNotEnabled,
            Self::RedirectUrlInvalid,
            Self::RedirectUriInvalid,
            Self::UsageValueInvalid,
            Self::NoMappingRule,
        ];
        match (message.code.as_str(), &message.limit) {
            ("limits_exceeded", Some(limit)) => Ok(Self::LimitsExceeded(limit.try_into()?)),
            ("metric_invalid", _) => Ok(Self::MetricInvalid(message.metric.clone())),
            (code, _) => plain
                .into_iter()
                .find(|denial| denial.code() == code)
                .ok_or_else(|| FieldError::new("denial.code", "is not known here")),
        }
    }
}
