//! One text to be read, the environment that may override it, and all that turns out to be wrong with either.
//!
//! [`read`] is the only way from TOML to values: it parses the text, hands the walker the outermost
//! [`Section`], and afterwards names the keys and variables that nobody asked for. The walk itself never
//! stops at a problem: it says so here and goes on.
//!
//! What is asked for is remembered, too: that is the list of keys which the documentation is tested against.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use crate::problem::{Checked, Origin, Problem, Reading, Severity};
use crate::section::Section;
use crate::suggest::did_you_mean;

/// Longest configuration or catalog file; larger catalogs do not belong in one file.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// A text to read and what belongs to it. No `Debug`: the text may hold secrets.
#[derive(Default)]
pub(crate) struct Source {
    /// The file as the operator named it; messages show it.
    pub(crate) file: String,
    /// Where relative paths in it start.
    pub(crate) folder: PathBuf,
    /// TOML.
    pub(crate) text: String,
    /// What overrides keys; none for catalogs.
    pub(crate) environment: Environment,
}

impl Source {
    /// Reads a file that nothing overrides.
    ///
    /// # Errors
    /// When it cannot be read, is too long or not UTF-8.
    pub(crate) fn load(path: &Path) -> Result<Self, Problem> {
        let file = path.display().to_string();
        let wrong = |message: String| Problem::of_file(&file, message);
        let bytes = std::fs::metadata(path).map_err(|error| wrong(format!("cannot be read: {error}")))?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(wrong(format!("is longer than {FILE_BYTES_MAX} bytes")));
        }
        let bytes = std::fs::read(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
        let text = String::from_utf8(bytes).map_err(|error| not_utf8(&file, &error))?;
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        Ok(Self { file, folder, text, environment: Environment::default() })
    }

    /// Line and column of a byte of the text, both from 1.
    pub(crate) fn line_and_column(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        (line, before[start..].chars().count() + 1)
    }
}

/// Points at the first byte that is no UTF-8.
fn not_utf8(file: &str, error: &std::string::FromUtf8Error) -> Problem {
    let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
    let start = good.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = String::from_utf8_lossy(&good[start..]).chars().count() + 1;
    Problem::at(file, line, column, "is not UTF-8 from here on")
}

/// The variables that override keys of one role: `WEIR_LISTENER__STORE__REDIS__URL` is `store.redis.url`.
#[derive(Default)]
pub(crate) struct Environment {
    prefix: &'static str,
    variables: Vec<Variable>,
}

struct Variable {
    name: String,
    value: String,
}

impl Environment {
    /// Those of some variables that begin with a prefix such as `WEIR_GATEWAY__`.
    pub(crate) fn new(prefix: &'static str, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut variables: Vec<Variable> = variables
            .into_iter()
            .filter(|(name, _)| name.starts_with(prefix))
            .map(|(name, value)| Variable { name, value })
            .collect();
        variables.sort_by(|a, b| a.name.cmp(&b.name));
        Self { prefix, variables }
    }

    /// Those of this process; what is not Unicode is passed over.
    pub(crate) fn of_process(prefix: &'static str) -> Self {
        let unicode =
            |(name, value): (OsString, OsString)| name.into_string().ok().zip(value.into_string().ok());
        Self::new(prefix, std::env::vars_os().filter_map(unicode))
    }

    fn name_of(&self, key: &str) -> String {
        format!("{}{}", self.prefix, key.to_ascii_uppercase().replace('.', "__"))
    }
}

/// A place in the input, cheap to carry about until a problem needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Byte offset in the text.
    Text(usize),
    /// Which variable.
    Variable(usize),
}

/// A value and where it stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Located<T> {
    /// The value.
    pub(crate) value: T,
    /// Where it stands.
    pub(crate) place: Place,
}

/// Collects problems while a source is walked.
pub(crate) struct Report<'a> {
    source: &'a Source,
    problems: RefCell<Vec<(Place, Problem)>>,
    /// All keys asked for, and whether a variable may override them.
    keys: RefCell<BTreeMap<String, bool>>,
}

impl<'a> Report<'a> {
    fn new(source: &'a Source) -> Self {
        Self { source, problems: RefCell::default(), keys: RefCell::default() }
    }

    /// Says that something cannot be used.
    pub(crate) fn error(&self, place: Place, message: impl Into<String>) {
        self.add(place, Severity::Error, message.into());
    }

    /// Says that something is odd.
    pub(crate) fn warning(&self, place: Place, message: impl Into<String>) {
        self.add(place, Severity::Warning, message.into());
    }

    fn add(&self, place: Place, severity: Severity, message: String) {
        let origin = match place {
            Place::Text(offset) => {
                let (line, column) = self.source.line_and_column(offset);
                Origin::Text { file: self.source.file.clone(), line, column }
            }
            Place::Variable(at) => Origin::Variable(self.source.environment.variables[at].name.clone()),
        };
        self.problems.borrow_mut().push((place, Problem { origin, severity, message }));
    }

    /// The line of a place in the text, from 1.
    pub(crate) fn line(&self, place: Place) -> usize {
        match place {
            Place::Text(offset) => self.source.line_and_column(offset).0,
            Place::Variable(_) => 0,
        }
    }

    /// A path given in the input, relative ones taken from the input's folder.
    pub(crate) fn path(&self, text: &str) -> PathBuf {
        self.source.folder.join(text)
    }

    /// Notes that there is such a key, whether it is given or not.
    pub(crate) fn know(&self, key: &str, overridable: bool) {
        if !self.keys.borrow().contains_key(key) {
            self.keys.borrow_mut().insert(key.to_owned(), overridable);
        }
    }

    /// The variable that overrides a key, if it is set.
    pub(crate) fn variable(&self, key: &str) -> Option<Located<&'a str>> {
        let environment = &self.source.environment;
        if environment.variables.is_empty() {
            return None;
        }
        let name = environment.name_of(key);
        let at = environment.variables.iter().position(|variable| variable.name == name)?;
        Some(Located { value: &environment.variables[at].value, place: Place::Variable(at) })
    }

    fn unknown_variables(&self) {
        let environment = &self.source.environment;
        let keys = self.keys.borrow();
        let known: Vec<String> = keys
            .iter()
            .filter(|(_, overridable)| **overridable)
            .map(|(key, _)| environment.name_of(key))
            .collect();
        for (at, variable) in environment.variables.iter().enumerate() {
            if !known.contains(&variable.name) {
                // The prefix, common to all, would make everything look near.
                let start = environment.prefix.len();
                let near = did_you_mean(&variable.name[start..], known.iter().map(|name| &name[start..]));
                self.error(Place::Variable(at), format!("overrides no key{near}"));
            }
        }
    }

    fn into_problems(self) -> Vec<Problem> {
        let mut problems: Vec<Problem> =
            self.problems.into_inner().into_iter().map(|(_, problem)| problem).collect();
        problems.sort_by(|a, b| a.origin.cmp(&b.origin));
        problems
    }
}

/// Reads a source: `walk` makes a value of the outermost table, or `None` when it said why not.
///
/// # Errors
/// Everything that is wrong.
pub(crate) fn read<T>(source: &Source, walk: impl FnOnce(&Section<'_>) -> Option<T>) -> Reading<T> {
    read_with_keys(source, walk).0
}

/// As [`read`], and the dotted names of all keys that were asked for.
pub(crate) fn read_with_keys<T>(
    source: &Source,
    walk: impl FnOnce(&Section<'_>) -> Option<T>,
) -> (Reading<T>, BTreeSet<String>) {
    let report = Report::new(source);
    let value = match DeTable::parse(&source.text) {
        Ok(table) => {
            let section = Section::outermost(&report, table.get_ref());
            let value = walk(&section);
            section.finish();
            report.unknown_variables();
            value
        }
        Err(error) => {
            let offset = error.span().map_or(0, |span| span.start);
            // Only the message: the error's own text quotes the line, which may hold a key.
            report.error(Place::Text(offset), format!("is not TOML: {}", error.message()));
            None
        }
    };
    let keys = report.keys.take().into_keys().collect();
    let problems = report.into_problems();
    let usable = problems.iter().all(|problem| problem.severity == Severity::Warning);
    let reading = match value {
        Some(value) if usable => Ok(Checked { value, warnings: problems }),
        _ => Err(problems),
    };
    (reading, keys)
}
