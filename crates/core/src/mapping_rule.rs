//! Which request adds how much to which metric.
//!
//! The gateway matches every request: all matching rules add up, in order, until one marked `last`. Patterns
//! are literal text with `{wildcards}`, matched from the start of the path; `$` at their end makes them
//! exact, `?name=value` behind them sets conditions on the query. (Reference: gateway, section 2.)
//!
//! Rules are compiled into one prefix tree, walked once per request, so the cost follows the length of the
//! path and not the number of rules. Nothing here runs a regular expression.

use std::collections::BTreeMap;
use std::fmt;

use crate::id::MetricName;
use crate::path::escaped_byte;
use crate::status_set::StatusSet;
use crate::usage::Usage;

/// Longest pattern in bytes.
pub const PATTERN_BYTES_MAX: usize = 255;

/// The request method of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HttpMethod {
    /// Every method.
    Any,
    /// GET only; HEAD is another method.
    Get,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// PATCH.
    Patch,
    /// DELETE.
    Delete,
    /// HEAD.
    Head,
    /// OPTIONS.
    Options,
}

impl HttpMethod {
    const ALL: [Self; 8] =
        [Self::Any, Self::Get, Self::Post, Self::Put, Self::Patch, Self::Delete, Self::Head, Self::Options];

    /// As written in a rule: `ANY`, `GET`, …
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Any => "ANY",
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
        }
    }

    /// Whether a request with this method is meant.
    pub fn covers(self, method: &str) -> bool {
        self == Self::Any || self.as_str() == method
    }
}

/// Not a method that rules have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a method: use ANY, GET, POST, PUT, PATCH, DELETE, HEAD or OPTIONS")]
pub struct HttpMethodError;

impl std::str::FromStr for HttpMethod {
    type Err = HttpMethodError;
    fn from_str(text: &str) -> Result<Self, HttpMethodError> {
        Self::ALL.into_iter().find(|method| method.as_str() == text).ok_or(HttpMethodError)
    }
}

/// A checked pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    tokens: Vec<Token>,
    exact: bool,
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Token {
    Byte(u8),
    Wildcard,
}

/// What the query must have.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    name: Vec<u8>,
    /// `None`: any value.
    value: Option<Vec<u8>>,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// No slash in front.
    #[error("does not start with /")]
    NotAbsolute,
    /// More than [`PATTERN_BYTES_MAX`] bytes.
    #[error("is longer than {PATTERN_BYTES_MAX} bytes")]
    TooLong,
    /// A `{` without `}`, or the other way round.
    #[error("has a brace without its partner")]
    Brace,
    /// A wildcard without a name or with other characters than letters, digits, `_` and `-`.
    #[error("has a wildcard whose name is not letters, digits, _ or -")]
    WildcardName,
    /// A wildcard name used twice.
    #[error("uses the wildcard {{{0}}} twice")]
    WildcardRepeated(String),
    /// A `$` that is not at the end of the path.
    #[error("has a $ that is not at the end of the path")]
    Dollar,
    /// A `%` without two hexadecimal digits.
    #[error("has a broken percent escape")]
    Escape,
    /// `%2F`, which no request path can have.
    #[error("has %2F, which no request can match: encoded slashes are refused")]
    EncodedSlash,
    /// A character that no request path can have.
    #[error("has the character {0:?}, which no request path can have")]
    Character(char),
    /// A query condition without a name.
    #[error("has a query condition without a name")]
    ConditionName,
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Pattern {
    /// The decoded bytes that it begins with, where it is nothing but those.
    pub(crate) fn literal(&self) -> Option<Vec<u8>> {
        let bytes = self.tokens.iter().map(|token| match token {
            Token::Byte(byte) => Some(*byte),
            Token::Wildcard => None,
        });
        bytes.collect()
    }

    /// Whether it covers a path, decoded as [`crate::path::RequestPath`] does it, with this query.
    pub fn matches(&self, path: &[u8], argument: &dyn Fn(&[u8]) -> Option<Vec<u8>>) -> bool {
        self.covers(path) && holds(&self.conditions, argument)
    }

    fn covers(&self, path: &[u8]) -> bool {
        if !self.tokens.contains(&Token::Wildcard) {
            let is_there = |(token, byte): (&Token, &u8)| *token == Token::Byte(*byte);
            let is_long_enough =
                if self.exact { path.len() == self.tokens.len() } else { path.len() >= self.tokens.len() };
            return is_long_enough && self.tokens.iter().zip(path).all(is_there);
        }
        // How many tokens may have been matched so far.
        let mut places = vec![0];
        for byte in path {
            if !self.exact && places.contains(&self.tokens.len()) {
                return true;
            }
            let mut next: Vec<usize> = Vec::with_capacity(places.len() + 1);
            let mut arrive = |place: usize| {
                if !next.contains(&place) {
                    next.push(place);
                }
            };
            for place in places {
                let stays = place.checked_sub(1).and_then(|before| self.tokens.get(before));
                if stays == Some(&Token::Wildcard) && wildcard_covers(*byte) {
                    arrive(place);
                }
                match self.tokens.get(place) {
                    Some(Token::Byte(wanted)) if wanted == byte => arrive(place + 1),
                    Some(Token::Wildcard) if wildcard_covers(*byte) => arrive(place + 1),
                    _ => {}
                }
            }
            if next.is_empty() {
                return false;
            }
            places = next;
        }
        places.contains(&self.tokens.len())
    }

    /// The same behind a path, given as written and decoded.
    #[must_use]
    pub(crate) fn below(&self, text: &str, path: &[u8]) -> Self {
        if path.is_empty() {
            return self.clone();
        }
        let tokens = path.iter().copied().map(Token::Byte).chain(self.tokens.iter().copied()).collect();
        Self { text: format!("{text}{}", self.text), tokens, ..self.clone() }
    }
}

impl std::str::FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if !text.starts_with('/') {
            return Err(PatternError::NotAbsolute);
        }
        if text.len() > PATTERN_BYTES_MAX {
            return Err(PatternError::TooLong);
        }
        let (path, query) = text.split_once('?').unwrap_or((text, ""));
        let (path, exact) = match path.strip_suffix('$') {
            Some(path) => (path, true),
            None => (path, false),
        };
        let mut names = Vec::new();
        let tokens = parse_path(path, &mut names)?;
        let conditions = query
            .split('&')
            .filter(|part| !part.is_empty())
            .map(parse_condition)
            .collect::<Result<_, _>>()?;
        Ok(Self { text: text.to_owned(), tokens, exact, conditions })
    }
}

fn parse_path<'a>(path: &'a str, names: &mut Vec<&'a str>) -> Result<Vec<Token>, PatternError> {
    let mut tokens: Vec<Token> = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some(first) = rest.chars().next() {
        rest = &rest[first.len_utf8()..];
        match first {
            '/' if tokens.last() == Some(&Token::Byte(b'/')) => {}
            '{' => {
                let (name, after) = rest.split_once('}').ok_or(PatternError::Brace)?;
                check_wildcard(name, names)?;
                tokens.push(Token::Wildcard);
                rest = after;
            }
            '}' => return Err(PatternError::Brace),
            '$' => return Err(PatternError::Dollar),
            '%' => {
                let byte = escaped_byte(rest.as_bytes()).ok_or(PatternError::Escape)?;
                if byte == b'/' {
                    return Err(PatternError::EncodedSlash);
                }
                tokens.push(Token::Byte(byte));
                rest = &rest[2..];
            }
            // Exports of both generations: `\.` and `.` are the same dot.
            '\\' if rest.starts_with(['.', '(', ')', '*', '+']) => {}
            c if !c.is_ascii_graphic() || matches!(c, '\\' | '#') => return Err(PatternError::Character(c)),
            c => tokens.extend(u8::try_from(c).map(Token::Byte)),
        }
    }
    Ok(tokens)
}

fn check_wildcard<'a>(name: &'a str, names: &mut Vec<&'a str>) -> Result<(), PatternError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if name.is_empty() || !name.bytes().all(allowed) {
        return Err(PatternError::WildcardName);
    }
    if names.contains(&name) {
        return Err(PatternError::WildcardRepeated(name.to_owned()));
    }
    names.push(name);
    Ok(())
}

fn parse_condition(part: &str) -> Result<Condition, PatternError> {
    let (name, value) = part.split_once('=').unwrap_or((part, ""));
    let name = decode_argument(name.as_bytes());
    if name.is_empty() {
        return Err(PatternError::ConditionName);
    }
    let any = value.find('{').is_some_and(|open| value[open..].contains('}'));
    let value = if any { None } else { Some(decode_argument(value.as_bytes())) };
    Ok(Condition { name, value })
}

/// Decodes the name or value of a query argument: `+` is a blank, a broken escape stays as it is.
pub fn decode_argument(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match (first, escaped_byte(rest)) {
            (b'+', _) => decoded.push(b' '),
            (b'%', Some(byte)) => {
                decoded.push(byte);
                rest = &rest[2..];
            }
            _ => decoded.push(*first),
        }
    }
    decoded
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappingRule {
    /// Which method.
    pub http_method: HttpMethod,
    /// Which paths.
    pub pattern: Pattern,
    /// What it counts for.
    pub metric: MetricName,
    /// How much, at least 1.
    pub delta: u64,
    /// Its place among the rules: low numbers first, equal ones as listed.
    pub position: u32,
    /// Whether the rules behind it are left out when it matches.
    pub last: bool,
    /// Answers with which it counts nothing after all.
    pub free_answers: StatusSet,
}

/// The compiled rules of a service.
#[derive(Debug, Clone, Default)]
pub struct MappingRules {
    rules: Vec<MappingRule>,
    nodes: Vec<Node>,
}

/// A place in the prefix tree: some literal bytes, or a wildcard, and what may follow.
#[derive(Debug, Clone, Default)]
struct Node {
    literal: Vec<u8>,
    is_wildcard: bool,
    /// By the first byte of their literals.
    children: BTreeMap<u8, u32>,
    wildcard: Option<u32>,
    /// Rules that match as soon as this place is reached.
    prefixes: Vec<u32>,
    /// Rules that match when the path ends here.
    exacts: Vec<u32>,
}

/// What matched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matched {
    /// The sum of all matching rules; empty when none matched.
    pub usage: Usage,
    /// The rules, as places in [`MappingRules::rules`].
    pub rules: Vec<u32>,
}

const ROOT: usize = 0;

impl MappingRules {
    /// Compiles rules; they are ordered by position first.
    pub fn new(mut rules: Vec<MappingRule>) -> Self {
        rules.sort_by_key(|rule| rule.position);
        let mut compiled = Self { rules, nodes: vec![Node::default()] };
        let mut entries: Vec<(Vec<Token>, u32)> =
            (0..).zip(&compiled.rules).map(|(at, rule)| (rule.pattern.tokens.clone(), at)).collect();
        entries.sort();
        compiled.grow(ROOT, &entries, 0);
        compiled
    }

    /// All rules in the order in which they apply.
    pub fn rules(&self) -> &[MappingRule] {
        &self.rules
    }

    /// Matches a request: `path` decoded as [`crate::path::RequestPath`] does it, `argument` giving the last
    /// value of a query argument by its name, asked only for rules that have conditions.
    pub fn matches(&self, method: &str, path: &[u8], argument: &dyn Fn(&[u8]) -> Option<Vec<u8>>) -> Matched {
        let mut matched = Matched::default();
        for at in self.candidates(path) {
            let rule = &self.rules[at as usize];
            if rule.http_method.covers(method) && holds(&rule.pattern.conditions, argument) {
                matched.usage.add(&rule.metric, rule.delta);
                matched.rules.push(at);
                if rule.last {
                    break;
                }
            }
        }
        matched
    }

    /// Rules whose pattern covers the path, in order.
    fn candidates(&self, path: &[u8]) -> Vec<u32> {
        let mut found = Vec::new();
        let mut places = vec![Place { node: ROOT, matched: 0 }];
        let mut next = Vec::new();
        for byte in path {
            for place in &places {
                self.step(*place, *byte, &mut next);
            }
            std::mem::swap(&mut places, &mut next);
            next.clear();
            for place in &places {
                let node = &self.nodes[place.node];
                if place.matched == node.literal.len() {
                    found.extend_from_slice(&node.prefixes);
                }
            }
            if places.is_empty() {
                break;
            }
        }
        for place in &places {
            let node = &self.nodes[place.node];
            if place.matched == node.literal.len() {
                found.extend_from_slice(&node.exacts);
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    fn step(&self, place: Place, byte: u8, next: &mut Vec<Place>) {
        let node = &self.nodes[place.node];
        if place.matched < node.literal.len() {
            if node.literal[place.matched] == byte {
                arrive(next, place.node, place.matched + 1);
            }
            return;
        }
        if let Some(child) = node.children.get(&byte) {
            arrive(next, *child as usize, 1);
        }
        if wildcard_covers(byte) {
            if let Some(wildcard) = node.wildcard {
                arrive(next, wildcard as usize, 0);
            }
            if node.is_wildcard {
                arrive(next, place.node, 0);
            }
        }
    }

    /// Adds what follows a node: sorted entries that agree in their first `depth` tokens.
    fn grow(&mut self, node: usize, entries: &[(Vec<Token>, u32)], depth: usize) {
        let mut rest = entries;
        while let Some((tokens, rule)) = rest.first() {
            let Some(token) = tokens.get(depth) else {
                let ends = if self.rules[*rule as usize].pattern.exact {
                    &mut self.nodes[node].exacts
                } else {
                    &mut self.nodes[node].prefixes
                };
                ends.push(*rule);
                rest = &rest[1..];
                continue;
            };
            let same = rest.partition_point(|(other, _)| other.get(depth) == Some(token));
            let (group, others) = rest.split_at(same);
            let run = common_literal(group, depth);
            let child = self.nodes.len();
            let place = u32::try_from(child).unwrap_or(u32::MAX);
            let mut made = Node { is_wildcard: run.is_empty(), ..Node::default() };
            match run.first() {
                Some(first) => self.nodes[node].children.insert(*first, place),
                None => self.nodes[node].wildcard.replace(place),
            };
            let depth = depth + run.len().max(1);
            made.literal = run;
            self.nodes.push(made);
            self.grow(child, group, depth);
            rest = others;
        }
    }
}

/// A place in the tree during a walk: `matched` bytes of the node's literal are behind us.
#[derive(Clone, Copy, PartialEq)]
struct Place {
    node: usize,
    matched: usize,
}

fn arrive(places: &mut Vec<Place>, node: usize, matched: usize) {
    let place = Place { node, matched };
    if !places.contains(&place) {
        places.push(place);
    }
}

/// The literal bytes, from `depth` on, that all entries of a sorted group have in common.
fn common_literal(group: &[(Vec<Token>, u32)], depth: usize) -> Vec<u8> {
    let (first, last) = (&group[0].0[depth..], &group[group.len() - 1].0[depth..]);
    let mut run = Vec::new();
    for pair in first.iter().zip(last) {
        match pair {
            (Token::Byte(a), Token::Byte(b)) if a == b => run.push(*a),
            _ => break,
        }
    }
    run
}

fn holds(conditions: &[Condition], argument: &dyn Fn(&[u8]) -> Option<Vec<u8>>) -> bool {
    conditions.iter().all(|condition| match (argument(&condition.name), &condition.value) {
        (Some(value), Some(wanted)) => value == *wanted,
        (Some(_), None) => true,
        (None, _) => false,
    })
}

/// A wildcard takes any byte of one segment but those that URLs escape everywhere.
fn wildcard_covers(byte: u8) -> bool {
    !matches!(byte, b'/' | b'[' | b']' | b'{' | b'}' | b'|' | b'\\' | b'^' | b'"' | b'<' | b'>' | b'`')
}

#[cfg(test)]
mod tests;
