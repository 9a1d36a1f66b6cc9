//! The store: counters, leases and what was closed lately, as both real ones have them; decisions on single requests; and
//! a replica that is some writes behind.
//!
//! It also writes down what it counted of each lease, and what the writes since the replica's had promised.

use std::collections::{BTreeMap, BTreeSet};

use weir_core::counter::{Increment, ceilings};
use weir_core::id::MetricName;
use weir_core::lease::ledger::{self, Ask, Book, Change, Lease, Outcome};
use weir_core::lease::{LeaseId, Message, Reply};
use weir_core::period::{Period, Timestamp, Window};
use weir_core::usage::UsageValue;

use crate::scenario::Application;
use crate::seen::Seen;

/// What was closed is remembered for so long, and up to twice that.
const REMEMBERED_MS: i64 = 10_000;

/// A metric in the window of a period that begins then.
pub(crate) type Counter = (MetricName, Period, Timestamp);

pub(crate) fn amount(increment: &Increment) -> u64 {
    let (UsageValue::Add(by) | UsageValue::Set(by)) = increment.value;
    by
}

/// The counters with a limit that a unit adds to, and how much.
pub(crate) fn limited(unit: &[Increment], moment: Timestamp) -> impl Iterator<Item = (Counter, u64, u64)> {
    ceilings(unit).map(move |(increment, ceiling)| {
        let start = ceiling.period.window(moment).start;
        ((increment.metric.clone(), ceiling.period, start), amount(increment), ceiling.max)
    })
}

/// All counters that a unit adds to, and how much.
pub(crate) fn all(unit: &[Increment], moment: Timestamp) -> impl Iterator<Item = (Counter, u64)> {
    unit.iter().flat_map(move |increment| {
        let counter = move |period: &Period| {
            ((increment.metric.clone(), *period, period.window(moment).start), amount(increment))
        };
        increment.periods().iter().map(counter)
    })
}

/// What became of a question about one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Counted(Timestamp),
    Refused { attempt: u32, is_held_back: bool },
    TakenBack,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Account {
    pub(crate) counts: BTreeMap<Counter, u64>,
    pub(crate) leases: Vec<Lease>,
    pub(crate) verdicts: BTreeMap<u64, Verdict>,
    /// By line.
    pub(crate) counted: BTreeMap<LeaseId, Vec<i64>>,
    /// What was admitted or granted since the replica's latest write.
    pub(crate) promised: Vec<(Counter, u64)>,
}

#[derive(Debug, Clone)]
pub(crate) struct Store {
    pub(crate) accounts: Vec<Account>,
    closed: BTreeSet<LeaseId>,
    closed_before: BTreeSet<LeaseId>,
    /// When `closed` began, and `closed_before`.
    since: [Timestamp; 2],
    pub(crate) incarnation: u64,
}

impl Account {
    fn used(&self, metric: &MetricName, window: &Window) -> u64 {
        self.counts.get(&(metric.clone(), window.period, window.start)).copied().unwrap_or(0)
    }

    pub(crate) fn committed(&self, metric: &MetricName, window: &Window) -> (u64, u64) {
        (self.used(metric, window), ledger::held(&self.leases, metric, window))
    }

    /// What is counted of a lease, by line.
    pub(crate) fn counted(&self, id: LeaseId, lines: usize) -> Vec<u64> {
        let counted = self.counted.get(&id);
        counted.map_or(vec![0; lines], |counted| counted.iter().map(|times| times.cast_unsigned()).collect())
    }

    fn change(&mut self, unit: &[Increment], moment: Timestamp, times: i64) {
        for (counter, by) in all(unit, moment) {
            let count = self.counts.entry(counter).or_default();
            let changed = count.checked_add_signed(times * by.cast_signed());
            *count = changed.expect("no more is taken back than was counted");
        }
    }

    /// Counts what a step says, by line of the lease.
    fn count(&mut self, id: LeaseId, units: &[Vec<Increment>], changes: &[Change]) {
        let counted = self.counted.entry(id).or_default();
        counted.resize(units.len().max(counted.len()), 0);
        for Change { unit, moment, times } in changes {
            self.change(unit, *moment, *times);
            let line = units.iter().position(|of| of == unit).expect("a line of the lease");
            self.counted.get_mut(&id).expect("made above")[line] += times;
        }
    }

    /// What a lease may come to, by line, with the unit of each.
    fn commitment(&self, id: LeaseId, units: &[Vec<Increment>]) -> Vec<u64> {
        match self.leases.iter().find(|lease| lease.id == id) {
            Some(lease) => lease.lines.iter().map(|line| line.granted.max(line.settled)).collect(),
            None => self.counted(id, units.len()),
        }
    }

    fn promise(&mut self, unit: &[Increment], moment: Timestamp, times: u64) {
        self.promised
            .extend(limited(unit, moment).map(|(counter, by, _)| (counter, by.saturating_mul(times))));
    }

    fn put(&mut self, lease: Lease) {
        match self.leases.iter_mut().find(|known| known.id == lease.id) {
            Some(known) => *known = lease,
            None => self.leases.push(lease),
        }
    }
}

impl Store {
    pub(crate) fn new(applications: usize, since: [Timestamp; 2]) -> Self {
        Self {
            accounts: vec![Account::default(); applications],
            closed: BTreeSet::new(),
            closed_before: BTreeSet::new(),
            since,
            incarnation: 1,
        }
    }

    /// Writes down where the replica is.
    pub(crate) fn replicate(&mut self) -> Self {
        self.accounts.iter_mut().for_each(|account| account.promised.clear());
        self.clone()
    }

    fn close(&mut self, id: LeaseId, now: Timestamp) {
        if now > self.since[0].plus_ms(REMEMBERED_MS) {
            self.closed_before = std::mem::take(&mut self.closed);
            self.since = [now, self.since[0]];
        }
        self.closed.insert(id);
    }

    /// A holder's message, and the answer to it.
    pub(crate) fn lease(
        &mut self,
        at: usize,
        application: &Application,
        (holder, message): (&str, &Message),
        now: Timestamp,
        seen: &mut Seen,
    ) -> Reply {
        self.presume(at, now, seen);
        let is_closed = self.closed.contains(&message.id) || self.closed_before.contains(&message.id);
        let units = message.lines.iter().map(|line| application.unit(&line.metric).clone());
        let ask = Ask::new(holder.into(), message, units);
        let account = &self.accounts[at];
        let book = Book {
            leases: &account.leases,
            counters: &|metric: &MetricName, window: &Window| account.used(metric, window),
            is_closed,
            closed_since: self.since[1],
            incarnation: self.incarnation,
            now,
        };
        let step = ledger::answer(&book, &ask);
        let known = account.leases.iter().find(|lease| lease.id == ask.id).cloned();
        seen.step(&ask, known.as_ref(), &step, self.incarnation, is_closed);
        let units: Vec<_> = ask.lines.iter().map(|wish| wish.unit.clone()).collect();
        let account = &mut self.accounts[at];
        let before = account.commitment(ask.id, &units);
        account.count(ask.id, &units, &step.changes);
        let moment = match &step.outcome {
            Outcome::Unchanged => None,
            Outcome::Put(lease) => {
                account.put(lease.clone());
                Some(lease.moment)
            }
            Outcome::Closed => {
                account.leases.retain(|lease| lease.id != ask.id);
                step.changes.first().map(|change| change.moment)
            }
        };
        let after = account.commitment(ask.id, &units);
        for ((unit, after), before) in units.iter().zip(after).zip(before) {
            account.promise(unit, moment.unwrap_or(now), after.saturating_sub(before));
        }
        if step.outcome == Outcome::Closed {
            self.close(ask.id, now);
        }
        step.reply
    }

    /// Counts what is overdue.
    pub(crate) fn presume(&mut self, at: usize, now: Timestamp, seen: &mut Seen) {
        let account = &mut self.accounts[at];
        let over: Vec<_> = account.leases.iter().filter_map(|lease| lease.presumed(now)).collect();
        for (lease, changes) in over {
            let units: Vec<_> = lease.lines.iter().map(|line| line.unit.clone()).collect();
            account.count(lease.id, &units, &changes);
            account.put(lease);
            seen.presumed += 1;
        }
    }

    /// Decides on one request, all of it or nothing.
    pub(crate) fn decide(
        &mut self,
        at: usize,
        (id, attempt): (u64, u32),
        increments: &[Increment],
        now: Timestamp,
    ) -> Verdict {
        let account = &mut self.accounts[at];
        match account.verdicts.get(&id) {
            Some(Verdict::Refused { attempt: before, .. }) if *before < attempt => {}
            Some(verdict) => return *verdict,
            None => {}
        }
        let (mut is_over, mut is_over_alone) = (false, false);
        for (increment, ceiling) in ceilings(increments) {
            let (used, held) = account.committed(&increment.metric, &ceiling.period.window(now));
            let by = amount(increment);
            is_over |= used + held + by > ceiling.max;
            is_over_alone |= used + by > ceiling.max;
        }
        let verdict = if is_over {
            Verdict::Refused { attempt, is_held_back: !is_over_alone }
        } else {
            account.change(increments, now, 1);
            account.promise(increments, now, 1);
            Verdict::Counted(now)
        };
        account.verdicts.insert(id, verdict);
        verdict
    }

    /// A request did not come to pass.
    pub(crate) fn take_back(&mut self, at: usize, id: u64, increments: &[Increment]) {
        let account = &mut self.accounts[at];
        if let Some(Verdict::Counted(moment)) = account.verdicts.insert(id, Verdict::TakenBack) {
            account.change(increments, moment, -1);
        }
    }

    /// Who holds something of an application.
    pub(crate) fn holders(&self, at: usize) -> BTreeSet<String> {
        let leases = self.accounts[at].leases.iter().filter(|lease| !lease.is_presumed);
        leases.map(|lease| lease.holder.to_string()).collect()
    }
}
