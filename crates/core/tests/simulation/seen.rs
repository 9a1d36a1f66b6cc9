//! How often things happened: a simulation in which nothing goes wrong proves nothing.

use weir_core::lease::Reply;
use weir_core::lease::When;
use weir_core::lease::ledger::{Ask, Lease, Outcome, Step};

macro_rules! tally {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub(crate) struct Seen {
            $($(#[$doc])* pub(crate) $name: u64,)*
        }

        impl Seen {
            pub(crate) fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }

            pub(crate) fn each(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),*]
            }
        }
    };
}

tally! {
    events,
    requests,
    spent_from_leases,
    admitted_one_by_one,
    refused,
    given_up,
    taken_back,
    taken_back_too_late,
    leases_opened,
    leases_for_the_next_window,
    openings_short,
    renewals,
    old_rounds,
    closed_again,
    presumed,
    corrected,
    taken_over,
    let_go,
    restored,
    recalls,
    lost,
    duplicated,
    slow,
    link_cuts,
    gateway_crashes,
    crashes_between_journal_and_upstream,
    listener_crashes,
    store_pauses,
    store_restarts,
    fail_overs,
    fail_overs_with_all_replicated,
    kept_for_an_outage,
    clock_jumps,
}

impl Seen {
    /// What a message did to the ledger.
    pub(crate) fn step(&mut self, ask: &Ask, known: Option<&Lease>, step: &Step, life: u64, is_closed: bool) {
        let count = |tally: &mut u64, is_it: bool| *tally += u64::from(is_it);
        let is_put = matches!(step.outcome, Outcome::Put(_));
        let is_old = known.is_some_and(|lease| ask.round <= lease.round);
        let was_forgotten =
            known.is_none() && ask.declared.is_some_and(|d| d.incarnation != life) && ask.opens.is_none();
        let spent = ask.lines.iter().any(|line| line.spent > 0);
        count(&mut self.leases_opened, known.is_none() && is_put && ask.opens.is_some());
        count(
            &mut self.leases_for_the_next_window,
            known.is_none() && is_put && ask.opens == Some(When::Next),
        );
        count(&mut self.openings_short, step.reply == Reply::Short);
        count(&mut self.renewals, known.is_some() && is_put);
        count(&mut self.old_rounds, is_old && !ask.closes);
        count(&mut self.closed_again, is_closed && ask.closes);
        let is_corrected = known.is_some_and(|lease| lease.is_presumed) && ask.closes;
        count(&mut self.corrected, is_corrected && !step.changes.is_empty());
        count(&mut self.taken_over, was_forgotten && (is_put || !step.changes.is_empty()));
        count(&mut self.let_go, was_forgotten && !is_closed && spent && step.changes.is_empty() && !is_put);
    }
}
