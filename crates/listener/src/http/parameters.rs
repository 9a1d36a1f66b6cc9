//! Parameters of 3scale's API: a query string, or a form, with names that nest (`usage[hits]=1`, `a[]=1`).
//!
//! Every endpoint reads its call with this. The convention is that of the web framework which 3scale's clients were
//! written against (reference: Service Management API, sections 1.2 and 1.3, rows 1 to 4), odd names included. A
//! value that contradicts the shape of an earlier one is refused, the later of two equal names wins.
//!
//! Knows nothing of what the parameters mean.

use std::borrow::Cow;

use hashbrown::DefaultHashBuilder;
use indexmap::IndexMap;

/// Most parameters of one text.
pub(crate) const PARAMETERS_MAX: usize = 4_096;
/// Longest text.
pub(crate) const TEXT_BYTES_MAX: usize = 4 << 20;
/// Most lists and maps in a form: a report of as many transactions as there may be has room.
const FORM_NESTS_MAX: usize = 2 * PARAMETERS_MAX;
/// Most lists and maps in a query string.
const QUERY_NESTS_MAX: usize = PARAMETERS_MAX / 2;
/// So many names deep nesting may go.
const DEPTH_MAX: usize = 32;

/// Parameters by name, in the order in which they appeared.
pub(crate) type Map<'a> = IndexMap<Cow<'a, str>, Value<'a>, DefaultHashBuilder>;

/// What a name stands for.
#[cfg_attr(test, derive(Debug))]
#[derive(Clone, PartialEq)]
pub(crate) enum Value<'a> {
    /// `name` without `=`.
    Absent,
    Text(Cow<'a, str>),
    List(Vec<Value<'a>>),
    Map(Map<'a>),
}

/// Why a text is no parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParameterError {
    #[error("a percent sign is not followed by two hexadecimal digits")]
    Escape,
    #[error("a parameter is nested in two ways that contradict each other")]
    Conflict,
    #[error("a parameter is nested more than {} deep", DEPTH_MAX - 1)]
    TooDeep,
    #[error("the parameters make more lists and maps than there may be")]
    TooNested,
    #[error("there are more than {PARAMETERS_MAX} parameters")]
    TooMany,
    #[error("the parameters are longer than {TEXT_BYTES_MAX} bytes")]
    TooLong,
}

/// The parameters of a call.
#[cfg_attr(test, derive(Debug))]
#[derive(Default)]
pub(crate) struct Parameters<'a> {
    map: Map<'a>,
    is_utf8: bool,
    /// How many more lists and maps there may be.
    nests_left: usize,
}

impl<'a> Parameters<'a> {
    /// Reads a query string.
    ///
    /// # Errors
    /// The first reason why it is none. Bytes that are no UTF-8 are none yet: see [`Self::is_utf8`].
    pub(crate) fn of_query(text: &'a str) -> Result<Self, ParameterError> {
        Self::parse(text.as_bytes(), QUERY_NESTS_MAX)
    }

    /// Reads an urlencoded form.
    ///
    /// # Errors
    /// As for a query string.
    pub(crate) fn of_form(text: &'a [u8]) -> Result<Self, ParameterError> {
        Self::parse(text, FORM_NESTS_MAX)
    }

    fn parse(text: &'a [u8], nests_max: usize) -> Result<Self, ParameterError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(ParameterError::TooLong);
        }
        if memchr::memchr_iter(b'&', text).count() >= PARAMETERS_MAX {
            return Err(ParameterError::TooMany);
        }
        let mut parameters = Self { map: Map::default(), is_utf8: true, nests_left: nests_max };
        for pair in text.split(|byte| *byte == b'&').map(<[u8]>::trim_ascii_start) {
            if pair.is_empty() {
                continue;
            }
            let (name, value) = match memchr::memchr(b'=', pair) {
                Some(at) => (&pair[..at], Some(&pair[at + 1..])),
                None => (pair, None),
            };
            let name = parameters.decode(name)?;
            let value = match value {
                Some(value) => Value::Text(parameters.decode(value)?),
                None => Value::Absent,
            };
            put(&mut parameters.map, name, value, &mut parameters.nests_left, 0)?;
        }
        Ok(parameters)
    }

    /// From fields of a form of another kind, which are not encoded.
    ///
    /// # Errors
    /// When their names contradict each other.
    pub(crate) fn of_fields(
        fields: impl IntoIterator<Item = (String, Vec<u8>)>,
    ) -> Result<Self, ParameterError> {
        let mut parameters = Self { map: Map::default(), is_utf8: true, nests_left: FORM_NESTS_MAX };
        for (name, value) in fields {
            let value = parameters.text(Cow::Owned(value));
            put(&mut parameters.map, Cow::Owned(name), Value::Text(value), &mut parameters.nests_left, 0)?;
        }
        Ok(parameters)
    }

    /// The outermost names.
    #[cfg(fuzzing)]
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.map.keys().map(|name| &**name)
    }

    /// Takes others in: theirs win, at the outermost level.
    pub(crate) fn extend(&mut self, others: Self) {
        self.is_utf8 &= others.is_utf8;
        self.map.extend(others.map);
    }

    /// Whether all names and values are UTF-8.
    pub(crate) fn is_utf8(&self) -> bool {
        self.is_utf8
    }

    /// What is there under an outermost name; a bare name counts as absent.
    pub(crate) fn get(&self, name: &str) -> Option<&Value<'a>> {
        self.map.get(name).filter(|value| **value != Value::Absent)
    }

    /// A text under an outermost name; what is no text counts as absent.
    pub(crate) fn text_of(&self, name: &str) -> Option<&str> {
        text_in(&self.map, name)
    }

    fn decode(&mut self, encoded: &'a [u8]) -> Result<Cow<'a, str>, ParameterError> {
        let decoded = decode(encoded)?;
        Ok(self.text(decoded))
    }

    fn text(&mut self, bytes: Cow<'a, [u8]>) -> Cow<'a, str> {
        let text = match bytes {
            Cow::Borrowed(bytes) => std::str::from_utf8(bytes).map(Cow::Borrowed).ok(),
            Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).ok(),
        };
        text.unwrap_or_else(|| {
            self.is_utf8 = false;
            Cow::Borrowed("")
        })
    }
}

/// A text under a name of a map; what is no text counts as absent.
pub(crate) fn text_in<'m>(map: &'m Map<'_>, name: &str) -> Option<&'m str> {
    match map.get(name)? {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

/// Takes `+` and `%xx` out.
pub(crate) fn decode(encoded: &[u8]) -> Result<Cow<'_, [u8]>, ParameterError> {
    if memchr::memchr2(b'%', b'+', encoded).is_none() {
        return Ok(Cow::Borrowed(encoded));
    }
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut bytes = encoded.iter();
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let (high, low) = (digit(bytes.next()), digit(bytes.next()));
                let value = high.zip(low).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
                value.ok_or(ParameterError::Escape)?
            }
            byte => *byte,
        });
    }
    Ok(Cow::Owned(decoded))
}

/// What a name says: the key in the map at hand, and what follows behind it.
struct Step<'a> {
    key: Cow<'a, str>,
    /// Nothing, or begins with a bracket, save for odd names.
    rest: Cow<'a, str>,
}

/// `depth` 0: a name as it was sent; brackets at its very beginning mean nothing. Further down a name without a bracket in
/// front is read the same way: the client threescalers reports `transactions[0]usage[hits]`.
fn step<'a>(name: &Cow<'a, str>, depth: usize) -> Step<'a> {
    let (key, rest) = if depth == 0 || !name.starts_with('[') {
        let bracket = name.as_bytes().iter().skip(1).position(|byte| *byte == b'[');
        let end = bracket.map_or(name.len(), |at| at + 1);
        (0..end, end)
    } else if name.starts_with("[]") {
        (0..2, 2)
    } else {
        match name.strip_prefix('[').and_then(|inner| inner.find(']')) {
            Some(length) => (1..length + 1, length + 2),
            // Half a bracket is part of the name.
            None => (0..name.len(), name.len()),
        }
    };
    Step { key: part(name, key), rest: part(name, rest..name.len()) }
}

fn part<'a>(text: &Cow<'a, str>, range: std::ops::Range<usize>) -> Cow<'a, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(&text[range]),
        Cow::Owned(text) => Cow::Owned(text[range].to_owned()),
    }
}

/// Puts a value where its name says. Returns it again where the name stands for a list by itself.
fn put<'a>(
    map: &mut Map<'a>,
    name: Cow<'a, str>,
    value: Value<'a>,
    nests_left: &mut usize,
    depth: usize,
) -> Result<Option<Value<'a>>, ParameterError> {
    if depth >= DEPTH_MAX {
        return Err(ParameterError::TooDeep);
    }
    let Step { key, rest } = step(&name, depth);
    if key.is_empty() {
        return Ok(None);
    }
    match &*rest {
        "" if key == "[]" && depth > 0 => return Ok(Some(value)),
        "" => drop(map.insert(key, value)),
        "[" => drop(map.insert(name, value)),
        "[]" => list_at(map, key, nests_left)?.push(value),
        _ if rest.starts_with("[]") => {
            let child = child_of(&rest);
            let list = list_at(map, key, nests_left)?;
            match list.last_mut() {
                Some(Value::Map(last)) if !holds(last, &child) => {
                    drop(put(last, child, value, nests_left, depth + 1)?)
                }
                _ => {
                    take_one(nests_left)?;
                    let mut inner = Map::default();
                    let item = match put(&mut inner, child, value, nests_left, depth + 1)? {
                        Some(value) => Value::List(vec![value]),
                        None => Value::Map(inner),
                    };
                    list.push(item);
                }
            }
        }
        _ => {
            let inner = map_at(map, key, nests_left)?;
            put(inner, rest, value, nests_left, depth + 1)?;
        }
    }
    Ok(None)
}

fn list_at<'m, 'a>(
    map: &'m mut Map<'a>,
    key: Cow<'a, str>,
    nests_left: &mut usize,
) -> Result<&'m mut Vec<Value<'a>>, ParameterError> {
    let value = map.entry(key).or_insert(Value::Absent);
    if *value == Value::Absent {
        take_one(nests_left)?;
        *value = Value::List(vec![]);
    }
    match value {
        Value::List(list) => Ok(list),
        _ => Err(ParameterError::Conflict),
    }
}

fn map_at<'m, 'a>(
    map: &'m mut Map<'a>,
    key: Cow<'a, str>,
    nests_left: &mut usize,
) -> Result<&'m mut Map<'a>, ParameterError> {
    let value = map.entry(key).or_insert(Value::Absent);
    if *value == Value::Absent {
        take_one(nests_left)?;
        *value = Value::Map(Map::default());
    }
    match value {
        Value::Map(inner) => Ok(inner),
        _ => Err(ParameterError::Conflict),
    }
}

/// One more list or map.
fn take_one(nests_left: &mut usize) -> Result<(), ParameterError> {
    *nests_left = nests_left.checked_sub(1).ok_or(ParameterError::TooNested)?;
    Ok(())
}

/// The name within an element of a list: of `[][key]` the key, else what follows the brackets.
fn child_of<'a>(rest: &Cow<'a, str>) -> Cow<'a, str> {
    let inner = rest.strip_prefix("[][").and_then(|inner| inner.strip_suffix(']'));
    match inner {
        Some(key) if !key.is_empty() && !key.contains(['[', ']']) => part(rest, 3..rest.len() - 1),
        _ => part(rest, 2..rest.len()),
    }
}

/// Whether a map has a name already, so that the next element of a list begins with it.
fn holds(map: &Map<'_>, name: &str) -> bool {
    if name.contains("[]") {
        return false;
    }
    let mut keys = name.split(['[', ']']).filter(|key| !key.is_empty());
    let Some(mut value) = keys.next().and_then(|key| map.get(key)) else { return false };
    for key in keys {
        match value {
            Value::Map(inner) if inner.contains_key(key) => value = &inner[key],
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests;
