//! The rules for one file at a time. Each returns the lines at fault, and why.

use crate::source::{Source, code_only};

/// Where a rule is broken.
pub(crate) type Faults = Vec<(usize, String)>;

const CODE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

/// Names that say nothing about what is inside.
const JUNK_DRAWERS: [&str; 6] = ["util", "utils", "helpers", "common", "misc", "manager"];

/// What only a working session needs.
const LEFT_OVERS: [&str; 4] = ["todo!", "dbg!", "unimplemented!", "#[ignore"];

/// Folders of somebody's machine. Put together here, so that this file does not have them.
const MACHINE_PATHS: [&str; 4] =
    [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/"), concat!("/wo", "rk/")];

/// Hosts of package registries.
const REGISTRIES: [&str; 9] = [
    concat!("crates", ".io"),
    concat!("npm", "js."),
    concat!("py", "pi.org"),
    concat!("python", "hosted"),
    concat!("proxy.go", "lang"),
    concat!("ruby", "gems.org"),
    concat!("doc", "ker.io"),
    concat!("gh", "cr.io"),
    concat!("qu", "ay.io"),
];

/// The crate whose job it is to have `unsafe`.
const UNSAFE_CRATE: &str = "crates/journal/";

/// A module says in its first lines what it is.
pub(crate) fn header(source: &Source) -> Faults {
    let says = source.text.lines().find(|line| !line.starts_with("#!")).is_some_and(|l| l.starts_with("//!"));
    if says { vec![] } else { vec![(1, "has no //! header".into())] }
}

/// No junk drawers.
pub(crate) fn name(source: &Source) -> Faults {
    let stem = |part: &str| part.split('.').next().unwrap_or_default().to_owned();
    let junk = source.path.split('/').map(stem).find(|stem| JUNK_DRAWERS.contains(&stem.as_str()));
    junk.map(|stem| (1, format!("{stem} is no name for an idea"))).into_iter().collect()
}

/// Files can be read in one sitting. Tests, which come last, do not count.
pub(crate) fn length(source: &Source) -> Faults {
    let code = code_only(&source.text);
    let lines: Vec<&str> = code.lines().collect();
    let is_tests = |at: usize| {
        let next = lines.get(at + 1).copied().unwrap_or_default();
        lines[at].trim() == "#[cfg(test)]" && next.contains("mod ") && next.ends_with('{')
    };
    let end = (0..lines.len()).find(|at| is_tests(*at)).unwrap_or(lines.len());
    let count = lines[..end].iter().filter(|line| !line.trim().is_empty()).count();
    let fault = || (end, format!("has {count} lines of code; {CODE_LINES_MAX} are the most"));
    (count > CODE_LINES_MAX).then(fault).into_iter().collect()
}

/// Functions fit on a screen.
pub(crate) fn functions(source: &Source) -> Faults {
    let code = code_only(&source.text);
    let lines: Vec<&str> = code.lines().collect();
    let mut faults = Vec::new();
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| begins_function(line)) {
        let length = function_length(&lines[at..]);
        if length > FUNCTION_LINES_MAX {
            let why = format!("{length} lines; {FUNCTION_LINES_MAX} are the most: {}", line.trim());
            faults.push((at + 1, why));
        }
    }
    faults
}

fn begins_function(line: &str) -> bool {
    const QUALIFIERS: [&str; 8] =
        ["pub ", "pub(crate) ", "pub(super) ", "async ", "const ", "unsafe ", "extern ", "~ "];
    let mut rest = line.trim_start();
    while let Some(after) = QUALIFIERS.iter().find_map(|qualifier| rest.strip_prefix(qualifier)) {
        rest = after;
    }
    rest.starts_with("fn ")
}

/// Lines up to the brace that closes the body, or to the semicolon of one that has none.
fn function_length(lines: &[&str]) -> usize {
    let mut depth = 0;
    for (at, line) in lines.iter().enumerate() {
        for character in line.chars() {
            match character {
                '(' | '[' | '{' => depth += 1,
                ')' | ']' => depth -= 1,
                '}' if depth == 1 => return at + 1,
                '}' => depth -= 1,
                ';' if depth == 0 => return at + 1,
                _ => {}
            }
        }
    }
    lines.len()
}

/// Nothing unfinished, no test that does not run.
pub(crate) fn left_overs(source: &Source) -> Faults {
    let code = code_only(&source.text);
    let found = |line: &str| LEFT_OVERS.into_iter().find(|word| line.contains(word));
    (1..)
        .zip(code.lines())
        .filter_map(|(n, line)| Some((n, format!("{} is left over", found(line)?))))
        .collect()
}

/// No `unsafe`, and no leave for what a macro may have of it, with one crate's exception.
pub(crate) fn safety(source: &Source) -> Faults {
    if source.path.starts_with(UNSAFE_CRATE) {
        return vec![];
    }
    let is_unsafe = |line: &str| {
        let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
        words.any(|word| word == "unsafe")
            || ["allow(unsafe_code", "expect(unsafe_code"].iter().any(|leave| line.contains(leave))
    };
    let code = code_only(&source.text);
    let lines = (1..).zip(code.lines()).filter(|(_, line)| is_unsafe(line));
    lines.map(|(n, _)| (n, format!("unsafe belongs into {UNSAFE_CRATE} alone"))).collect()
}

/// Nothing of the machine it was written on, and no registry but the one that Cargo.lock names.
pub(crate) fn machine(source: &Source) -> Faults {
    if source.path.ends_with("Cargo.lock") {
        return vec![];
    }
    let found = |line: &str| {
        let path = MACHINE_PATHS.into_iter().find(|path| has_absolute(line, path));
        path.or_else(|| REGISTRIES.into_iter().find(|host| line.contains(host)))
    };
    let fault = |(n, line)| found(line).map(|what| (n, format!("names {what}, which others do not have")));
    source.lines().filter_map(fault).collect()
}

/// Whether a line has this path from the root, not as a part of a longer one.
fn has_absolute(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "._-}".contains(c))
    })
}

/// Relative links lead somewhere; `exists` knows the repository's files and folders.
pub(crate) fn links(source: &Source, exists: &dyn Fn(&str) -> bool) -> Faults {
    let folder = source.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut faults = Vec::new();
    for (n, line) in source.lines() {
        for link in line.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            let target = link.split('#').next().unwrap_or_default();
            if !target.is_empty() && !link.contains("://") && !exists(&resolve(folder, target)) {
                faults.push((n, format!("links to {target}, which is not there")));
            }
        }
    }
    faults
}

fn resolve(folder: &str, target: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}
