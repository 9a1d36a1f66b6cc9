//! Regular expressions of nginx, as ours: what they find is the same, or they are not taken over.
//!
//! Ours are matched in linear time, and their syntax is nearly that of PCRE. What means something else in both, or what
//! only PCRE has, is refused here or by core's own reader.

/// What an expression and its options are here.
///
/// # Errors
/// Why it is not taken over.
pub(super) fn expression(regex: &str, options: &str) -> Result<String, String> {
    let mut flags = String::new();
    for option in options.chars() {
        match option {
            'i' | 'm' | 's' | 'x' => flags.push(option),
            // How nginx compiles and keeps it.
            'j' | 'o' => {}
            other => return Err(format!("its option {other:?} is not taken over")),
        }
    }
    if means_something_else(regex) {
        return Err("it is written in a way that means something else here: write it anew".to_owned());
    }
    Ok(if flags.is_empty() { regex.to_owned() } else { format!("(?{flags}){regex}") })
}

/// Whether PCRE reads an expression otherwise: `a++` and the like, or `&&`, `--`, `~~` and `[` among characters.
fn means_something_else(regex: &str) -> bool {
    let mut is_class = false;
    let mut rest = regex;
    while let Some(first) = rest.chars().next() {
        let behind = &rest[first.len_utf8()..];
        let next = behind.chars().next();
        match first {
            '\\' => {
                // `\<` is the beginning of a word here and `<` there.
                if matches!(next, Some('<' | '>')) {
                    return true;
                }
                rest = &behind[next.map_or(0, char::len_utf8)..];
                continue;
            }
            '[' if is_class && next != Some(':') => return true,
            '[' => is_class = true,
            ']' => is_class = false,
            '&' | '-' | '~' if is_class && next == Some(first) => return true,
            '*' | '+' | '?' | '}' if !is_class && next == Some('+') => return true,
            _ => {}
        }
        // `[:alpha:]` ends within a class, and so does what it stands in.
        if is_class && first == '[' && next == Some(':') {
            let Some((_, after)) = behind.split_once(":]") else { return true };
            rest = after;
            continue;
        }
        rest = behind;
    }
    false
}

/// A replacement of nginx as ours: `$1` and `${1}` are groups, `$$` a dollar. What no path holds is percent-encoded.
///
/// # Errors
/// Why it is not taken over.
pub(super) fn replacement(given: &str) -> Result<String, String> {
    let mut text = String::with_capacity(given.len());
    let mut rest = given;
    while let Some(first) = rest.chars().next() {
        rest = &rest[first.len_utf8()..];
        if first != '$' {
            push_encoded(first, &mut text);
            continue;
        }
        if let Some(after) = rest.strip_prefix('$') {
            text.push_str("$$");
            rest = after;
            continue;
        }
        let braced = rest.strip_prefix('{').and_then(|inner| inner.split_once('}'));
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (group, after) = braced.unwrap_or_else(|| rest.split_at(digits));
        if group.is_empty() || group.len() > 3 || !group.bytes().all(|b| b.is_ascii_digit()) {
            return Err("its replacement has a dollar that stands for no group".to_owned());
        }
        text.push_str(&format!("${{{group}}}"));
        rest = after;
    }
    Ok(text)
}

fn push_encoded(c: char, text: &mut String) {
    if c.is_ascii_graphic()
        && !matches!(c, '"' | '#' | '%' | '<' | '>' | '?' | '\\' | '^' | '`' | '{' | '|' | '}')
    {
        text.push(c);
        return;
    }
    for byte in c.encode_utf8(&mut [0; 4]).bytes() {
        text.push_str(&format!("%{byte:02X}"));
    }
}

/// Whether an expression may find what clients encode, which 3scale's sees decoded.
pub(super) fn sees_encoded(regex: &str) -> bool {
    regex.contains("\\s")
        || regex.chars().any(|c| !c.is_ascii_graphic() || matches!(c, '%' | '"' | '<' | '>'))
}

/// The prefix that an expression for paths asks for, as a pattern of ours; `None`: it asks for something else.
pub(super) fn prefix(regex: &str) -> Option<String> {
    if matches!(regex, "" | "^" | "/" | "^/" | ".*" | "^.*" | "^/.*") {
        return Some("/".to_owned());
    }
    let anchored = regex.strip_prefix('^').filter(|path| path.starts_with('/') || path.starts_with("\\/"))?;
    let (path, end) = match anchored.strip_suffix('$') {
        Some(path) if !path.ends_with(".*") => (path, "$"),
        Some(path) => (path, ""),
        None => (anchored, ""),
    };
    let path = literal(path.strip_suffix(".*").unwrap_or(path))?;
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"/-._~".contains(&b);
    (path.bytes().all(is_plain) && !path.contains("//")).then(|| format!("{path}{end}"))
}

/// The origins that an expression stands for, `https://*.example.org` among them; `None`: it stands for others, too.
pub(super) fn origins(regex: &str) -> Option<Vec<String>> {
    let anchored = regex.strip_prefix('^').unwrap_or(regex);
    let anchored = anchored.strip_suffix('$').unwrap_or(anchored);
    let inner = anchored.strip_prefix('(').and_then(|inner| inner.strip_suffix(')'));
    let inner = inner.filter(|inner| !inner.contains(['(', ')'])).unwrap_or(anchored);
    inner.trim_start_matches("?:").split('|').map(origin).collect()
}

fn origin(alternative: &str) -> Option<String> {
    let text = alternative.strip_prefix('^').unwrap_or(alternative);
    let text = text.strip_suffix('$').unwrap_or(text);
    let (scheme, host) = text.split_once("//").or_else(|| text.split_once("\\/\\/"))?;
    let labels = [".*\\.", ".+\\.", "(.*)\\.", "(.+)\\.", "[^.]+\\."];
    let below = labels.iter().find_map(|label| host.strip_prefix(label));
    let star = if below.is_some() { "*." } else { "" };
    Some(format!("{}//{star}{}", literal(scheme)?, literal(below.unwrap_or(host))?))
}

/// What an expression finds that is a plain text; `None`: it is none. A dot that is not escaped is any character.
fn literal(regex: &str) -> Option<String> {
    let mut text = String::with_capacity(regex.len());
    let mut rest = regex.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => text.push(rest.next().filter(char::is_ascii_punctuation)?),
            '.' | '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '|' | '^' | '$' => return None,
            c => text.push(c),
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_the_same_is_taken_over() {
        #[track_caller]
        fn check(regex: &str, options: &str, expected: Option<&str>) {
            assert_eq!(expression(regex, options).ok().as_deref(), expected, "{regex}");
        }
        check("^/v1/(.*)$", "", Some("^/v1/(.*)$"));
        check("^/V1", "oij", Some("(?i)^/V1"));
        check("a", "u", None);
        check("a++b", "", None);
        check("a{2}+", "", None);
        check(r"a\++", "", Some(r"a\++"));
        check("[+*]+", "", Some("[+*]+"));
        check("[a&&b]", "", None);
        check("[a[b]", "", None);
        check("[[:alpha:]-]+", "", Some("[[:alpha:]-]+"));
        check(r"\<a", "", None);
    }

    #[test]
    fn groups_of_replacements() {
        #[track_caller]
        fn check(given: &str, expected: Option<&str>) {
            assert_eq!(replacement(given).ok().as_deref(), expected, "{given}");
        }
        check("/x/$1", Some("/x/${1}"));
        check("/$1a/${2}b$$", Some("/${1}a/${2}b$$"));
        check("/a b?c", Some("/a%20b%3Fc"));
        check("/é", Some("/%C3%A9"));
        check("/$a", None);
        check("/$", None);
        check("/${a}", None);
    }

    #[test]
    fn prefixes() {
        #[track_caller]
        fn check(regex: &str, expected: Option<&str>) {
            assert_eq!(prefix(regex).as_deref(), expected, "{regex}");
        }
        check("^/v1", Some("/v1"));
        check("^/v1/.*", Some("/v1/"));
        check("^/v1/.*$", Some("/v1/"));
        check(r"^\/v1\.0$", Some("/v1.0$"));
        check("/", Some("/"));
        check("/v1", None);
        check("^/v1.0", None);
        check(r"^/v\d", None);
        check("^/(a|b)", None);
        check("^/{a}", None);
    }

    #[test]
    fn origins_of_expressions() {
        #[track_caller]
        fn check(regex: &str, expected: Option<&[&str]>) {
            let expected = expected.map(|origins| origins.iter().map(|o| (*o).to_owned()).collect());
            assert_eq!(origins(regex), expected, "{regex}");
        }
        check(r"^https:\/\/(.*)\.example\.org$", Some(&["https://*.example.org"]));
        check(r"(https://a\.org|https://b\.org)", Some(&["https://a.org", "https://b.org"]));
        check(r"^https?://a\.org$", None);
        check("https://.*", None);
        check("*", None);
    }
}
