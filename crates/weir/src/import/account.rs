//! What became of each field of a document.

use std::fmt::Write as _;

/// Lines, in the order of the document.
#[derive(Debug, Default)]
pub(super) struct Account(Vec<Line>);

#[derive(Debug)]
struct Line {
    fate: Fate,
    place: String,
    what: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Mapped,
    Changed,
    LeftOut,
}

impl Account {
    /// A field is in the catalog as it was, there.
    pub(super) fn mapped(&mut self, place: &str, to: &str) {
        self.add(Fate::Mapped, place, to);
    }

    /// A field is in the catalog, but not as it was.
    pub(super) fn changed(&mut self, place: &str, how: &str) {
        self.add(Fate::Changed, place, how);
    }

    /// A field is not in the catalog.
    pub(super) fn left_out(&mut self, place: &str, why: &str) {
        self.add(Fate::LeftOut, place, why);
    }

    fn add(&mut self, fate: Fate, place: &str, what: &str) {
        self.0.push(Line { fate, place: shown(place), what: shown(what) });
    }

    /// Whether nothing was left out.
    pub(super) fn is_whole(&self) -> bool {
        self.0.iter().all(|line| line.fate != Fate::LeftOut)
    }

    /// As text, and a sum.
    pub(super) fn lines(&self, is_quiet: bool) -> String {
        let mut text = String::new();
        for Line { fate, place, what } in &self.0 {
            let fate = match fate {
                Fate::Mapped if is_quiet => continue,
                Fate::Mapped => "mapped",
                Fate::Changed => "changed",
                Fate::LeftOut => "left out",
            };
            let _ = writeln!(text, "{fate:<9} {place}: {what}");
        }
        let count = |fate| self.0.iter().filter(|line| line.fate == fate).count();
        let (mapped, changed, left_out) = (count(Fate::Mapped), count(Fate::Changed), count(Fate::LeftOut));
        let _ = writeln!(text, "{mapped} mapped, {changed} changed, {left_out} left out");
        text
    }
}

/// What documents say may hold what terminals take for orders, or for the end of a line.
fn shown(text: &str) -> String {
    let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.into() };
    text.chars().map(escaped).collect()
}
