//! `url_rewriting`: changes the path and the query of requests.

use super::condition::Method;
use super::form::Form;
use super::headers::{Change, read_change};
use super::regex::Regex;
use super::template::{Known, Template};
use super::{Kind, Place, Policy, Repeats};
use crate::mapping_rule::decode_argument;

/// Most rewrites of each kind.
const REWRITES_MAX: usize = 32;
/// Longest text in the place of what was found.
const REPLACEMENT_BYTES_MAX: usize = 1_024;
/// Longest query that comes of it.
pub const QUERY_BYTES_MAX: usize = 32 << 10;
/// Longest path that comes of it.
pub const PATH_BYTES_MAX: usize = 8 << 10;

/// What becomes of URLs.
#[derive(Debug, Clone)]
pub struct UrlRewriting {
    path: Vec<PathRewrite>,
    /// What becomes of query arguments.
    pub query: Vec<QueryChange>,
}

#[derive(Debug, Clone)]
struct PathRewrite {
    methods: Vec<Method>,
    pattern: Regex,
    replacement: String,
    all: bool,
    last: bool,
}

/// One change of the query.
#[derive(Debug, Clone)]
pub struct QueryChange {
    /// What is done.
    pub change: Change,
    /// The argument, decoded.
    pub name: String,
    /// What is written, decoded; empty of what is removed.
    pub value: Template,
}

impl UrlRewriting {
    /// As lists name it.
    pub const NAME: &'static str = "url_rewriting";

    pub(super) const KIND: Kind = Kind {
        name: Self::NAME,
        meaning: "Changes the path and the query, by regular expressions and argument by argument.",
        place: Place::Either,
        repeats: Repeats::Freely,
        has_conditions: true,
        read: |form| Policy::UrlRewriting(Self::read(form)),
    };

    fn read(form: &Form<'_>) -> Self {
        Self {
            path: form.tables(
                "path",
                "Rewrites of the path, one after the other.",
                REWRITES_MAX,
                PathRewrite::read,
            ),
            query: form.tables("query", "What becomes of query arguments.", REWRITES_MAX, |form| {
                let (change, name, value) = read_change(
                    form,
                    ("The argument.", "text"),
                    "What is written, with variables as in `headers`.",
                );
                if value.names_application() {
                    form.wrong(
                        "value",
                        "names {application}, which is not known when URLs are rewritten: use headers",
                    );
                }
                QueryChange { change, name: name.to_owned(), value }
            }),
        }
    }

    /// The path after all rewrites; `None`: none changed it. Paths are percent-encoded; one that grows beyond
    /// [`PATH_BYTES_MAX`] is returned as it is then.
    pub fn path(&self, method: &str, path: &str) -> Option<String> {
        let mut rewritten: Option<Vec<u8>> = None;
        for rewrite in &self.path {
            if !rewrite.methods.is_empty() && !rewrite.methods.iter().any(|known| known.0 == method) {
                continue;
            }
            let text = rewritten.as_deref().unwrap_or(path.as_bytes());
            if let Some(text) = rewrite.pattern.replaced(text, &rewrite.replacement, rewrite.all) {
                rewritten = Some(text);
                if rewrite.last || rewritten.as_ref().is_some_and(|text| text.len() > PATH_BYTES_MAX) {
                    break;
                }
            }
        }
        // What is no text any more is judged, and refused, as a path.
        rewritten.map(|text| String::from_utf8_lossy(&text).into_owned())
    }

    /// The query after all changes; `None`: there are none. Empty: none is left. One that grows beyond
    /// [`QUERY_BYTES_MAX`] is returned as it is then.
    pub fn query(&self, query: Option<&str>, known: &Known<'_, '_>) -> Option<String> {
        if self.query.is_empty() {
            return None;
        }
        let query = query.unwrap_or_default();
        let mut parts: Vec<String> =
            query.split('&').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let mut bytes = query.len();
        for QueryChange { change, name, value } in &self.query {
            if bytes > QUERY_BYTES_MAX {
                break;
            }
            let is_it = |part: &String| is_named(part, name);
            let given = parts.iter().any(is_it);
            if matches!(change, Change::Set | Change::Remove) {
                parts.retain(|part| !is_it(part));
            }
            if matches!(change, Change::Set | Change::Add) || (*change == Change::Default && !given) {
                let part = format!("{}={}", encoded(name.as_bytes()), encoded(&value.render(known)));
                bytes += part.len();
                parts.push(part);
            }
        }
        Some(parts.join("&"))
    }
}

impl PathRewrite {
    fn read(form: &Form<'_>) -> Self {
        let rewrite = Self {
            pattern: form
                .parsed(
                    "pattern",
                    "What is looked for in the path, as the client encodes it.",
                    "regular expression",
                )
                .unwrap_or_else(|| "^$".parse().expect("an expression that finds nothing in a path")),
            replacement: form
                .text("replacement", "What comes in its place; `$1` is the first group.", "text")
                .unwrap_or_default()
                .to_owned(),
            all: form.flag("all", "Whether all that is found is replaced, not the first alone.", false),
            methods: form.texts(
                "methods",
                "For requests with one of these methods alone.",
                "method",
                REWRITES_MAX,
            ),
            last: form.flag(
                "last",
                "Whether the rewrites behind it are left out when it changed the path.",
                false,
            ),
        };
        form.require(&["pattern", "replacement"]);
        if rewrite.replacement.len() > REPLACEMENT_BYTES_MAX {
            form.wrong("replacement", format!("replacement is longer than {REPLACEMENT_BYTES_MAX} bytes"));
        }
        rewrite
    }
}

fn is_named(part: &str, name: &str) -> bool {
    let found = part.split('=').next().unwrap_or_default();
    decode_argument(found.as_bytes()) == name.as_bytes()
}

fn encoded(value: &[u8]) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(*byte))
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}
