//! Header fields as HTTP/1 writes them: lines of text, and where each of them stands.
//!
//! Requests and answers carry them through the gateway, whichever HTTP they came by. To look one up is to compare a
//! handful of lengths; to send them is to copy lines. A field that is removed stays in the text and is no longer
//! pointed at. HTTP/2 has them in maps of its own library: they are turned at its edge.

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue};

/// What nearly all heads have room in, with what the gateway adds.
const TEXT_BYTES: usize = 768;
const LINES: usize = 16;

/// Fields in their order; names are in small letters.
#[derive(Default, Clone)]
pub(crate) struct Fields {
    text: Vec<u8>,
    lines: Vec<Line>,
}

/// `name: value`, CR and LF.
#[derive(Clone, Copy)]
struct Line {
    start: u32,
    /// Behind the name.
    colon: u32,
    end: u32,
    /// Never to be kept in the tables with which HTTP/2 compresses fields.
    is_sensitive: bool,
}

impl Line {
    fn name(self, text: &[u8]) -> &[u8] {
        &text[self.start as usize..self.colon as usize]
    }

    fn value(self, text: &[u8]) -> &[u8] {
        &text[self.colon as usize + 2..self.end as usize - 2]
    }
}

impl Fields {
    /// None yet, but room for those of most messages.
    pub(crate) fn new() -> Self {
        Self { text: Vec::with_capacity(TEXT_BYTES), lines: Vec::with_capacity(LINES) }
    }

    /// Adds one behind the others. Name and value were judged by whoever read them.
    pub(crate) fn push(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.add(name.as_ref(), value.as_ref(), false);
    }

    /// Adds one that HTTP/2 keeps in no table.
    pub(crate) fn push_sensitive(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.add(name.as_ref(), value.as_ref(), true);
    }

    fn add(&mut self, name: &[u8], value: &[u8], is_sensitive: bool) {
        debug_assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n')), "a value is one line");
        let start = self.text.len();
        self.text.extend_from_slice(name);
        self.text[start..].make_ascii_lowercase();
        let colon = self.text.len();
        self.text.extend_from_slice(b": ");
        self.text.extend_from_slice(value);
        self.text.extend_from_slice(b"\r\n");
        let at = |place: usize| u32::try_from(place).expect("heads are at most 1 GiB long");
        self.lines.push(Line { start: at(start), colon: at(colon), end: at(self.text.len()), is_sensitive });
    }

    /// Puts one in the place of all of its name.
    pub(crate) fn set(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.remove(name.as_ref());
        self.push(name, value);
    }

    /// Takes out all of a name.
    pub(crate) fn remove(&mut self, name: impl AsRef<[u8]>) {
        let unwanted = name.as_ref();
        self.retain(|name| name != unwanted);
    }

    /// Keeps those whose names are wanted.
    pub(crate) fn retain(&mut self, is_wanted: impl Fn(&[u8]) -> bool) {
        let text = &self.text;
        self.lines.retain(|line| is_wanted(line.name(text)));
    }

    /// The first value of a name.
    pub(crate) fn get(&self, name: impl AsRef<[u8]>) -> Option<&[u8]> {
        let wanted = name.as_ref();
        let line = self.lines.iter().find(|line| line.name(&self.text) == wanted)?;
        Some(line.value(&self.text))
    }

    /// The only value of a name; `None`: there is none, or more than one.
    pub(crate) fn only(&self, name: impl AsRef<[u8]>) -> Option<&[u8]> {
        let mut values = self.all(name.as_ref());
        values.next().filter(|_| values.next().is_none())
    }

    /// All values of a name.
    pub(crate) fn all<'a>(&'a self, name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |(found, _)| *found == name).map(|(_, value)| value)
    }

    /// Whether there is one of a name.
    pub(crate) fn has(&self, name: impl AsRef<[u8]>) -> bool {
        self.get(name).is_some()
    }

    /// Names and values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        self.lines.iter().map(|line| (line.name(&self.text), line.value(&self.text)))
    }

    /// Writes the lines of those whose names are wanted.
    pub(crate) fn write(&self, out: &mut BytesMut, is_wanted: impl Fn(&[u8]) -> bool) {
        let mut lines = self.lines.iter().filter(|line| is_wanted(line.name(&self.text)));
        let Some(first) = lines.next() else { return };
        let (mut start, mut end) = (first.start, first.end);
        for line in lines {
            // What stands together is copied together.
            if line.start != end {
                out.extend_from_slice(&self.text[start as usize..end as usize]);
                start = line.start;
            }
            end = line.end;
        }
        out.extend_from_slice(&self.text[start as usize..end as usize]);
    }

    /// As HTTP/2 wants them.
    pub(crate) fn to_map(&self) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.lines.len());
        for line in &self.lines {
            let name = HeaderName::from_bytes(line.name(&self.text));
            let value = HeaderValue::from_bytes(line.value(&self.text));
            if let (Ok(name), Ok(mut value)) = (name, value) {
                value.set_sensitive(line.is_sensitive);
                map.append(name, value);
            }
        }
        map
    }
}

impl From<&HeaderMap> for Fields {
    fn from(map: &HeaderMap) -> Self {
        let mut fields = Self::new();
        for (name, value) in map {
            fields.add(name.as_str().as_bytes(), value.as_bytes(), value.is_sensitive());
        }
        fields
    }
}

/// Whether a value says nothing.
pub(crate) fn is_blank(value: &[u8]) -> bool {
    value.iter().all(|byte| matches!(byte, b' ' | b'\t'))
}

/// A value as text, if it is made of ASCII that is seen.
pub(crate) fn text(value: &[u8]) -> Option<&str> {
    let is_seen = value.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
    if is_seen { std::str::from_utf8(value).ok() } else { None }
}

#[cfg(test)]
impl Fields {
    /// Of lines without an end.
    pub(crate) fn of(lines: &[&str]) -> Self {
        let mut fields = Self::new();
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap();
            fields.push(name, value);
        }
        fields
    }

    /// The first value of a name, as text.
    pub(crate) fn text(&self, name: impl AsRef<[u8]>) -> Option<&str> {
        self.get(name).map(|value| text(value).unwrap())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(fields: &Fields, expected: &str) {
        let mut out = BytesMut::new();
        fields.write(&mut out, |_| true);
        assert_eq!(std::str::from_utf8(&out).unwrap().replace("\r\n", "|"), expected);
    }

    #[test]
    fn fields_are_found_and_changed() {
        let mut fields = Fields::of(&["Accept: */*", "X-Many: 1", "empty: ", "x-many: 2"]);
        check(&fields, "accept: */*|x-many: 1|empty: |x-many: 2|");
        assert_eq!(fields.text("x-many"), Some("1"));
        assert_eq!(fields.all(b"x-many").collect::<Vec<_>>(), [b"1", b"2"]);
        assert_eq!((fields.only("accept"), fields.only("x-many")), (Some(&b"*/*"[..]), None));
        assert!(fields.has("empty") && !fields.has("none"));
        fields.set("x-many", "3");
        check(&fields, "accept: */*|empty: |x-many: 3|");
        fields.remove(http::header::ACCEPT);
        check(&fields, "empty: |x-many: 3|");
        fields.retain(|_| false);
        check(&fields, "");
    }

    #[test]
    fn only_wanted_lines_are_written() {
        let fields = Fields::of(&["a: 1", "b: 2", "c: 3", "d: 4", "e: 5"]);
        let mut out = BytesMut::new();
        fields.write(&mut out, |name| name != b"c" && name != b"e");
        assert_eq!(&out[..], b"a: 1\r\nb: 2\r\nd: 4\r\n");
    }

    #[test]
    fn maps_have_the_same_fields() {
        let mut fields = Fields::of(&["a: 1", "a: 2"]);
        fields.push_sensitive("secret", "s");
        fields.push("raw", b"\xe9");
        let map = fields.to_map();
        assert_eq!(map.get_all("a").iter().collect::<Vec<_>>(), ["1", "2"]);
        assert!(map["secret"].is_sensitive() && !map["a"].is_sensitive());
        assert_eq!(map["raw"].as_bytes(), b"\xe9");
        assert_eq!(Fields::from(&map).to_map(), map);
        assert!(Fields::from(&map).to_map()["secret"].is_sensitive());
    }

    #[test]
    fn text_is_ascii() {
        assert_eq!(text(b"a b\t~"), Some("a b\t~"));
        assert_eq!((text(b"\xc3\xa9"), text(b"\x7f"), text(b"\x01")), (None, None, None));
    }
}
