//! Referrer filters: which pages may use an application's credentials.
//!
//! A filter is literal text with `*` for any run of characters, possibly empty, never a newline; it covers
//! the whole referrer, case included. (Reference: Service Management API, section 3.6.)

/// The referrer that passes every filter, by the field's convention.
const BYPASS: &str = "*";

/// Longest referrer of a client that is judged.
const REFERRER_BYTES_MAX: usize = 2_048;

/// A client's own `Referer`, as far as it is judged; a longer one is none. What passes every filter is not for a client to
/// say.
pub fn of_client(text: &str) -> Option<&str> {
    Some(text).filter(|text| *text != BYPASS && text.len() <= REFERRER_BYTES_MAX)
}

/// Whether a referrer passes: there are no filters, or one of them covers it.
pub fn allowed(filters: &[String], referrer: Option<&str>) -> bool {
    match referrer {
        _ if filters.is_empty() => true,
        Some(referrer) => referrer == BYPASS || filters.iter().any(|filter| covers(filter, referrer)),
        None => false,
    }
}

/// Matches literal runs left to right: each as early as it fits, the last one at the end.
fn covers(filter: &str, referrer: &str) -> bool {
    let Some((first, rest)) = filter.split_once('*') else { return filter == referrer };
    let Some(mut left) = referrer.strip_prefix(first) else { return false };
    if left.contains('\n') {
        return false;
    }
    let (middles, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    for middle in middles.split('*') {
        let Some(at) = left.find(middle) else { return false };
        left = &left[at + middle.len()..];
    }
    left.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(filter: &str, referrer: &str, expected: bool) {
        assert_eq!(allowed(&[filter.to_owned()], Some(referrer)), expected, "{filter} for {referrer:?}");
    }

    #[test]
    fn filters_cover_the_whole_referrer() {
        check("example.org", "example.org", true);
        check("example.org", "www.example.org", false);
        check("*.example.org", "www.example.org", true);
        check("*.example.org", "example.org", false);
        check("example.*", "example.org", true);
        check("*", "anything", true);
        check("a*b*c", "a-b-b-c", true);
        check("a*b*c", "a-c", false);
        check("ab*ba", "aba", false);
        check("EXAMPLE.org", "example.org", false);
        check("a.c", "abc", false);
        check("*", "two\nlines", false);
        check("example.org", "*", true);
    }

    #[test]
    fn a_client_bypasses_nothing() {
        assert_eq!(of_client("https://a.example/*"), Some("https://a.example/*"));
        assert_eq!([of_client("*"), of_client(&"a".repeat(2_049))], [None, None]);
    }

    #[test]
    fn without_filters_everything_passes() {
        assert!(allowed(&[], None));
        assert!(!allowed(&["example.org".to_owned()], None));
    }
}
