//! The keys that a page of the documentation lists, for the tests that hold pages against parsers.
//!
//! A heading such as ``## `[store.redis]` `` names the table, rows such as ``| `url` | … |`` its keys.

/// All keys of a page with the tables they belong to, sorted.
pub(crate) fn keys(page: &str) -> Vec<String> {
    let mut table = String::new();
    let mut keys = Vec::new();
    for line in page.lines() {
        if line.starts_with('#') {
            let name = line.split('`').nth(1).filter(|name| name.starts_with('['));
            table = name.map(|name| format!("{}.", name.trim_matches(['[', ']']))).unwrap_or_default();
        } else if let Some((key, _)) = line.strip_prefix("| `").and_then(|row| row.split_once('`')) {
            keys.push(format!("{table}{key}"));
        }
    }
    keys.sort();
    keys
}
