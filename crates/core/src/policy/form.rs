//! Settings of a policy, read key by key; what is not as it should be is told with the path that leads to it.
//!
//! A policy asks for each of its keys once, with what it means, its bounds and its default. Out of the same questions
//! comes its [`Shape`], which JSON Schema and documentation are made of: they cannot differ from what is read.
//!
//! Knows nothing of files: a path says which key of which element, and whoever has the text knows where that stands.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::status_set::{STATUS_NAMES_MAX, StatusSet, Statuses};

/// Settings as they are written, whatever the language.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `true` or `false`.
    Flag(bool),
    /// A whole number.
    Whole(i64),
    /// A text.
    Text(String),
    /// Several of them.
    List(Vec<Value>),
    /// Several with names.
    Table(BTreeMap<String, Value>),
}

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Self::Flag(_) => "true or false",
            Self::Whole(_) => "a whole number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// One step of a path into settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Into a table.
    Key(String),
    /// A name in a table, not what it stands for.
    Name(String),
    /// Into a list.
    At(usize),
}

/// What is wrong with settings, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Leads to what is wrong.
    pub path: Vec<Step>,
    /// What is wrong, and the way out.
    pub message: String,
    /// A name that nothing has, and those that there are.
    pub unknown: Option<(String, Vec<String>)>,
}

impl Display for Problem {
    /// `0.max_age_s: is not …`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for step in &self.path {
            match step {
                Step::Key(name) | Step::Name(name) => write!(f, "{name}.")?,
                Step::At(at) => write!(f, "{at}.")?,
            }
        }
        write!(f, " {}", self.message)
    }
}

/// What a key may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Text of some form.
    Text(&'static str),
    /// A whole number within bounds.
    Whole(RangeInclusive<u64>),
    /// `true` or `false`.
    Flag,
    /// One of some words.
    Choice(Vec<&'static str>),
    /// One text or a list of texts, all of some form; at most so many.
    Texts(&'static str, usize),
    /// A table.
    Table(Shape),
    /// A list of tables, at most so many.
    Tables(Shape, usize),
}

/// A key that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    /// Its name.
    pub name: &'static str,
    /// What it means, in a sentence.
    pub meaning: &'static str,
    /// What it may hold.
    pub kind: Kind,
    /// Whether it has to be there.
    pub is_required: bool,
    /// What holds without it.
    pub default: Option<Value>,
}

/// All keys of a table, in the order in which they are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shape(pub Vec<Property>);

/// Where problems go; `None`: nobody wants to know.
pub(super) type Problems = RefCell<Vec<Problem>>;

/// A table, or what stands for one that is not given.
pub struct Form<'a> {
    table: Option<&'a BTreeMap<String, Value>>,
    path: Vec<Step>,
    problems: Option<&'a Problems>,
    asked: RefCell<Vec<Property>>,
}

impl<'a> Form<'a> {
    pub(super) fn new(table: &'a BTreeMap<String, Value>, path: Vec<Step>, problems: &'a Problems) -> Self {
        Self { table: Some(table), path, problems: Some(problems), asked: RefCell::default() }
    }

    /// One that nobody has filled in: to learn what is asked.
    pub(super) fn blank() -> Self {
        Self { table: None, path: vec![], problems: None, asked: RefCell::default() }
    }

    /// What was asked for.
    pub(super) fn into_shape(self) -> Shape {
        Shape(self.asked.into_inner())
    }

    /// Says that a key's value cannot be used; an empty name: the table itself.
    pub(super) fn wrong(&self, name: &str, message: impl Into<String>) {
        self.tell(self.path_of(name), message.into(), None);
    }

    /// The same of an element of a list.
    pub(super) fn wrong_at(&self, name: &str, at: usize, message: impl Into<String>) {
        let mut path = self.path_of(name);
        if matches!(self.value(name), Some(Value::List(_))) {
            path.push(Step::At(at));
        }
        self.tell(path, message.into(), None);
    }

    fn tell(&self, path: Vec<Step>, message: String, unknown: Option<(String, Vec<String>)>) {
        if let Some(problems) = self.problems {
            problems.borrow_mut().push(Problem { path, message, unknown });
        }
    }

    fn path_of(&self, name: &str) -> Vec<Step> {
        let mut path = self.path.clone();
        if !name.is_empty() {
            path.push(Step::Key(name.to_owned()));
        }
        path
    }

    fn value(&self, name: &str) -> Option<&'a Value> {
        self.table?.get(name)
    }

    /// Whether somebody filled it in.
    pub(super) fn gives(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    fn ask(&self, name: &'static str, meaning: &'static str, kind: Kind, default: Option<Value>) {
        self.asked.borrow_mut().push(Property { name, meaning, kind, is_required: false, default });
    }

    /// Keys that have been asked for and have to be there.
    pub(super) fn require(&self, names: &[&str]) {
        for property in self.asked.borrow_mut().iter_mut().filter(|p| names.contains(&p.name)) {
            property.is_required = true;
            if !self.gives(property.name) {
                self.wrong("", format!("{} is missing", property.name));
            }
        }
    }

    fn wrong_kind<T>(&self, name: &str, wanted: &str, found: &Value) -> Option<T> {
        self.wrong(name, format!("{name} must be {wanted}, not {}", found.kind()));
        None
    }

    /// A text of some form.
    pub(super) fn text(
        &self,
        name: &'static str,
        meaning: &'static str,
        form: &'static str,
    ) -> Option<&'a str> {
        self.ask(name, meaning, Kind::Text(form), None);
        match self.value(name)? {
            Value::Text(text) => Some(text),
            other => self.wrong_kind(name, "text", other),
        }
    }

    /// A text that is parsed.
    pub(super) fn parsed<T: FromStr<Err: Display>>(
        &self,
        name: &'static str,
        meaning: &'static str,
        form: &'static str,
    ) -> Option<T> {
        let text = self.text(name, meaning, form)?;
        text.parse().map_err(|error| self.wrong(name, format!("{name} {text:?} {error}"))).ok()
    }

    /// A text that has a default.
    pub(super) fn text_or(
        &self,
        name: &'static str,
        meaning: &'static str,
        form: &'static str,
        default: &str,
    ) -> String {
        let given = self.text(name, meaning, form).map(str::to_owned);
        if let Some(asked) = self.asked.borrow_mut().last_mut() {
            asked.default = Some(Value::Text(default.to_owned()));
        }
        given.unwrap_or_else(|| default.to_owned())
    }

    /// A whole number within bounds.
    pub(super) fn whole(
        &self,
        name: &'static str,
        meaning: &'static str,
        bounds: RangeInclusive<u64>,
    ) -> Option<u64> {
        self.ask(name, meaning, Kind::Whole(bounds.clone()), None);
        let number = match self.value(name)? {
            Value::Whole(number) => u64::try_from(*number).ok().filter(|number| bounds.contains(number)),
            other => return self.wrong_kind(name, "a whole number", other),
        };
        if number.is_none() {
            let message = format!("{name} is not a whole number from {} to {}", bounds.start(), bounds.end());
            self.wrong(name, message);
        }
        number
    }

    /// The same with a default.
    pub(super) fn whole_or(
        &self,
        name: &'static str,
        meaning: &'static str,
        bounds: RangeInclusive<u64>,
        default: u64,
    ) -> u64 {
        let given = self.whole(name, meaning, bounds);
        if let Some(asked) = self.asked.borrow_mut().last_mut() {
            asked.default = i64::try_from(default).ok().map(Value::Whole);
        }
        given.unwrap_or(default)
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, name: &'static str, meaning: &'static str, default: bool) -> bool {
        self.ask(name, meaning, Kind::Flag, Some(Value::Flag(default)));
        match self.value(name) {
            None => default,
            Some(Value::Flag(flag)) => *flag,
            Some(other) => self.wrong_kind(name, "true or false", other).unwrap_or(default),
        }
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &self,
        name: &'static str,
        meaning: &'static str,
        choices: &[(&'static str, T)],
        default: Option<&'static str>,
    ) -> Option<T> {
        let words: Vec<&'static str> = choices.iter().map(|(word, _)| *word).collect();
        self.ask(
            name,
            meaning,
            Kind::Choice(words.clone()),
            default.map(|word| Value::Text(word.to_owned())),
        );
        let find = |wanted: &str| choices.iter().find(|(word, _)| *word == wanted).map(|(_, value)| *value);
        let word = match self.value(name) {
            None => return default.and_then(find),
            Some(Value::Text(word)) => word,
            Some(other) => return self.wrong_kind(name, "text", other),
        };
        let found = find(word);
        if found.is_none() {
            let message = format!("{name} {word:?} is none of {}", words.join(", "));
            let known = words.iter().map(|word| (*word).to_owned()).collect();
            self.tell(self.path_of(name), message, Some((word.clone(), known)));
        }
        found
    }

    /// One text or a list of texts, each parsed.
    pub(super) fn texts<T: FromStr<Err: Display>>(
        &self,
        name: &'static str,
        meaning: &'static str,
        form: &'static str,
        max: usize,
    ) -> Vec<T> {
        self.ask(name, meaning, Kind::Texts(form, max), None);
        let texts: Vec<&'a Value> = match self.value(name) {
            None => return vec![],
            Some(Value::List(items)) => items.iter().collect(),
            Some(one) => vec![one],
        };
        self.check_filled(name, texts.len());
        if texts.len() > max {
            self.wrong_at(name, max, format!("{name} holds more than {max}"));
        }
        let mut parsed = Vec::with_capacity(texts.len());
        for (at, text) in texts.into_iter().enumerate() {
            match text {
                Value::Text(text) => match text.parse() {
                    Ok(value) => parsed.push(value),
                    Err(error) => self.wrong_at(name, at, format!("{name}: {text:?} {error}")),
                },
                other => {
                    self.wrong_at(name, at, format!("{name} must be a list of texts, not {}", other.kind()));
                }
            }
        }
        parsed
    }

    /// The answers that count as failures; without, those of a gateway whose upstream failed.
    pub(super) fn failures(&self, name: &'static str, meaning: &'static str) -> StatusSet {
        let statuses: Vec<Statuses> = self.texts(name, meaning, "status or class", STATUS_NAMES_MAX);
        if statuses.is_empty() { StatusSet::gateway_failures() } else { StatusSet::new(statuses) }
    }

    /// An empty list could mean all or nothing, so it means neither.
    fn check_filled(&self, name: &str, count: usize) {
        if count == 0 {
            self.wrong(name, format!("{name} is empty: fill it, or leave it out"));
        }
    }

    /// A table; `None`: it is not given.
    pub(super) fn table<T>(
        &self,
        name: &'static str,
        meaning: &'static str,
        read: impl Fn(&Form<'_>) -> T,
    ) -> Option<T> {
        self.ask(name, meaning, Kind::Table(shape_of(&read)), None);
        match self.value(name)? {
            Value::Table(table) => Some(self.inner(table, self.path_of(name), &read)),
            other => self.wrong_kind(name, "a table", other),
        }
    }

    /// A list of tables.
    pub(super) fn tables<T>(
        &self,
        name: &'static str,
        meaning: &'static str,
        max: usize,
        read: impl Fn(&Form<'_>) -> T,
    ) -> Vec<T> {
        self.ask(name, meaning, Kind::Tables(shape_of(&read), max), None);
        let items = match self.value(name) {
            None => return vec![],
            Some(Value::List(items)) => items,
            Some(other) => return self.wrong_kind(name, "a list of tables", other).unwrap_or_default(),
        };
        self.check_filled(name, items.len());
        if items.len() > max {
            self.wrong_at(name, max, format!("{name} holds more than {max}"));
        }
        let mut found = Vec::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            let mut path = self.path_of(name);
            path.push(Step::At(at));
            match item {
                Value::Table(table) => found.push(self.inner(table, path, &read)),
                other => {
                    self.wrong_at(name, at, format!("{name} must be a list of tables, not {}", other.kind()));
                }
            }
        }
        found
    }

    fn inner<T>(
        &self,
        table: &BTreeMap<String, Value>,
        path: Vec<Step>,
        read: &impl Fn(&Form<'_>) -> T,
    ) -> T {
        let form = Form { table: Some(table), path, problems: self.problems, asked: RefCell::default() };
        let value = read(&form);
        form.finish();
        value
    }

    /// Names the keys that nobody asked for.
    pub(super) fn finish(&self) {
        let asked = self.asked.borrow();
        for name in self.table.into_iter().flat_map(BTreeMap::keys) {
            if !asked.iter().any(|property| property.name == name) {
                let known = asked.iter().map(|property| property.name.to_owned()).collect();
                let mut path = self.path.clone();
                path.push(Step::Name(name.clone()));
                self.tell(path, format!("there is no key {name}"), Some((name.clone(), known)));
            }
        }
    }
}

fn shape_of<T>(read: &impl Fn(&Form<'_>) -> T) -> Shape {
    let form = Form::blank();
    read(&form);
    form.into_shape()
}

impl Shape {
    /// As JSON Schema, of draft 2020-12, says it.
    pub fn schema(&self) -> Value {
        let text = |text: &str| Value::Text(text.to_owned());
        let properties = self.0.iter().map(|property| (property.name.to_owned(), property.schema()));
        let required = self.0.iter().filter(|property| property.is_required);
        let mut schema = BTreeMap::from([
            ("type".to_owned(), text("object")),
            ("additionalProperties".to_owned(), Value::Flag(false)),
            ("properties".to_owned(), Value::Table(properties.collect())),
        ]);
        let required: Vec<Value> = required.map(|property| text(property.name)).collect();
        if !required.is_empty() {
            schema.insert("required".to_owned(), Value::List(required));
        }
        Value::Table(schema)
    }
}

impl Property {
    fn schema(&self) -> Value {
        let text = |text: &str| Value::Text(text.to_owned());
        let whole = |number: u64| Value::Whole(i64::try_from(number).unwrap_or(i64::MAX));
        let of_type = |name: &str| BTreeMap::from([("type".to_owned(), text(name))]);
        let list = |items: Value, max: usize| {
            let mut list = of_type("array");
            list.insert("items".to_owned(), items);
            list.insert("minItems".to_owned(), whole(1));
            list.insert("maxItems".to_owned(), whole(max as u64));
            list
        };
        let mut schema = match &self.kind {
            Kind::Text(_) => of_type("string"),
            Kind::Whole(bounds) => {
                let mut schema = of_type("integer");
                schema.insert("minimum".to_owned(), whole(*bounds.start()));
                schema.insert("maximum".to_owned(), whole(*bounds.end()));
                schema
            }
            Kind::Flag => of_type("boolean"),
            Kind::Choice(words) => {
                let mut schema = of_type("string");
                schema.insert("enum".to_owned(), Value::List(words.iter().map(|word| text(word)).collect()));
                schema
            }
            Kind::Texts(_, max) => {
                let one = Value::Table(of_type("string"));
                let several = Value::Table(list(one.clone(), *max));
                BTreeMap::from([("anyOf".to_owned(), Value::List(vec![one, several]))])
            }
            Kind::Table(shape) => match shape.schema() {
                Value::Table(schema) => schema,
                _ => BTreeMap::new(),
            },
            Kind::Tables(shape, max) => list(shape.schema(), *max),
        };
        schema.insert("description".to_owned(), text(self.meaning));
        if let Some(default) = &self.default {
            schema.insert("default".to_owned(), default.clone());
        }
        Value::Table(schema)
    }
}
