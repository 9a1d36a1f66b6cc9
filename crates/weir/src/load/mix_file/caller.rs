//! Who calls: `[[services.applications]]`, and keys of applications without names.

use weir_core::proxy::{CredentialLocation, CredentialNames};
use weir_core::{ApplicationId, Credentials, Secret};
use weir_load::Caller;

use super::{CALLERS_MAX, weight};
use crate::report::Place;
use crate::section::Section;

/// Longest file of keys.
const KEYS_FILE_BYTES_MAX: u64 = 64 << 20;

/// Where a service's gateway looks for credentials.
struct Sent {
    location: CredentialLocation,
    names: CredentialNames,
}

/// Reads all callers of a service.
pub(super) fn read(section: &Section<'_>) -> Vec<Caller> {
    let locations = [
        ("query", CredentialLocation::Query),
        ("headers", CredentialLocation::Headers),
        ("authorization", CredentialLocation::Authorization),
    ];
    let sent = Sent {
        location: section.choice("credentials_location", &locations).unwrap_or_default(),
        names: section.inside("credential_names", names),
    };
    let mut callers = section.each("applications", |section| application(section, &sent));
    for key in section.texts("keys").unwrap_or_default() {
        let credentials = Credentials::UserKey(Secret::new(key.value));
        callers.extend(caller(section, &sent, (1, None), credentials, key.place));
    }
    callers.extend(keys_of_file(section, &sent));
    callers
}

fn names(section: &Section<'_>) -> CredentialNames {
    let defaults = CredentialNames::default();
    let name = |key, default| section.text(key).map_or(default, |name| name.value.to_owned());
    CredentialNames {
        user_key: name("user_key", defaults.user_key),
        app_id: name("app_id", defaults.app_id),
        app_key: name("app_key", defaults.app_key),
        ..defaults
    }
}

/// With a `user_key` it alone is sent, else the id, with a key where one is given.
fn application(section: &Section<'_>, sent: &Sent) -> Option<Caller> {
    section.require("id");
    let weight = weight(section);
    let id = section.parsed::<ApplicationId>("id");
    let user_key = section.secret("user_key");
    let app_key = section.secret("app_key");
    if let (Some(_), Some(app_key)) = (&user_key, &app_key) {
        section.report().error(app_key.place, "user_key and app_key are both given: leave one out");
        return None;
    }
    let id = id?.value;
    let place = user_key.as_ref().or(app_key.as_ref()).map_or(section.place(), |key| key.place);
    let credentials = match user_key {
        Some(key) => Credentials::UserKey(key.value),
        None => Credentials::AppIdAndKey { app_id: id.to_string(), app_key: app_key.map(|key| key.value) },
    };
    caller(section, sent, (weight, Some(id)), credentials, place)
}

fn caller(
    section: &Section<'_>,
    sent: &Sent,
    (weight, id): (u32, Option<ApplicationId>),
    credentials: Credentials,
    place: Place,
) -> Option<Caller> {
    let made = Caller::new(weight, id, credentials, sent.location, &sent.names);
    made.map_err(|error| section.report().error(place, format!("the key {error}"))).ok()
}

/// A key a line; empty lines and lines that begin with `#` do not count.
fn keys_of_file(section: &Section<'_>, sent: &Sent) -> Vec<Caller> {
    let Some(path) = section.text("keys_file") else { return vec![] };
    let file = section.report().path(path.value);
    let read = std::fs::metadata(&file).and_then(|metadata| {
        if metadata.len() > KEYS_FILE_BYTES_MAX {
            return Err(std::io::Error::other(format!("longer than {KEYS_FILE_BYTES_MAX} bytes")));
        }
        std::fs::read_to_string(&file)
    });
    let text = match read {
        Ok(text) => text,
        Err(error) => {
            let message = format!("keys_file {} cannot be read: {error}", file.display());
            section.report().error(path.place, message);
            return vec![];
        }
    };
    let keys = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    // One more than may be is enough to be told that there are too many.
    let callers = keys.take(CALLERS_MAX + 1).filter_map(|key| {
        caller(section, sent, (1, None), Credentials::UserKey(Secret::new(key)), path.place)
    });
    callers.collect()
}
