//! What a descriptor asks for: an application, and what it uses.
//!
//! `user_key`, or `app_id` with or without `app_key`, or `client_id` names the application. `metric`, perhaps several
//! times, names what is used; or `method` and `path` do, by the service's mapping rules. A key that is none of these is
//! refused: elsewhere it would mean a counter of its own, and here it would silently mean nothing.
//!
//! Problems name the key at fault, never its value.

use weir_core::arguments::Arguments;
use weir_core::path::RequestPath;
use weir_core::target::check_method;
use weir_core::usage::USAGE_MAX;
use weir_core::{Credentials, Denial, MetricName, Secret, Usage, UsageValue, extract};
use weir_proto::FieldError;
use weir_proto::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;

use crate::edge::EdgeService;

/// Most entries in one descriptor.
const ENTRIES_MAX: usize = 32;

/// One descriptor's question.
pub(super) struct Asked {
    pub(super) credentials: Credentials,
    pub(super) usage: Usage,
}

/// Entries by what they mean.
#[derive(Default)]
struct Entries<'a> {
    user_key: Option<&'a str>,
    app_id: Option<&'a str>,
    app_key: Option<&'a str>,
    client_id: Option<&'a str>,
    method: Option<&'a str>,
    path: Option<&'a str>,
    metrics: Vec<&'a str>,
}

/// Reads a descriptor; `times` is how often its usage counts unless it says otherwise.
///
/// # Errors
/// When it is none. Within: when the service refuses what it says.
pub(super) fn read(
    service: &EdgeService,
    descriptor: &RateLimitDescriptor,
    times: u64,
) -> Result<Result<Asked, Denial>, FieldError> {
    if descriptor.is_negative_hits {
        return Err(FieldError::new("is_negative_hits", "is not served: nothing is given back"));
    }
    let entries = sort(descriptor)?;
    let credentials = credentials(&entries)?;
    if let Err(denial) = extract::check_length(&credentials) {
        return Ok(Err(denial));
    }
    let usage = match usage(service, &entries)? {
        Ok(usage) => usage,
        Err(denial) => return Ok(Err(denial)),
    };
    let usage = multiply(&usage, descriptor.hits_addend.unwrap_or(times))?;
    Ok(Ok(Asked { credentials, usage }))
}

fn sort(descriptor: &RateLimitDescriptor) -> Result<Entries<'_>, FieldError> {
    if descriptor.entries.len() > ENTRIES_MAX {
        return Err(FieldError::new("entries", format!("has more than {ENTRIES_MAX} entries")));
    }
    let mut entries = Entries::default();
    for entry in &descriptor.entries {
        let place = match entry.key.as_str() {
            "metric" => {
                entries.metrics.push(&entry.value);
                continue;
            }
            "user_key" => &mut entries.user_key,
            "app_id" => &mut entries.app_id,
            "app_key" => &mut entries.app_key,
            "client_id" => &mut entries.client_id,
            "method" => &mut entries.method,
            "path" => &mut entries.path,
            key => return Err(FieldError::new("entries", format!("{key:?} is not a key of Weir"))),
        };
        if place.replace(&entry.value).is_some() {
            return Err(FieldError::new("entries", format!("{} is there twice", entry.key)));
        }
    }
    Ok(entries)
}

fn credentials(entries: &Entries<'_>) -> Result<Credentials, FieldError> {
    match (entries.user_key, entries.app_id, entries.client_id, entries.app_key) {
        (Some(key), None, None, None) => Ok(Credentials::UserKey(Secret::new(key))),
        (None, Some(app_id), None, app_key) => {
            Ok(Credentials::AppIdAndKey { app_id: app_id.to_owned(), app_key: app_key.map(Secret::new) })
        }
        (None, None, Some(id), None) => Ok(Credentials::ClientId(id.to_owned())),
        _ => Err(FieldError::new("entries", "name an application by user_key, app_id or client_id, once")),
    }
}

fn usage(service: &EdgeService, entries: &Entries<'_>) -> Result<Result<Usage, Denial>, FieldError> {
    match (entries.method, entries.path, entries.metrics.as_slice()) {
        (Some(method), Some(target), []) => matched(service, method, target),
        (None, None, metrics @ [_, ..]) => {
            let mut usage = Usage::default();
            for name in metrics {
                let metric: MetricName =
                    name.parse().map_err(|error| FieldError::new("entries.metric", error))?;
                usage.add(&metric, 1);
            }
            Ok(Ok(usage))
        }
        _ => Err(FieldError::new("entries", "say what is used by metric, or by method and path")),
    }
}

fn matched(service: &EdgeService, method: &str, target: &str) -> Result<Result<Usage, Denial>, FieldError> {
    check_method(method).map_err(|error| FieldError::new("entries.method", error.sentence()))?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path = RequestPath::parse(path).map_err(|error| FieldError::new("entries.path", error))?;
    let arguments = Arguments { query, form: b"" };
    let backend = service.rules.backend_of(&path.decoded);
    let matched = service.rules.matches(backend, method, &path.decoded, &|name| arguments.last(name));
    Ok(if matched.usage.is_empty() { Err(Denial::NoMappingRule) } else { Ok(matched.usage) })
}

fn multiply(usage: &Usage, times: u64) -> Result<Usage, FieldError> {
    let mut product = Vec::new();
    for (metric, value) in usage.iter() {
        let UsageValue::Add(by) = value else {
            return Err(FieldError::new("entries", "a mapping rule sets a value"));
        };
        let by = by.checked_mul(times).filter(|by| *by <= USAGE_MAX);
        let by = by.ok_or_else(|| FieldError::new("hits_addend", "is too large"))?;
        product.push((metric.clone(), UsageValue::Add(by)));
    }
    Ok(Usage::new(product))
}
