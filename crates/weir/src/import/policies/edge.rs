//! `rate_limit`: how fast, and how many at a time.

use serde_json::Value as Json;
use weir_core::policy::form::Value;

use super::{OPENS, Reading, Table, has_condition, number, one, table, text, whole};

/// Most limits of one policy.
const LIMITS_MAX: usize = 16;

/// A limit that comes of one of 3scale's, and how it is not as it was.
struct Limit {
    settings: Table,
    how: &'static str,
}

impl Reading<'_> {
    pub(super) fn rate_limit(&mut self) {
        if self.error_field("error_handling").and_then(Json::as_str) == Some("log") {
            self.left_out(
                "limits_exceeded_error",
                "it only logs what is too much: limits here always refuse",
            );
            return;
        }
        let mut limits = Vec::new();
        for (field, read) in [
            ("connection_limiters", connections as fn(&Json) -> Result<Limit, String>),
            ("leaky_bucket_limiters", leaky_bucket),
            ("fixed_window_limiters", fixed_window),
        ] {
            for (at, limiter) in self.list(field).iter().enumerate() {
                let field = format!("{field}[{at}]");
                match self.limit(&field, limiter, read) {
                    Ok(limit) => limits.push(Value::Table(limit)),
                    Err(why) => self.left_out(&field, &format!("{why}; {OPENS}")),
                }
            }
        }
        self.settings_of_limits();
        for limits in limits.chunks(LIMITS_MAX) {
            self.write("edge_limits", table([("limits", Value::List(limits.to_vec()))]));
        }
    }

    fn error_field(&self, name: &str) -> Option<&Json> {
        self.field("limits_exceeded_error").and_then(|error| error.get(name))
    }

    fn settings_of_limits(&mut self) {
        if self.text("redis_url").is_some() || self.field("redis_sentinels").is_some() {
            self.changed(
                "redis_url",
                "each gateway counts for itself, in memory: three let three times as much pass",
            );
        }
        if self.error_field("status_code").is_some_and(|status| number(status) != Some(429)) {
            self.changed("limits_exceeded_error.status_code", "is 429 now");
        }
        if self.field("configuration_error").is_some() {
            self.changed(
                "configuration_error",
                "it is not needed: mistakes are found before a service is taken up",
            );
        }
        self.rest(&[
            "connection_limiters",
            "leaky_bucket_limiters",
            "fixed_window_limiters",
            "limits_exceeded_error",
            "configuration_error",
            "redis_url",
            "redis_sentinels",
        ]);
    }

    fn limit(
        &mut self,
        field: &str,
        limiter: &Json,
        read: fn(&Json) -> Result<Limit, String>,
    ) -> Result<Table, String> {
        if has_condition(limiter) {
            return Err("it has a condition: write edge_limits with when".to_owned());
        }
        let per = self.per(limiter)?;
        let Limit { mut settings, how } = read(limiter)?;
        settings.insert("per".to_owned(), text(per));
        self.judge("edge_limits", &table([("limits", one(settings.clone()))]))?;
        if how.is_empty() {
            self.mapped(field, &format!("edge_limits.limits, per {per}"));
        } else {
            self.changed(field, &format!("policies: edge_limits.limits, per {per}; {how}"));
        }
        let is_global = limiter.pointer("/key/scope").and_then(Json::as_str) == Some("global");
        if is_global && per != "application" {
            self.changed(&format!("{field}.key.scope"), "it counts the calls of this service alone");
        }
        Ok(settings)
    }

    /// Who is counted as one, where that is said in a way that is known.
    fn per(&self, limiter: &Json) -> Result<&'static str, String> {
        let of = |name: &str| limiter.pointer(&format!("/key/{name}")).and_then(Json::as_str);
        let name = of("name").unwrap_or_default();
        let variable = name.trim().strip_prefix("{{").and_then(|name| name.strip_suffix("}}")).map(str::trim);
        if of("name_type") != Some("liquid") {
            return match of("scope") {
                Some("global") => {
                    Err("several services share its key: limits here are a service's own".to_owned())
                }
                _ => Ok("service"),
            };
        }
        match variable {
            Some("remote_addr") => Ok("address"),
            Some("service.id" | "service.system_name") => Ok("service"),
            Some("application.id" | "credentials.app_id") => Ok("application"),
            Some("credentials.user_key") => Ok("client"),
            Some(other) if other.strip_prefix("jwt.") == Some(self.written.of.client_id_claim.as_str()) => {
                Ok("application")
            }
            _ => {
                Err(format!("its key {name:?} stands for none of an address, an application and the service"))
            }
        }
    }
}

fn given(limiter: &Json, name: &str) -> Result<u64, String> {
    limiter.get(name).and_then(number).ok_or_else(|| format!("its {name} is no whole number"))
}

/// What is over `conn` waits there, up to `burst` more.
fn connections(limiter: &Json) -> Result<Limit, String> {
    let burst = limiter.get("burst").and_then(number).unwrap_or(0);
    let most = given(limiter, "conn")?.saturating_add(burst);
    let how = if burst == 0 { "" } else { "its burst is let through at once, without a delay" };
    Ok(Limit { settings: table([("concurrent_max", whole(most))]), how })
}

/// A bucket there lets one call and its burst come at once.
fn leaky_bucket(limiter: &Json) -> Result<Limit, String> {
    let burst = limiter.get("burst").and_then(number).unwrap_or(0);
    let rate = given(limiter, "rate")?;
    let how = if burst == 0 { "" } else { "its burst is let through at once, without a delay" };
    let settings = table([("requests", whole(rate)), ("burst", whole(burst.saturating_add(1)))]);
    Ok(Limit { settings, how })
}

fn fixed_window(limiter: &Json) -> Result<Limit, String> {
    let window = limiter.get("window").and_then(number).filter(|window| *window > 0).unwrap_or(1);
    let settings = table([("requests", whole(given(limiter, "count")?)), ("period_s", whole(window))]);
    Ok(Limit { settings, how: "it is a bucket that fills up all the time, not a window" })
}
