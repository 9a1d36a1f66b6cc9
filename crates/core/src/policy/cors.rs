//! `cors`: lets pages of other origins call the API from browsers.
//!
//! <https://fetch.spec.whatwg.org/#http-cors-protocol>

use std::str::FromStr;

use super::condition::Method;
use super::form::Form;
use super::headers::is_name;
use super::{Kind, Place, Policy, Repeats};

/// Most entries of each list.
const ENTRIES_MAX: usize = 64;

/// Who may call from where.
#[derive(Debug, Clone)]
pub struct Cors {
    origins: Vec<Origin>,
    /// As `Access-Control-Allow-Methods` lists them.
    pub methods: String,
    /// As `Access-Control-Allow-Headers` lists them; `None`: whatever is asked for.
    pub headers: Option<String>,
    /// As `Access-Control-Expose-Headers` lists them; empty: none.
    pub exposed: String,
    /// Whether cookies and the like may come along.
    pub credentials: bool,
    /// How long browsers may remember the answer to a preflight, in seconds.
    pub max_age_s: u64,
}

#[derive(Debug, Clone)]
enum Origin {
    Any,
    /// `https://app.example.org`.
    One(String),
    /// `https://*.example.org`.
    Below {
        scheme: String,
        suffix: String,
    },
}

impl FromStr for Origin {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "is not an origin such as https://app.example.org, https://*.example.org or *";
        if text == "*" {
            return Ok(Self::Any);
        }
        let (scheme, host) = text.split_once("://").ok_or(WRONG)?;
        let is_host = |text: &str| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._:[]".contains(&b))
        };
        let is_scheme = !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_lowercase());
        match host.strip_prefix('*') {
            Some(suffix) if is_scheme && suffix.starts_with('.') && is_host(&suffix[1..]) => {
                Ok(Self::Below { scheme: format!("{scheme}://"), suffix: suffix.to_owned() })
            }
            None if is_scheme && is_host(host) => Ok(Self::One(text.to_owned())),
            _ => Err(WRONG),
        }
    }
}

impl Origin {
    fn is(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::One(one) => one == origin,
            Self::Below { scheme, suffix } => {
                let host = origin.strip_prefix(scheme.as_str());
                host.and_then(|host| host.strip_suffix(suffix.as_str())).is_some_and(|labels| {
                    !labels.is_empty()
                        && labels.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
                })
            }
        }
    }
}

/// A header's name.
struct Name(String);

impl FromStr for Name {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "*" || is_name(text) { Ok(Self(text.to_owned())) } else { Err("is not a header name") }
    }
}

impl Cors {
    pub(super) const KIND: Kind = Kind {
        name: "cors",
        meaning: "Answers browsers' preflights, and lets pages of other origins read the answers.",
        place: Place::Front,
        repeats: Repeats::Never,
        has_conditions: false,
        read: |form| Policy::Cors(Self::read(form)),
    };

    fn read(form: &Form<'_>) -> Self {
        let origins = form.texts(
            "origins",
            "Who may call: origins, `https://*.example.org` for all below one, or `*` for everybody.",
            "origin",
            ENTRIES_MAX,
        );
        let methods = form.texts::<Method>(
            "methods",
            "Which methods pages may use; without, GET, HEAD, POST, PUT, PATCH and DELETE.",
            "method",
            ENTRIES_MAX,
        );
        let headers = form.texts::<Name>(
            "headers",
            "Which headers pages may send; without, those that they ask for.",
            "header name",
            ENTRIES_MAX,
        );
        let exposed = form.texts::<Name>(
            "exposed_headers",
            "Which headers of answers pages may read, beside the usual ones.",
            "header name",
            ENTRIES_MAX,
        );
        let credentials = form.flag("credentials", "Whether cookies and the like may come along.", false);
        let max_age_s = form.whole_or(
            "max_age_s",
            "How long browsers may remember the answer to a preflight, in seconds.",
            0..=86_400,
            600,
        );
        form.require(&["origins"]);
        if credentials && origins.iter().any(|origin| matches!(origin, Origin::Any)) {
            form.wrong(
                "credentials",
                "credentials cannot be for every origin: name the origins instead of *",
            );
        }
        let names = |names: &[Name]| names.iter().map(|name| name.0.as_str()).collect::<Vec<_>>().join(", ");
        let given = methods.iter().map(|method| method.0.as_str()).collect::<Vec<_>>().join(", ");
        Self {
            origins,
            methods: if given.is_empty() { "GET, HEAD, POST, PUT, PATCH, DELETE".to_owned() } else { given },
            headers: (!headers.is_empty()).then(|| names(&headers)),
            exposed: names(&exposed),
            credentials,
            max_age_s,
        }
    }

    /// What `Access-Control-Allow-Origin` says to an origin; `None`: it may not call.
    pub fn allowed<'a>(&self, origin: &'a str) -> Option<&'a str> {
        if !self.origins.iter().any(|known| known.is(origin)) {
            return None;
        }
        Some(if self.is_for_all() { "*" } else { origin })
    }

    /// Whether every origin gets the same answer.
    pub fn is_for_all(&self) -> bool {
        self.origins.iter().any(|origin| matches!(origin, Origin::Any))
    }
}
