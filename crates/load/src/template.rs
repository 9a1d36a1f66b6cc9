//! Text with parts that differ from request to request: `/v3/templates/{1..1000}`, `{red|green|blue}`.
//!
//! Mix files have them in paths, header values and bodies. Braces around anything but letters, digits and `_.-~|` are
//! themselves, so that JSON can be written as it is; a group of those letters must be a range or a list, so that a slip
//! is not sent a million times.

use http::uri::PathAndQuery;

use crate::random::Random;

/// A text with variable parts; by default an empty one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    /// Both ends inclusive.
    Range(u64, u64),
    OneOf(Vec<String>),
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Braces around what is neither range nor list.
    #[error("has {{{0}}}, which is neither a range such as {{1..1000}} nor a list such as {{red|green}}")]
    Group(String),
    /// A range that ends before it begins.
    #[error("has the range {{{0}}}, which ends before it begins")]
    Range(String),
    /// No slash in front.
    #[error("does not begin with /")]
    NotAbsolute,
    /// A character that no path and no query has.
    #[error("has the character {0:?}, which a URL must have escaped")]
    Character(char),
}

impl std::str::FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            literal.push_str(&rest[..open]);
            let after = &rest[open + 1..];
            match after.split_once('}').filter(|(group, _)| is_group(group)) {
                Some((group, behind)) => {
                    if !literal.is_empty() {
                        parts.push(Part::Literal(std::mem::take(&mut literal)));
                    }
                    parts.push(read_group(group)?);
                    rest = behind;
                }
                None => {
                    literal.push('{');
                    rest = after;
                }
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Self(parts))
    }
}

fn is_group(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b'~' | b'|');
    !text.is_empty() && text.bytes().all(allowed)
}

fn read_group(group: &str) -> Result<Part, TemplateError> {
    if group.contains('|') {
        return Ok(Part::OneOf(group.split('|').map(str::to_owned).collect()));
    }
    let range = group.split_once("..").and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    let (from, to): (u64, u64) = range.ok_or_else(|| TemplateError::Group(group.to_owned()))?;
    // The whole of u64 would have one value too many to count.
    if to < from || (from, to) == (0, u64::MAX) {
        return Err(TemplateError::Range(group.to_owned()));
    }
    Ok(Part::Range(from, to))
}

impl Template {
    /// Appends the text as one request has it.
    pub(crate) fn render(&self, random: &mut Random, out: &mut String) {
        for part in &self.0 {
            match part {
                Part::Literal(text) => out.push_str(text),
                Part::Range(from, to) => {
                    let value = from + random.below(to - from + 1);
                    // Writing to a string cannot fail.
                    let _ = std::fmt::Write::write_fmt(out, format_args!("{value}"));
                }
                Part::OneOf(texts) => {
                    let at = random.below(texts.len() as u64);
                    out.push_str(&texts[usize::try_from(at).unwrap_or_default()]);
                }
            }
        }
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|part| {
            match part {
                Part::Literal(text) => std::slice::from_ref(text),
                Part::OneOf(texts) => texts.as_slice(),
                Part::Range(..) => &[],
            }
            .iter()
            .map(String::as_str)
        })
    }

    /// Whether every text that may come of it is a header's value.
    pub fn is_header_value(&self) -> bool {
        self.texts().all(|text| http::HeaderValue::from_str(text).is_ok())
    }
}

/// A path with or without a query, which is a valid one whatever is chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathTemplate {
    template: Template,
    text: String,
    has_query: bool,
}

impl std::str::FromStr for PathTemplate {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        if !text.starts_with('/') {
            return Err(TemplateError::NotAbsolute);
        }
        let template: Template = text.parse()?;
        let is_odd = |c: &char| {
            let is_plain = *c == '?' || PathAndQuery::try_from(format!("/{c}")).is_ok();
            matches!(c, '{' | '}' | '#') || !c.is_ascii_graphic() || !is_plain
        };
        // Not the text around it, which may hold a key.
        if let Some(odd) = template.texts().find_map(|text| text.chars().find(is_odd)) {
            return Err(TemplateError::Character(odd));
        }
        Ok(Self { has_query: text.contains('?'), text: text.to_owned(), template })
    }
}

impl PathTemplate {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The path of one request, with these arguments behind its own.
    pub(crate) fn render(&self, random: &mut Random, arguments: &str) -> String {
        let mut path = String::with_capacity(self.text.len() + arguments.len() + 8);
        self.template.render(random, &mut path);
        if !arguments.is_empty() {
            path.push(if self.has_query { '&' } else { '?' });
            path.push_str(arguments);
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let template: Template = text.parse().unwrap();
        let mut seen: Vec<String> = (0..200)
            .map(|number| {
                let mut out = String::new();
                template.render(&mut Random::of_request(1, number), &mut out);
                out
            })
            .collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen, expected, "{text}");
    }

    #[test]
    fn parts_take_all_their_values() {
        check("plain", &["plain"]);
        check("", &[""]);
        check("/a/{1..3}", &["/a/1", "/a/2", "/a/3"]);
        check("{red|green}-{7..7}", &["green-7", "red-7"]);
        check("{|x}", &["", "x"]);
    }

    #[test]
    fn other_braces_are_themselves() {
        check(r#"{"n": {1..2}, "o": {}}"#, &[r#"{"n": 1, "o": {}}"#, r#"{"n": 2, "o": {}}"#]);
        check("{ 1..2 }", &["{ 1..2 }"]);
        check("{1..2", &["{1..2"]);
    }

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        assert_eq!(text.parse::<PathTemplate>().unwrap_err().to_string(), expected, "{text}");
    }

    #[test]
    fn slips_are_refused() {
        let group = |text| {
            format!(
                "has {{{text}}}, which is neither a range such as {{1..1000}} nor a list such as {{red|green}}"
            )
        };
        refused("/{1...5}", &group("1...5"));
        refused("/{id}", &group("id"));
        refused("/{9..1}", "has the range {9..1}, which ends before it begins");
        refused("a", "does not begin with /");
        for (path, character) in
            [("/a b", ' '), ("/{", '{'), ("/a#b", '#'), ("/{a|<}", '{'), ("/é", 'é'), ("/a?<", '<')]
        {
            refused(path, &format!("has the character {character:?}, which a URL must have escaped"));
        }
    }

    #[test]
    fn credentials_go_behind_the_query() {
        let path = |text: &str, arguments: &str| {
            text.parse::<PathTemplate>().unwrap().render(&mut Random::new(1), arguments)
        };
        assert_eq!(path("/a", ""), "/a");
        assert_eq!(path("/a", "k=1"), "/a?k=1");
        assert_eq!(path("/a?b=2", "k=1"), "/a?b=2&k=1");
    }
}
