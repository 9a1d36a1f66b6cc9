//! When a policy applies: by method, path, header, query argument or claim.
//!
//! All that is asked for must hold; of a list one is enough.

use super::form::Form;
use super::regex::Regex;
use crate::mapping_rule::Pattern;

/// Most entries of each list.
const ENTRIES_MAX: usize = 32;

/// What is known of a request.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// In capital letters.
    pub method: &'a str,
    /// Percent-decoded.
    pub path: &'a [u8],
    /// The last value of a query argument, decoded.
    pub argument: &'a dyn Fn(&[u8]) -> Option<Vec<u8>>,
    /// The first value of a header; names are in small letters.
    pub header: &'a dyn Fn(&str) -> Option<&'a [u8]>,
    /// What its token says; `None`: it has none, or that is not known yet.
    pub claims: Option<&'a ClaimValues>,
}

/// The claims that policies of a service ask for, with what a token says there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClaimValues(Vec<(String, Vec<String>)>);

impl ClaimValues {
    /// Of names with their values as texts.
    pub fn new(claims: Vec<(String, Vec<String>)>) -> Self {
        Self(claims)
    }

    /// How long they are together.
    pub fn bytes(&self) -> usize {
        let values = self.0.iter().flat_map(|(_, values)| values);
        values.map(|value| value.len() + size_of::<String>()).sum()
    }

    /// All values of a claim.
    pub fn of(&self, name: &str) -> &[String] {
        self.0.iter().find(|(known, _)| known == name).map_or(&[], |(_, values)| values)
    }
}

/// When a policy applies.
#[derive(Debug, Clone, Default)]
pub struct Condition {
    methods: Vec<Method>,
    paths: Vec<Pattern>,
    headers: Vec<ValueTest>,
    query: Vec<ValueTest>,
    pub(super) claims: Vec<ValueTest>,
}

impl Condition {
    pub(super) fn read(form: &Form<'_>) -> Self {
        let test = |form: &Form<'_>| ValueTest::read(form, false);
        let header = |form: &Form<'_>| ValueTest::read(form, true);
        let condition = Self {
            methods: form.texts("methods", "Methods, one of which it must have.", "method", ENTRIES_MAX),
            paths: form.texts(
                "paths",
                "Patterns as of mapping rules, one of which its path must match.",
                "pattern",
                ENTRIES_MAX,
            ),
            headers: form.tables("headers", "Headers, all of which it must have.", ENTRIES_MAX, header),
            query: form.tables("query", "Query arguments, all of which it must have.", ENTRIES_MAX, test),
            claims: form.tables("claims", "Claims that its token must have, all.", ENTRIES_MAX, test),
        };
        if !["methods", "paths", "headers", "query", "claims"].iter().any(|key| form.gives(key)) {
            form.wrong("", "is empty: name methods, paths, headers, query or claims");
        }
        condition
    }

    /// Whether a request meets it.
    pub fn holds(&self, subject: &Subject<'_>) -> bool {
        let value = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (self.methods.is_empty() || self.methods.iter().any(|method| method.0 == subject.method))
            && (self.paths.is_empty()
                || self.paths.iter().any(|pattern| pattern.matches(subject.path, subject.argument)))
            && self.headers.iter().all(|test| test.holds((subject.header)(&test.name).map(value).as_slice()))
            && self.query.iter().all(|test| {
                test.holds((subject.argument)(test.name.as_bytes()).as_deref().map(value).as_slice())
            })
            && self.claims.iter().all(|test| test.holds_for(subject.claims))
    }
}

/// A method as requests write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Method(pub(super) String);

impl std::str::FromStr for Method {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_method = !text.is_empty() && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
        if is_method {
            Ok(Self(text.to_owned()))
        } else {
            Err("is not a method such as GET, in capital letters")
        }
    }
}

/// What is asked of the values of one name.
#[derive(Debug, Clone)]
pub struct ValueTest {
    pub(super) name: String,
    values: Vec<String>,
    matches: Option<Regex>,
    not: bool,
}

impl ValueTest {
    pub(super) fn read(form: &Form<'_>, is_header: bool) -> Self {
        let name = form.text("name", "Its name.", "text").unwrap_or_default();
        form.require(&["name"]);
        let test = Self {
            name: if is_header { name.to_ascii_lowercase() } else { name.to_owned() },
            values: form.texts("values", "Values, one of which it must have.", "text", ENTRIES_MAX),
            matches: form.parsed("matches", "What must be found in its value.", "regular expression"),
            not: form.flag("not", "The other way round: it must not be so.", false),
        };
        if form.gives("values") && form.gives("matches") {
            form.wrong("matches", "values and matches say two things: give one of them");
        }
        test
    }

    fn holds(&self, found: &[String]) -> bool {
        let is_so = match (&self.matches, self.values.as_slice()) {
            (Some(regex), _) => found.iter().any(|value| regex.is_found(value.as_bytes())),
            (None, []) => !found.is_empty(),
            (None, wanted) => found.iter().any(|value| wanted.contains(value)),
        };
        is_so != self.not
    }

    /// Without a token nothing holds, nor the other way round.
    pub(super) fn holds_for(&self, claims: Option<&ClaimValues>) -> bool {
        claims.is_some_and(|claims| self.holds(claims.of(&self.name)))
    }
}
