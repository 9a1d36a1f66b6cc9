//! One TOML table, read key by key; what is not as it should be goes to the report, with its place.
//!
//! Every reader of files is written with it. A key is asked for by name and kind; the answer is `None` when
//! it is not given or was wrong, and then the report already says so. Variables of the environment come
//! before the file, except inside lists of tables, where no name could say which one is meant.
//!
//! It knows kinds of values (text, whole numbers, choices, secrets), not what they mean.

use std::cell::RefCell;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::report::{Located, Place, Report};
use crate::suggest::did_you_mean;

mod secret;

/// A table, or what stands for a table that is not given.
pub(crate) struct Section<'a> {
    report: &'a Report<'a>,
    /// Dotted, without places in lists: `store.redis`.
    path: String,
    overridable: bool,
    table: Option<&'a DeTable<'a>>,
    place: Place,
    asked: RefCell<Vec<String>>,
}

/// A value before it is known to be of the right kind.
#[derive(Clone, Copy)]
enum Raw<'a> {
    Toml(&'a DeValue<'a>),
    Variable(&'a str),
}

/// An element of a list that may hold texts and tables.
pub(crate) enum Item<'s, 'a> {
    /// A text.
    Text(Located<&'a str>),
    /// A table.
    Section(&'s Section<'a>),
}

impl<'a> Section<'a> {
    /// The outermost table of a text.
    pub(crate) fn outermost(report: &'a Report<'a>, table: &'a DeTable<'a>) -> Self {
        Self {
            report,
            path: String::new(),
            overridable: true,
            table: Some(table),
            place: Place::Text(0),
            asked: RefCell::default(),
        }
    }

    /// Where problems go.
    pub(crate) fn report(&self) -> &'a Report<'a> {
        self.report
    }

    /// Where the table begins.
    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// Whether the table itself is in the text.
    pub(crate) fn is_given(&self) -> bool {
        self.table.is_some()
    }

    /// Whether a key is given, rightly or wrongly.
    pub(crate) fn gives(&self, key: &str) -> bool {
        self.lookup(key).is_some()
    }

    /// Says so when a key is not given.
    pub(crate) fn require(&self, key: &str) {
        if !self.gives(key) {
            self.report.error(self.place, format!("{} is missing", self.full_name(key)));
        }
    }

    /// A text.
    pub(crate) fn text(&self, key: &str) -> Option<Located<&'a str>> {
        let Located { value, place } = self.raw(key)?;
        match value {
            Raw::Variable(text) => Some(Located { value: text, place }),
            Raw::Toml(DeValue::String(text)) => Some(Located { value: text, place }),
            Raw::Toml(other) => self.wrong_kind(key, place, "text", other),
        }
    }

    /// A text that is parsed; the error's text follows key and value: `id "a b" has the character …`.
    pub(crate) fn parsed<T: FromStr<Err: Display>>(&self, key: &str) -> Option<Located<T>> {
        let Located { value, place } = self.text(key)?;
        match value.parse() {
            Ok(value) => Some(Located { value, place }),
            Err(error) => {
                self.report.error(place, format!("{key} {value:?} {error}"));
                None
            }
        }
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let Located { value, place } = self.text(key)?;
        let found = choices.iter().find(|(word, _)| *word == value);
        if found.is_none() {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            let near = did_you_mean(value, words.iter().copied());
            self.report.error(place, format!("{key} {value:?} is none of {}{near}", words.join(", ")));
        }
        found.map(|(_, value)| *value)
    }

    /// A whole number within bounds.
    pub(crate) fn whole(&self, key: &str, bounds: RangeInclusive<u64>) -> Option<u64> {
        let Located { value, place } = self.raw(key)?;
        let number = match value {
            Raw::Variable(text) => text.parse().ok(),
            Raw::Toml(DeValue::Integer(integer)) => {
                i128::from_str_radix(integer.as_str(), integer.radix()).ok()
            }
            Raw::Toml(other) => return self.wrong_kind(key, place, "a whole number", other),
        };
        let within =
            number.and_then(|number: i128| u64::try_from(number).ok()).filter(|n| bounds.contains(n));
        if within.is_none() {
            let message = format!("{key} is not a whole number from {} to {}", bounds.start(), bounds.end());
            self.report.error(place, message);
        }
        within
    }

    /// A share of a whole.
    pub(crate) fn ratio(&self, key: &str) -> Option<f64> {
        let Located { value, place } = self.raw(key)?;
        let number = match value {
            Raw::Variable(text) => text.parse().ok(),
            Raw::Toml(DeValue::Float(float)) => float.as_str().parse().ok(),
            Raw::Toml(DeValue::Integer(integer)) => integer.as_str().parse().ok(),
            Raw::Toml(other) => return self.wrong_kind(key, place, "a number", other),
        };
        let within = number.filter(|number| (0.0..=1.0).contains(number));
        if within.is_none() {
            self.report.error(place, format!("{key} is not a number from 0 to 1"));
        }
        within
    }

    /// `true` or `false`.
    pub(crate) fn flag(&self, key: &str) -> Option<bool> {
        let Located { value, place } = self.raw(key)?;
        match value {
            Raw::Toml(DeValue::Boolean(flag)) => Some(*flag),
            Raw::Toml(other) => self.wrong_kind(key, place, "true or false", other),
            Raw::Variable(text) => {
                let flag = text.parse().ok();
                if flag.is_none() {
                    self.report.error(place, format!("{key} must be true or false"));
                }
                flag
            }
        }
    }

    /// A date and time with its offset from UTC, as TOML's own or as text.
    pub(crate) fn datetime(&self, key: &str) -> Option<Located<toml::value::Datetime>> {
        let Located { value, place } = self.raw(key)?;
        let datetime = match value {
            Raw::Toml(DeValue::Datetime(datetime)) => Some(*datetime),
            Raw::Toml(DeValue::String(text)) => text.parse().ok(),
            Raw::Variable(text) => text.parse().ok(),
            Raw::Toml(other) => return self.wrong_kind(key, place, "a date and time", other),
        };
        let complete = datetime.filter(|d| d.date.is_some() && d.time.is_some() && d.offset.is_some());
        if complete.is_none() {
            self.report.error(place, format!("{key} is not a date and time such as 2026-12-31T23:59:59Z"));
        }
        complete.map(|value| Located { value, place })
    }

    /// A path; relative ones start at the file's folder.
    pub(crate) fn path(&self, key: &str) -> Option<PathBuf> {
        let Located { value, place } = self.text(key)?;
        if value.is_empty() {
            self.report.error(place, format!("{key} is empty"));
            return None;
        }
        Some(self.report.path(value))
    }

    /// One text or a list of texts; in a variable separated by commas.
    pub(crate) fn texts(&self, key: &str) -> Option<Vec<Located<&'a str>>> {
        let Located { value, place } = self.raw(key)?;
        match value {
            Raw::Variable(text) => {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                Some(parts.map(|value| Located { value, place }).collect())
            }
            Raw::Toml(DeValue::String(text)) => Some(vec![Located { value: text, place }]),
            Raw::Toml(DeValue::Array(items)) => {
                Some(items.iter().filter_map(|item| self.text_item(key, "a list of texts", item)).collect())
            }
            Raw::Toml(other) => self.wrong_kind(key, place, "a list of texts", other),
        }
    }

    fn text_item(&self, key: &str, wanted: &str, item: &'a Spanned<DeValue<'a>>) -> Option<Located<&'a str>> {
        let place = Place::Text(item.span().start);
        match item.get_ref() {
            DeValue::String(text) => Some(Located { value: text, place }),
            other => self.wrong_kind(key, place, wanted, other),
        }
    }

    /// A list of whole numbers.
    pub(crate) fn wholes(&self, key: &str) -> Option<Vec<Located<u64>>> {
        let Located { value, place } = self.raw(key)?;
        let wanted = "a list of whole numbers";
        let items = match value {
            Raw::Toml(DeValue::Array(items)) => items,
            Raw::Toml(other) => return self.wrong_kind(key, place, wanted, other),
            Raw::Variable(_) => return None,
        };
        let whole = |item: &'a Spanned<DeValue<'a>>| {
            let place = Place::Text(item.span().start);
            match item.get_ref() {
                DeValue::Integer(number) => {
                    // What is too large is no number that is asked for.
                    let value = u64::from_str_radix(number.as_str(), number.radix()).unwrap_or(u64::MAX);
                    Some(Located { value, place })
                }
                other => self.wrong_kind(key, place, wanted, other),
            }
        };
        Some(items.iter().filter_map(whole).collect())
    }

    /// A list of whatever it holds, as written.
    pub(crate) fn list(&self, key: &str) -> &'a [Spanned<DeValue<'a>>] {
        match self.raw(key).map(|found| (found.value, found.place)) {
            Some((Raw::Toml(DeValue::Array(items)), _)) => items,
            Some((Raw::Toml(other), place)) => {
                self.wrong_kind::<()>(key, place, "a list", other);
                &[]
            }
            _ => &[],
        }
    }

    /// A table of names with whole numbers, in the order of the text.
    pub(crate) fn amounts(&self, key: &str) -> Option<Vec<Located<(&'a str, i128)>>> {
        let Located { value, place } = self.raw(key)?;
        let table = match value {
            Raw::Toml(DeValue::Table(table)) => table,
            Raw::Toml(other) => return self.wrong_kind(key, place, "a table of names and numbers", other),
            Raw::Variable(_) => return None,
        };
        let mut amounts = Vec::with_capacity(table.len());
        for (name, value) in table.iter() {
            let place = Place::Text(value.span().start);
            let DeValue::Integer(integer) = value.get_ref() else {
                self.report.error(place, format!("{} must be a whole number", name.get_ref()));
                continue;
            };
            let number = i128::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(i128::MAX);
            let name = Located { value: name.get_ref().as_ref(), place: Place::Text(name.span().start) };
            amounts.push(Located { value: (name.value, number), place: name.place });
        }
        amounts.sort_by_key(|amount| match amount.place {
            Place::Text(offset) | Place::Variable(offset) => offset,
        });
        Some(amounts)
    }

    /// A table of names with texts, in the order of the text; places are those of the texts.
    pub(crate) fn named_texts(&self, key: &str) -> Vec<(&'a str, Located<&'a str>)> {
        let Some(Located { value, place }) = self.raw(key) else { return vec![] };
        let table = match value {
            Raw::Toml(DeValue::Table(table)) => table,
            Raw::Toml(other) => {
                self.wrong_kind::<()>(key, place, "a table of names and texts", other);
                return vec![];
            }
            Raw::Variable(_) => return vec![],
        };
        let named = |(name, text): (&'a Spanned<_>, _)| {
            let name: &'a std::borrow::Cow<'a, str> = name.get_ref();
            Some((name.as_ref(), self.text_item(name, "text", text)?))
        };
        let mut texts: Vec<_> = table.iter().filter_map(named).collect();
        texts.sort_by_key(|(_, text)| match text.place {
            Place::Text(offset) | Place::Variable(offset) => offset,
        });
        texts
    }

    /// A table inside; one that is not given is read all the same, as an empty one.
    pub(crate) fn inside<T>(&self, key: &str, read: impl FnOnce(&Section<'a>) -> T) -> T {
        self.asked.borrow_mut().push(key.to_owned());
        let given = self.table.and_then(|table| table.get_key_value(key));
        let (table, place) = match given.map(|(name, value)| (name, value.get_ref())) {
            Some((name, DeValue::Table(table))) => (Some(table), Place::Text(name.span().start)),
            Some((name, other)) => {
                let place = Place::Text(name.span().start);
                self.wrong_kind::<()>(key, place, "a table", other);
                (None, place)
            }
            None => (None, self.place),
        };
        self.read_inner(key, table, place, self.overridable, read)
    }

    /// The tables of a list, one after the other.
    pub(crate) fn each<T>(&self, key: &str, mut read: impl FnMut(&Section<'a>) -> Option<T>) -> Vec<T> {
        self.elements(key, |item| match item {
            Item::Section(section) => read(section),
            Item::Text(text) => {
                self.report.error(text.place, format!("{key} must be a list of tables, not text"));
                None
            }
        })
    }

    /// The tables of a list in each table of a list whose other keys are read another time.
    pub(crate) fn each_of_each<T>(
        &self,
        outer: &str,
        key: &str,
        mut read: impl FnMut(&Section<'a>) -> Option<T>,
    ) -> Vec<T> {
        let value = self.table.and_then(|table| table.get(outer)).map(Spanned::get_ref);
        // What is no list of tables is told then.
        let Some(DeValue::Array(items)) = value else { return vec![] };
        let mut found = Vec::new();
        for item in items.iter() {
            let DeValue::Table(table) = item.get_ref() else { continue };
            let section = Section {
                report: self.report,
                path: self.full_name(outer),
                overridable: false,
                table: Some(table),
                place: Place::Text(item.span().start),
                asked: RefCell::default(),
            };
            found.extend(section.each(key, &mut read));
        }
        found
    }

    /// The elements of a list of tables and texts, one after the other.
    pub(crate) fn items<T>(&self, key: &str, read: impl FnMut(Item<'_, 'a>) -> Option<T>) -> Vec<T> {
        self.report.know(&self.full_name(key), self.overridable);
        self.elements(key, read)
    }

    fn elements<T>(&self, key: &str, mut read: impl FnMut(Item<'_, 'a>) -> Option<T>) -> Vec<T> {
        self.asked.borrow_mut().push(key.to_owned());
        let Some((name, value)) = self.table.and_then(|table| table.get_key_value(key)) else {
            return vec![];
        };
        let DeValue::Array(items) = value.get_ref() else {
            self.wrong_kind::<()>(key, Place::Text(name.span().start), "a list", value.get_ref());
            return vec![];
        };
        let mut found = Vec::with_capacity(items.len());
        for item in items.iter() {
            let place = Place::Text(item.span().start);
            found.extend(match item.get_ref() {
                DeValue::Table(table) => {
                    self.read_inner(key, Some(table), place, false, |section| read(Item::Section(section)))
                }
                DeValue::String(text) => read(Item::Text(Located { value: text, place })),
                other => self.wrong_kind(key, place, "a list of tables", other),
            });
        }
        found
    }

    fn read_inner<T>(
        &self,
        key: &str,
        table: Option<&'a DeTable<'a>>,
        place: Place,
        overridable: bool,
        read: impl FnOnce(&Section<'a>) -> T,
    ) -> T {
        let path = self.full_name(key);
        let section =
            Section { report: self.report, path, overridable, table, place, asked: RefCell::default() };
        let value = read(&section);
        section.finish();
        value
    }

    /// Names the keys that nobody asked for.
    pub(crate) fn finish(&self) {
        let asked = self.asked.borrow();
        for (name, _) in self.table.into_iter().flat_map(DeTable::iter) {
            let key = name.get_ref().as_ref();
            if !asked.iter().any(|known| known == key) {
                let near = did_you_mean(key, asked.iter().map(String::as_str));
                let within = if self.path.is_empty() { String::new() } else { format!(" in {}", self.path) };
                self.report
                    .error(Place::Text(name.span().start), format!("there is no key {key}{within}{near}"));
            }
        }
    }

    /// The key with the names of the tables around it.
    fn full_name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn raw(&self, key: &str) -> Option<Located<Raw<'a>>> {
        self.report.know(&self.full_name(key), self.overridable);
        self.lookup(key)
    }

    fn lookup(&self, key: &str) -> Option<Located<Raw<'a>>> {
        let full = self.full_name(key);
        self.asked.borrow_mut().push(key.to_owned());
        let variable = if self.overridable { self.report.variable(&full) } else { None };
        if let Some(Located { value, place }) = variable {
            return Some(Located { value: Raw::Variable(value), place });
        }
        let value = self.table?.get(key)?;
        Some(Located { value: Raw::Toml(value.get_ref()), place: Place::Text(value.span().start) })
    }

    fn wrong_kind<T>(&self, key: &str, place: Place, wanted: &str, found: &DeValue<'_>) -> Option<T> {
        self.report.error(place, format!("{key} must be {wanted}, not {}", kind(found)));
        None
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
