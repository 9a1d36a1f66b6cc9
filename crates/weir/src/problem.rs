//! What is wrong with an input, and where: the one form in which files and environment are criticised.
//!
//! Everything that reads configuration collects these instead of stopping at the first, so that one run tells
//! the operator all there is to mend. A message names keys, ids and positions; never the text of a secret.

use std::fmt;

/// Whether a problem keeps the input from being used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Severity {
    /// It does.
    Error,
    /// It does not; it is said and that is all.
    Warning,
}

/// Where a problem is. Sorts files before variables, then by position.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// A file as a whole: it cannot be read, or nobody can tell what it is.
    File(String),
    /// A place in a file; line and column count characters from 1.
    Text {
        /// The file, as the operator named it.
        file: String,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// A variable of the environment.
    Variable(String),
    /// An argument of the command line, or the option that is missing there.
    Argument(String),
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Where.
    pub(crate) origin: Origin,
    /// How bad.
    pub(crate) severity: Severity,
    /// What, in a sentence without a full stop.
    pub(crate) message: String,
}

impl Problem {
    /// An error about a file as a whole.
    pub(crate) fn of_file(file: &str, message: impl Into<String>) -> Self {
        Self { origin: Origin::File(file.into()), severity: Severity::Error, message: message.into() }
    }

    /// An error at a place of a text, both counted from 1.
    pub(crate) fn at(file: &str, line: usize, column: usize, message: impl Into<String>) -> Self {
        let origin = Origin::Text { file: file.into(), line, column };
        Self { origin, severity: Severity::Error, message: message.into() }
    }

    /// An error about an argument.
    pub(crate) fn of_argument(argument: &str, message: impl Into<String>) -> Self {
        let origin = Origin::Argument(argument.into());
        Self { origin, severity: Severity::Error, message: message.into() }
    }
}

impl fmt::Display for Problem {
    /// `catalog.toml:14:11: metric "hitz" is not defined`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::File(file) => write!(f, "{file}: ")?,
            Origin::Text { file, line, column } => write!(f, "{file}:{line}:{column}: ")?,
            Origin::Variable(name) | Origin::Argument(name) => write!(f, "{name}: ")?,
        }
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        f.write_str(&self.message)
    }
}

/// Input that may be used, and what is odd about it nevertheless.
#[derive(Debug)]
pub(crate) struct Checked<T> {
    /// What was read.
    pub(crate) value: T,
    /// Nothing but warnings.
    pub(crate) warnings: Vec<Problem>,
}

/// What reading an input gives: something to use, or all that is wrong with it (warnings included).
pub(crate) type Reading<T> = Result<Checked<T>, Vec<Problem>>;
