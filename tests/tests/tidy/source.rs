//! Files of the repository, and Rust without its comments and literals.

use std::path::Path;

/// What is built, kept or generated here, and belongs to nobody's review.
const SKIPPED: [&str; 5] = [".git", "target", "data", "node_modules", "__pycache__"];

/// A text file.
pub(crate) struct Source {
    /// From the repository's folder, with slashes.
    pub(crate) path: String,
    /// As it stands.
    pub(crate) text: String,
}

impl Source {
    /// A file that need not exist.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// All text files below a folder.
    pub(crate) fn all(root: &Path) -> Vec<Self> {
        let mut sources = Vec::new();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for found in std::fs::read_dir(&folder).expect("a folder of the repository").flatten() {
                let (path, name) = (found.path(), found.file_name());
                // In a second working tree of git, .git is a file.
                if SKIPPED.iter().any(|skipped| name == *skipped) {
                    continue;
                }
                if path.is_dir() {
                    folders.push(path);
                } else if let Ok(text) = std::fs::read_to_string(&path) {
                    let relative = path.strip_prefix(root).expect("it is below the root");
                    sources.push(Self::new(&relative.to_string_lossy(), &text));
                }
            }
        }
        sources.sort_by(|a, b| a.path.cmp(&b.path));
        sources
    }

    /// Whether it is Rust.
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Its lines, numbered from 1.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines())
    }
}

/// Rust with comments blanked out and literals crossed out, line by line as before.
pub(crate) fn code_only(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = Vec::with_capacity(bytes.len());
    while let Some(first) = bytes.get(code.len()) {
        let rest = &bytes[code.len()..];
        let (length, mark) = match first {
            b'/' => (comment_length(rest), b' '),
            _ => (literal_length(rest), b'~'),
        };
        if length == 0 {
            code.push(*first);
        }
        code.extend(rest[..length].iter().map(|byte| if *byte == b'\n' { b'\n' } else { mark }));
    }
    String::from_utf8(code).expect("only whole characters were replaced")
}

/// 0: there is no comment here.
fn comment_length(rest: &[u8]) -> usize {
    if rest.starts_with(b"//") {
        return rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    }
    if !rest.starts_with(b"/*") {
        return 0;
    }
    let (mut at, mut depth) = (0, 0);
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (at, depth) = (at + 2, depth + 1),
            [b'*', b'/', ..] => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// 0: there is no string and no character here.
fn literal_length(rest: &[u8]) -> usize {
    match rest {
        [b'"', ..] => quoted_length(rest, b'"'),
        [b'\'', b'\\', ..] => quoted_length(rest, b'\''),
        [b'\'', first, ..] => {
            // A lifetime has no quote behind it.
            let width = match first {
                0..=0x7f => 1,
                0xc0..=0xdf => 2,
                0xe0..=0xef => 3,
                _ => 4,
            };
            if rest.get(1 + width) == Some(&b'\'') { 2 + width } else { 0 }
        }
        [b'r', b'"' | b'#', ..] => raw_length(rest),
        _ => 0,
    }
}

fn quoted_length(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

fn raw_length(rest: &[u8]) -> usize {
    let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
    let begin = 1 + hashes;
    if rest.get(begin) != Some(&b'"') {
        return 0;
    }
    let end = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
    let inside = &rest[begin + 1..];
    let length = inside.windows(end.len()).position(|window| window == end).unwrap_or(inside.len());
    (begin + 1 + length + end.len()).min(rest.len())
}
