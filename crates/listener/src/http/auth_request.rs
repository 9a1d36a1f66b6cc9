//! nginx's `auth_request`: what `edge` finds of a request, in statuses and headers that nginx can work with.
//!
//! The subrequest has the client's headers, and in headers of its own what the client asked for: `X-Original-Method`,
//! `X-Original-URI`, `X-Original-Host`; which service nginx stands in front of, in `Weir-Service` and `Weir-Environment`;
//! and the gateway token in `Weir-Gateway-Token`, since `Authorization` may be the client's. nginx understands 2xx, 401 and 403: a refusal is 401 or 403 with its class in `Weir-Refusal`, which the
//! configuration made by `weir nginx-config` turns into the provider's reply. Anything else is an outage to nginx.
//!
//! An admitted call gets the target and the secret token for the upstream in headers, so no file of nginx holds either.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use weir_core::Secret;
use weir_core::refusal::wants_problem;

use crate::caller::gateway_of;
use crate::edge::reply::{Class, Reply, limit_headers, render};
use crate::edge::{Admitted, Asker, Call, Header, Kind, Stop, admit};
use crate::server::Shared;

/// Where nginx asks.
pub(crate) const PATH: &str = "/nginx/auth";

const ORIGINAL_METHOD: &str = "x-original-method";
const ORIGINAL_URI: &str = "x-original-uri";
const ORIGINAL_HOST: &str = "x-original-host";
/// Which service this nginx stands in front of.
const SERVICE: &str = "weir-service";
/// The environment it was configured for.
const ENVIRONMENT: &str = "weir-environment";
const GATEWAY_TOKEN: &str = "weir-gateway-token";

/// Which refusal it is; of an outage there is none.
const REFUSAL: &str = "weir-refusal";
/// The refusal's stable code.
const CODE: &str = "weir-code";
/// What a reply says that is not the provider's.
const DETAIL: &str = "weir-detail";
/// A problem document, where the client wants one.
const PROBLEM: &str = "weir-problem";
/// The target for the upstream.
const TARGET: &str = "weir-target";
/// The secret token for the upstream.
const SECRET: &str = "weir-secret-token";

type Answer = Response<Full<Bytes>>;

/// Answers one subrequest.
pub(crate) async fn answer(shared: &Arc<Shared>, head: &Parts) -> Answer {
    // What is no text is no token, no method and no target: refused as such.
    let text = |name: &str| Some(std::str::from_utf8(head.headers.get(name)?.as_bytes()).unwrap_or_default());
    let gateway =
        text(GATEWAY_TOKEN).and_then(|token| gateway_of(&shared.config.gateways, &Secret::new(token)));
    let Some(gateway) = gateway else {
        // Not 401: nginx would take it for its client's.
        return empty(StatusCode::INTERNAL_SERVER_ERROR);
    };
    let (Some(method), Some(target)) = (text(ORIGINAL_METHOD), text(ORIGINAL_URI)) else {
        return empty(StatusCode::BAD_REQUEST);
    };
    let headers: Vec<Header<'_>> = client_headers(head).collect();
    // HTTP/1.0 has none: no service answers to that.
    let host = text(ORIGINAL_HOST).unwrap_or_default();
    let call = Call { method, host, target, headers: &headers, form: b"" };
    let (service, environment) = (text(SERVICE), text(ENVIRONMENT));
    let asker = Asker { kind: Kind::Nginx, gateway, service, environment };
    let id = shared.request_ids.next();
    match admit(shared, asker, &call, id).await {
        Ok(admitted) => allowed(&admitted).unwrap_or_else(|| empty(StatusCode::INTERNAL_SERVER_ERROR)),
        Err(Stop::Refused(refusal)) => {
            refused(&render(&refusal, wants_problem(call.texts("accept")), &id.to_string()))
        }
        Err(Stop::Failed(failure)) => {
            failure.log();
            empty(StatusCode::SERVICE_UNAVAILABLE)
        }
    }
}

/// Without those that nginx adds.
fn client_headers(head: &Parts) -> impl Iterator<Item = Header<'_>> {
    let added = [ORIGINAL_METHOD, ORIGINAL_URI, ORIGINAL_HOST, SERVICE, ENVIRONMENT, GATEWAY_TOKEN];
    let headers = head.headers.iter().filter(move |(name, _)| !added.contains(&name.as_str()));
    headers.map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
}

/// `None`: the target is no header value. Without it nginx would ask the API for something else.
fn allowed(admitted: &Admitted) -> Option<Answer> {
    let mut answer = empty(StatusCode::NO_CONTENT);
    let target = HeaderValue::from_bytes(admitted.target.as_bytes()).ok()?;
    answer.headers_mut().insert(TARGET, target);
    if let Some(token) = &admitted.service.proxy.secret_token {
        set(&mut answer, SECRET, token.expose());
    }
    for (name, value) in limit_headers(&admitted.limits, admitted.at) {
        set(&mut answer, name, &value);
    }
    Some(answer)
}

fn refused(reply: &Reply) -> Answer {
    let is_missing = reply.class == Class::AuthMissing;
    let mut answer = empty(if is_missing { StatusCode::UNAUTHORIZED } else { StatusCode::FORBIDDEN });
    set(&mut answer, REFUSAL, reply.class.as_str());
    set(&mut answer, CODE, reply.code);
    for (name, value) in &reply.headers {
        set(&mut answer, name, value);
    }
    match &reply.problem {
        Some(problem) => set(&mut answer, PROBLEM, problem),
        None if reply.class.is_ours() => set(&mut answer, DETAIL, &reply.body),
        // nginx has the provider's texts in its configuration.
        None => {}
    }
    answer
}

fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}

/// What is no value is left out; names are ours.
fn set(answer: &mut Answer, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(HeaderName::from_static(name), value);
    }
}
