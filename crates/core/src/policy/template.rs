//! Values that name what is known of a request: `{application}`, `{header.X-Region}`.

use std::net::IpAddr;
use std::str::FromStr;

use super::condition::Subject;

/// Longest value as written.
const TEMPLATE_BYTES_MAX: usize = 1_024;

/// Longest value for a request.
pub const VALUE_BYTES_MAX: usize = 32 << 10;

/// A checked value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(Variable),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Variable {
    Application,
    ClientAddress,
    RequestId,
    Host,
    Method,
    Path,
    Header(String),
    Query(String),
    Claim(String),
}

/// What variables stand for, beside what conditions see.
#[derive(Clone, Copy)]
pub struct Known<'k, 's> {
    /// What conditions see.
    pub subject: &'k Subject<'s>,
    /// Whose call it is.
    pub application: Option<&'k str>,
    /// From where.
    pub client_address: IpAddr,
    /// Its id in logs.
    pub request_id: &'k str,
    /// The host that it was sent to.
    pub host: &'k str,
}

/// Why a text is no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Too long.
    #[error("is longer than {TEMPLATE_BYTES_MAX} bytes")]
    TooLong,
    /// A control character, or none of ASCII.
    #[error("has a character that no header can carry")]
    Character,
    /// `{` without `}`.
    #[error("has a brace without its partner; {{{{ stands for a brace")]
    Brace,
    /// A name that stands for nothing.
    #[error(
        "names {{{0}}}, which there is not: use application, client_address, request_id, host, method, path, \
         header.NAME, query.NAME or claim.NAME"
    )]
    Unknown(String),
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        if text.len() > TEMPLATE_BYTES_MAX {
            return Err(TemplateError::TooLong);
        }
        if text.bytes().any(|byte| !matches!(byte, b' '..=b'~')) {
            return Err(TemplateError::Character);
        }
        let (mut parts, mut plain, mut rest) = (vec![], String::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let (brace, behind) = rest[at..].split_at(1);
            if behind.starts_with(brace) {
                plain.push_str(brace);
                rest = &behind[1..];
                continue;
            }
            let (name, behind) =
                behind.split_once('}').filter(|_| brace == "{").ok_or(TemplateError::Brace)?;
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Variable(name.parse()?));
            rest = behind;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self(parts))
    }
}

impl FromStr for Variable {
    type Err = TemplateError;

    fn from_str(name: &str) -> Result<Self, TemplateError> {
        Ok(match name {
            "application" => Self::Application,
            "client_address" => Self::ClientAddress,
            "request_id" => Self::RequestId,
            "host" => Self::Host,
            "method" => Self::Method,
            "path" => Self::Path,
            _ => match name.split_once('.').filter(|(_, name)| !name.is_empty()) {
                Some(("header", name)) => Self::Header(name.to_ascii_lowercase()),
                Some(("query", name)) => Self::Query(name.to_owned()),
                Some(("claim", name)) => Self::Claim(name.to_owned()),
                _ => return Err(TemplateError::Unknown(name.to_owned())),
            },
        })
    }
}

impl Template {
    /// The text, where it names nothing of a request.
    pub fn plain(&self) -> Option<&str> {
        match self.0.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The claims that it names.
    pub(super) fn claims(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Variable(Variable::Claim(name)) => Some(name.as_str()),
            _ => None,
        })
    }

    /// Whether it names the application.
    pub(super) fn names_application(&self) -> bool {
        self.0.contains(&Part::Variable(Variable::Application))
    }

    /// The headers that it names.
    pub fn headers(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Variable(Variable::Header(name)) => Some(name.as_str()),
            _ => None,
        })
    }

    /// The query arguments that it names.
    pub fn arguments(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Variable(Variable::Query(name)) => Some(name.as_str()),
            _ => None,
        })
    }

    /// The text for a request. What is not known is empty, and what no header could carry is left out. One that grows
    /// beyond [`VALUE_BYTES_MAX`] is returned as it is then.
    pub fn render(&self, known: &Known<'_, '_>) -> Vec<u8> {
        let mut text = Vec::new();
        for part in &self.0 {
            if text.len() > VALUE_BYTES_MAX {
                break;
            }
            match part {
                Part::Text(plain) => text.extend_from_slice(plain.as_bytes()),
                Part::Variable(variable) => variable.write(known, &mut text),
            }
        }
        text
    }
}

impl Variable {
    fn write(&self, known: &Known<'_, '_>, text: &mut Vec<u8>) {
        let subject = known.subject;
        match self {
            // An id is visible characters.
            Self::Application => text.extend_from_slice(known.application.unwrap_or_default().as_bytes()),
            Self::ClientAddress => put(known.client_address.to_string().as_bytes(), text),
            Self::RequestId => put(known.request_id.as_bytes(), text),
            Self::Host => put(known.host.as_bytes(), text),
            Self::Method => put(subject.method.as_bytes(), text),
            Self::Path => put(subject.path, text),
            Self::Header(name) => put((subject.header)(name).unwrap_or_default(), text),
            Self::Query(name) => put(&(subject.argument)(name.as_bytes()).unwrap_or_default(), text),
            Self::Claim(name) => {
                let values = subject.claims.map_or(&[][..], |claims| claims.of(name));
                put(values.join(",").as_bytes(), text);
            }
        }
    }
}

fn put(value: &[u8], text: &mut Vec<u8>) {
    text.extend(value.iter().copied().filter(|byte| matches!(byte, b' '..=b'~' | 0x80..)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn render(template: &str, header: &[u8]) -> Vec<u8> {
        let subject = Subject {
            method: "GET",
            path: b"/a",
            argument: &|_| None,
            header: &|name| (name == "a").then_some(header),
            claims: None,
        };
        let client_address = IpAddr::from([192, 0, 2, 1]);
        let known =
            Known { subject: &subject, application: Some("app"), client_address, request_id: "7", host: "h" };
        template.parse::<Template>().unwrap().render(&known)
    }

    #[test]
    fn variables_stand_for_what_is_known() {
        assert_eq!(
            render("{application} {client_address} {method}{path} {{x}}", b""),
            b"app 192.0.2.1 GET/a {x}"
        );
        assert_eq!(render("<{header.A}{query.q}{claim.c}>", b"1\r\n2"), b"<12>");
        for wrong in ["{", "}", "{nothing}", "{header.}", "a\nb", "\u{e9}"] {
            assert!(wrong.parse::<Template>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn values_do_not_grow_for_ever() {
        let long = vec![b'x'; 30 << 10];
        assert!(render(&"{header.a}".repeat(90), &long).len() <= VALUE_BYTES_MAX + long.len());
    }
}
