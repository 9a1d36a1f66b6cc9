//! Services, plans and applications.

use weir_core::application::{APP_KEYS_MAX, AppKey, REDIRECT_URL_BYTES_MAX, REFERRER_FILTERS_MAX};
use weir_core::provider::PROVIDER_KEYS_MAX;
use weir_core::service::SERVICE_TOKENS_MAX;
use weir_core::status_set::STATUS_NAMES_MAX;
use weir_core::{
    AlertBins, Application, ApplicationRef, ApplicationState, CredentialKind, KeyHash, MetricName,
    MetricTree, Period, Plan, Provider, Proxy, Service, ServiceState, StatusSet, Timestamp, UsageLimit,
};

use crate::{FieldError, v1};

/// Parses a text field into whatever it must be.
pub(crate) fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(
    field: &str,
    text: &str,
) -> Result<T, FieldError> {
    text.parse().map_err(|error| FieldError::new(field, error))
}

impl From<&Service> for v1::Service {
    fn from(service: &Service) -> Self {
        let name_of = |index| service.metrics.metric(index).name.to_string();
        Self {
            id: service.id.to_string(),
            name: service.name.clone(),
            suspended: service.state == ServiceState::Suspended,
            credentials: v1::CredentialKind::from(service.credentials).into(),
            referrer_filters_required: service.referrer_filters_required,
            metrics: service
                .metrics
                .iter()
                .map(|(_, metric)| v1::Metric {
                    name: metric.name.to_string(),
                    parent: metric.parent.map(name_of).unwrap_or_default(),
                })
                .collect(),
            plans: service.plans.iter().map(|plan| plan_message(plan, &service.metrics)).collect(),
            production: Some((&service.production).into()),
            staging: service.staging.as_ref().map(Into::into),
            provider: Some(v1::Provider {
                name: service.provider.name.clone(),
                keys: service.provider.keys.iter().map(KeyHash::to_string).collect(),
            }),
            is_default: service.is_default,
            tokens: service.tokens.iter().map(KeyHash::to_string).collect(),
            alert_bins: Some(v1::AlertBins {
                percents: service.alert_bins.percents().map(Into::into).collect(),
            }),
        }
    }
}

/// Statuses as they travel.
pub(crate) fn status_names(statuses: &StatusSet) -> Vec<String> {
    statuses.names().iter().map(ToString::to_string).collect()
}

/// Reads statuses.
pub(crate) fn read_statuses(field: &str, names: &[String]) -> Result<StatusSet, FieldError> {
    if names.len() > STATUS_NAMES_MAX {
        return Err(FieldError::new(field, "are too many"));
    }
    StatusSet::parse(names.iter().map(String::as_str)).map_err(|error| FieldError::new(field, error))
}

fn plan_message(plan: &Plan, metrics: &MetricTree) -> v1::Plan {
    let limit = |limit: &UsageLimit| v1::UsageLimit {
        metric: metrics.metric(limit.metric).name.to_string(),
        period: v1::Period::from(limit.period).into(),
        max: limit.max,
    };
    v1::Plan {
        id: plan.id.to_string(),
        name: plan.name.clone(),
        limits: plan.limits().iter().map(limit).collect(),
        free_answers: status_names(&plan.free_answers),
    }
}

impl TryFrom<&v1::Service> for Service {
    type Error = FieldError;

    fn try_from(message: &v1::Service) -> Result<Self, FieldError> {
        let metrics = metric_tree(&message.metrics)?;
        let plans: Result<_, _> = message.plans.iter().map(|plan| read_plan(plan, &metrics)).collect();
        let production = message.production.as_ref().map(Proxy::try_from).transpose();
        let staging = message.staging.as_ref().map(Proxy::try_from).transpose();
        Ok(Self {
            id: parse("id", &message.id)?,
            name: message.name.clone(),
            state: if message.suspended { ServiceState::Suspended } else { ServiceState::Active },
            credentials: message.credentials().try_into()?,
            referrer_filters_required: message.referrer_filters_required,
            metrics,
            plans: plans?,
            production: production.map_err(|e| e.within("production"))?.unwrap_or_default(),
            staging: staging.map_err(|e| e.within("staging"))?,
            provider: read_provider(message.provider.as_ref())?,
            is_default: message.is_default,
            tokens: key_hashes("tokens", &message.tokens, SERVICE_TOKENS_MAX)?,
            alert_bins: read_alert_bins(message.alert_bins.as_ref())?,
        })
    }
}

fn read_provider(provider: Option<&v1::Provider>) -> Result<Provider, FieldError> {
    let Some(provider) = provider else { return Ok(Provider::default()) };
    let keys = key_hashes("provider.keys", &provider.keys, PROVIDER_KEYS_MAX)?;
    Ok(Provider { name: provider.name.clone(), keys })
}

fn key_hashes(field: &str, hashes: &[String], max: usize) -> Result<Vec<KeyHash>, FieldError> {
    if hashes.len() > max {
        return Err(FieldError::new(field, format!("has more than {max} keys")));
    }
    hashes.iter().map(|hash| parse(field, hash)).collect()
}

fn read_alert_bins(bins: Option<&v1::AlertBins>) -> Result<AlertBins, FieldError> {
    let Some(bins) = bins else { return Ok(AlertBins::default()) };
    AlertBins::of(bins.percents.iter().copied().map(Into::into))
        .ok_or_else(|| FieldError::new("alert_bins.percents", "has a step that there is not"))
}

fn metric_tree(metrics: &[v1::Metric]) -> Result<MetricTree, FieldError> {
    let read = |metric: &v1::Metric| -> Result<_, FieldError> {
        let name: MetricName = parse("metrics.name", &metric.name)?;
        let parent = match metric.parent.as_str() {
            "" => None,
            parent => Some(parse("metrics.parent", parent)?),
        };
        Ok((name, parent))
    };
    let definitions: Result<Vec<_>, _> = metrics.iter().map(read).collect();
    MetricTree::new(&definitions?).map_err(|e| FieldError::new("metrics", e))
}

fn read_plan(plan: &v1::Plan, metrics: &MetricTree) -> Result<Plan, FieldError> {
    let limit = |limit: &v1::UsageLimit| -> Result<UsageLimit, FieldError> {
        let metric = metrics.find(&limit.metric).ok_or_else(|| {
            FieldError::new("plans.limits.metric", format!("{} is no metric of the service", limit.metric))
        })?;
        Ok(UsageLimit { metric, period: Period::try_from(limit.period())?, max: limit.max })
    };
    let limits: Result<_, _> = plan.limits.iter().map(limit).collect();
    let id = parse("plans.id", &plan.id)?;
    let free_answers = read_statuses("plans.free_answers", &plan.free_answers)?;
    let plan = Plan::new(id, plan.name.clone(), limits?, metrics);
    plan.map(|plan| plan.with_free_answers(free_answers)).map_err(|e| FieldError::new("plans.limits", e))
}

impl From<CredentialKind> for v1::CredentialKind {
    fn from(kind: CredentialKind) -> Self {
        match kind {
            CredentialKind::UserKey => Self::UserKey,
            CredentialKind::AppIdAndKey => Self::AppIdAndKey,
            CredentialKind::ClientId => Self::ClientId,
        }
    }
}

impl TryFrom<v1::CredentialKind> for CredentialKind {
    type Error = FieldError;
    fn try_from(kind: v1::CredentialKind) -> Result<Self, FieldError> {
        match kind {
            v1::CredentialKind::Unspecified => Err(FieldError::new("credentials", "is missing or unknown")),
            v1::CredentialKind::UserKey => Ok(Self::UserKey),
            v1::CredentialKind::AppIdAndKey => Ok(Self::AppIdAndKey),
            v1::CredentialKind::ClientId => Ok(Self::ClientId),
        }
    }
}

impl From<&Application> for v1::Application {
    fn from(application: &Application) -> Self {
        let state = match application.state {
            ApplicationState::Active => v1::ApplicationState::Active,
            ApplicationState::Pending => v1::ApplicationState::Pending,
            ApplicationState::Suspended => v1::ApplicationState::Suspended,
        };
        let app_key = |key: &AppKey| v1::AppKey {
            hash: key.hash.to_string(),
            until_unix_ms: key.until.map(Timestamp::unix_ms),
        };
        Self {
            service_id: application.reference.service.to_string(),
            app_id: application.reference.application.to_string(),
            state: state.into(),
            plan_id: application.plan.to_string(),
            user_key: application.user_key.as_ref().map(KeyHash::to_string).unwrap_or_default(),
            app_keys: application.app_keys.iter().map(app_key).collect(),
            referrer_filters: application.referrer_filters.clone(),
            redirect_url: application.redirect_url.clone().unwrap_or_default(),
        }
    }
}

impl TryFrom<&v1::Application> for Application {
    type Error = FieldError;

    fn try_from(message: &v1::Application) -> Result<Self, FieldError> {
        if message.app_keys.len() > APP_KEYS_MAX {
            return Err(FieldError::new("app_keys", format!("has more than {APP_KEYS_MAX} keys")));
        }
        if message.referrer_filters.len() > REFERRER_FILTERS_MAX {
            return Err(FieldError::new("referrer_filters", format!("has more than {REFERRER_FILTERS_MAX}")));
        }
        if message.redirect_url.len() > REDIRECT_URL_BYTES_MAX {
            let problem = format!("is longer than {REDIRECT_URL_BYTES_MAX} bytes");
            return Err(FieldError::new("redirect_url", problem));
        }
        let app_key = |key: &v1::AppKey| -> Result<AppKey, FieldError> {
            let until = key.until_unix_ms.map(Timestamp::from_unix_ms);
            Ok(AppKey { hash: parse("app_keys.hash", &key.hash)?, until })
        };
        let app_keys: Result<_, _> = message.app_keys.iter().map(app_key).collect();
        Ok(Self {
            reference: ApplicationRef {
                service: parse("service_id", &message.service_id)?,
                application: parse("app_id", &message.app_id)?,
            },
            state: match message.state() {
                v1::ApplicationState::Unspecified => {
                    return Err(FieldError::new("state", "is missing or unknown"));
                }
                v1::ApplicationState::Active => ApplicationState::Active,
                v1::ApplicationState::Pending => ApplicationState::Pending,
                v1::ApplicationState::Suspended => ApplicationState::Suspended,
            },
            plan: parse("plan_id", &message.plan_id)?,
            user_key: match message.user_key.as_str() {
                "" => None,
                hash => Some(parse("user_key", hash)?),
            },
            app_keys: app_keys?,
            referrer_filters: message.referrer_filters.clone(),
            redirect_url: Some(message.redirect_url.clone()).filter(|url| !url.is_empty()),
        })
    }
}
