//! The backends behind a product: which one a request goes to, and what it costs there.
//!
//! A product has rules and an upstream of its own. Each backend is mounted under a path; the longest mount that covers a
//! request's path has it, and its rules count beside the product's. Rules of backends that were not chosen do not exist
//! for that request. (Reference: gateway, section 2.5.)

use std::fmt;

use crate::mapping_rule::{MappingRule, MappingRules, Matched, Pattern, PatternError};
use crate::proxy::Proxy;

/// Most backends of one product.
pub const BACKENDS_MAX: usize = 100;

/// An API behind a product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Names it to people; once in a product.
    pub id: String,
    /// Which requests it gets.
    pub mount: Mount,
    /// Where they go: as a product's own base URL.
    pub api_backend: String,
    /// The Host that it sees; `None`: its own.
    pub host_rewrite: Option<String>,
    /// What they cost beside the product's rules. Patterns begin behind the mount.
    pub mapping_rules: Vec<MappingRule>,
}

/// The path that a backend is mounted under: `/`, or segments without a slash behind them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    text: String,
    /// Decoded; empty for `/`.
    path: Vec<u8>,
}

/// Why a text is no mount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// It cannot be the beginning of a path.
    #[error(transparent)]
    Path(#[from] PatternError),
    /// It is more than a path.
    #[error("is not a plain path: it has a wildcard, a $ or a query")]
    NotPlain,
    /// A slash at its end.
    #[error("ends with a slash: a mount covers what is below it anyway")]
    Slash,
}

impl std::str::FromStr for Mount {
    type Err = MountError;

    fn from_str(text: &str) -> Result<Self, MountError> {
        if text.contains(['{', '}', '$', '?']) {
            return Err(MountError::NotPlain);
        }
        let path = text.parse::<Pattern>()?.literal().ok_or(MountError::NotPlain)?;
        match path.as_slice() {
            b"/" => Ok(Self { text: "/".to_owned(), path: vec![] }),
            [.., b'/'] => Err(MountError::Slash),
            _ => Ok(Self { text: text.to_owned(), path }),
        }
    }
}

impl fmt::Display for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Mount {
    /// Whether a decoded path is the mount itself, or below it.
    pub fn covers(&self, path: &[u8]) -> bool {
        path.strip_prefix(self.path.as_slice()).is_some_and(|rest| matches!(rest, [] | [b'/', ..]))
    }

    /// What is left of a path behind the mount, as it was sent; the path is one that it [covers](Self::covers).
    pub fn strip<'a>(&self, target: &'a str) -> &'a str {
        let mut rest = target;
        for _ in &self.path {
            let length = if rest.starts_with('%') { 3 } else { 1 };
            rest = rest.get(length..).unwrap_or_default();
        }
        if rest.is_empty() { "/" } else { rest }
    }
}

/// The compiled rules of a product and its backends.
#[derive(Debug, Clone, Default)]
pub struct ProductRules {
    own: MappingRules,
    /// The longest mount first.
    backends: Vec<(Mount, MappingRules)>,
}

/// Which backend of a product: its place among [`Proxy::backends`] as [`ProductRules::new`] leaves them.
pub type BackendIndex = usize;

impl ProductRules {
    /// Takes the rules out of a proxy and compiles them. The backends come to stand in the order in which they are tried.
    pub fn new(proxy: &mut Proxy) -> Self {
        proxy.backends.sort_by_key(|backend| std::cmp::Reverse(backend.mount.path.len()));
        let compile = |backend: &mut Backend| {
            let mut rules = std::mem::take(&mut backend.mapping_rules);
            rules
                .iter_mut()
                .for_each(|rule| rule.pattern = rule.pattern.below(&backend.mount.text, &backend.mount.path));
            (backend.mount.clone(), MappingRules::new(rules))
        };
        Self {
            own: MappingRules::new(std::mem::take(&mut proxy.mapping_rules)),
            backends: proxy.backends.iter_mut().map(compile).collect(),
        }
    }

    /// The backend that has a decoded path; `None`: the product's own upstream has it.
    pub fn backend_of(&self, path: &[u8]) -> Option<BackendIndex> {
        self.backends.iter().position(|(mount, _)| mount.covers(path))
    }

    /// Matches a request that goes to this backend, see [`MappingRules::matches`]. The product's rules come first.
    pub fn matches(
        &self,
        backend: Option<BackendIndex>,
        method: &str,
        path: &[u8],
        argument: &dyn Fn(&[u8]) -> Option<Vec<u8>>,
    ) -> Matched {
        let mut matched = self.own.matches(method, path, argument);
        let is_over = matched.rules.last().is_some_and(|at| self.own.rules()[*at as usize].last);
        if let (Some(at), false) = (backend, is_over) {
            let rules = &self.backends[at].1;
            let before = u32::try_from(self.own.rules().len()).unwrap_or(u32::MAX);
            for place in rules.matches(method, path, argument).rules {
                let rule = &rules.rules()[place as usize];
                matched.usage.add(&rule.metric, rule.delta);
                matched.rules.push(before.saturating_add(place));
            }
        }
        matched
    }

    /// The rules that apply to requests of a backend, as [`Matched::rules`] counts them.
    pub fn rules(&self, backend: Option<BackendIndex>) -> impl Iterator<Item = &MappingRule> {
        let further = backend.map(|at| self.backends[at].1.rules()).unwrap_or_default();
        self.own.rules().iter().chain(further)
    }

    /// The rule at a place of [`Matched::rules`].
    pub fn rule(&self, backend: Option<BackendIndex>, place: u32) -> Option<&MappingRule> {
        let (place, own) = (place as usize, self.own.rules());
        own.get(place).or_else(|| self.backends[backend?].1.rules().get(place - own.len()))
    }

    /// Every rule there is.
    pub fn all(&self) -> impl Iterator<Item = &MappingRule> {
        self.own.rules().iter().chain(self.backends.iter().flat_map(|(_, rules)| rules.rules()))
    }
}

/// The path that an upstream gets of a request: without the mount of its backend.
pub fn path_behind<'a>(backend: Option<&Backend>, target: &'a str) -> &'a str {
    backend.map_or(target, |backend| backend.mount.strip(target))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping_rule::HttpMethod;
    use crate::path::RequestPath;

    fn mount(text: &str) -> Mount {
        text.parse().unwrap()
    }

    fn rule(text: &str) -> MappingRule {
        let (pattern, metric) = text.split_once(' ').unwrap();
        let (metric, last) = metric.strip_suffix('!').map_or((metric, false), |metric| (metric, true));
        MappingRule {
            http_method: HttpMethod::Get,
            pattern: pattern.parse().unwrap(),
            metric: metric.parse().unwrap(),
            delta: 1,
            position: 0,
            last,
            free_answers: crate::StatusSet::default(),
        }
    }

    /// Of `own` rules and of backends `mount: rule, rule`, what a request counts, and where it goes.
    #[track_caller]
    fn check(own: &[&str], backends: &[&str], path: &str, expected: &str) {
        let backend = |text: &&str| {
            let (at, rules) = text.split_once(": ").unwrap();
            Backend {
                id: at.to_owned(),
                mount: mount(at),
                api_backend: String::new(),
                host_rewrite: None,
                mapping_rules: rules.split(", ").map(rule).collect(),
            }
        };
        let mut proxy = Proxy {
            mapping_rules: own.iter().copied().map(rule).collect(),
            backends: backends.iter().map(backend).collect(),
            ..Proxy::default()
        };
        let rules = ProductRules::new(&mut proxy);
        let path = RequestPath::parse(path).unwrap();
        let chosen = rules.backend_of(&path.decoded);
        let matched = rules.matches(chosen, "GET", &path.decoded, &|_| None);
        let metrics: Vec<_> =
            matched.rules.iter().map(|at| rules.rule(chosen, *at).unwrap().metric.as_str()).collect();
        let summed: u64 = matched
            .usage
            .iter()
            .map(|(_, value)| match value {
                crate::UsageValue::Add(by) | crate::UsageValue::Set(by) => by,
            })
            .sum();
        assert_eq!(summed, metrics.len() as u64);
        let chosen = chosen.map(|at| &proxy.backends[at]);
        let id = chosen.map_or("-", |backend| &backend.id);
        assert_eq!(format!("{} {id} {}", metrics.join("+"), path_behind(chosen, &path.target)), expected);
    }

    const BACKENDS: [&str; 3] = ["/a: / one, /deep two", "/a/b: / three", "/c%20d: / four"];

    #[test]
    fn the_longest_mount_has_the_request() {
        check(&["/ own"], &BACKENDS, "/a/x", "own+one /a /x");
        check(&["/ own"], &BACKENDS, "/a/deep/er", "own+one+two /a /deep/er");
        check(&["/ own"], &BACKENDS, "/a/b/x", "own+three /a/b /x");
        check(&["/ own"], &BACKENDS, "/a", "own /a /");
        check(&["/ own"], &BACKENDS, "/a/", "own+one /a /");
        check(&["/ own"], &BACKENDS, "/abc", "own - /abc");
        check(&["/ own"], &BACKENDS, "/%61/x%2e", "own+one /a /x%2e");
        check(&["/ own"], &BACKENDS, "/c%20d/%20", "own+four /c%20d /%20");
        check(&["/ own"], &["/: / all", "/a: / one"], "/b", "own+all / /b");
    }

    #[test]
    fn the_products_last_rule_ends_its_backends_too() {
        check(&["/a/x own!", "/ more"], &BACKENDS, "/a/x", "own /a /x");
        check(&[], &["/a: /x one!, / two"], "/a/x", "one /a /x");
    }

    #[test]
    fn mounts_are_plain_paths() {
        for text in ["a", "/a/", "/a/{b}", "/a$", "/a?b", "/%2f", ""] {
            assert!(text.parse::<Mount>().is_err(), "{text}");
        }
        assert_eq!(mount("/a").to_string(), "/a");
    }
}
