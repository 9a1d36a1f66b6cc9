//! Applications and their keys: `[[providers.services.applications]]`.

use std::collections::HashMap;

use toml::value::{Datetime, Offset};
use weir_core::application::{APP_KEYS_MAX, AppKey, REDIRECT_URL_BYTES_MAX, REFERRER_FILTERS_MAX};
use weir_core::{
    Application, ApplicationId, ApplicationRef, ApplicationState, CredentialKind, KeyHash, Plan, PlanId,
    Timestamp,
};

use super::service::Scope;
use super::{Draft, KeyHashing};
use crate::names::Names;
use crate::report::Place;
use crate::section::{Item, Section};
use crate::suggest::did_you_mean;

/// Reads a service's applications into the draft.
pub(super) fn read(section: &Section<'_>, scope: &Scope, plans: &[Plan], draft: &mut Draft<'_>) {
    let mut names = Names::new("application");
    let mut user_keys = HashMap::new();
    let applications = section.each("applications", |section| {
        let (user_key, user_key_place) = user_key(section, draft.hashing);
        let application = application(section, scope, plans, draft.hashing, &mut names, user_key)?;
        if let Some(hash) = &application.user_key {
            claim_user_key(section, &mut user_keys, hash, user_key_place);
        }
        Some(application)
    });
    draft.catalog.applications.extend(applications);
}

fn application(
    section: &Section<'_>,
    scope: &Scope,
    plans: &[Plan],
    hashing: &KeyHashing,
    names: &mut Names,
    user_key: Option<KeyHash>,
) -> Option<Application> {
    section.require("id");
    section.require("plan");
    let id = section.parsed::<ApplicationId>("id");
    let plan = plan(section, scope, plans);
    let state = section.choice("state", STATES).unwrap_or_default();
    let app_keys = app_keys(section, hashing);
    let referrer_filters = referrer_filters(section);
    let redirect_url = redirect_url(section);
    let id = id?;
    names.claim(section.report(), id.value.as_str(), id.place);
    warn_of_keys(section, scope, &id.value);
    let reference = ApplicationRef { service: scope.id.clone()?, application: id.value };
    Some(Application { reference, state, plan: plan?, user_key, app_keys, referrer_filters, redirect_url })
}

const STATES: &[(&str, ApplicationState)] = &[
    ("active", ApplicationState::Active),
    ("pending", ApplicationState::Pending),
    ("suspended", ApplicationState::Suspended),
];

fn plan(section: &Section<'_>, scope: &Scope, plans: &[Plan]) -> Option<PlanId> {
    let plan = section.parsed::<PlanId>("plan")?;
    if !plans.iter().any(|known| known.id == plan.value) {
        let near = did_you_mean(plan.value.as_str(), plans.iter().map(|plan| plan.id.as_str()));
        let message = format!("plan \"{}\" is not defined in service {}{near}", plan.value, scope.label());
        section.report().error(plan.place, message);
    }
    Some(plan.value)
}

fn user_key(section: &Section<'_>, hashing: &KeyHashing) -> (Option<KeyHash>, Place) {
    match section.text("user_key") {
        Some(text) => (hashing.read(section.report(), "user_key", text), text.place),
        None => (None, section.place()),
    }
}

fn claim_user_key(section: &Section<'_>, taken: &mut HashMap<KeyHash, Place>, hash: &KeyHash, place: Place) {
    if let Some(first) = taken.insert(hash.clone(), place) {
        let line = section.report().line(first);
        let message = format!("user_key is another application's too, in line {line}");
        section.report().error(place, message);
    }
}

fn app_keys(section: &Section<'_>, hashing: &KeyHashing) -> Vec<AppKey> {
    let report = section.report();
    let mut keys: Vec<AppKey> = Vec::new();
    section.items("app_keys", |item| {
        let (hash, until, place) = match item {
            Item::Text(text) => (hashing.read(report, "app_keys: the key", text), None, text.place),
            Item::Section(section) => {
                section.require("key");
                let hash = section.text("key").and_then(|text| hashing.read(report, "key", text));
                let until = section.datetime("until").and_then(|until| timestamp(&until.value));
                (hash, until, section.place())
            }
        };
        let hash = hash?;
        if keys.iter().any(|key| key.hash == hash) {
            report.error(place, "app_keys holds this key twice");
        } else if keys.len() == APP_KEYS_MAX {
            report.error(place, format!("app_keys holds more than {APP_KEYS_MAX} keys"));
        }
        keys.push(AppKey { hash, until });
        Some(())
    });
    keys
}

fn referrer_filters(section: &Section<'_>) -> Vec<String> {
    let filters = section.texts("referrer_filters").unwrap_or_default();
    if let Some(excess) = filters.get(REFERRER_FILTERS_MAX) {
        let message = format!("referrer_filters holds more than {REFERRER_FILTERS_MAX}");
        section.report().error(excess.place, message);
    }
    for filter in filters.iter().filter(|filter| filter.value.is_empty()) {
        section.report().error(filter.place, "referrer_filters holds an empty filter");
    }
    filters.iter().map(|filter| filter.value.to_owned()).collect()
}

fn redirect_url(section: &Section<'_>) -> Option<String> {
    let url = section.text("redirect_url")?;
    if url.value.is_empty() || url.value.len() > REDIRECT_URL_BYTES_MAX {
        let message = format!("redirect_url has not 1 to {REDIRECT_URL_BYTES_MAX} bytes");
        section.report().error(url.place, message);
    }
    Some(url.value.to_owned())
}

/// Legal, but seldom meant: a key that is never asked for, or an application that nothing can open.
fn warn_of_keys(section: &Section<'_>, scope: &Scope, id: &ApplicationId) {
    let warning = match scope.credentials {
        CredentialKind::UserKey if !section.gives("user_key") => "has no user_key, so no call can name it",
        CredentialKind::AppIdAndKey if !section.gives("app_keys") => {
            "has no app_keys, so its id alone opens the door"
        }
        _ => return,
    };
    section.report().warning(section.place(), format!("application \"{id}\" {warning}"));
}

/// The instant of a complete date and time.
fn timestamp(datetime: &Datetime) -> Option<Timestamp> {
    let (date, at) = datetime.date.zip(datetime.time)?;
    let offset_minutes = match datetime.offset? {
        Offset::Custom { minutes } => i64::from(minutes),
        Offset::Z => 0,
    };
    let month = time::Month::try_from(date.month).ok()?;
    let day = time::Date::from_calendar_date(date.year.into(), month, date.day).ok()?;
    let midnight = day.midnight().assume_utc().unix_timestamp();
    let seconds = i64::from(at.hour) * 3_600 + i64::from(at.minute) * 60 + i64::from(at.second.unwrap_or(0));
    let instant = Timestamp::from_unix_s(midnight + seconds - offset_minutes * 60);
    Some(instant.plus_ms((at.nanosecond.unwrap_or(0) / 1_000_000).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, unix_s: i64) {
        assert_eq!(timestamp(&text.parse().unwrap()).unwrap().unix_s(), unix_s, "{text}");
    }

    #[test]
    fn dates_become_instants() {
        check("1970-01-01T00:00:00Z", 0);
        check("2000-02-29T12:00:00Z", 951_825_600);
        check("2026-12-31T23:59:59Z", 1_798_761_599);
        check("2026-12-31T23:59:59+01:00", 1_798_757_999);
        check("2024-03-01T00:00:00-05:30", 1_709_271_000);
    }
}
