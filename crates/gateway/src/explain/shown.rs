//! An explanation as it is shown: JSON for programs, which `weir explain` turns into text.

use std::sync::Arc;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use weir_core::backend::BackendIndex;
use weir_core::mapping_rule::Matched;
use weir_core::proxy::CredentialLocation;
use weir_core::{
    ApplicationRef, CredentialKind, LimitStatus, MappingRule, Period, ProductRules, Proxy, Timestamp,
    UsageValue,
};
use weir_proto::v1;

use crate::proxy::{Trail, now};
use crate::reply::{self, Refusal};

/// What a call comes to, phase by phase; what is not there was not reached, or is not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Names the request, where it was made.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub request_id: Option<String>,
    /// When it was refused, in milliseconds since 1970-01-01 UTC.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub at_unix_ms: Option<i64>,
    /// Its method.
    pub method: String,
    /// Its host, bare.
    pub host: String,
    /// Its path, without the query.
    pub path: String,
    /// What the client is answered.
    pub answer: Answer,
    /// The service that it belongs to.
    pub service: Option<String>,
    /// Which of the service's backends it goes to.
    pub backend: Option<String>,
    /// Where credentials are looked for.
    pub credentials: Option<CredentialsShown>,
    /// Whose they are.
    pub application: Option<String>,
    /// The rules that match, in their order.
    pub rules: Vec<RuleShown>,
    /// What it uses by them.
    pub usage: Vec<Used>,
    /// Who decides: `lease`, `listener`, or `nobody` while no listener answers.
    pub decided_by: Option<String>,
    /// Where the application's limits stand, or the limit that refused.
    pub limits: Vec<LimitShown>,
    /// The policies that apply, in their order.
    pub policies: Vec<String>,
    /// The URL that it goes to, without what is secret in it.
    pub upstream: Option<String>,
}

/// What the client is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// `gateway`, or `upstream`: then it is the upstream's affair.
    pub from: String,
    /// The gateway's status.
    pub status: Option<u16>,
    /// The gateway's stable code.
    pub code: Option<String>,
    /// A sentence for people.
    pub detail: String,
    /// After how many seconds it may be otherwise.
    pub retry_after_s: Option<u64>,
}

/// Where a service looks for credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialsShown {
    /// `user_key`, `app_id_and_key` or `client_id`.
    pub mode: String,
    /// Where, by which names.
    pub location: String,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleShown {
    /// `GET`, `ANY`.
    pub method: String,
    /// Its pattern, with the mount of its backend.
    pub pattern: String,
    /// What it counts for.
    pub metric: String,
    /// How much.
    pub delta: u64,
    /// Whether it ended the walk.
    pub last: bool,
    /// Answers with which it counts nothing after all.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub free_answers: Vec<String>,
}

/// A metric, and how much of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// Its name.
    pub metric: String,
    /// How much.
    pub amount: u64,
}

/// Where a limit stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitShown {
    /// What is limited.
    pub metric: String,
    /// In which window.
    pub period: String,
    /// The limit.
    pub max: u64,
    /// What is used.
    pub used: u64,
    /// What leases hold.
    pub held: u64,
    /// What is left.
    pub left: u64,
    /// When the window ends; absent: never.
    pub resets_in_s: Option<u64>,
}

/// Who decides.
#[derive(Debug, Clone, Copy)]
pub(super) enum Decided {
    Lease,
    Listener,
    Nobody,
}

impl Decided {
    fn name(self) -> &'static str {
        match self {
            Self::Lease => "lease",
            Self::Listener => "listener",
            Self::Nobody => "nobody",
        }
    }
}

/// What is gathered on the way.
#[derive(Default)]
pub(super) struct Shown {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) application: Option<ApplicationRef>,
    pub(super) decided: Option<Decided>,
    pub(super) limits: Vec<v1::Counter>,
}

impl Shown {
    pub(super) fn refused(self, refusal: &Refusal, trail: Trail) -> Explanation {
        let answer = answer_of(refusal);
        let limit = limit_of(refusal);
        let mut explanation = self.with(answer, trail);
        if explanation.limits.is_empty() {
            explanation.limits.extend(limit);
        }
        explanation
    }

    pub(super) fn passes(self, upstream: String, trail: Trail) -> Explanation {
        let detail = "The call passes, and the upstream answers.".to_owned();
        let answer =
            Answer { from: "upstream".into(), status: None, code: None, detail, retry_after_s: None };
        let without_query = upstream.split('?').next().unwrap_or_default().to_owned();
        Explanation { upstream: Some(without_query), ..self.with(answer, trail) }
    }

    /// A policy answers, and nothing is counted.
    pub(super) fn answered(self, status: StatusCode, trail: Trail) -> Explanation {
        let detail = "A policy answers in the API's place.".to_owned();
        let status = Some(status.as_u16());
        let answer = Answer { from: "gateway".into(), status, code: None, detail, retry_after_s: None };
        self.with(answer, trail)
    }

    fn with(self, answer: Answer, trail: Trail) -> Explanation {
        Explanation {
            method: self.method,
            path: self.path,
            answer,
            application: self.application.map(|application| application.application.to_string()),
            decided_by: self.decided.map(|decided| decided.name().to_owned()),
            limits: self.limits.iter().filter_map(of_counter).collect(),
            ..Facts::of(trail).explanation()
        }
    }
}

/// What a trail tells: no more of a service than that, so that one which is gone is not kept alive.
pub(super) struct Facts {
    host: String,
    service: Option<String>,
    backend: (Option<BackendIndex>, Option<String>),
    credentials: Option<Arc<CredentialsShown>>,
    rules: Option<Arc<ProductRules>>,
    matched: Matched,
    /// Those that apply.
    policies: Vec<&'static str>,
}

/// Longest host that is kept.
const HOST_BYTES_MAX: usize = 255;

impl Facts {
    pub(super) fn of(trail: Trail) -> Self {
        let Trail { host, service, backend, matched, passing } = trail;
        let mut host = host.unwrap_or_default();
        host.truncate(host.floor_char_boundary(HOST_BYTES_MAX.min(host.len())));
        let service = service.as_deref();
        let chosen = service.zip(backend).and_then(|(service, at)| service.proxy.backends.get(at));
        Self {
            host,
            service: service.map(|service| service.id.to_string()),
            backend: (backend, chosen.map(|backend| backend.id.clone())),
            credentials: service.map(|service| Arc::clone(&service.credentials_shown)),
            rules: service.map(|service| Arc::clone(&service.rules)),
            matched,
            policies: passing.map(|passing| passing.names()).unwrap_or_default(),
        }
    }

    /// These policies applied.
    pub(super) fn with_policies(self, policies: Vec<&'static str>) -> Self {
        Self { policies, ..self }
    }

    /// Everything else is still to be said.
    pub(super) fn explanation(&self) -> Explanation {
        let rule = |place: &u32| self.rules.as_ref()?.rule(self.backend.0, *place).map(of_rule);
        let used = self.matched.usage.iter().map(|(metric, value)| {
            let (UsageValue::Add(amount) | UsageValue::Set(amount)) = value;
            Used { metric: metric.to_string(), amount }
        });
        Explanation {
            request_id: None,
            at_unix_ms: None,
            method: String::new(),
            host: self.host.clone(),
            path: String::new(),
            answer: Answer {
                from: String::new(),
                status: None,
                code: None,
                detail: String::new(),
                retry_after_s: None,
            },
            service: self.service.clone(),
            backend: self.backend.1.clone(),
            credentials: self.credentials.as_deref().cloned(),
            application: None,
            rules: self.matched.rules.iter().filter_map(rule).collect(),
            usage: used.collect(),
            decided_by: None,
            limits: vec![],
            policies: self.policies.iter().map(|name| (*name).to_owned()).collect(),
            upstream: None,
        }
    }
}

/// What a refusal is answered with.
pub(super) fn answer_of(refusal: &Refusal) -> Answer {
    Answer {
        from: "gateway".into(),
        status: Some(refusal.status().as_u16()),
        code: Some(refusal.code().to_owned()),
        detail: reply::detail(refusal),
        retry_after_s: reply::retry_after(refusal),
    }
}

/// The limit that refused.
pub(super) fn limit_of(refusal: &Refusal) -> Option<LimitShown> {
    match refusal {
        Refusal::Denied(denied) => match &denied.denial {
            weir_core::Denial::LimitsExceeded(limit) => Some(of_limit(limit, denied.at)),
            _ => None,
        },
        _ => None,
    }
}

fn of_limit(limit: &LimitStatus, at: Timestamp) -> LimitShown {
    LimitShown {
        metric: limit.metric.to_string(),
        period: limit.window.period.as_str().to_owned(),
        max: limit.max,
        used: limit.used,
        held: limit.held,
        left: limit.max.saturating_sub(limit.used).saturating_sub(limit.held),
        resets_in_s: limit.window.seconds_left(at),
    }
}

fn of_counter(counter: &v1::Counter) -> Option<LimitShown> {
    let period = Period::try_from(counter.period()).ok()?;
    let max = counter.max?;
    let left_ms = counter.window_end_unix_ms.map(|end| end.saturating_sub(now().unix_ms()).max(0));
    Some(LimitShown {
        metric: counter.metric.clone(),
        period: period.as_str().to_owned(),
        max,
        used: counter.used,
        held: counter.held,
        left: max.saturating_sub(counter.used).saturating_sub(counter.held),
        resets_in_s: left_ms.map(|ms| u64::try_from(ms).unwrap_or_default().div_ceil(1_000)),
    })
}

fn of_rule(rule: &MappingRule) -> RuleShown {
    RuleShown {
        method: rule.http_method.as_str().to_owned(),
        pattern: rule.pattern.to_string(),
        metric: rule.metric.to_string(),
        delta: rule.delta,
        last: rule.last,
        free_answers: rule.free_answers.names().iter().map(ToString::to_string).collect(),
    }
}

impl CredentialsShown {
    /// Those of a service.
    pub(crate) fn of(kind: CredentialKind, proxy: &Proxy) -> Self {
        let names = &proxy.credential_names;
        let (mode, wanted) = match kind {
            CredentialKind::UserKey => ("user_key", names.user_key.clone()),
            CredentialKind::AppIdAndKey => {
                ("app_id_and_key", format!("{} and {}", names.app_id, names.app_key))
            }
            CredentialKind::ClientId => ("client_id", names.access_token.clone()),
        };
        let bearer = if proxy.oidc.is_some() { ", else Authorization: Bearer" } else { "" };
        let location = match proxy.credential_location {
            CredentialLocation::Query => format!("query or form: {wanted}{bearer}"),
            CredentialLocation::Headers => format!("headers: {wanted}{bearer}"),
            CredentialLocation::Authorization => "header Authorization".to_owned(),
        };
        Self { mode: mode.into(), location }
    }
}
