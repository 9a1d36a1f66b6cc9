//! Single steps, measured by divan in a process of its own: the medians, in nanoseconds.
//!
//! `make bench` has built it in the same way before, so that nothing is built while something is measured.

use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use crate::figure::Figure;

/// As in the Makefile: other packages would mean other features, and building all of them again.
const ARGUMENTS: [&str; 8] = ["bench", "--locked", "-p", "weir", "-p", "weir-benches", "--bench", "micro"];

/// A call decided by the gateway within a lease, journal included.
const LEASE_DECISION: &str = "lease/call_is_decided";

/// Measures all of it.
pub(super) fn measure() -> anyhow::Result<Vec<Figure>> {
    let cargo = Command::new("cargo")
        .args(ARGUMENTS)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cargo does not start")?;
    ensure!(cargo.status.success(), "cargo bench failed");
    let text = String::from_utf8_lossy(&cargo.stdout);
    eprintln!("{text}");
    let figure = |(name, nanoseconds): (String, f64)| {
        let title = name.clone();
        match name.as_str() {
            LEASE_DECISION => {
                Figure::new("lease_decision_ns", title, "ns", Ok(vec![nanoseconds])).at_most(300.0)
            }
            _ => Figure::new(format!("micro_{}", name.replace('/', "_")), title, "ns", Ok(vec![nanoseconds])),
        }
    };
    let figures: Vec<Figure> = medians(&text).into_iter().map(figure).collect();
    ensure!(!figures.is_empty(), "cargo bench printed no medians");
    Ok(figures)
}

/// Names and medians of divan's tree: `├─ name   fastest │ slowest │ median │ …`; a name without figures is a branch.
fn medians(text: &str) -> Vec<(String, f64)> {
    let mut branches: Vec<&str> = vec![];
    let mut found = vec![];
    for line in text.lines() {
        let Some((indent, rest)) = line.split_once("─ ") else { continue };
        let name = rest.split_whitespace().next().unwrap_or_default();
        // Each level is three characters wide.
        branches.truncate(indent.chars().count() / 3);
        branches.push(name);
        if let Some(median) = line.rsplit('│').nth(3).and_then(nanoseconds) {
            found.push((branches.join("/"), median));
        }
    }
    found
}

/// `1.5 µs` as 1500.
fn nanoseconds(text: &str) -> Option<f64> {
    let (number, unit) = text.trim().split_once(' ')?;
    let scale = match unit {
        "ns" => 1.0,
        "µs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divans_tree_is_read() {
        let text = "\
Timer precision: 10 ns
micro                      fastest       │ slowest       │ median        │ mean          │ samples │ iters
├─ core                                  │               │               │               │         │
│  ├─ key_is_hashed        400 ns        │ 2 µs          │ 1.5 µs        │ 1.6 µs        │ 100     │ 100
│  ╰─ rules_match                        │               │               │               │         │
│     ├─ 10                10 ns         │ 30 ns         │ 20.5 ns       │ 21 ns         │ 100     │ 6400
│     ╰─ 10000             10 ns         │ 30 ns         │ 2 ms          │ 21 ns         │ 100     │ 6400
╰─ wire                                  │               │               │               │         │
   ╰─ last                 10 ns         │ 30 ns         │ 7 ns          │ 21 ns         │ 100     │ 6400
";
        let expected = [
            ("core/key_is_hashed".to_owned(), 1500.0),
            ("core/rules_match/10".to_owned(), 20.5),
            ("core/rules_match/10000".to_owned(), 2e6),
            ("wire/last".to_owned(), 7.0),
        ];
        assert_eq!(medians(text), expected);
    }
}
