//! Calls that other proxies hold and ask about: Envoy over `ext_authz`, nginx over `auth_request`.
//!
//! Both render what [`admit`] finds: the service by host, the credentials where its provider wants them, the usage by
//! its mapping rules, and the engine's verdict, in the order and by the rules of our own gateway. The asker proves
//! itself by a gateway token, which says the environment and the services, and may say itself which one of them it stands
//! in front of (`edge/asker.rs`); others are as if they were not there.
//!
//! It knows neither protocol. Each call is asked about once, under an id made here, and is counted when it is answered.

mod asker;
pub(crate) mod reply;
mod routes;
mod service;

use std::sync::Arc;

use weir_core::arguments::Arguments;
use weir_core::backend::BackendIndex;
use weir_core::path::RequestPath;
use weir_core::ratelimit::Tightest;
use weir_core::referrer::of_client;
use weir_core::target::{TargetError, bare_host, check_expectations, check_method, is_authority};
use weir_core::{Credentials, Decision, Denial, Proof, Timestamp, Usage, extract};
use weir_store::{Mode, RequestId};

use crate::engine::{Question, Wishes};
use crate::meters;
use crate::server::Shared;
use crate::status::Failure;
use crate::trace::Parent;

pub(crate) use asker::{Asker, Kind};
pub(crate) use routes::Directory;
pub(crate) use service::EdgeService;

/// A name and a value.
pub(crate) type Header<'a> = (&'a [u8], &'a [u8]);

/// A request as its proxy got it from the client.
pub(crate) struct Call<'a> {
    pub(crate) method: &'a str,
    /// Perhaps with a port.
    pub(crate) host: &'a str,
    /// Path and query, not decoded.
    pub(crate) target: &'a str,
    pub(crate) headers: &'a [Header<'a>],
    /// A form body, as far as the proxy has sent it along.
    pub(crate) form: &'a [u8],
}

impl Call<'_> {
    /// The values of a header that are text.
    pub(crate) fn texts(&self, name: &str) -> impl Iterator<Item = &str> {
        let named = self.headers.iter().filter(move |(found, _)| found.eq_ignore_ascii_case(name.as_bytes()));
        named.filter_map(|(_, value)| std::str::from_utf8(value).ok())
    }
}

/// A call that may go on.
pub(crate) struct Admitted {
    pub(crate) service: Arc<EdgeService>,
    /// Where its limits stand, and when.
    pub(crate) limits: Tightest,
    pub(crate) at: Timestamp,
    /// The target for the upstream: below its base URL, slashes merged, without credentials where the provider wants
    /// that.
    pub(crate) target: String,
    /// The Host for the upstream; `None`: there is neither an upstream nor a rewrite.
    pub(crate) upstream_host: Option<String>,
}

/// Why a call may not go on.
pub(crate) enum Refusal {
    /// The request cannot be served by anyone.
    Target(TargetError),
    /// No service of the asker answers to its host.
    NoService,
    /// Its body is longer than the service takes.
    BodyTooLong,
    /// The service refuses it.
    Denied { service: Arc<EdgeService>, denial: Denial, at: Timestamp },
}

impl Refusal {
    /// The stable code.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Target(error) => error.code(),
            Self::NoService => "service_not_found",
            Self::BodyTooLong => "body_too_long",
            Self::Denied { denial, .. } => denial.code(),
        }
    }
}

/// Why a call does not go on.
pub(crate) enum Stop {
    /// It may not.
    Refused(Refusal),
    /// There is no decision.
    Failed(Failure),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<TargetError> for Stop {
    fn from(error: TargetError) -> Self {
        Self::Refused(Refusal::Target(error))
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Decides about a call, and counts it if it may go on.
///
/// # Errors
/// The refusal, or what kept the call from being decided.
pub(crate) async fn admit(
    shared: &Shared,
    asker: Asker<'_>,
    call: &Call<'_>,
    request: RequestId,
) -> Result<Admitted, Stop> {
    let found = decide(shared, asker, call, request).await;
    let outcome = match &found {
        Ok(_) => "allowed",
        Err(Stop::Refused(refusal)) => refusal.code(),
        Err(Stop::Failed(_)) => "undecided",
    };
    meters::asked(asker.kind.as_str(), outcome);
    found
}

async fn decide(
    shared: &Shared,
    asker: Asker<'_>,
    call: &Call<'_>,
    request: RequestId,
) -> Result<Admitted, Stop> {
    let (path, query) = read_target(call)?;
    if !asker.is_of_its_tokens_environment() {
        return Err(Refusal::NoService.into());
    }
    let service = shared.directory.find(&shared.catalog, asker.gateway, &bare_host(call.host))?;
    let service = service.filter(|service| asker.is_for(&service.id)).ok_or(Refusal::NoService)?;
    let path = RequestPath::parse(path).map_err(TargetError::Path)?;
    let arguments = Arguments { query: query.unwrap_or_default(), form: call.form };
    let denied = |denial, at| Refusal::Denied { service: Arc::clone(&service), denial, at };
    let credentials = credentials(&service, call, arguments).map_err(|d| denied(d, Timestamp::default()))?;
    let backend = service.rules.backend_of(&path.decoded);
    let usage =
        usage(&service, backend, call, &path, arguments).map_err(|d| denied(d, Timestamp::default()))?;
    check_length(&service, call)?;
    let question = Question {
        request,
        attempt: 0,
        service: service.id.clone(),
        proof: Proof::Gateway,
        wishes: Wishes::default(),
        credentials: credentials.into(),
        usage,
        referrer: referrer(call),
        mode: Mode::Count,
        trace: Parent::read(None),
    };
    let verdict = shared.engine.decide(&question).await?;
    match verdict.decision {
        Decision::Deny(denial) => Err(denied(denial, verdict.at).into()),
        Decision::Allow(limits) => Ok(Admitted {
            limits: Tightest::of(limits),
            at: verdict.at,
            target: service.onward(backend, &path, query),
            upstream_host: service.upstream_host(backend).map(str::to_owned),
            service,
        }),
    }
}

/// Path and query of a request that can be served.
fn read_target<'a>(call: &Call<'a>) -> Result<(&'a str, Option<&'a str>), TargetError> {
    check_method(call.method)?;
    let expected = call.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(b"expect"));
    check_expectations(expected.map(|(_, value)| *value))?;
    if !call.target.starts_with('/') {
        return Err(TargetError::Malformed("the request target is not a path"));
    }
    // Some servers end the target at a `#`, some do not; nobody sends blanks or control characters.
    if call.target.bytes().any(|b| b == b'#' || b <= b' ' || b == 0x7f) {
        return Err(TargetError::Malformed("the request target has a character that must be escaped"));
    }
    if !is_authority(call.host) {
        return Err(TargetError::Malformed("the host is malformed"));
    }
    Ok(match call.target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (call.target, None),
    })
}

fn credentials(
    service: &EdgeService,
    call: &Call<'_>,
    arguments: Arguments<'_>,
) -> Result<Credentials, Denial> {
    let headers = call.headers.iter().copied();
    let found = extract::credentials(service.credentials, &service.proxy, headers, arguments)?;
    extract::check_length(&found)?;
    Ok(found)
}

fn usage(
    service: &EdgeService,
    backend: Option<BackendIndex>,
    call: &Call<'_>,
    path: &RequestPath<'_>,
    arguments: Arguments<'_>,
) -> Result<Usage, Denial> {
    let last = |name: &[u8]| arguments.last(name);
    let matched = service.rules.matches(backend, call.method, &path.decoded, &last);
    if matched.usage.is_empty() { Err(Denial::NoMappingRule) } else { Ok(matched.usage) }
}

/// Only what the client declares: the proxy that reads the body has to hold it to the rest.
fn check_length(service: &EdgeService, call: &Call<'_>) -> Result<(), Refusal> {
    let declared = call.texts("content-length").next().and_then(|text| text.trim().parse::<u64>().ok());
    if declared.is_some_and(|length| length > service.proxy.request_body_bytes_max) {
        return Err(Refusal::BodyTooLong);
    }
    Ok(())
}

fn referrer(call: &Call<'_>) -> Option<String> {
    let text = call.texts("referer").next()?;
    let is_visible = text.bytes().all(|b| matches!(b, b' '..=b'~' | b'\t'));
    of_client(text).filter(|_| is_visible).map(str::to_owned)
}
