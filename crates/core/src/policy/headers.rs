//! `headers`: sets, adds and removes headers of requests and answers.

use super::form::Form;
use super::template::Template;
use super::{Kind, Place, Policy, Repeats};

/// Most changes each way.
const CHANGES_MAX: usize = 64;

/// Headers that carry the exchange itself, or that the gateway vouches for.
const NOT_THESE: [&str; 15] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "proxy-connection",
    "upgrade",
    "te",
    "trailer",
    "expect",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
];

/// What becomes of headers.
#[derive(Debug, Clone)]
pub struct Headers {
    /// Of requests on their way upstream.
    pub request: Vec<HeaderChange>,
    /// Of answers on their way to the client. Their values are plain.
    pub response: Vec<HeaderChange>,
}

/// One change.
#[derive(Debug, Clone)]
pub struct HeaderChange {
    /// What is done.
    pub change: Change,
    /// In small letters.
    pub name: String,
    /// What is written; empty of what is removed.
    pub value: Template,
}

/// What is done with a header or an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Puts one in the place of all of its name.
    Set,
    /// Adds one behind those of its name.
    Add,
    /// Adds one where there is none of its name.
    Default,
    /// Takes out all of its name.
    Remove,
}

const CHANGES: &[(&str, Change)] =
    &[("set", Change::Set), ("add", Change::Add), ("default", Change::Default), ("remove", Change::Remove)];

/// What `change` means, for the keys of that name.
const CHANGE: &str = "`set`: instead of all of its name. `add`: beside them. `default`: where there is \
    none. `remove`: takes them out.";

impl Headers {
    /// As lists name it.
    pub const NAME: &'static str = "headers";

    pub(super) const KIND: Kind = Kind {
        name: Self::NAME,
        meaning: "Sets, adds and removes headers of requests and answers.",
        place: Place::Behind,
        repeats: Repeats::Freely,
        has_conditions: true,
        read: |form| Policy::Headers(Self::read(form)),
    };

    fn read(form: &Form<'_>) -> Self {
        let read = |form: &Form<'_>| change(form);
        let headers = Self {
            request: form.tables("request", "What becomes of requests' headers.", CHANGES_MAX, read),
            response: form.tables(
                "response",
                "What becomes of answers' headers, the gateway's own answers included; values name nothing of the request.",
                CHANGES_MAX,
                read,
            ),
        };
        for (at, change) in headers.response.iter().enumerate() {
            if change.value.plain().is_none() {
                form.wrong_at("response", at, "names something of the request: values of answers are plain");
            }
        }
        headers
    }
}

fn change(form: &Form<'_>) -> HeaderChange {
    let (change, name, value) = read_change(
        form,
        ("The header.", "header name"),
        "What is written. `{application}`, `{client_address}`, `{request_id}`, `{host}`, `{method}`, `{path}`, \
         `{header.NAME}`, `{query.NAME}` and `{claim.NAME}` stand for what is known of the request.",
    );
    check_name(form, name);
    HeaderChange { change, name: name.to_ascii_lowercase(), value }
}

/// What is done with which name, and what is written; the name is of some meaning and form.
pub(super) fn read_change<'a>(
    form: &Form<'a>,
    (name, name_form): (&'static str, &'static str),
    value: &'static str,
) -> (Change, &'a str, Template) {
    let change = form.choice("change", CHANGE, CHANGES, Some("set")).unwrap_or(Change::Set);
    let name = form.text("name", name, name_form).unwrap_or_default();
    let value = form.parsed("value", value, "text");
    form.require(&["name"]);
    if form.gives("value") == (change == Change::Remove) {
        form.wrong("", "value is missing: only remove does without, and has none");
    }
    (change, name, value.unwrap_or_default())
}

/// Says so where a text is no name of a header that may be changed.
fn check_name(form: &Form<'_>, name: &str) {
    if !form.gives("name") {
        return;
    }
    if !is_name(name) {
        form.wrong("name", format!("name {name:?} is not a header name"));
    } else if NOT_THESE.contains(&name.to_ascii_lowercase().as_str()) {
        let way_out = match name.to_ascii_lowercase().as_str() {
            "host" => "use host_rewrite of the proxy",
            _ => "HTTP or the gateway itself writes it",
        };
        form.wrong("name", format!("name cannot be {name:?}: {way_out}"));
    }
}

/// RFC 9110, section 5.1.
pub(super) fn is_name(text: &str) -> bool {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.len() <= 128 && text.bytes().all(is_token)
}
