//! Names that may be given once each: services, plans, gateways.
//!
//! A reader claims each name it comes across; the second claim is a problem that points at the first.

use std::collections::HashMap;

use crate::report::{Place, Report};

/// Names of one kind that are taken.
#[derive(Debug)]
pub(crate) struct Names {
    kind: &'static str,
    taken: HashMap<String, Place>,
}

impl Names {
    /// None taken yet. `kind` is what messages call them.
    pub(crate) fn new(kind: &'static str) -> Self {
        Self { kind, taken: HashMap::new() }
    }

    /// Takes a name; says so and returns false when it was taken before.
    pub(crate) fn claim(&mut self, report: &Report<'_>, name: &str, place: Place) -> bool {
        match self.taken.get(name) {
            Some(first) => {
                let line = report.line(*first);
                report.error(place, format!("{} {name:?} is defined twice, first in line {line}", self.kind));
                false
            }
            None => self.taken.insert(name.to_owned(), place).is_none(),
        }
    }
}
