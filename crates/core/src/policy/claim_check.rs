//! `claim_check`: refuses calls whose token does not say what it must, by path and method.

use super::condition::{ClaimValues, Condition, Subject, ValueTest};
use super::form::Form;
use super::{Kind, Place, Policy, Repeats};

/// Most checks.
const CHECKS_MAX: usize = 64;

/// What tokens must say.
#[derive(Debug, Clone)]
pub struct ClaimCheck {
    checks: Vec<Check>,
}

#[derive(Debug, Clone)]
struct Check {
    when: Option<Condition>,
    claims: Vec<ValueTest>,
}

impl ClaimCheck {
    pub(super) const KIND: Kind = Kind {
        name: "claim_check",
        meaning: "Refuses calls whose token lacks a claim, by path and method. For services with OpenID Connect.",
        place: Place::Behind,
        repeats: Repeats::Freely,
        has_conditions: true,
        read: |form| Policy::ClaimCheck(Self::read(form)),
    };

    fn read(form: &Form<'_>) -> Self {
        let checks = form.tables("checks", "Checks, all of which a call must pass.", CHECKS_MAX, |form| {
            let check = Check {
                when: form.table("when", "Which calls it is for; without, all.", Condition::read),
                claims: form.tables(
                    "claims",
                    "Claims that the token must have, all. `a.b` is `b` within `a`; of a list one value is enough.",
                    CHECKS_MAX,
                    |form| ValueTest::read(form, false),
                ),
            };
            form.require(&["claims"]);
            check
        });
        form.require(&["checks"]);
        Self { checks }
    }

    /// Whether a token says what it must for a call; the name of a claim that it lacks if not.
    ///
    /// # Errors
    /// The claim.
    pub fn check(&self, subject: &Subject<'_>, claims: Option<&ClaimValues>) -> Result<(), &str> {
        let asked =
            self.checks.iter().filter(|check| check.when.as_ref().is_none_or(|when| when.holds(subject)));
        match asked.flat_map(|check| &check.claims).find(|test| !test.holds_for(claims)) {
            None => Ok(()),
            Some(test) => Err(&test.name),
        }
    }

    pub(super) fn claims(&self) -> impl Iterator<Item = &str> {
        let conditions = self.checks.iter().filter_map(|check| check.when.as_ref());
        let tests = self.checks.iter().flat_map(|check| &check.claims);
        tests.chain(conditions.flat_map(|when| &when.claims)).map(|test| test.name.as_str())
    }
}
