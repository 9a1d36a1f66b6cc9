//! Whether an application is who it says and may be used: keys, referrer, states.
//!
//! The listener calls it with snapshots it has and what the caller presented. The order of checks is the
//! field's (reference: Service Management API, section 1.5), so the first reason named is the same.
//!
//! Finding the application (by `app_id`, client id or hash of the `user_key`) is the listener's part, limits
//! are the store's.

use crate::application::{Application, ApplicationState};
use crate::credentials::{CredentialKind, Credentials, OauthCall, Parameters, Presented, Redirect};
use crate::denial::Denial;
use crate::key_hash::{KeyHash, KeyHasher};
use crate::period::Timestamp;
use crate::referrer;
use crate::secret::Secret;
use crate::service::{Service, ServiceState};

/// Checks what was presented for an application of a service. `found_by` is the hash of the `user_key` that led to it:
/// it has been made for looking the application up, so it is not made again.
///
/// # Errors
/// The first check that fails.
pub fn authenticate(
    service: &Service,
    application: &Application,
    presented: &Presented,
    found_by: Option<&KeyHash>,
    referrer: Option<&str>,
    hasher: &KeyHasher,
    now: Timestamp,
) -> Result<(), Denial> {
    let keys = Keys { application, hasher, now };
    match presented {
        Presented::Credentials(credentials) => check_credentials(service, &keys, credentials, found_by)?,
        Presented::Parameters(parameters) => check_parameters(service, &keys, parameters, found_by)?,
        Presented::Nothing(_) => return check_active(service, application),
    }
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

fn check_credentials(
    service: &Service,
    keys: &Keys<'_>,
    credentials: &Credentials,
    found_by: Option<&KeyHash>,
) -> Result<(), Denial> {
    if credentials.kind().is_some_and(|kind| kind != service.credentials) {
        return Err(unknown(service));
    }
    match credentials {
        Credentials::UserKey(_) => keys.check_user_key(found_by),
        Credentials::AppIdAndKey { app_key, .. } => keys.check_app_key(app_key.as_ref()),
        Credentials::ClientId(_) => Ok(()),
        // Nobody may say so but the service itself.
        Credentials::Anonymous(id) if service.takes_anonymous_calls_for(id) => Ok(()),
        Credentials::Anonymous(_) => Err(unknown(service)),
    }
}

fn check_parameters(
    service: &Service,
    keys: &Keys<'_>,
    parameters: &Parameters,
    found_by: Option<&KeyHash>,
) -> Result<(), Denial> {
    if service.credentials == CredentialKind::UserKey {
        keys.check_user_key(found_by)?;
    }
    let app_key = parameters.app_key.as_ref();
    match (&parameters.oauth, service.credentials) {
        (Some(_), CredentialKind::UserKey | CredentialKind::AppIdAndKey) => Err(Denial::OauthNotEnabled),
        (Some(call), CredentialKind::ClientId) => {
            keys.check_optional_key(app_key)?;
            check_redirect(keys.application, call)
        }
        (None, CredentialKind::UserKey) => Ok(()),
        (None, CredentialKind::AppIdAndKey) => keys.check_app_key(app_key),
        (None, CredentialKind::ClientId) => keys.check_optional_key(app_key),
    }
}

fn check_redirect(application: &Application, call: &OauthCall) -> Result<(), Denial> {
    let (sent, denial) = match &call.redirect {
        None => return Ok(()),
        Some(Redirect::Url(url)) => (url, Denial::RedirectUrlInvalid),
        Some(Redirect::Uri(uri)) => (uri, Denial::RedirectUriInvalid),
    };
    if sent.is_empty() || application.redirect_url.as_ref() == Some(sent) { Ok(()) } else { Err(denial) }
}

/// An application's keys, and what it takes to compare them.
struct Keys<'a> {
    application: &'a Application,
    hasher: &'a KeyHasher,
    now: Timestamp,
}

impl Keys<'_> {
    fn check_user_key(&self, found_by: Option<&KeyHash>) -> Result<(), Denial> {
        match &self.application.user_key {
            Some(hash) if found_by == Some(hash) => Ok(()),
            _ => Err(Denial::UserKeyInvalid),
        }
    }

    /// Where there are no keys, none is asked for.
    fn check_app_key(&self, key: Option<&Secret>) -> Result<(), Denial> {
        if self.application.app_keys.is_empty() || key.is_some_and(|key| self.opens(key)) {
            return Ok(());
        }
        Err(Denial::ApplicationKeyInvalid)
    }

    /// Who is vouched for needs no key, but one that is sent must be right.
    fn check_optional_key(&self, key: Option<&Secret>) -> Result<(), Denial> {
        if key.is_none_or(|key| self.opens(key)) { Ok(()) } else { Err(Denial::ApplicationKeyInvalid) }
    }

    fn opens(&self, key: &Secret) -> bool {
        let in_force = |until: Option<Timestamp>| until.is_none_or(|until| self.now < until);
        let mut keys = self.application.app_keys.iter().filter(|stored| in_force(stored.until));
        keys.any(|stored| self.hasher.matches(key, &stored.hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::application::AppKey;
    use crate::credentials::CalledBy;
    use crate::metric::MetricTree;

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
            let presented = credentials.clone().into();
            let found = authenticate(service, application, &presented, hash.as_ref(), referrer, hasher, now);
            assert_eq!(found.map_or_else(|denial| denial.code(), |()| "ok"), expected);
        }

        /// `"app_id user_key app_key oauth redirect_url"`, each as `name=value`, in a call of 3scale's API.
        #[track_caller]
        fn check_call(&self, named: &str, expected: &str) {
            let Self { service, application, hasher } = self;
            let mut parameters = Parameters::default();
            for part in named.split_whitespace() {
                let (name, value) = part.split_once('=').unwrap_or((part, ""));
                let oauth = parameters.oauth.take();
                let redirect = |redirect| Some(OauthCall { redirect: Some(redirect) });
                parameters.oauth = match name {
                    "oauth" => Some(OauthCall::default()),
                    "redirect_url" => redirect(Redirect::Url(value.into())),
                    "redirect_uri" => redirect(Redirect::Uri(value.into())),
                    _ => oauth,
                };
                match name {
                    "user_key" => parameters.user_key = Some(Secret::new(value)),
                    "app_id" => parameters.app_id = Some(value.into()),
                    "app_key" => parameters.app_key = Some(Secret::new(value)),
                    _ => {}
                }
            }
            let presented = Presented::Parameters(parameters);
            let hash = match presented.called_by(service.credentials) {
                Some(CalledBy::UserKey(key)) => Some(hasher.hash(key)),
                Some(CalledBy::Id("app")) => None,
                _ => return assert_eq!(unknown(service).code(), expected, "{named}"),
            };
            let now = Timestamp::from_unix_s(0);
            let found = authenticate(service, application, &presented, hash.as_ref(), None, hasher, now);
            assert_eq!(found.map_or_else(|denial| denial.code(), |()| "ok"), expected, "{named}");
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
    fn only_the_service_says_whose_anonymous_calls_are() {
        use std::collections::BTreeMap;

        use crate::policy::Chain;
        use crate::policy::form::Value;
        for kind in [CredentialKind::UserKey, CredentialKind::AppIdAndKey, CredentialKind::ClientId] {
            let mut case = case(kind);
            let refusal = unknown(&case.service).code();
            case.check(&Credentials::Anonymous("app".into()), None, 0, refusal);
            let text = |text: &str| Value::Text(text.to_owned());
            let settings = [("policy", text("anonymous")), ("application", text("app"))];
            let settings: BTreeMap<_, _> = settings.map(|(name, value)| (name.to_owned(), value)).into();
            case.service.production.policies = Chain::read(&[Value::Table(settings)]).unwrap();
            case.check(&Credentials::Anonymous("app".into()), None, 0, "ok");
            case.check(&Credentials::Anonymous("other".into()), None, 0, refusal);
        }
    }

    #[test]
    fn the_service_says_which_parameters_count() {
        let case_of = case;
        case_of(CredentialKind::UserKey).check_call("user_key=uk", "ok");
        case_of(CredentialKind::UserKey).check_call("user_key=uk app_key=wrong", "ok");
        case_of(CredentialKind::UserKey).check_call("user_key=no", "user_key_invalid");
        case_of(CredentialKind::UserKey).check_call("app_id=app app_key=k1", "user_key_invalid");
        case_of(CredentialKind::UserKey).check_call("app_id=app oauth", "user_key_invalid");
        case_of(CredentialKind::AppIdAndKey).check_call("app_id=app app_key=k1", "ok");
        case_of(CredentialKind::AppIdAndKey).check_call("app_id=app", "application_key_invalid");
        case_of(CredentialKind::AppIdAndKey).check_call("user_key=uk", "application_not_found");
        case_of(CredentialKind::AppIdAndKey).check_call("app_id=app app_key=k1 oauth", "oauth_not_enabled");
    }

    #[test]
    fn oauth_asks_for_a_key_only_where_one_is_sent() {
        let mut case = case(CredentialKind::ClientId);
        for oauth in ["", " oauth"] {
            case.check_call(&format!("app_id=app{oauth}"), "ok");
            case.check_call(&format!("app_id=app app_key=k1{oauth}"), "ok");
            case.check_call(&format!("app_id=app app_key={oauth}"), "application_key_invalid");
        }
        case.check_call("app_id=app redirect_url=https://a/", "redirect_url_invalid");
        case.check_call("app_id=app redirect_uri=https://a/", "redirect_uri_invalid");
        case.check_call("app_id=app redirect_url=", "ok");
        case.application.redirect_url = Some("https://a/".into());
        case.check_call("app_id=app redirect_url=https://a/", "ok");
        case.check_call("app_id=app app_key=no redirect_url=https://b/", "application_key_invalid");
        case.application.app_keys.clear();
        case.check_call("app_id=app app_key= oauth", "application_key_invalid");
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
