//! What one request uses: metric → how much, before and after roll-up into ancestors.
//!
//! The gateway fills it from mapping rules, other clients name it in `usage[...]`. A value is an increment
//! (`5`) or sets the counter (`#5`). [`Usage::expand`] follows 3scale's propagation (reference: Service
//! Management API, section 3.2), so that clients who move over count the same.
//!
//! Knows nothing of limits or windows.

use crate::denial::Denial;
use crate::id::MetricName;
use crate::metric::{MetricIndex, MetricTree};

/// Largest value of a counter, and so of a single usage: 2^53 - 1, exact in a double too.
pub const USAGE_MAX: u64 = (1 << 53) - 1;

/// How a counter changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UsageValue {
    /// Rises by this much.
    Add(u64),
    /// Becomes this much (`#N` on the wire).
    Set(u64),
}

/// Why a text is no usage value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a usage value: a whole number from 0, with # in front to set it")]
pub struct UsageValueError;

impl std::str::FromStr for UsageValue {
    type Err = UsageValueError;
    /// Digits with an optional `#` in front; blanks around are dropped, more than [`USAGE_MAX`] counts as that much.
    fn from_str(text: &str) -> Result<Self, UsageValueError> {
        let text = text.trim_matches(|c: char| c.is_ascii_whitespace());
        let (digits, make): (_, fn(u64) -> Self) = match text.strip_prefix('#') {
            Some(digits) => (digits, Self::Set),
            None => (text, Self::Add),
        };
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(UsageValueError);
        }
        // Only a number that is too long for it is none.
        Ok(make(digits.parse().unwrap_or(USAGE_MAX).min(USAGE_MAX)))
    }
}

impl std::fmt::Display for UsageValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Add(n) => write!(f, "{n}"),
            Self::Set(n) => write!(f, "#{n}"),
        }
    }
}

/// Metric → value, in the order the caller named them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage(Vec<(MetricName, UsageValue)>);

impl Usage {
    /// Usage of these metrics. A metric named again replaces its earlier value.
    pub fn new(entries: impl IntoIterator<Item = (MetricName, UsageValue)>) -> Self {
        let mut usage = Self::default();
        for (metric, value) in entries {
            match usage.0.iter_mut().find(|(known, _)| *known == metric) {
                Some(entry) => entry.1 = value,
                None => usage.0.push((metric, value)),
            }
        }
        usage
    }

    /// Adds to a metric's increment; this is how several mapping rules sum up.
    pub fn add(&mut self, metric: &MetricName, by: u64) {
        match self.0.iter_mut().find(|(known, _)| known == metric) {
            Some((_, UsageValue::Add(sum) | UsageValue::Set(sum))) => {
                *sum = sum.saturating_add(by).min(USAGE_MAX);
            }
            None => self.0.push((metric.clone(), UsageValue::Add(by.min(USAGE_MAX)))),
        }
    }

    /// The entries as named.
    pub fn iter(&self) -> impl Iterator<Item = (&MetricName, UsageValue)> {
        self.0.iter().map(|(metric, value)| (metric, *value))
    }

    /// How much is added to a metric.
    pub fn added(&self, metric: &MetricName) -> u64 {
        let added = self.0.iter().find_map(|(name, value)| match value {
            UsageValue::Add(by) if name == metric => Some(*by),
            _ => None,
        });
        added.unwrap_or(0)
    }

    /// Whether nothing is used.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What each named metric gains by itself, parents before children: for callers who have rolled it up already.
    ///
    /// # Errors
    /// [`Denial::MetricInvalid`] for a name that is no metric of the service.
    pub fn flat(&self, metrics: &MetricTree) -> Result<Vec<(MetricIndex, UsageValue)>, Denial> {
        let mut touched = self.find(metrics)?;
        touched.sort_by_key(|(index, _)| *index);
        Ok(touched)
    }

    fn find(&self, metrics: &MetricTree) -> Result<Vec<(MetricIndex, UsageValue)>, Denial> {
        let mut touched: Vec<(MetricIndex, UsageValue)> = Vec::with_capacity(self.0.len() * 2);
        for (name, value) in &self.0 {
            let index = metrics.find(name.as_str()).ok_or_else(|| Denial::MetricInvalid(name.to_string()))?;
            touched.push((index, *value));
        }
        Ok(touched)
    }

    /// Rolls usage up into all ancestors: what each touched metric gains in total, parents before children.
    ///
    /// Increments add up; a set value overwrites its ancestors, the last one named deciding; an increment
    /// under a parent that is set counts the parent from 0.
    ///
    /// # Errors
    /// [`Denial::MetricInvalid`] for a name that is no metric of the service.
    pub fn expand(&self, metrics: &MetricTree) -> Result<Vec<(MetricIndex, UsageValue)>, Denial> {
        let mut touched = self.find(metrics)?;
        let deepest = touched.iter().map(|(i, _)| metrics.metric(*i).depth).max().unwrap_or(0);
        for depth in (1..=deepest).rev() {
            for child in 0..touched.len() {
                let (index, value) = touched[child];
                let metric = metrics.metric(index);
                if let (true, Some(parent)) = (metric.depth == depth, metric.parent) {
                    raise_parent(&mut touched, parent, value);
                }
            }
        }
        touched.sort_by_key(|(index, _)| *index);
        Ok(touched)
    }
}

fn raise_parent(touched: &mut Vec<(MetricIndex, UsageValue)>, parent: MetricIndex, child: UsageValue) {
    let Some((_, value)) = touched.iter_mut().find(|(index, _)| *index == parent) else {
        touched.push((parent, child));
        return;
    };
    *value = match (child, *value) {
        (UsageValue::Set(n), _) => UsageValue::Set(n),
        (UsageValue::Add(n), UsageValue::Add(sum)) => UsageValue::Add(sum.saturating_add(n).min(USAGE_MAX)),
        (UsageValue::Add(n), UsageValue::Set(_)) => UsageValue::Add(n),
    };
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::metric::tests::tree;
    use proptest::prelude::*;

    /// `"hits=2 read=#5"`.
    pub(crate) fn usage(text: &str) -> Usage {
        Usage::new(text.split_whitespace().map(|word| {
            let (metric, value) = word.split_once('=').unwrap();
            (MetricName::parse(metric).unwrap(), value.parse().unwrap())
        }))
    }

    #[track_caller]
    fn check(metrics: &str, named: &str, expected: &str) {
        let tree = tree(metrics).unwrap();
        let found = match usage(named).expand(&tree) {
            Ok(all) => {
                all.iter().map(|(i, v)| format!("{}={v}", tree.metric(*i).name)).collect::<Vec<_>>().join(" ")
            }
            Err(denial) => denial.code().to_owned(),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn increments_add_up_into_every_ancestor() {
        check("hits read<hits", "read=5", "hits=5 read=5");
        check("hits read<hits", "hits=2 read=5", "hits=7 read=5");
        check("hits read<hits write<hits", "read=1 write=2", "hits=3 read=1 write=2");
        check("a b<a c<b", "a=1 c=1", "a=2 b=1 c=1");
        check("a b<a c<b d<b", "c=1 d=1", "a=2 b=2 c=1 d=1");
        check("hits mail", "mail=10 hits=1", "hits=1 mail=10");
        check("hits", "hits=0", "hits=0");
        check("hits", "", "");
    }

    #[test]
    fn set_values_overwrite_ancestors() {
        check("hits read<hits", "read=#5", "hits=#5 read=#5");
        check("hits read<hits write<hits", "read=#5 write=#7", "hits=#7 read=#5 write=#7");
        check("hits read<hits", "hits=#9 read=2", "hits=2 read=2");
        check("hits read<hits", "hits=3 read=#5", "hits=#5 read=#5");
        check("hits read<hits write<hits", "read=#5 write=2", "hits=2 read=#5 write=2");
        check("hits read<hits write<hits", "write=2 read=#5", "hits=#5 read=#5 write=2");
    }

    #[test]
    fn flat_usage_stays_where_it_is_named() {
        let tree = tree("hits read<hits").unwrap();
        let flat = |named: &str| {
            usage(named).flat(&tree).map(|all| all.iter().map(|(_, v)| v.to_string()).collect())
        };
        assert_eq!(flat("read=5 hits=#2"), Ok(vec!["#2".to_owned(), "5".to_owned()]));
        assert_eq!(flat("red=5"), Err(Denial::MetricInvalid("red".into())));
    }

    #[test]
    fn an_unknown_metric_is_refused() {
        check("hits", "hitz=1", "metric_invalid");
    }

    #[test]
    fn values_parse_as_the_field_writes_them() {
        for (text, expected) in [
            ("5", "5"),
            (" 5 ", "5"),
            ("#5", "#5"),
            ("007", "7"),
            ("#0", "#0"),
            ("9007199254740992", "9007199254740991"),
            ("#99999999999999999999", "#9007199254740991"),
        ] {
            assert_eq!(text.parse::<UsageValue>().unwrap().to_string(), expected, "{text:?}");
        }
        for text in ["", " ", "#", "##3", "-1", "-#55", "#.0", "tons!", "+5", "# 5"] {
            assert_eq!(text.parse::<UsageValue>(), Err(UsageValueError), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn roots_receive_what_was_named_below_them(values in prop::collection::vec(0_u64..1000, 4)) {
            let tree = tree("a b<a c<b d<b").unwrap();
            let named = ["a", "b", "c", "d"].iter().zip(&values)
                .map(|(name, n)| (MetricName::parse(name).unwrap(), UsageValue::Add(*n)));
            let all = Usage::new(named).expand(&tree).unwrap();
            prop_assert_eq!(all[0].1, UsageValue::Add(values.iter().sum()));
            prop_assert_eq!(all[1].1, UsageValue::Add(values[1..].iter().sum()));
        }
    }
}
