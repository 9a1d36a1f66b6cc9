//! Leases in memory, in the log and in the checkpoint. The rules are core's; here they meet accounts.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashbrown::HashSet;
use weir_core::counter::{Ceiling, ceilings};
use weir_core::lease::ledger::{self as rules, Change, Lease, Line};
use weir_core::lease::{GRACE_MS, LIFETIME_MAX_MS, LeaseId, Reply};
use weir_core::{AlertBins, Increment, MetricName, Period, Timestamp, UsageValue, Window};

use super::account::{Account, Windows};
use super::bytes::{Reader, put_bytes, put_number};
use super::entry::{Entry, Leased, Usage};
use super::ledger::Ledger;
use super::tail::Tail;
use crate::key::RECENT_KEPT_MS;
use crate::{LeaseAsk, LeaseOutcome};

/// A lease may be asked for so long before it begins.
const AHEAD_MS: u64 = 2_000;

/// The store in this process never forgets in a fail-over.
const INCARNATION: u64 = 1;

/// What is to be seen to, and what was closed lately.
#[derive(Debug, Default)]
pub(super) struct Leases {
    /// When a lease may be presumed used or forgotten, in milliseconds, and whose it is.
    due: BTreeSet<(i64, usize)>,
    closed: HashSet<LeaseId>,
    closed_before: HashSet<LeaseId>,
    /// When `closed` begins, and `closed_before`.
    since: [Timestamp; 2],
}

impl Leases {
    /// Nothing is known of what was closed before.
    pub(super) fn begin(&mut self, now: Timestamp) {
        self.since = [now; 2];
    }

    /// Looks at an account's leases again when their time comes.
    pub(super) fn watch(&mut self, account: usize, leases: &[Lease]) {
        let due = leases.iter().map(|lease| (lease.due().unix_ms(), account));
        self.due.extend(due);
    }

    fn close(&mut self, id: LeaseId, now: Timestamp) {
        let [since, _] = self.since;
        if now.unix_ms() - since.unix_ms() > RECENT_KEPT_MS {
            self.since = [now, since];
            self.closed_before = std::mem::take(&mut self.closed);
        }
        self.closed.insert(id);
    }

    fn is_closed(&self, id: LeaseId) -> bool {
        self.closed.contains(&id) || self.closed_before.contains(&id)
    }

    /// Of how many applications something is out on lease and not over yet; what was presumed is due much later.
    fn lent(&self, now: Timestamp) -> u64 {
        let soon = now.plus_ms((LIFETIME_MAX_MS + GRACE_MS + AHEAD_MS).cast_signed()).unix_ms();
        let due = self.due.range((now.unix_ms(), 0)..(soon, 0));
        due.map(|(_, account)| *account).collect::<HashSet<usize>>().len() as u64
    }

    fn pop_due(&mut self, now: Timestamp) -> Option<usize> {
        let first = self.due.first().copied().filter(|(at_ms, _)| *at_ms <= now.unix_ms())?;
        self.due.remove(&first);
        Some(first.1)
    }
}

impl Ledger {
    /// Does what a holder's message asks for.
    pub(super) fn lease(&mut self, ask: &LeaseAsk, tail: &mut Tail, now: Timestamp) -> LeaseOutcome {
        let account = ask.application.account(|application| self.find(application));
        let record = account.and_then(|at| self.accounts[at].record.as_ref());
        let service = self.services.get(&ask.application.service).map(|record| record.version);
        let current = service == Some(ask.service_version)
            && record.is_some_and(|record| record.version == ask.application_version);
        if !current && !ask.message.closes {
            return LeaseOutcome::Stale { application: record.cloned(), service };
        }
        let Some(account) = account else {
            return LeaseOutcome::Answered { reply: Reply::Closed, incarnation: INCARNATION };
        };
        self.presume(account, tail, now);
        let book = rules::Book {
            leases: self.accounts[account].leases(),
            counters: &|metric: &MetricName, window: &Window| self.count_in(account, metric, window),
            is_closed: self.leases.is_closed(ask.message.id),
            closed_since: self.leases.since[1],
            incarnation: INCARNATION,
            now,
        };
        let rules::Step { outcome, changes, reply } = rules::answer(&book, &ask.message);
        let is_presumed = |lease: &Lease| lease.id == ask.message.id && lease.is_presumed;
        if self.accounts[account].leases().iter().any(is_presumed) {
            let given_back = changes.iter().filter(|change| change.times < 0);
            crate::tell_under_admitted(given_back.map(|change| change.times.unsigned_abs()).sum());
        }
        match outcome {
            rules::Outcome::Unchanged => {}
            rules::Outcome::Put(lease) => {
                self.step_lease(account, lease.id, Some(&lease), &changes, tail, now);
            }
            rules::Outcome::Closed => self.step_lease(account, ask.message.id, None, &changes, tail, now),
        }
        LeaseOutcome::Answered { reply, incarnation: INCARNATION }
    }

    fn count_in(&self, account: usize, metric: &MetricName, window: &Window) -> u64 {
        let metric = self.metric_numbers.get(metric);
        metric.map_or(0, |metric| {
            self.accounts[account].count(*metric, window.period, &Windows::at(window.start))
        })
    }

    /// Counts leases whose time is over, in any account.
    pub(super) fn presume_due(&mut self, tail: &mut Tail, now: Timestamp) {
        while let Some(account) = self.leases.pop_due(now) {
            self.presume(account, tail, now);
        }
        crate::tell_lent(0, self.leases.lent(now));
    }

    /// Counts those of an account.
    pub(super) fn presume(&mut self, account: usize, tail: &mut Tail, now: Timestamp) {
        let over = |lease: &&Lease| lease.due() <= now;
        let over: Vec<Lease> = self.accounts[account].leases().iter().filter(over).cloned().collect();
        for lease in over {
            match lease.presumed(now) {
                Some((presumed, changes)) => {
                    metrics::counter!("weir_leases_presumed_total").increment(1);
                    self.step_lease(account, lease.id, Some(&presumed), &changes, tail, now);
                }
                None => self.step_lease(account, lease.id, None, &[], tail, now),
            }
        }
    }

    fn step_lease(
        &mut self,
        account: usize,
        id: LeaseId,
        lease: Option<&Lease>,
        changes: &[Change],
        tail: &mut Tail,
        now: Timestamp,
    ) {
        let new = self.new_events_of_lease(account, changes, now);
        let mut written = vec![];
        if let Some(lease) = lease {
            put_lease(&mut written, lease);
        }
        let raised = self.write_changes(account, changes, |times| times > 0, tail);
        let lowered = self.write_changes(account, changes, |times| times < 0, tail);
        let leased = Leased { account, id, at: now, lease: &written, raised: &raised, lowered: &lowered };
        self.step(&Entry::Leased(leased), tail);
        self.tell(account, new, tail, now);
    }

    /// Changes of one direction as a usage; empty where there are none. All are of one lease, so of one moment.
    fn write_changes(
        &mut self,
        account: usize,
        changes: &[Change],
        is_taken: impl Fn(i64) -> bool,
        tail: &mut Tail,
    ) -> Vec<u8> {
        let Some(moment) = changes.first().map(|change| change.moment) else { return vec![] };
        let taken = changes.iter().filter(|change| is_taken(change.times));
        let increments: Vec<Increment> = taken.flat_map(scaled).collect();
        let mut out = vec![];
        if !increments.is_empty() {
            let metrics = self.number_metrics(&increments, tail);
            Usage::write(&mut out, account, moment, &increments, &metrics, |_, _| 0);
        }
        out
    }

    /// Takes over what became of a lease.
    pub(super) fn apply_leased(&mut self, number: u64, leased: &Leased<'_>) -> Option<()> {
        let lease = match leased.lease {
            [] => None,
            bytes => Some(read_lease(&mut Reader(bytes))?),
        };
        if lease.is_none() {
            self.leases.close(leased.id, leased.at);
        }
        let account = self.accounts.get_mut(leased.account)?;
        if !account.advance(number) {
            return Some(());
        }
        account.put_lease(leased.id, lease);
        self.leases.watch(leased.account, account.leases());
        if !leased.raised.is_empty() {
            self.apply_usage(&mut Reader(leased.raised), |_, _| true, Account::raise)?;
        }
        if !leased.lowered.is_empty() {
            self.apply_usage(&mut Reader(leased.lowered), |_, _| true, Account::lower)?;
        }
        Some(())
    }

    /// What leases hold of each ceiling's counter; empty where that is nothing.
    pub(super) fn held(&self, account: usize, increments: &[Increment], at: Timestamp) -> Vec<u64> {
        let leases = self.accounts[account].leases();
        if leases.is_empty() {
            return vec![];
        }
        let held = |(increment, ceiling): (&Increment, Ceiling)| {
            rules::held(leases, &increment.metric, &ceiling.period.window(at))
        };
        let held: Vec<u64> = ceilings(increments).map(held).collect();
        if held.iter().all(|held| *held == 0) { vec![] } else { held }
    }
}

/// What so many units add, or take away.
fn scaled(change: &Change) -> impl Iterator<Item = Increment> + '_ {
    change.unit.iter().map(|increment| {
        let mut increment = increment.clone();
        if let UsageValue::Add(by) = &mut increment.value {
            *by = by.saturating_mul(change.times.unsigned_abs());
        }
        increment
    })
}

/// Writes a lease as log and checkpoint have it.
pub(super) fn put_lease(out: &mut Vec<u8>, lease: &Lease) {
    out.extend_from_slice(&lease.id.boot);
    put_number(out, lease.id.sequence);
    put_bytes(out, lease.holder.as_bytes());
    put_number(out, lease.round.into());
    put_number(out, lease.moment.unix_ms().unsigned_abs());
    put_number(out, lease.deadline.unix_ms().unsigned_abs());
    put_number(out, lease.is_presumed.into());
    put_number(out, lease.lines.len() as u64);
    for line in &lease.lines {
        put_number(out, line.granted);
        put_number(out, line.settled);
        put_number(out, line.unit.len() as u64);
        line.unit.iter().for_each(|increment| put_increment(out, increment));
    }
}

fn put_increment(out: &mut Vec<u8>, increment: &Increment) {
    let (UsageValue::Add(by) | UsageValue::Set(by)) = increment.value;
    put_bytes(out, increment.metric.as_str().as_bytes());
    put_number(out, by);
    put_number(out, increment.alert_bins.bits().into());
    put_number(out, increment.ceilings.len() as u64);
    for ceiling in &increment.ceilings {
        put_number(out, ceiling.period.index() as u64);
        put_number(out, ceiling.max);
    }
}

/// Reads one; `None`: it is none.
pub(super) fn read_lease(from: &mut Reader<'_>) -> Option<Lease> {
    let id = LeaseId { boot: from.array()?, sequence: from.number()? };
    Some(Lease {
        id,
        holder: Arc::from(from.text()?),
        round: from.small()?,
        moment: from.small().map(Timestamp::from_unix_ms)?,
        deadline: from.small().map(Timestamp::from_unix_ms)?,
        is_presumed: from.number()? == 1,
        lines: from.list(|from| {
            let (granted, settled) = (from.number()?, from.number()?);
            Some(Line { granted, settled, unit: from.list(read_increment)? })
        })?,
    })
}

fn read_increment(from: &mut Reader<'_>) -> Option<Increment> {
    Some(Increment {
        metric: from.text()?.parse().ok()?,
        value: UsageValue::Add(from.number()?),
        alert_bins: AlertBins::of_bits(from.small()?),
        ceilings: from.list(|from| {
            let period = *Period::ALL.get(from.small::<usize>()?)?;
            Some(Ceiling { period, max: from.number()? })
        })?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_read_as_written() {
        let increment = |metric: &str, ceilings: Vec<Ceiling>| Increment {
            metric: metric.parse().unwrap(),
            value: UsageValue::Add(3),
            ceilings,
            alert_bins: AlertBins::of([80]).unwrap(),
        };
        let day = Ceiling { period: Period::Day, max: 9 };
        let minute = Ceiling { period: Period::Minute, max: 1 << 50 };
        let unit = vec![increment("hits", vec![minute, day]), increment("mail", vec![])];
        let lease = Lease {
            id: LeaseId { boot: [7; 16], sequence: 300 },
            holder: "berlin-1".into(),
            round: 70_000,
            moment: Timestamp::from_unix_ms(1_795_404_719_123),
            deadline: Timestamp::from_unix_ms(1_795_404_721_123),
            is_presumed: true,
            lines: vec![Line { unit, granted: 5, settled: 2 }, Line { unit: vec![], granted: 0, settled: 0 }],
        };
        let mut out = vec![];
        put_lease(&mut out, &lease);
        let mut from = Reader(&out);
        assert_eq!(read_lease(&mut from), Some(lease));
        assert!(from.is_empty());
        for end in 0..out.len() {
            assert_eq!(read_lease(&mut Reader(&out[..end])), None, "cut after {end}");
        }
    }
}
