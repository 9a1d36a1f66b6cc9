//! Usage and credentials.

use weir_core::credentials::CREDENTIAL_BYTES_MAX;
use weir_core::usage::USAGE_MAX;
use weir_core::{Credentials, MetricName, Period, Secret, Usage, UsageValue};

use crate::{FieldError, v1};

/// Most entries in one usage.
pub const USAGE_ENTRIES_MAX: usize = 256;

impl v1::UsageEntry {
    /// Entries for a message.
    pub fn list(usage: &Usage) -> Vec<Self> {
        usage
            .iter()
            .map(|(metric, value)| Self {
                metric: metric.to_string(),
                value: Some(match value {
                    UsageValue::Add(by) => v1::usage_entry::Value::Add(by),
                    UsageValue::Set(to) => v1::usage_entry::Value::Set(to),
                }),
            })
            .collect()
    }

    /// The usage that entries of a message name.
    ///
    /// # Errors
    /// For too many entries, a name that cannot be a metric's, a missing or too large value.
    pub fn read(entries: &[Self]) -> Result<Usage, FieldError> {
        if entries.len() > USAGE_ENTRIES_MAX {
            return Err(FieldError::new("usage", format!("has more than {USAGE_ENTRIES_MAX} entries")));
        }
        let read = |(at, entry): (usize, &Self)| {
            let field = |name: &str| format!("usage[{at}].{name}");
            let metric =
                MetricName::parse(&entry.metric).map_err(|e| FieldError::new(&field("metric"), e))?;
            let value = match entry.value {
                Some(v1::usage_entry::Value::Add(by)) if by <= USAGE_MAX => UsageValue::Add(by),
                Some(v1::usage_entry::Value::Set(to)) if to <= USAGE_MAX => UsageValue::Set(to),
                Some(_) => return Err(FieldError::new(&field("value"), format!("is above {USAGE_MAX}"))),
                None => return Err(FieldError::new(&field("value"), "is missing")),
            };
            Ok((metric, value))
        };
        let entries: Result<Vec<_>, _> = entries.iter().enumerate().map(read).collect();
        Ok(Usage::new(entries?))
    }
}

impl From<&Credentials> for v1::Credentials {
    fn from(credentials: &Credentials) -> Self {
        let kind = match credentials {
            Credentials::UserKey(key) => v1::credentials::Kind::UserKey(key.expose().to_owned()),
            Credentials::AppIdAndKey { app_id, app_key } => {
                v1::credentials::Kind::AppIdAndKey(v1::AppIdAndKey {
                    app_id: app_id.clone(),
                    app_key: app_key.as_ref().map(|key| key.expose().to_owned()),
                })
            }
            Credentials::ClientId(id) => v1::credentials::Kind::ClientId(id.clone()),
            Credentials::Anonymous(id) => v1::credentials::Kind::Anonymous(id.clone()),
        };
        Self { kind: Some(kind) }
    }
}

impl v1::Credentials {
    /// The credentials of a message's field.
    ///
    /// # Errors
    /// When there are none, or one is longer than [`CREDENTIAL_BYTES_MAX`].
    pub fn read(field: Option<&Self>) -> Result<Credentials, FieldError> {
        let missing = || FieldError::new("credentials", "is missing");
        let bounded = |text: &str| {
            if text.len() > CREDENTIAL_BYTES_MAX {
                return Err(FieldError::new(
                    "credentials",
                    format!("is longer than {CREDENTIAL_BYTES_MAX} bytes"),
                ));
            }
            Ok(())
        };
        match field.and_then(|credentials| credentials.kind.as_ref()).ok_or_else(missing)? {
            v1::credentials::Kind::UserKey(key) => {
                bounded(key)?;
                Ok(Credentials::UserKey(Secret::new(key)))
            }
            v1::credentials::Kind::AppIdAndKey(pair) => {
                bounded(&pair.app_id)?;
                bounded(pair.app_key.as_deref().unwrap_or_default())?;
                let app_key = pair.app_key.as_deref().map(Secret::new);
                Ok(Credentials::AppIdAndKey { app_id: pair.app_id.clone(), app_key })
            }
            v1::credentials::Kind::ClientId(id) => {
                bounded(id)?;
                Ok(Credentials::ClientId(id.clone()))
            }
            v1::credentials::Kind::Anonymous(id) => {
                bounded(id)?;
                Ok(Credentials::Anonymous(id.clone()))
            }
        }
    }
}

impl From<Period> for v1::Period {
    fn from(period: Period) -> Self {
        match period {
            Period::Minute => Self::Minute,
            Period::Hour => Self::Hour,
            Period::Day => Self::Day,
            Period::Week => Self::Week,
            Period::Month => Self::Month,
            Period::Year => Self::Year,
            Period::Eternity => Self::Eternity,
        }
    }
}

impl TryFrom<v1::Period> for Period {
    type Error = FieldError;
    fn try_from(period: v1::Period) -> Result<Self, FieldError> {
        Ok(match period {
            v1::Period::Unspecified => return Err(FieldError::new("period", "is missing or unknown")),
            v1::Period::Minute => Self::Minute,
            v1::Period::Hour => Self::Hour,
            v1::Period::Day => Self::Day,
            v1::Period::Week => Self::Week,
            v1::Period::Month => Self::Month,
            v1::Period::Year => Self::Year,
            v1::Period::Eternity => Self::Eternity,
        })
    }
}
