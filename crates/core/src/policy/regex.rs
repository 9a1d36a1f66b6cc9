//! Regular expressions that cannot run away.
//!
//! They are matched in time linear in the text, whatever they are; so there is neither look-around nor a
//! back-reference. How large one may be, written and compiled, is bounded.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// Longest expression as written.
pub const REGEX_BYTES_MAX: usize = 1_000;
/// Most memory that one may take compiled.
const COMPILED_BYTES_MAX: usize = 256 << 10;
/// How deep groups may be in each other.
const NESTING_MAX: u32 = 50;

/// A checked expression.
#[derive(Clone)]
pub struct Regex(regex::bytes::Regex);

/// Why a text is no regular expression that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegexError {
    /// It is longer than [`REGEX_BYTES_MAX`].
    #[error("is longer than {REGEX_BYTES_MAX} bytes: match what the texts begin with, or use several")]
    TooLong,
    /// It would take too much memory.
    #[error(
        "takes more than {} KiB compiled: make its repetitions smaller, or use * or + for them",
        COMPILED_BYTES_MAX >> 10
    )]
    TooLarge,
    /// What no linear matcher has.
    #[error("uses look-around or a back-reference, which could run away: write it without")]
    RunsAway,
    /// It is none.
    #[error("is not a regular expression: {0}")]
    Syntax(String),
}

impl FromStr for Regex {
    type Err = RegexError;

    fn from_str(text: &str) -> Result<Self, RegexError> {
        if text.len() > REGEX_BYTES_MAX {
            return Err(RegexError::TooLong);
        }
        let compiled = regex::bytes::RegexBuilder::new(text)
            .unicode(false)
            .size_limit(COMPILED_BYTES_MAX)
            .dfa_size_limit(COMPILED_BYTES_MAX)
            .nest_limit(NESTING_MAX)
            .build();
        compiled.map(Self).map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => RegexError::TooLarge,
            other => syntax(&other.to_string()),
        })
    }
}

/// The library shows the place in several lines and says what is wrong in the last.
fn syntax(shown: &str) -> RegexError {
    if shown.contains("look-around") || shown.contains("backreference") {
        return RegexError::RunsAway;
    }
    let last = shown.lines().last().unwrap_or_default();
    RegexError::Syntax(last.trim_start_matches("error: ").to_owned())
}

impl Regex {
    /// Whether it is found in a text.
    pub fn is_found(&self, text: &[u8]) -> bool {
        self.0.is_match(text)
    }

    /// The text with what was found first, or `all` of it, replaced; `None`: nothing was found. `$1` and `${name}`
    /// stand for groups.
    pub fn replaced(&self, text: &[u8], replacement: &str, all: bool) -> Option<Vec<u8>> {
        match self.0.replacen(text, usize::from(!all), replacement.as_bytes()) {
            Cow::Borrowed(_) => None,
            Cow::Owned(text) => Some(text),
        }
    }
}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/", self.0.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let error = text.parse::<Regex>().map_err(|error| error.to_string()).unwrap_err();
        assert!(error.starts_with(expected), "{text}: {error}");
    }

    #[test]
    fn what_is_no_expression() {
        check("(", "is not a regular expression: unclosed group");
        check(r"(a)\1", "uses look-around or a back-reference");
        check("(?=a)b", "uses look-around or a back-reference");
        check("((a{100}){100}){100}", "takes more than 256 KiB compiled");
        check(&"a".repeat(REGEX_BYTES_MAX + 1), "is longer than 1000 bytes");
        check(&"(".repeat(100), "is not a regular expression");
    }

    #[test]
    fn what_runs_away_elsewhere_does_not_here() {
        let regex: Regex = "^(a+)+$".parse().unwrap();
        assert!(!regex.is_found(format!("{}!", "a".repeat(100_000)).as_bytes()));
    }

    #[test]
    fn groups_are_replaced() {
        let regex: Regex = r"^/v(\d)/".parse().unwrap();
        assert_eq!(regex.replaced(b"/v1/x", "/api/${1}/", false).unwrap(), b"/api/1/x");
        assert_eq!(regex.replaced(b"/x", "", false), None);
        let regex: Regex = "a".parse().unwrap();
        assert_eq!(regex.replaced(b"/aa", "b", false).unwrap(), b"/ba");
        assert_eq!(regex.replaced(b"/aa", "b", true).unwrap(), b"/bb");
    }
}
