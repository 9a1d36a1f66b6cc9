//! Metrics and methods: `[[providers.services.metrics]]`, and those that its backends bring along.
//!
//! The tree's own check stops at its first problem. Here the metric in question is made a root and the check
//! repeated, so that all problems are found and every name stays known to the rules and plans that use it.

use weir_core::metric::MetricTreeError;
use weir_core::{MetricName, MetricTree};

use crate::names::Names;
use crate::report::Place;
use crate::section::Section;
use crate::suggest::did_you_mean;

/// A metric as written.
struct Definition {
    name: MetricName,
    place: Place,
    parent: Option<MetricName>,
    parent_place: Place,
}

/// Reads a service's metrics.
pub(super) fn read(section: &Section<'_>) -> MetricTree {
    let mut names = Names::new("metric");
    let mut definitions = section.each("metrics", |section| definition(section, &mut names));
    let of_backends = section.each_of_each("backends", "metrics", |section| definition(section, &mut names));
    definitions.extend(of_backends);
    tree(section, definitions)
}

fn definition(section: &Section<'_>, names: &mut Names) -> Option<Definition> {
    section.require("name");
    let name = section.parsed::<MetricName>("name");
    let parent = section.parsed::<MetricName>("parent");
    let name = name?;
    let parent_place = parent.as_ref().map_or(name.place, |parent| parent.place);
    let parent = parent.map(|parent| parent.value);
    let first = names.claim(section.report(), name.value.as_str(), name.place);
    first.then_some(Definition { name: name.value, place: name.place, parent, parent_place })
}

fn tree(section: &Section<'_>, mut definitions: Vec<Definition>) -> MetricTree {
    loop {
        let pairs: Vec<_> = definitions.iter().map(|d| (d.name.clone(), d.parent.clone())).collect();
        let error = match MetricTree::new(&pairs) {
            Ok(tree) => return tree,
            Err(error) => error,
        };
        let (at, message) = match &error {
            MetricTreeError::Repeated(name)
            | MetricTreeError::Reserved(name)
            | MetricTreeError::Cycle(name)
            | MetricTreeError::TooDeep(name) => (position(&definitions, name), error.to_string()),
            MetricTreeError::ParentUnknown(name, parent) => {
                let near = did_you_mean(parent.as_str(), definitions.iter().map(|d| d.name.as_str()));
                (position(&definitions, name), format!("{error}{near}"))
            }
            MetricTreeError::TooMany => (None, error.to_string()),
        };
        let Some(definition) = at.and_then(|at| definitions.get_mut(at)) else {
            section.report().error(section.place(), message);
            return MetricTree::default();
        };
        section.report().error(definition.parent_place, message);
        if definition.parent.take().is_none() {
            // Each round takes a parent away, so there is an end; without one left there is nothing to mend.
            section.report().error(definition.place, "metrics do not form a tree");
            return MetricTree::default();
        }
    }
}

fn position(definitions: &[Definition], name: &MetricName) -> Option<usize> {
    definitions.iter().position(|definition| definition.name == *name)
}
