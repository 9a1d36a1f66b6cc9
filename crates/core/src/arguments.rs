//! The arguments of a request: those of its URL, and those of a form body that was read ahead.
//!
//! Mapping rules ask by name and get the last value, the body's before the URL's; credentials are looked for
//! the other way round, first value first, as gateways of this kind always did. Nothing is decoded before
//! somebody asks for it, and all arguments count: the bounds on head and form are the bounds here.

use std::borrow::Cow;

use crate::mapping_rule::decode_argument;

/// Longest form body that is searched.
pub const FORM_BYTES_MAX: usize = 16 << 10;

/// Whether a request may carry a form, given its method and its `Content-Type` lines.
pub fn may_carry_form<'a>(method: &str, mut content_types: impl Iterator<Item = &'a str>) -> bool {
    matches!(method, "POST" | "PUT" | "PATCH")
        && content_types.any(|text| text.to_ascii_lowercase().contains("application/x-www-form-urlencoded"))
}

/// Both sources, still encoded.
#[derive(Debug, Clone, Copy, Default)]
pub struct Arguments<'a> {
    /// The query without `?`.
    pub query: &'a str,
    /// A form body, if there is one that was read.
    pub form: &'a [u8],
}

impl<'a> Arguments<'a> {
    /// The last value of an argument, as mapping rules want it; an argument without `=` has an empty one.
    pub fn last(&self, name: &[u8]) -> Option<Vec<u8>> {
        let last_of = |text: &'a [u8]| pairs(text).filter(|(found, _)| decoded(found) == name).last();
        last_of(self.form).or_else(|| last_of(self.query.as_bytes())).map(|(_, value)| decode_argument(value))
    }

    /// The value of a credential: the query's first argument of that name in any case, else the form's first of
    /// exactly that name. An empty one does not count.
    pub fn credential(&self, name: &str) -> Option<String> {
        let first = |text: &'a [u8], is: &dyn Fn(&[u8]) -> bool| {
            pairs(text).find(|(found, _)| is(&decoded(found))).map(|(_, value)| decode_argument(value))
        };
        let in_query = first(self.query.as_bytes(), &|found| found.eq_ignore_ascii_case(name.as_bytes()));
        let in_form = || {
            first(self.form, &|found| {
                found == name.as_bytes() || found == name.to_ascii_lowercase().as_bytes()
            })
        };
        let value = in_query.filter(|value| !value.is_empty()).or_else(in_form)?;
        Some(String::from_utf8_lossy(&value).into_owned())
    }

    /// As [`Arguments::credential`], but an empty value counts: an application without keys sends one.
    pub fn credential_or_empty(&self, name: &str) -> Option<String> {
        let named = |text: &'a [u8]| {
            pairs(text).any(|(found, _)| decoded(found).eq_ignore_ascii_case(name.as_bytes()))
        };
        let empty = || named(self.query.as_bytes()).then(String::new);
        self.credential(name).or_else(empty)
    }
}

/// A query or form without the arguments of these names, in any case; `None`: it has none of them.
pub fn without(text: &[u8], names: &[&str]) -> Option<Vec<u8>> {
    let is_named = |part: &&[u8]| {
        let (name, _) = split_pair(part);
        let name = decoded(name);
        names.iter().any(|wanted| name.eq_ignore_ascii_case(wanted.as_bytes()))
    };
    let parts = || text.split(|b| *b == b'&');
    if !parts().any(|part| is_named(&part)) {
        return None;
    }
    Some(parts().filter(|part| !is_named(part)).collect::<Vec<_>>().join(&b'&'))
}

fn pairs(text: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    text.split(|b| *b == b'&').filter(|part| !part.is_empty()).map(split_pair)
}

fn split_pair(part: &[u8]) -> (&[u8], &[u8]) {
    match part.iter().position(|b| *b == b'=') {
        Some(at) => (&part[..at], &part[at + 1..]),
        None => (part, b""),
    }
}

fn decoded(name: &[u8]) -> Cow<'_, [u8]> {
    if name.iter().any(|b| matches!(b, b'%' | b'+')) {
        return Cow::Owned(decode_argument(name));
    }
    Cow::Borrowed(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_last(query: &str, form: &str, name: &str, expected: Option<&str>) {
        let found = Arguments { query, form: form.as_bytes() }.last(name.as_bytes());
        assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{query} {form}");
    }

    #[track_caller]
    fn check_credential(query: &str, form: &str, expected: Option<&str>) {
        let found = Arguments { query, form: form.as_bytes() }.credential("user_key");
        assert_eq!(found.as_deref(), expected, "{query} {form}");
    }

    #[test]
    fn rules_see_the_last_value_and_the_body_first() {
        check_last("v=1&v=2", "", "v", Some("2"));
        check_last("v=1", "v=3", "v", Some("3"));
        check_last("v=1", "w=3", "v", Some("1"));
        check_last("%76=a+b%21", "", "v", Some("a b!"));
        check_last("a&v&b", "", "v", Some(""));
        check_last("V=1", "", "v", None);
        check_last("c=%zz", "", "c", Some("%zz"));
        check_last("", "", "v", None);
    }

    #[test]
    fn credentials_are_the_first_value_and_the_urls_first() {
        check_credential("user_key=a&user_key=b", "user_key=c", Some("a"));
        check_credential("USER_KEY=a", "", Some("a"));
        check_credential("user%5Fkey=a%20b%2Fc", "", Some("a b/c"));
        check_credential("&user_key=a=b==", "", Some("a=b=="));
        check_credential("user_key=", "user_key=k", Some("k"));
        check_credential("", "a=b&user_key=a&user_key=b", Some("a"));
        check_credential("", "USER_KEY=k", None);
        check_credential("user_key=", "", None);
        check_credential("user_key", "", None);
        check_credential("my_user_key=k", "", None);
        check_credential("a=1;user_key=k", "", None);
    }

    #[test]
    fn an_empty_key_may_count() {
        let arguments = Arguments { query: "app_key=", form: b"" };
        assert_eq!(arguments.credential_or_empty("app_key").as_deref(), Some(""));
        assert_eq!(arguments.credential_or_empty("app_id"), None);
    }

    #[test]
    fn named_arguments_are_taken_out() {
        #[track_caller]
        fn check(text: &str, expected: Option<&str>) {
            let found = without(text.as_bytes(), &["user_key"]);
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{text}");
        }
        check("a=1&user_key=k&b=%zz", Some("a=1&b=%zz"));
        check("User%5Fkey=k&user_key=l", Some(""));
        check("a=1&&b", None);
    }
}
