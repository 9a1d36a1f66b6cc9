//! `access_log`: which calls get a line in the access log, and what stands there besides.

use super::form::Form;
use super::headers::is_name;
use super::{Kind, Place, Policy, Repeats};

/// Most headers in a line.
const HEADERS_MAX: usize = 8;
/// What never stands in a log, whoever asks for it.
const NEVER: [&str; 4] = ["authorization", "proxy-authorization", "cookie", "set-cookie"];

/// What is logged.
#[derive(Debug, Clone)]
pub struct AccessLog {
    /// Which calls.
    pub lines: Lines,
    /// Request headers that stand in the line, in small letters.
    pub headers: Vec<String>,
}

/// Which calls get a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lines {
    /// The share that the gateway's configuration says.
    Sampled,
    /// All.
    All,
    /// Those that were answered 400 or above, or not at all.
    Failures,
    /// None.
    None,
}

const LINES: &[(&str, Lines)] =
    &[("sampled", Lines::Sampled), ("all", Lines::All), ("failures", Lines::Failures), ("none", Lines::None)];

/// A header that may stand in a log.
struct Logged(String);

impl std::str::FromStr for Logged {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.to_ascii_lowercase();
        if NEVER.contains(&name.as_str()) {
            Err("holds what proves who somebody is: it is never logged")
        } else if is_name(&name) {
            Ok(Self(name))
        } else {
            Err("is not a header name")
        }
    }
}

impl AccessLog {
    pub(super) const KIND: Kind = Kind {
        name: "access_log",
        meaning: "Says which calls get a line in the access log, and which headers stand there.",
        place: Place::Either,
        repeats: Repeats::Freely,
        has_conditions: true,
        read: |form| Policy::AccessLog(Self::read(form)),
    };

    fn read(form: &Form<'_>) -> Self {
        let lines = form.choice(
            "lines",
            "Which calls get a line. `sampled`: the share that gateway.toml says. `failures`: those that were answered 400 or above, or not at all.",
            LINES,
            Some("sampled"),
        );
        let headers = form.texts::<Logged>(
            "headers",
            "Request headers that stand in the line, 256 bytes of each; those that carry credentials never do.",
            "header name",
            HEADERS_MAX,
        );
        Self {
            lines: lines.unwrap_or(Lines::Sampled),
            headers: headers.into_iter().map(|name| name.0).collect(),
        }
    }
}
