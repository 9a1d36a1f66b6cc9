//! Envoy's external authorisation: what `edge` finds of a request, in the words of `ext_authz`.
//!
//! A refusal is an OK answer with a `denied_response`. A call without a decision ends with a gRPC status instead, so
//! that one setting of Envoy, `failure_mode_allow`, says what happens whether the listener or its store is away.
//!
//! The target goes back as `:path`: below the upstream's base URL, slashes merged, credentials out of it. Naming query
//! arguments for Envoy to remove would leave those that are written in other letters or with escapes.
//!
//! Who called, from where, is never the client's word: as at our gateway, in every spelling that a backend may read.

use std::sync::Arc;

use tonic::metadata::MetadataMap;
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
use weir_proto::envoy::service::auth::v3::{
    AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
};
use weir_proto::envoy::r#type::v3::HttpStatus;
use weir_proto::google;

use crate::caller;
use crate::edge::reply::{Class, Reply, limit_headers, render};
use crate::edge::{Admitted, Asker, Call, EdgeService, Header, Kind, Stop, admit};
use crate::server::Shared;
use crate::status::Failure;

/// Says that Envoy has not sent the whole body along.
const PARTIAL_BODY: &str = "x-envoy-auth-partial-body";

/// Which service an Envoy, or a virtual host of it, stands in front of.
const SERVICE: &str = "weir-service";
/// The environment it was configured for.
const ENVIRONMENT: &str = "weir-environment";

const FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED_PROTO: &str = "x-forwarded-proto";
const FORWARDED_HOST: &str = "x-forwarded-host";
const REAL_IP: &str = "x-real-ip";
const DEBUG: &str = "x-3scale-debug";
const PROXY_AUTHORIZATION: &str = "proxy-authorization";

pub(crate) struct Service(pub(crate) Arc<Shared>);

#[tonic::async_trait]
impl Authorization for Service {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let shared = &self.0;
        let (metadata, _, message) = request.into_parts();
        let gateway = caller::gateway(&shared.config.gateways, &metadata)?;
        let attributes = message.attributes.unwrap_or_default();
        let asker = Asker {
            kind: Kind::Envoy,
            gateway,
            service: said(&attributes, &metadata, SERVICE),
            environment: said(&attributes, &metadata, ENVIRONMENT),
        };
        let http = read_http(&attributes)?;
        let headers = headers(http);
        let call = read_call(http, &headers);
        let id = shared.request_ids.next();
        let answer = match admit(shared, asker, &call, id).await {
            Ok(admitted) => allowed(&call, client(&attributes), &admitted),
            Err(Stop::Refused(refusal)) => {
                denied(render(&refusal, wants_problem(call.texts("accept")), &id.to_string()))
            }
            Err(Stop::Failed(failure)) => return Err(failure.into()),
        };
        Ok(Response::new(answer))
    }
}

/// What Envoy's configuration says of itself: at the virtual host or route, else for all questions. Neither is a
/// client's to write. What is no text names nothing that there is.
fn said<'a>(attributes: &'a AttributeContext, metadata: &'a MetadataMap, name: &str) -> Option<&'a str> {
    let of_all = || Some(metadata.get(name)?.to_str().unwrap_or_default());
    attributes.context_extensions.get(name).map(String::as_str).or_else(of_all)
}

/// The client's address, as Envoy trusts it.
fn client(attributes: &AttributeContext) -> Option<&str> {
    let address = attributes.source.as_ref()?.address.as_ref()?.socket_address.as_ref()?;
    Some(address.address.as_str()).filter(|text| !text.is_empty())
}

fn read_http(attributes: &AttributeContext) -> Result<&HttpRequest, Failure> {
    let http = attributes.request.as_ref().and_then(|request| request.http.as_ref());
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

fn allowed(call: &Call<'_>, client: Option<&str>, admitted: &Admitted) -> CheckResponse {
    let service = &admitted.service;
    let mut headers = vec![set(":path", &admitted.target), set(FORWARDED_HOST, call.host)];
    headers.extend(client.map(|address| set(REAL_IP, address)));
    if let Some(host) = &admitted.upstream_host {
        headers.push(set(":authority", host));
    }
    // Its name is the provider's choice, and may be one of these: the last one stays.
    if let Some(token) = &service.proxy.secret_token {
        headers.push(set(&service.secret_header, token.expose()));
    }
    let response = limit_headers(&admitted.limits, admitted.at);
    let ok = OkHttpResponse {
        headers_to_remove: unwanted(call, service, &headers),
        headers,
        response_headers_to_add: response.map(|(name, value)| set(name, &value)).collect(),
    };
    answer(Code::Ok, "", HttpResponse::OkResponse(ok))
}

/// Headers of the client that end here: credentials, and what only a gateway says, however it is spelled. Those that
/// are `set` are replaced as it is; `X-Forwarded-For` and `X-Forwarded-Proto` are Envoy's own.
fn unwanted(call: &Call<'_>, service: &EdgeService, set: &[HeaderValueOption]) -> Vec<String> {
    let forwarding = [FORWARDED_FOR, FORWARDED_PROTO, FORWARDED_HOST, REAL_IP];
    let ours = [&forwarding[..], &[DEBUG, PROXY_AUTHORIZATION, service.secret_header.as_str()]].concat();
    let is_unwanted =
        |name: &[u8]| service.strips(name) || ours.iter().any(|one| same_header(name, one.as_bytes()));
    let set = set.iter().filter_map(|option| Some(option.header.as_ref()?.key.as_bytes()));
    let stay: Vec<&[u8]> = set.chain([FORWARDED_FOR.as_bytes(), FORWARDED_PROTO.as_bytes()]).collect();
    let names = call.headers.iter().map(|(name, _)| *name);
    let mut names: Vec<_> = names.filter(|name| is_unwanted(name) && !stay.contains(name)).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}

fn denied(reply: Reply) -> CheckResponse {
    let code = match reply.class {
        Class::AuthMissing => Code::Unauthenticated,
        Class::LimitsExceeded => Code::ResourceExhausted,
        Class::NotFound | Class::NoMatch => Code::NotFound,
        Class::Malformed | Class::Expectation | Class::Method | Class::BodyTooLong => Code::InvalidArgument,
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
