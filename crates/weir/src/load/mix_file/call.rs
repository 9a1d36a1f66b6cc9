//! What is called: `[[services.requests]]`.

use bytes::Bytes;
use http::{HeaderName, Method, header};
use weir_core::{COUNT_MAX, MetricName};
use weir_load::{Call, CallKind, Expected, PathTemplate, Template};

use super::weight;
use crate::report::Located;
use crate::section::Section;

/// Longest body and longest message.
const BODY_BYTES_MAX: u64 = 16 << 20;
/// Headers that the client writes itself.
const OWN_HEADERS: [HeaderName; 4] =
    [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION];

/// Reads one.
pub(super) fn read(section: &Section<'_>) -> Option<Call> {
    let weight = weight(section);
    let name = section.text("name").map(|name| name.value.to_owned());
    let kind_and_path = match section.text("grpc") {
        Some(method) => grpc(section, method),
        None => http(section),
    };
    let headers = headers(section);
    let usage = usage(section);
    let expected = expected(section);
    let (kind, path) = kind_and_path?;
    let name = name.unwrap_or_else(|| match &kind {
        // Without the query, which may hold what is not for reports.
        CallKind::Http { method, .. } => {
            format!("{method} {}", path.as_str().split('?').next().unwrap_or_default())
        }
        CallKind::Grpc(_) => path.as_str().to_owned(),
    });
    Some(Call { name, weight, kind, path, headers, counted: usage.clone(), usage, expected })
}

fn http(section: &Section<'_>) -> Option<(CallKind, PathTemplate)> {
    section.require("path");
    let path = section.parsed::<PathTemplate>("path");
    let body = section.parsed::<Template>("body");
    let body_file = bytes_of_file(section, "body_file");
    let given = section.gives("body") || section.gives("body_file");
    let method = match section.parsed::<Method>("method") {
        Some(method) => method.value,
        None if given => Method::POST,
        None => Method::GET,
    };
    if section.gives("body") && section.gives("body_file") {
        section.report().error(section.place(), "body and body_file are both given: leave one out");
    }
    let body = match body_file {
        Some(bytes) => text_of_file(section, bytes)?,
        None => body.map_or_else(Template::default, |body| body.value),
    };
    Some((CallKind::Http { method, body }, path?.value))
}

fn text_of_file(section: &Section<'_>, bytes: Located<Vec<u8>>) -> Option<Template> {
    let text = String::from_utf8(bytes.value).map_err(|_| "is not UTF-8".to_owned());
    let template = text.and_then(|text| text.parse().map_err(|error| format!("{error}")));
    template.map_err(|error| section.report().error(bytes.place, format!("body_file {error}"))).ok()
}

/// `package.Service/Method`, with a message in a file or none, which is the empty one.
fn grpc(section: &Section<'_>, method: Located<&str>) -> Option<(CallKind, PathTemplate)> {
    for key in ["method", "path", "body", "body_file"] {
        if section.gives(key) {
            section.report().error(section.place(), format!("{key} does not go with grpc"));
        }
    }
    let message = bytes_of_file(section, "message_file");
    let parts = method.value.split_once('/');
    let path = parts.filter(|(service, name)| !service.is_empty() && !name.is_empty() && !name.contains('/'));
    let path: Option<PathTemplate> = path.and_then(|_| format!("/{}", method.value).parse().ok());
    if path.is_none() {
        let message = format!("grpc {:?} is not a method such as package.Service/Method", method.value);
        section.report().error(method.place, message);
    }
    let message = message.map_or_else(Bytes::new, |message| message.value.into());
    Some((CallKind::grpc(&message), path?))
}

fn bytes_of_file(section: &Section<'_>, key: &str) -> Option<Located<Vec<u8>>> {
    let path = section.text(key)?;
    let file = section.report().path(path.value);
    let read = std::fs::metadata(&file).and_then(|metadata| {
        if metadata.len() > BODY_BYTES_MAX {
            return Err(std::io::Error::other(format!("longer than {BODY_BYTES_MAX} bytes")));
        }
        std::fs::read(&file)
    });
    let place = path.place;
    read.map(|value| Located { value, place })
        .map_err(|error| {
            section.report().error(place, format!("{key} {} cannot be read: {error}", file.display()));
        })
        .ok()
}

fn headers(section: &Section<'_>) -> Vec<(HeaderName, Template)> {
    let mut headers = Vec::new();
    for (name, text) in section.named_texts("headers") {
        let problem = match (name.parse::<HeaderName>(), text.value.parse::<Template>()) {
            (Err(_), _) => format!("header {name:?} is not a name that headers have"),
            (Ok(known), _) if OWN_HEADERS.contains(&known) => {
                format!("header {name:?} is written by the client itself (host is a key of the service)")
            }
            (_, Err(error)) => format!("header {name:?} {error}"),
            (_, Ok(value)) if !value.is_header_value() => {
                format!("header {name:?} has a character that no header can carry")
            }
            (Ok(name), Ok(value)) => {
                headers.push((name, value));
                continue;
            }
        };
        section.report().error(text.place, problem);
    }
    headers
}

fn usage(section: &Section<'_>) -> Vec<(MetricName, u64)> {
    let mut usage = Vec::new();
    for Located { value: (name, by), place } in section.amounts("usage").unwrap_or_default() {
        let amount = u64::try_from(by).ok().filter(|by| *by <= COUNT_MAX);
        match (MetricName::parse(name), amount) {
            (Ok(metric), Some(by)) => usage.push((metric, by)),
            (Err(error), _) => section.report().error(place, format!("metric {name:?} {error}")),
            (_, None) => {
                let message = format!("metric {name:?} must be raised by 0 to {COUNT_MAX}");
                section.report().error(place, message);
            }
        }
    }
    usage
}

fn expected(section: &Section<'_>) -> Expected {
    let Some(texts) = section.texts("expect") else { return Expected::default() };
    let mut expected = Expected::none();
    for text in texts {
        if let Err(error) = expected.add(text.value) {
            section.report().error(text.place, format!("expect: {:?} {error}", text.value));
        }
    }
    expected
}
