//! `anonymous`: calls without credentials count as an application's.
//!
//! The application is named, not its key: no key stands in the policy, and the listener lets a gateway use the name
//! only where this policy gives it.

use super::form::Form;
use super::{Kind, Place, Policy, Repeats};
use crate::id::ApplicationId;

/// Whose calls are those without credentials.
#[derive(Debug, Clone)]
pub struct Anonymous {
    /// The application.
    pub application: Option<ApplicationId>,
}

impl Anonymous {
    pub(super) const KIND: Kind = Kind {
        name: "anonymous",
        meaning: "Takes calls without credentials for those of an application, within its plan's limits.",
        place: Place::Front,
        repeats: Repeats::Never,
        has_conditions: true,
        read: |form| Policy::Anonymous(Self::read(form)),
    };

    fn read(form: &Form<'_>) -> Self {
        let application = form.parsed(
            "application",
            "The application whose calls they are. Calls that show credentials are judged by those, right or wrong.",
            "id of an application",
        );
        form.require(&["application"]);
        Self { application }
    }
}
