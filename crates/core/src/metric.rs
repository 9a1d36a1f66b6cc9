//! What is counted: metrics, and methods, which are metrics with a parent.
//!
//! A service has one tree (a forest, strictly: several roots). The classic shape is `hits` with a method per
//! endpoint; depth is free. Usage of a method also counts for all its ancestors; [`crate::usage`] does that.
//!
//! Metrics are addressed by index within their tree, so that the rules compare numbers, not names.

use std::collections::HashMap;

use crate::id::MetricName;

/// Most metrics in one service.
pub const METRICS_MAX: usize = 4096;
/// Most generations between a metric and its root.
pub const DEPTH_MAX: usize = 32;

/// Place of a metric in its [`MetricTree`]. Parents have smaller ones than their children.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MetricIndex(u16);

impl MetricIndex {
    /// As an index into a slice of the tree's length.
    pub fn as_usize(self) -> usize {
        self.0.into()
    }
}

/// A metric or method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metric {
    /// System name, unique in the service.
    pub name: MetricName,
    /// What it rolls up into.
    pub parent: Option<MetricIndex>,
    /// Number of ancestors.
    pub depth: usize,
}

/// All metrics of a service, parents before children.
#[derive(Debug, Clone, Default)]
pub struct MetricTree {
    metrics: Vec<Metric>,
    by_name: HashMap<MetricName, MetricIndex>,
}

/// Why metrics do not form a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetricTreeError {
    /// The same name twice.
    #[error("metric {0} is defined twice")]
    Repeated(MetricName),
    /// A parent that is not a metric of the service.
    #[error("metric {0} has the parent {1}, which is not a metric of this service")]
    ParentUnknown(MetricName, MetricName),
    /// A metric that is its own ancestor.
    #[error("metric {0} is its own ancestor")]
    Cycle(MetricName),
    /// More than [`DEPTH_MAX`] generations.
    #[error("metric {0} has more than {DEPTH_MAX} ancestors")]
    TooDeep(MetricName),
    /// A name that begins like those of the listener's own counters.
    #[error("metric {0} begins with a dot, as only counters of the listener do")]
    Reserved(MetricName),
    /// More than [`METRICS_MAX`] metrics.
    #[error("a service has at most {METRICS_MAX} metrics")]
    TooMany,
}

impl MetricTree {
    /// Builds the tree from names and parents, in any order. Order is kept among metrics of one depth.
    ///
    /// # Errors
    /// The first reason why they do not form a tree.
    pub fn new(definitions: &[(MetricName, Option<MetricName>)]) -> Result<Self, MetricTreeError> {
        if definitions.len() > METRICS_MAX {
            return Err(MetricTreeError::TooMany);
        }
        let mut parents = HashMap::new();
        for (name, parent) in definitions {
            if name.as_str().starts_with('.') {
                return Err(MetricTreeError::Reserved(name.clone()));
            }
            if parents.insert(name, parent.as_ref()).is_some() {
                return Err(MetricTreeError::Repeated(name.clone()));
            }
        }
        let mut by_depth = Vec::with_capacity(definitions.len());
        for (name, parent) in definitions {
            by_depth.push((depth_of(name, &parents)?, name, parent));
        }
        by_depth.sort_by_key(|(depth, ..)| *depth);
        let mut tree = Self::default();
        for (depth, name, parent) in by_depth {
            let parent = parent.as_ref().and_then(|p| tree.find(p.as_str()));
            let index = u16::try_from(tree.metrics.len()).map_err(|_| MetricTreeError::TooMany)?;
            tree.by_name.insert(name.clone(), MetricIndex(index));
            tree.metrics.push(Metric { name: name.clone(), parent, depth });
        }
        Ok(tree)
    }

    /// The metric of that name.
    pub fn find(&self, name: &str) -> Option<MetricIndex> {
        self.by_name.get(name).copied()
    }

    /// The metric at a place of this tree.
    ///
    /// # Panics
    /// When the index comes from a longer tree.
    pub fn metric(&self, index: MetricIndex) -> &Metric {
        &self.metrics[index.as_usize()]
    }

    /// All metrics with their places, parents before children.
    pub fn iter(&self) -> impl Iterator<Item = (MetricIndex, &Metric)> {
        (0_u16..).map(MetricIndex).zip(&self.metrics)
    }

    /// How many metrics there are.
    pub fn len(&self) -> usize {
        self.metrics.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.metrics.is_empty()
    }
}

fn depth_of(
    name: &MetricName,
    parents: &HashMap<&MetricName, Option<&MetricName>>,
) -> Result<usize, MetricTreeError> {
    let (mut depth, mut child) = (0, name);
    while let Some(Some(parent)) = parents.get(child) {
        if !parents.contains_key(parent) {
            return Err(MetricTreeError::ParentUnknown(child.clone(), (*parent).clone()));
        }
        depth += 1;
        if *parent == name || depth > parents.len() {
            return Err(MetricTreeError::Cycle(name.clone()));
        }
        if depth > DEPTH_MAX {
            return Err(MetricTreeError::TooDeep(name.clone()));
        }
        child = parent;
    }
    Ok(depth)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// `"a b<a c<b"`: a is a root, b its child, c a child of b.
    pub(crate) fn tree(text: &str) -> Result<MetricTree, MetricTreeError> {
        let name = |t: &str| MetricName::parse(t).unwrap();
        let definitions: Vec<_> = text
            .split_whitespace()
            .map(|word| match word.split_once('<') {
                Some((child, parent)) => (name(child), Some(name(parent))),
                None => (name(word), None),
            })
            .collect();
        MetricTree::new(&definitions)
    }

    #[track_caller]
    fn check(definitions: &str, expected: &str) {
        let found = match tree(definitions) {
            Ok(tree) => tree.iter().map(|(_, m)| m.name.to_string()).collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn parents_come_before_children() {
        check("", "");
        check("a b<a c<b", "a b c");
        check("c<b b<a a", "a b c");
        check("search<hits hits mail", "hits mail search");
    }

    #[test]
    fn what_is_no_tree() {
        check("a .a", "metric .a begins with a dot, as only counters of the listener do");
        check("a a", "metric a is defined twice");
        check("a<b", "metric a has the parent b, which is not a metric of this service");
        check("a<a", "metric a is its own ancestor");
        check("a<b b<c c<b", "metric a is its own ancestor");
        let deep: String = (0..40).map(|n| format!("m{}<m{} ", n + 1, n)).collect::<String>() + "m0";
        check(&deep, "metric m33 has more than 32 ancestors");
    }
}
