//! Patterns, accumulation, and the prefix tree against a rule-by-rule loop.

use super::*;
use proptest::prelude::*;

/// `"GET /foo hits 1 last"`.
fn rule(text: &str) -> MappingRule {
    let words: Vec<&str> = text.split(' ').collect();
    MappingRule {
        http_method: words[0].parse().unwrap(),
        pattern: words[1].parse().unwrap(),
        metric: words[2].parse().unwrap(),
        delta: words.get(3).map_or(1, |n| n.parse().unwrap()),
        position: 0,
        last: words.get(4) == Some(&"last"),
        free_answers: StatusSet::default(),
    }
}

/// The last value of a name in `a=1&b=2`.
fn argument_of(query: &str) -> impl Fn(&[u8]) -> Option<Vec<u8>> {
    move |name| {
        query.rsplit('&').find_map(|pair| {
            let (known, value) = pair.split_once('=').unwrap_or((pair, ""));
            (known.as_bytes() == name).then(|| decode_argument(value.as_bytes()))
        })
    }
}

#[track_caller]
fn check(rules: &[&str], request: &str, expected: &str) {
    let rules = MappingRules::new(rules.iter().map(|text| rule(text)).collect());
    let (method, target) = request.split_once(' ').unwrap();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let matched = rules.matches(method, path.as_bytes(), &argument_of(query));
    let found: Vec<_> = matched.usage.iter().map(|(metric, value)| format!("{metric}={value}")).collect();
    assert_eq!(found.join(" "), expected, "{request}");
}

#[test]
fn patterns_match_from_the_start() {
    for (path, hit) in
        [("/foo", true), ("/foo/x", true), ("/foobar", true), ("/fo", false), ("/x/foo", false)]
    {
        check(&["GET /foo hits"], &format!("GET {path}"), if hit { "hits=1" } else { "" });
    }
    check(&["GET / hits"], "GET /any/thing", "hits=1");
    check(&["GET //foo///bar hits"], "GET /foo/bar", "hits=1");
}

#[test]
fn a_dollar_makes_them_exact() {
    check(&["GET /foo$ hits"], "GET /foo", "hits=1");
    check(&["GET /foo$ hits"], "GET /foo/", "");
    check(&["GET /$ hits"], "GET /", "hits=1");
    check(&["GET /foo$?a=1 hits"], "GET /foo?a=1", "hits=1");
}

#[test]
fn wildcards_stay_in_their_segment() {
    check(&["GET /users/{id} hits"], "GET /users/7/posts", "hits=1");
    check(&["GET /users/{id} hits"], "GET /users/", "");
    check(&["GET /users/{id}$ hits"], "GET /users/7/posts", "");
    check(&["GET /a/{x}/d hits"], "GET /a/b/c/d", "");
    check(&["GET /files/{name}.{ext}$ hits"], "GET /files/a.b.json", "hits=1");
    check(&["GET /files/{name}.{ext}$ hits"], "GET /files/ajson", "");
    check(&["GET /x/{a}{b}$ hits"], "GET /x/1", "");
    check(&["GET /x/{a}{b}$ hits"], "GET /x/12", "hits=1");
    check(&["GET /u/{m}$ hits"], "GET /u/~!$&'()*+,;=.@:", "hits=1");
    check(&["GET /u/{m}$ hits"], "GET /u/[x]", "");
    check(&["GET /u/{m}$ hits"], "GET /u/a b", "hits=1");
}

#[test]
fn patterns_are_literal() {
    check(&["GET /v1.0$ hits"], "GET /v1x0", "");
    check(&["GET /v1\\.0$ hits"], "GET /v1.0", "hits=1");
    check(&["GET /a+b hits"], "GET /a+b", "hits=1");
    check(&["GET /a+b hits"], "GET /aab", "");
    check(&["GET /caf%c3%a9$ hits"], "GET /caf\u{e9}", "hits=1");
    check(&["GET /Foo hits"], "GET /foo", "");
}

#[test]
fn all_that_match_add_up_until_one_is_last() {
    check(&["GET / hits", "GET /foo hits 2", "GET /bar hits 4"], "GET /foo", "hits=3");
    check(&["POST /send$ send", "POST /send$ mail 10"], "POST /send", "send=1 mail=10");
    check(&["GET /t/{id}$ t 1 last", "GET /t t 1"], "GET /t/1", "t=1");
    check(&["GET /t/{id}$ t 1 last", "GET /t t 1"], "GET /t", "t=1");
    check(&["GET /bar hits 1 last", "GET / hits 10"], "GET /foo", "hits=10");
    check(&["POST /foo hits 1 last", "ANY /foo hits 2"], "GET /foo", "hits=2");
}

#[test]
fn positions_order_them() {
    let (mut first, mut second) = (rule("GET /a hits 1 last"), rule("GET /a hits 2 last"));
    (first.position, second.position) = (2, 1);
    let matched = MappingRules::new(vec![first, second]).matches("GET", b"/a", &|_| None);
    assert_eq!(matched.usage.iter().next().unwrap().1, crate::usage::UsageValue::Add(2));
}

#[test]
fn methods_and_query_conditions() {
    check(&["GET /foo hits"], "HEAD /foo", "");
    check(&["ANY /foo hits"], "PURGE /foo", "hits=1");
    check(&["GET /s?v=1 hits"], "GET /s?v=1", "hits=1");
    check(&["GET /s?v=1 hits"], "GET /s?v=2", "");
    check(&["GET /s?v=1 hits"], "GET /s?v=1&v=2", "");
    check(&["GET /s?v={x} hits"], "GET /s?v", "hits=1");
    check(&["GET /s?v={x} hits"], "GET /s", "");
    check(&["GET /s?v=a+b%2Fc hits"], "GET /s?v=a%20b/c", "hits=1");
    check(&["GET /s?a=1&b=2 hits"], "GET /s?b=2&a=1", "hits=1");
    check(&["GET /s?a=1&b=2 hits"], "GET /s?a=1", "");
}

#[test]
fn bad_patterns_are_refused() {
    for (text, expected) in [
        ("foo", PatternError::NotAbsolute),
        ("/{", PatternError::Brace),
        ("/a}", PatternError::Brace),
        ("/{}", PatternError::WildcardName),
        ("/{a b}", PatternError::WildcardName),
        ("/{a}/{a}", PatternError::WildcardRepeated("a".into())),
        ("/a$b", PatternError::Dollar),
        ("/a%2Fb", PatternError::EncodedSlash),
        ("/a%2", PatternError::Escape),
        ("/a b", PatternError::Character(' ')),
        ("/a#b", PatternError::Character('#')),
        ("/é", PatternError::Character('é')),
        ("/a?=1", PatternError::ConditionName),
    ] {
        assert_eq!(text.parse::<Pattern>(), Err(expected), "{text}");
    }
    assert_eq!(format!("/{}", "x".repeat(255)).parse::<Pattern>(), Err(PatternError::TooLong));
}

/// The plain reading of one pattern: try every length for every wildcard.
fn covers(tokens: &[Token], path: &[u8], exact: bool) -> bool {
    match tokens.split_first() {
        None => !exact || path.is_empty(),
        Some((Token::Byte(byte), rest)) => path.first() == Some(byte) && covers(rest, &path[1..], exact),
        Some((Token::Wildcard, rest)) => (1..=path.len())
            .take_while(|n| wildcard_covers(path[n - 1]))
            .any(|n| covers(rest, &path[n..], exact)),
    }
}

fn pattern() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec!["/a", "/b", "a", "b", "/{x}", "{y}", "/ab/", "."]);
    (prop::collection::vec(piece, 0..5), any::<bool>()).prop_map(|(pieces, exact)| {
        let mut names = 0;
        let mut text = String::from("/");
        for piece in pieces {
            names += 1;
            text += &piece.replace("{x}", &format!("{{x{names}}}")).replace("{y}", &format!("{{y{names}}}"));
        }
        if exact { text + "$" } else { text }
    })
}

proptest! {
    #[test]
    fn the_tree_finds_what_a_loop_over_the_rules_finds(
        patterns in prop::collection::vec(pattern(), 0..20),
        path in "/[ab./]{0,12}",
    ) {
        let rules: Vec<_> = patterns.iter().map(|text| rule(&format!("GET {text} hits"))).collect();
        let compiled = MappingRules::new(rules);
        let found = compiled.matches("GET", path.as_bytes(), &|_| None).rules;
        let expected: Vec<u32> = (0..).zip(compiled.rules())
            .filter(|(_, rule)| covers(&rule.pattern.tokens, path.as_bytes(), rule.pattern.exact))
            .map(|(at, _)| at)
            .collect();
        prop_assert_eq!(found, expected);
    }
}
