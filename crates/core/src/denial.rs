//! Why a call is refused: an ordinary answer, never an error.
//!
//! The codes are contract (they travel over gRPC, in headers and in problem documents); the prose may change.

use crate::decide::LimitStatus;
use crate::oidc::TokenFault;

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denial {
    /// No credentials of the service's mode were presented.
    CredentialsMissing,
    /// Not a key of the service's provider.
    ProviderKeyInvalid,
    /// Not a token of the service.
    ServiceTokenInvalid,
    /// No such service, or not one that the caller may ask about.
    ServiceIdInvalid,
    /// The provider has suspended the service.
    ServiceNotActive,
    /// No application has this `app_id` (or client id) in the service.
    ApplicationNotFound,
    /// No application has this `user_key` in the service.
    UserKeyInvalid,
    /// Not one of the application's keys, or none was sent.
    ApplicationKeyInvalid,
    /// Not a token of the service's issuer that would be good now.
    TokenInvalid(TokenFault),
    /// The application waits for approval or is suspended.
    ApplicationNotActive,
    /// An OAuth call about a service that is none of OAuth's.
    OauthNotEnabled,
    /// A `redirect_url` that is not the application's.
    RedirectUrlInvalid,
    /// A `redirect_uri` that is not the application's.
    RedirectUriInvalid,
    /// None of the application's referrer filters covers the referrer.
    ReferrerNotAllowed,
    /// Usage of something that is no metric of the service, as the caller named it.
    MetricInvalid(String),
    /// A usage value that is no whole number.
    UsageValueInvalid,
    /// A limit would be exceeded. A limit of 0 means that the plan does not have the metric at all.
    LimitsExceeded(LimitStatus),
    /// No mapping rule matches the request.
    NoMappingRule,
}

impl Denial {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::CredentialsMissing => "credentials_missing",
            Self::ProviderKeyInvalid => "provider_key_invalid",
            Self::ServiceTokenInvalid => "service_token_invalid",
            Self::ServiceIdInvalid => "service_id_invalid",
            Self::ServiceNotActive => "service_not_active",
            Self::ApplicationNotFound => "application_not_found",
            Self::UserKeyInvalid => "user_key_invalid",
            Self::ApplicationKeyInvalid => "application_key_invalid",
            Self::TokenInvalid(fault) => fault.code(),
            Self::ApplicationNotActive => "application_not_active",
            Self::OauthNotEnabled => "oauth_not_enabled",
            Self::RedirectUrlInvalid => "redirect_url_invalid",
            Self::RedirectUriInvalid => "redirect_uri_invalid",
            Self::ReferrerNotAllowed => "referrer_not_allowed",
            Self::MetricInvalid(_) => "metric_invalid",
            Self::UsageValueInvalid => "usage_value_invalid",
            Self::LimitsExceeded(_) => "limits_exceeded",
            Self::NoMappingRule => "no_mapping_rule",
        }
    }

    /// A sentence for people. Names no key and no credential.
    pub fn sentence(&self) -> String {
        match self {
            Self::CredentialsMissing => "Credentials are missing.".into(),
            Self::ProviderKeyInvalid => "The provider key is not valid.".into(),
            Self::ServiceTokenInvalid => "The service token or the service id is not valid.".into(),
            Self::ServiceIdInvalid => "There is no such service.".into(),
            Self::ServiceNotActive => "The service is suspended.".into(),
            Self::ApplicationNotFound => "There is no application with this id.".into(),
            Self::UserKeyInvalid => "There is no application with this user key.".into(),
            Self::ApplicationKeyInvalid => "The application key is not valid.".into(),
            Self::TokenInvalid(fault) => fault.sentence().into(),
            Self::ApplicationNotActive => "The application is not active.".into(),
            Self::OauthNotEnabled => "The service does not use OAuth.".into(),
            Self::RedirectUrlInvalid => "The redirect_url is not the application's.".into(),
            Self::RedirectUriInvalid => "The redirect_uri is not the application's.".into(),
            Self::ReferrerNotAllowed => "The referrer is not allowed.".into(),
            Self::MetricInvalid(metric) => format!("There is no metric called {metric}."),
            Self::UsageValueInvalid => "The usage is not a whole number.".into(),
            Self::LimitsExceeded(limit) if limit.max == 0 => {
                format!("{} is not part of this plan.", limit.metric)
            }
            Self::LimitsExceeded(limit) => {
                format!("The limit of {} {} per {} is reached.", limit.max, limit.metric, limit.window.period)
            }
            Self::NoMappingRule => "No mapping rule matches the request.".into(),
        }
    }
}
