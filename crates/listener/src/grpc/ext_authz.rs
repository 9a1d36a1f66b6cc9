//! Envoy's external authorisation: what `edge` finds of a request, in the words of `ext_authz`.
//!
//! A refusal is an OK answer with a `denied_response`. A call without a decision ends with a gRPC status instead, so
//! that one setting of Envoy, `failure_mode_allow`, says what happens whether the listener or its store is away.
//!
//! The target goes back as `:path`: below the upstream's base URL, slashes merged, credentials out of it. Naming query
//! arguments for Envoy to remove would leave those that are written in other letters or with escapes.

use std::sync::Arc;

use tonic::{Code, Request, Response, Status};
use weir_core::arguments::{FORM_BYTES_MAX, may_carry_form};
use weir_core::extract::same_header;
use weir_core::refusal::wants_problem;
use weir_proto::FieldError;
use weir_proto::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use weir_proto::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use weir_proto::envoy::service::auth::v3::attribute_context::HttpRequest;
use weir_proto::envoy::service::auth::v3::authorization_server::Authorization;
use weir_proto::envoy::service::auth::v3::check_response::HttpResponse;
use weir_proto::envoy::service::auth::v3::{CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse};
use weir_proto::envoy::r#type::v3::HttpStatus;
use weir_proto::google;

use crate::caller;
use crate::edge::reply::{Class, Reply, limit_headers, render};
use crate::edge::{Admitted, Asker, Call, Header, Stop, admit};
use crate::request_id::hex;
use crate::server::Shared;
use crate::status::Failure;

/// Says that Envoy has not sent the whole body along.
const PARTIAL_BODY: &str = "x-envoy-auth-partial-body";

pub(crate) struct Service(pub(crate) Arc<Shared>);

#[tonic::async_trait]
impl Authorization for Service {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let shared = &self.0;
        let gateway = caller::gateway(&shared.config.gateways, request.metadata())?;
        let message = request.into_inner();
        let http = read_http(&message)?;
        let headers = headers(http);
        let call = read_call(http, &headers);
        let id = shared.request_ids.next();
        let answer = match admit(shared, (Asker::Envoy, gateway), &call, id).await {
            Ok(admitted) => allowed(&call, &admitted),
            Err(Stop::Refused(refusal)) => {
                denied(render(&refusal, wants_problem(call.texts("accept")), &hex(id)))
            }
            Err(Stop::Failed(failure)) => return Err(failure.into()),
        };
        Ok(Response::new(answer))
    }
}

fn read_http(message: &CheckRequest) -> Result<&HttpRequest, Failure> {
    let request = message.attributes.as_ref().and_then(|attributes| attributes.request.as_ref());
    let http = request.and_then(|request| request.http.as_ref());
    http.ok_or_else(|| FieldError::new("attributes.request.http", "is missing").into())
}

/// Whichever way Envoy sends them.
fn headers(http: &HttpRequest) -> Vec<Header<'_>> {
    let joined = http.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let listed = http.header_map.iter().flat_map(|map| &map.headers).map(|header| {
        let value = if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value };
        (header.key.as_bytes(), value)
    });
    joined.chain(listed).collect()
}

fn read_call<'a>(http: &'a HttpRequest, headers: &'a [Header<'a>]) -> Call<'a> {
    let body = if http.raw_body.is_empty() { http.body.as_bytes() } else { &http.raw_body };
    let mut call = Call { method: &http.method, host: &http.host, target: &http.path, headers, form: b"" };
    let is_whole = call.texts(PARTIAL_BODY).all(|text| text != "true") && body.len() <= FORM_BYTES_MAX;
    if is_whole && may_carry_form(call.method, call.texts("content-type")) {
        call.form = body;
    }
    call
}

fn allowed(call: &Call<'_>, admitted: &Admitted) -> CheckResponse {
    let service = &admitted.service;
    let mut headers = Vec::new();
    if admitted.target != call.target {
        headers.push(set(":path", &admitted.target));
    }
    if let Some(host) = &service.upstream_host {
        headers.push(set(":authority", host));
    }
    if let Some(token) = &service.proxy.secret_token {
        headers.push(set(&service.secret_header, token.expose()));
    }
    let response = limit_headers(&admitted.limits, admitted.at);
    let ok = OkHttpResponse {
        headers,
        headers_to_remove: unwanted(call, admitted),
        response_headers_to_add: response.map(|(name, value)| set(name, &value)).collect(),
    };
    answer(Code::Ok, "", HttpResponse::OkResponse(ok))
}

/// Headers of the client that end here: credentials, and what only a gateway says, however it is spelled.
fn unwanted(call: &Call<'_>, admitted: &Admitted) -> Vec<String> {
    let service = &admitted.service;
    let secret = service.secret_header.as_bytes();
    let is_set = |name: &[u8]| name == secret && service.proxy.secret_token.is_some();
    let is_unwanted = |name: &[u8]| {
        same_header(name, secret) || same_header(name, b"x-3scale-debug") || service.strips(name)
    };
    let names = call.headers.iter().map(|(name, _)| *name);
    let mut names: Vec<_> = names.filter(|name| is_unwanted(name) && !is_set(name)).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}

fn denied(reply: Reply) -> CheckResponse {
    let code = match reply.class {
        Class::AuthMissing => Code::Unauthenticated,
        Class::LimitsExceeded => Code::ResourceExhausted,
        Class::NotFound | Class::NoMatch => Code::NotFound,
        Class::Malformed | Class::Method | Class::BodyTooLong => Code::InvalidArgument,
        Class::AuthFailed => Code::PermissionDenied,
    };
    let mut headers = vec![set("content-type", &reply.content_type)];
    headers.extend(reply.headers.iter().map(|(name, value)| set(name, value)));
    let denied = DeniedHttpResponse {
        status: Some(HttpStatus { code: reply.status.into() }),
        headers,
        body: reply.body,
    };
    answer(code, reply.code, HttpResponse::DeniedResponse(denied))
}

fn answer(code: Code, message: &str, response: HttpResponse) -> CheckResponse {
    let status = google::rpc::Status { code: code.into(), message: message.to_owned() };
    CheckResponse { status: Some(status), http_response: Some(response) }
}

/// In the place of all of its name, for Envoys old and new.
fn set(name: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: name.to_owned(), value: value.to_owned(), raw_value: Vec::new() }),
        append: Some(false),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
    }
}
