#![no_main]
//! What a request uses by mapping rules. The first line is a request (`GET /path?query`), each other one a rule (`GET
//! /pattern metric`, and perhaps delta, position and `last`); what does not parse is left out.
//!
//! The prefix tree over all rules must find what trying each rule by itself finds.

use libfuzzer_sys::fuzz_target;
use weir_core::mapping_rule::{Pattern, decode_argument};
use weir_core::path::RequestPath;
use weir_core::usage::USAGE_MAX;
use weir_core::{MappingRule, MappingRules, MetricName, UsageValue};
use weir_fuzz::{argument, arguments};
use weir_gateway::fuzzing::last_argument;

/// Most rules of an input: some hundred patterns cost more than they find.
const RULES_MAX: usize = 40;

fuzz_target!(|bytes: &[u8]| {
    assert_eq!(decode_argument(bytes), argument(bytes));
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut lines = text.lines();
    let (method, target) = lines.next().and_then(|line| line.split_once(' ')).unwrap_or(("GET", "/"));
    let mut rules: Vec<MappingRule> = lines.filter_map(rule).take(RULES_MAX).collect();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let Ok(path) = RequestPath::parse(path) else { return };
    let given = arguments(query.as_bytes());
    let argument = |name: &[u8]| {
        let last = given.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        assert_eq!(last_argument(query, b"", name), last);
        last
    };

    let compiled = MappingRules::new(rules.clone());
    let matched = compiled.matches(method, &path.decoded, &argument);
    rules.sort_by_key(|rule| rule.position);
    assert_eq!(compiled.rules(), rules);
    let mut expected = Vec::new();
    for (at, rule) in (0..).zip(&rules) {
        let is_meant = matches!(rule.http_method.as_str(), "ANY") || rule.http_method.as_str() == method;
        let plain = PlainPattern::read(&rule.pattern.to_string());
        if is_meant && plain.covers(&path.decoded) && plain.holds(&argument) {
            expected.push(at);
            if rule.last {
                break;
            }
        }
    }
    assert_eq!(matched.rules, expected);
    let used: Vec<_> = matched.usage.iter().map(|(metric, value)| (metric.clone(), value)).collect();
    assert_eq!(used, sums(expected.iter().map(|at| &rules[*at as usize])));
});

fn rule(line: &str) -> Option<MappingRule> {
    let mut words = line.split(' ');
    let (http_method, text) = (words.next()?.parse().ok()?, words.next()?);
    let pattern: Pattern = text.parse().ok()?;
    assert_eq!(pattern.to_string(), text);
    Some(MappingRule {
        http_method,
        pattern,
        metric: words.next()?.parse().ok()?,
        delta: words.next().unwrap_or("1").parse().ok().filter(|delta| *delta > 0)?,
        position: words.next().unwrap_or("0").parse().ok()?,
        last: words.next() == Some("last"),
        free_answers: weir_core::StatusSet::default(),
    })
}

/// What rules add up to, by metric.
fn sums<'a>(rules: impl Iterator<Item = &'a MappingRule>) -> Vec<(MetricName, UsageValue)> {
    let mut sums: Vec<(MetricName, u128)> = Vec::new();
    for rule in rules {
        match sums.iter_mut().find(|(metric, _)| *metric == rule.metric) {
            Some((_, sum)) => *sum += u128::from(rule.delta),
            None => sums.push((rule.metric.clone(), rule.delta.into())),
        }
    }
    let value = |sum: u128| UsageValue::Add(u64::try_from(sum).unwrap_or(USAGE_MAX).min(USAGE_MAX));
    sums.into_iter().map(|(metric, sum)| (metric, value(sum))).collect()
}

/// A pattern that was accepted, read once more.
struct PlainPattern {
    /// `None`: a wildcard.
    tokens: Vec<Option<u8>>,
    is_exact: bool,
    /// Names, and the values they must have; `None`: any.
    conditions: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl PlainPattern {
    fn read(text: &str) -> Self {
        let (path, query) = text.split_once('?').unwrap_or((text, ""));
        let (path, is_exact) = path.strip_suffix('$').map_or((path, false), |path| (path, true));
        let conditions = query.split('&').filter(|part| !part.is_empty()).map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let is_any = value.split_once('{').is_some_and(|(_, rest)| rest.contains('}'));
            (argument(name.as_bytes()), (!is_any).then(|| argument(value.as_bytes())))
        });
        Self { tokens: tokens(path), is_exact, conditions: conditions.collect() }
    }

    /// Follows all places of the path that the tokens so far may lead to.
    fn covers(&self, path: &[u8]) -> bool {
        let mut places = vec![false; path.len() + 1];
        places[0] = true;
        for token in &self.tokens {
            let mut next = vec![false; path.len() + 1];
            for (at, byte) in path.iter().enumerate() {
                next[at + 1] = match token {
                    Some(literal) => places[at] && byte == literal,
                    None => (places[at] || next[at]) && !b"/[]{}|\\^\"<>`".contains(byte),
                };
            }
            places = next;
        }
        if self.is_exact { places[path.len()] } else { places.contains(&true) }
    }

    fn holds(&self, argument: &dyn Fn(&[u8]) -> Option<Vec<u8>>) -> bool {
        let mut conditions = self.conditions.iter();
        conditions.all(|(name, wanted)| {
            argument(name).is_some_and(|value| wanted.as_ref().is_none_or(|wanted| value == *wanted))
        })
    }
}

fn tokens(path: &str) -> Vec<Option<u8>> {
    let (mut tokens, mut rest) = (Vec::new(), path.as_bytes());
    while let [first, behind @ ..] = rest {
        rest = behind;
        match first {
            b'{' => {
                let end = rest.iter().position(|byte| *byte == b'}').expect("a wildcard's end");
                rest = &rest[end + 1..];
                tokens.push(None);
            }
            b'%' => {
                let digits = std::str::from_utf8(&rest[..2]).expect("two digits");
                tokens.push(Some(u8::from_str_radix(digits, 16).expect("two digits")));
                rest = &rest[2..];
            }
            b'\\' => assert!(b".()*+".contains(&rest[0])),
            b'/' if tokens.last() == Some(&Some(b'/')) => {}
            byte => tokens.push(Some(*byte)),
        }
    }
    tokens
}
