//! `status_overwrite`: tells clients another status than the upstream answered.

use super::form::Form;
use super::{Kind, Place, Policy, Repeats};
use crate::status_set::{STATUS_NAMES_MAX, StatusSet};

/// Most changes.
const CHANGES_MAX: usize = 32;

/// Which status becomes which.
#[derive(Debug, Clone)]
pub struct StatusOverwrite {
    changes: Vec<(StatusSet, u16)>,
}

impl StatusOverwrite {
    pub(super) const KIND: Kind = Kind {
        name: "status_overwrite",
        meaning: "Tells clients another status than the upstream answered. What a call costs goes by the upstream's.",
        place: Place::Either,
        repeats: Repeats::Freely,
        has_conditions: true,
        read: |form| Policy::StatusOverwrite(Self::read(form)),
    };

    fn read(form: &Form<'_>) -> Self {
        let changes = form.tables(
            "statuses",
            "Changes, of which the first holds that is for a status.",
            CHANGES_MAX,
            |form| {
                let from =
                    form.texts("from", "What the upstream answered.", "status or class", STATUS_NAMES_MAX);
                let to = form.whole("to", "What the client is told.", 200..=599);
                form.require(&["from", "to"]);
                if let Some(to @ (204 | 205 | 304)) = to {
                    form.wrong(
                        "to",
                        format!("to cannot be {to}: such answers have no body, and this one may"),
                    );
                }
                (StatusSet::new(from), to.and_then(|to| u16::try_from(to).ok()).unwrap_or(200))
            },
        );
        form.require(&["statuses"]);
        Self { changes }
    }

    /// What the client is told in the place of a status.
    pub fn told(&self, status: u16) -> Option<u16> {
        self.changes.iter().find(|(from, _)| from.contains(status)).map(|(_, to)| *to)
    }
}
