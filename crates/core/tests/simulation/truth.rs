//! What really happened, and what must therefore be so.

use std::collections::BTreeMap;

use weir_core::counter::Increment;
use weir_core::id::MetricName;
use weir_core::lease::{Declared, LeaseId};
use weir_core::period::Timestamp;

use crate::scenario::Application;
use crate::store::{Counter, Store, Verdict, all, limited};

/// A lease as its journal has it, kept beyond that.
#[derive(Debug)]
pub(crate) struct Spending {
    pub(crate) application: usize,
    pub(crate) metrics: Vec<MetricName>,
    pub(crate) spent: Vec<u64>,
    /// The most that was ever spent.
    pub(crate) peak: Vec<u64>,
    pub(crate) forwarded: Vec<u64>,
    /// What was spent and, for a crash or a client that left too late, not forwarded.
    pub(crate) in_vain: u64,
    pub(crate) declared: Option<Declared>,
    /// Forgotten in a fail-over, so long ago that it may also have been counted.
    pub(crate) is_let_go: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Waiting,
    Forwarded,
    Refused,
    /// Its gateway took it back, or died.
    Dropped,
}

#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) application: usize,
    pub(crate) increments: Vec<Increment>,
    pub(crate) fate: Fate,
    /// Its gateway died before it was told, or had taken back.
    pub(crate) is_lost: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Truth {
    pub(crate) leases: BTreeMap<LeaseId, Spending>,
    pub(crate) requests: BTreeMap<u64, Request>,
    forwarded: BTreeMap<(usize, Counter), u64>,
    /// What fail-overs have forgotten.
    forgotten: BTreeMap<(usize, Counter), u64>,
    pub(crate) has_failed_over: bool,
}

impl Truth {
    fn max(&self, application: usize, counter: &Counter, max: u64) -> u64 {
        max.saturating_add(self.forgotten.get(&(application, counter.clone())).copied().unwrap_or(0))
    }

    /// A request goes to the upstream.
    pub(crate) fn forward(
        &mut self,
        application: usize,
        increments: &[Increment],
        moment: Timestamp,
        by: u64,
    ) {
        for (counter, unit, max) in limited(increments, moment) {
            let max = self.max(application, &counter, max);
            let forwarded = self.forwarded.entry((application, counter)).or_default();
            *forwarded += unit * by;
            let forwarded = *forwarded;
            assert!(by == 0 || unit == 0 || forwarded <= max, "forwarded {forwarded} of {max}");
        }
    }

    pub(crate) fn forget(&mut self, store: &Store) {
        self.has_failed_over = true;
        for (application, account) in store.accounts.iter().enumerate() {
            for (counter, by) in &account.promised {
                let forgotten = self.forgotten.entry((application, counter.clone())).or_default();
                *forgotten = forgotten.saturating_add(*by);
            }
        }
    }

    /// What an application has used and what its leases hold are within its limits.
    pub(crate) fn check_limits(&self, at: usize, application: &Application, store: &Store, now: Timestamp) {
        let account = &store.accounts[at];
        for (metric, period, max) in application.limits() {
            let mut moments: Vec<Timestamp> = account.leases.iter().map(|lease| lease.moment).collect();
            moments.push(now);
            moments.sort_unstable_by_key(|moment| period.window(*moment).start);
            moments.dedup_by_key(|moment| period.window(*moment).start);
            for window in moments.into_iter().map(|moment| period.window(moment)) {
                let (used, held) = account.committed(metric, &window);
                let max = self.max(at, &(metric.clone(), period, window.start), max);
                assert!(used + held <= max, "{metric} in {window}: {used} used and {held} held of {max}");
            }
        }
    }

    /// Of a lease no more is counted than was spent, unless it is presumed.
    pub(crate) fn check_lease(&self, at: usize, id: LeaseId, store: &Store) {
        let account = &store.accounts[at];
        let Some(counted) = account.counted.get(&id) else { return };
        let lease = account.leases.iter().find(|lease| lease.id == id);
        if let Some(lease) = lease {
            let settled: Vec<i64> = lease.lines.iter().map(|line| line.settled.cast_signed()).collect();
            assert_eq!(counted, &settled, "what is counted of {lease:?}");
        }
        if lease.is_some_and(|lease| lease.is_presumed) {
            return;
        }
        let spending = self.leases.get(&id).expect("nobody opened this lease");
        for (counted, peak) in counted.iter().zip(&spending.peak) {
            assert!(*counted <= peak.cast_signed(), "{counted} counted of {spending:?}");
        }
    }

    /// All of a lease is counted: its journal forgets it.
    pub(crate) fn check_settled(&self, id: LeaseId, store: &Store) {
        let spending = &self.leases[&id];
        let counted = store.accounts[spending.application].counted(id, spending.spent.len());
        assert!(
            counted == spending.spent || spending.is_let_go && counted.iter().all(|counted| *counted == 0),
            "{id:?}: {counted:?} counted of {spending:?}"
        );
    }

    /// When all is over: every counter is the sum of what was spent and admitted, and that is what was forwarded.
    pub(crate) fn check_end(&self, applications: &[Application], store: &Store) {
        let mut expected: BTreeMap<(usize, Counter), u64> = BTreeMap::new();
        let mut expect = |application: usize, unit: &[Increment], moment: Timestamp, times: u64| {
            for (counter, by) in all(unit, moment) {
                *expected.entry((application, counter)).or_default() += by * times;
            }
        };
        for (id, spending) in &self.leases {
            self.check_settled(*id, store);
            let units = spending.metrics.iter().map(|metric| applications[spending.application].unit(metric));
            let counted = store.accounts[spending.application].counted(*id, spending.spent.len());
            let mut in_vain = 0;
            for (line, unit) in units.enumerate() {
                in_vain += spending.spent[line] - spending.forwarded[line];
                let Some(declared) = spending.declared else { continue };
                expect(spending.application, unit, declared.moment, counted[line]);
            }
            assert_eq!(in_vain, spending.in_vain, "{spending:?}");
        }
        let out: Vec<_> = store.accounts.iter().flat_map(|account| &account.leases).collect();
        assert!(out.is_empty(), "still out: {out:?}");
        for (id, request) in &self.requests {
            let verdict = store.accounts[request.application].verdicts.get(id);
            let counted = verdict.and_then(|verdict| match verdict {
                Verdict::Counted(moment) => Some(*moment),
                _ => None,
            });
            let is_right = counted.is_some() == (request.fate == Fate::Forwarded);
            assert!(is_right || request.is_lost || self.has_failed_over, "{verdict:?} for {request:?}");
            if let Some(moment) = counted {
                expect(request.application, &request.increments, moment, 1);
            }
        }
        for (application, account) in store.accounts.iter().enumerate() {
            for (counter, count) in &account.counts {
                let expected = expected.remove(&(application, counter.clone())).unwrap_or(0);
                assert_eq!(*count, expected, "{counter:?} of application {application}");
            }
        }
        expected.retain(|_, count| *count > 0);
        assert!(expected.is_empty(), "not counted at all: {expected:?}");
    }
}
