//! Whether an application is who it says and may be used: keys, referrer, states.
//!
//! The listener calls it with snapshots it has and what the caller presented. The order of checks is the
//! field's (reference: Service Management API, section 1.5), so the first reason named is the same.
//!
//! Finding the application (by `app_id`, client id or hash of the `user_key`) is the listener's part, limits
//! are the store's.

use crate::application::{Application, ApplicationState};
use crate::credentials::{CredentialKind, Credentials};
use crate::denial::Denial;
use crate::key_hash::{KeyHash, KeyHasher};
use crate::period::Timestamp;
use crate::referrer;
use crate::service::{Service, ServiceState};

/// Checks what was presented for an application of a service. `found_by` is the hash of the `user_key` that led to it:
/// it has been made for looking the application up, so it is not made again.
///
/// # Errors
/// The first check that fails.
pub fn authenticate(
    service: &Service,
    application: &Application,
    credentials: &Credentials,
    found_by: Option<&KeyHash>,
    referrer: Option<&str>,
    hasher: &KeyHasher,
    now: Timestamp,
) -> Result<(), Denial> {
    check_key(service, application, credentials, found_by, hasher, now)?;
    if service.referrer_filters_required && !referrer::allowed(&application.referrer_filters, referrer) {
        return Err(Denial::ReferrerNotAllowed);
    }
    check_active(service, application)
}

/// Checks whether the states of an application and its service allow calls at all.
///
/// # Errors
/// The application's refusal before the service's.
pub fn check_active(service: &Service, application: &Application) -> Result<(), Denial> {
    if application.state != ApplicationState::Active {
        return Err(Denial::ApplicationNotActive);
    }
    if service.state != ServiceState::Active {
        return Err(Denial::ServiceNotActive);
    }
    Ok(())
}

/// The refusal for credentials that lead to no application of a service.
pub fn unknown(service: &Service) -> Denial {
    match service.credentials {
        CredentialKind::UserKey => Denial::UserKeyInvalid,
        CredentialKind::AppIdAndKey | CredentialKind::ClientId => Denial::ApplicationNotFound,
    }
}

fn check_key(
    service: &Service,
    application: &Application,
    credentials: &Credentials,
    found_by: Option<&KeyHash>,
    hasher: &KeyHasher,
    now: Timestamp,
) -> Result<(), Denial> {
    if credentials.kind() != service.credentials {
        return Err(unknown(service));
    }
    match credentials {
        Credentials::UserKey(_) => match &application.user_key {
            Some(hash) if found_by == Some(hash) => Ok(()),
            _ => Err(Denial::UserKeyInvalid),
        },
        Credentials::AppIdAndKey { .. } if application.app_keys.is_empty() => Ok(()),
        Credentials::AppIdAndKey { app_key, .. } => {
            let key = app_key.as_ref().ok_or(Denial::ApplicationKeyInvalid)?;
            let opens = application
                .app_keys
                .iter()
                .filter(|stored| stored.until.is_none_or(|until| now < until))
                .any(|stored| hasher.matches(key, &stored.hash));
            if opens { Ok(()) } else { Err(Denial::ApplicationKeyInvalid) }
        }
        Credentials::ClientId(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::application::AppKey;
    use crate::metric::MetricTree;
    use crate::secret::Secret;

    struct Case {
        service: Service,
        application: Application,
        hasher: KeyHasher,
    }

    /// An application with `user_key` "uk", keys "k1" and "k2" (the latter until second 100), filter "ok.org".
    fn case(kind: CredentialKind) -> Case {
        let hasher = KeyHasher::new(("1", &Secret::new("server")), &[]);
        let hash = |key: &str| hasher.hash(&Secret::new(key));
        let service = Service {
            id: "api".parse().unwrap(),
            name: String::new(),
            state: ServiceState::Active,
            credentials: kind,
            referrer_filters_required: false,
            provider: crate::Provider::default(),
            is_default: false,
            tokens: vec![],
            alert_bins: crate::AlertBins::default(),
            metrics: MetricTree::default(),
            plans: vec![],
            production: crate::proxy::Proxy::default(),
            staging: None,
        };
        let application = Application {
            reference: "api/app".parse().unwrap(),
            state: ApplicationState::Active,
            plan: "gold".parse().unwrap(),
            user_key: Some(hash("uk")),
            app_keys: vec![
                AppKey { hash: hash("k1"), until: None },
                AppKey { hash: hash("k2"), until: Some(Timestamp::from_unix_s(100)) },
            ],
            referrer_filters: vec!["ok.org".into()],
            redirect_url: None,
        };
        Case { service, application, hasher }
    }

    impl Case {
        #[track_caller]
        fn check(&self, credentials: &Credentials, referrer: Option<&str>, now_s: i64, expected: &str) {
            let now = Timestamp::from_unix_s(now_s);
            let Self { service, application, hasher } = self;
            let hash = match credentials {
                Credentials::UserKey(key) => Some(hasher.hash(key)),
                _ => None,
            };
            let found = authenticate(service, application, credentials, hash.as_ref(), referrer, hasher, now);
            assert_eq!(found.map_or_else(|denial| denial.code(), |()| "ok"), expected);
        }
    }

    fn id_and_key(key: Option<&str>) -> Credentials {
        Credentials::AppIdAndKey { app_id: "app".into(), app_key: key.map(Secret::new) }
    }

    #[test]
    fn user_keys() {
        let case = case(CredentialKind::UserKey);
        case.check(&Credentials::UserKey(Secret::new("uk")), None, 0, "ok");
        case.check(&Credentials::UserKey(Secret::new("k1")), None, 0, "user_key_invalid");
        case.check(&id_and_key(Some("k1")), None, 0, "user_key_invalid");
    }

    #[test]
    fn any_valid_key_opens_the_door() {
        let mut case = case(CredentialKind::AppIdAndKey);
        case.check(&id_and_key(Some("k1")), None, 99, "ok");
        case.check(&id_and_key(Some("k2")), None, 99, "ok");
        case.check(&id_and_key(Some("k2")), None, 100, "application_key_invalid");
        case.check(&id_and_key(Some("k3")), None, 99, "application_key_invalid");
        case.check(&id_and_key(None), None, 99, "application_key_invalid");
        case.check(&Credentials::ClientId("app".into()), None, 99, "application_not_found");
        case.application.app_keys.clear();
        case.check(&id_and_key(None), None, 99, "ok");
    }

    #[test]
    fn a_verified_client_id_needs_no_key() {
        case(CredentialKind::ClientId).check(&Credentials::ClientId("app".into()), None, 0, "ok");
    }

    #[test]
    fn checks_come_in_the_fields_order() {
        let mut case = case(CredentialKind::AppIdAndKey);
        case.service.referrer_filters_required = true;
        case.service.state = ServiceState::Suspended;
        case.application.state = ApplicationState::Pending;
        let good = id_and_key(Some("k1"));
        case.check(&id_and_key(Some("no")), None, 0, "application_key_invalid");
        case.check(&good, None, 0, "referrer_not_allowed");
        case.check(&good, Some("ok.org"), 0, "application_not_active");
        case.application.state = ApplicationState::Active;
        case.check(&good, Some("ok.org"), 0, "service_not_active");
        case.service.state = ServiceState::Active;
        case.check(&good, Some("ok.org"), 0, "ok");
    }
}
