//! The HTTP port: 3scale's Service Management API, for clients and gateways that speak it, and what nginx asks before
//! each of its calls.
//!
//! One endpoint per file; every route is on this page. Paths with doubled slashes are read as one, whatever else is not
//! known is 404 with an empty body. With a certificate the port speaks TLS, else it is in the clear.

mod auth_request;
mod authorize;
mod caller;
mod errors;
mod form;
mod limit_headers;
mod options;
pub(crate) mod parameters;
mod reply;
pub(crate) mod report;
mod serve;
pub(crate) mod timestamp;
mod usage;
mod xml;

use std::borrow::Cow;
use std::sync::Arc;

use futures_util::FutureExt;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use weir_store::Mode;

use crate::server::Shared;
use authorize::{Endpoint, authorize};
use reply::{Answer, answer, answer_of, preflight};

pub(crate) use form::Bodies;
pub(crate) use serve::{Tls, serve};

/// Answers a request.
async fn route(shared: &Arc<Shared>, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let path = single_slashes(head.uri.path());
    let reads = matches!(head.method, Method::GET | Method::HEAD);
    match (&*path, &head.method) {
        (auth_request::PATH, _) => auth_request::answer(shared, &head).await,
        (_, &Method::OPTIONS) => preflight(),
        ("/transactions/authrep.xml", _) if reads => authorize(shared, &head, AUTHREP).await,
        ("/transactions/authorize.xml", _) if reads => authorize(shared, &head, AUTHORIZE).await,
        ("/transactions/oauth_authrep.xml", _) if reads => authorize(shared, &head, OAUTH_AUTHREP).await,
        ("/transactions/oauth_authorize.xml", _) if reads => authorize(shared, &head, OAUTH_AUTHORIZE).await,
        ("/transactions.xml", &Method::POST) => report::report(shared, &head, body).boxed().await,
        ("/check.txt", _) if reads => answer_of("text/plain", "ok"),
        ("/status", _) if reads => answer_of("application/json", STATUS),
        ("/available", &Method::HEAD) => answer(StatusCode::OK, ""),
        _ => answer(StatusCode::NOT_FOUND, ""),
    }
}

const AUTHORIZE: Endpoint = Endpoint { mode: Mode::Check, is_oauth: false };
const AUTHREP: Endpoint = Endpoint { mode: Mode::Count, is_oauth: false };
const OAUTH_AUTHORIZE: Endpoint = Endpoint { mode: Mode::Check, is_oauth: true };
const OAUTH_AUTHREP: Endpoint = Endpoint { mode: Mode::Count, is_oauth: true };

const STATUS: &str = concat!(r#"{"status":"ok","version":{"backend":""#, env!("CARGO_PKG_VERSION"), r#""}}"#);

fn single_slashes(path: &str) -> Cow<'_, str> {
    if !path.contains("//") {
        return Cow::Borrowed(path);
    }
    let mut single = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !single.ends_with('/') {
            single.push(c);
        }
    }
    Cow::Owned(single)
}
