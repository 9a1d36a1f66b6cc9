//! CORS at the gateway: answers preflights, and writes what lets pages read answers.

use http::StatusCode;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use weir_core::policy::cors::Cors;

use crate::body::ReplyBody;
use crate::fields::{self, Fields};
use crate::message::{Reply, RequestHead};

/// What is known of the page that calls.
pub(super) struct Page {
    /// What it is told of its origin; `None`: it may not call.
    allowed: Option<String>,
    /// The headers that it asks for.
    wanted: Option<String>,
    is_preflight: bool,
}

impl Page {
    /// Of a request; `None`: no page of another origin makes it.
    pub(super) fn of(head: &RequestHead, cors: &Cors) -> Option<Self> {
        let text = |name: http::HeaderName| head.fields.get(name).and_then(fields::text);
        let origin = text(ORIGIN)?;
        Some(Self {
            allowed: cors.allowed(origin).map(str::to_owned),
            wanted: text(ACCESS_CONTROL_REQUEST_HEADERS).map(str::to_owned),
            is_preflight: head.method == http::Method::OPTIONS
                && head.fields.has(ACCESS_CONTROL_REQUEST_METHOD),
        })
    }

    /// The answer to a preflight, which [`write`] completes; `None`: it is none.
    pub(super) fn preflight(&self) -> Option<Reply<ReplyBody>> {
        self.is_preflight.then(|| Reply { status: StatusCode::NO_CONTENT, ..Reply::new(ReplyBody::text("")) })
    }
}

/// Writes what an answer says to a page; what the upstream said of that goes. Without a page: only that answers differ.
pub(super) fn write(page: Option<&Page>, cors: &Cors, answer: &mut Fields) {
    answer.retain(|name| !name.starts_with(b"access-control-"));
    if !cors.is_for_all() {
        add_vary(answer);
    }
    let Some(page) = page else { return };
    let Some(origin) = &page.allowed else { return };
    answer.push(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    if cors.credentials {
        answer.push(ACCESS_CONTROL_ALLOW_CREDENTIALS, "true");
    }
    if page.is_preflight {
        answer.push(ACCESS_CONTROL_ALLOW_METHODS, &cors.methods);
        if let Some(headers) = cors.headers.as_ref().or(page.wanted.as_ref()) {
            answer.push(ACCESS_CONTROL_ALLOW_HEADERS, headers);
        }
        answer.push(ACCESS_CONTROL_MAX_AGE, cors.max_age_s.to_string());
    } else if !cors.exposed.is_empty() {
        answer.push(ACCESS_CONTROL_EXPOSE_HEADERS, &cors.exposed);
    }
}

/// Caches must keep answers to origins apart.
fn add_vary(answer: &mut Fields) {
    let says = |line: &str| {
        line.split(',').map(str::trim).any(|name| name == "*" || name.eq_ignore_ascii_case("origin"))
    };
    if !answer.all(b"vary").filter_map(fields::text).any(says) {
        answer.push(VARY, "Origin");
    }
}
