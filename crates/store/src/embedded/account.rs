//! One application's record and counters, all in one place: a line of the cache per metric.
//!
//! Every metric has the counters of its newest windows side by side. Older windows are rarely asked about; they wait
//! in a list until they may be forgotten.

use weir_core::counter::changed;
use weir_core::lease::LeaseId;
use weir_core::lease::ledger::Lease;
use weir_core::{COUNT_MAX, KeyHash, Period, Timestamp, UsageValue};

use super::entry::Row;
use crate::Record;
use crate::key::window_expiry;

/// An application's record and counters.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Account {
    pub(super) record: Option<Record>,
    /// Number of the last log entry that is in here.
    pub(super) number: u64,
    /// The newest windows.
    pub(super) windows: Windows,
    /// The newest day whose first traffic was told, as in [`Windows`]; 0: none was.
    pub(super) told_day: u32,
    /// By metric.
    pub(super) tallies: Vec<Tally>,
    pub(super) past: Vec<Past>,
    /// `service/application`.
    pub(super) name: Box<str>,
    pub(super) user_key: Option<KeyHash>,
    /// Most have none.
    leases: Box<[Lease]>,
}

/// What a metric's counters hold in the newest windows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Tally {
    pub(super) metric: u32,
    pub(super) counts: [u64; 7],
}

/// What one held in an older window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Past {
    pub(super) period: Period,
    /// In minutes, as in [`Windows`].
    pub(super) start: u32,
    pub(super) metric: u32,
    pub(super) count: u64,
}

/// Where the windows that hold one instant begin, in minutes since 1970, in the order of [`Period::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Windows(pub(super) [u32; 7]);

impl Windows {
    /// Those of an instant.
    pub(super) fn at(at: Timestamp) -> Self {
        Self(Period::ALL.map(|period| {
            // The calendar ends in minute 4,223,371,680.
            u32::try_from(period.window(at).start.unix_s() / 60).unwrap_or(u32::MAX)
        }))
    }

    /// Where the one of a period begins.
    pub(super) fn start(&self, period: Period) -> u32 {
        self.0[period.index()]
    }
}

fn instant(minutes: u32) -> Timestamp {
    Timestamp::from_unix_s(i64::from(minutes) * 60)
}

impl Account {
    /// One that holds nothing yet.
    pub(super) fn new(name: &str) -> Self {
        Self {
            record: None,
            number: 0,
            windows: Windows::default(),
            told_day: 0,
            tallies: vec![],
            past: vec![],
            name: name.into(),
            user_key: None,
            leases: Box::default(),
        }
    }

    /// What is out on lease, or was and may be corrected.
    pub(super) fn leases(&self) -> &[Lease] {
        &self.leases
    }

    pub(super) fn set_leases(&mut self, leases: Vec<Lease>) {
        self.leases = leases.into();
    }

    /// Puts a lease in the place of the one of that name; `None`: there is none any more.
    pub(super) fn put_lease(&mut self, id: LeaseId, lease: Option<Lease>) {
        let mut leases = std::mem::take(&mut self.leases).into_vec();
        leases.retain(|held| held.id != id);
        leases.extend(lease);
        self.set_leases(leases);
    }

    /// Something of every line of the cache that counting needs.
    pub(super) fn fetch(&self) -> u64 {
        let version = self.record.as_ref().map_or(0, |record| record.version.0);
        let known = version ^ self.number ^ self.leases.len() as u64;
        self.tallies.iter().fold(known, |all, tally| all ^ tally.counts[0])
    }

    /// What a counter holds.
    pub(super) fn count(&self, metric: u32, period: Period, windows: &Windows) -> u64 {
        let start = windows.start(period);
        if start == self.windows.start(period) {
            return self.tally(metric).map_or(0, |at| self.tallies[at].counts[period.index()]);
        }
        self.find_past(metric, period, start).map_or(0, |at| self.past[at].count)
    }

    fn tally(&self, metric: u32) -> Option<usize> {
        self.tallies.binary_search_by_key(&metric, |tally| tally.metric).ok()
    }

    fn find_past(&self, metric: u32, period: Period, start: u32) -> Option<usize> {
        // The newest are last.
        self.past
            .iter()
            .rposition(|past| past.start == start && past.period == period && past.metric == metric)
    }

    /// Takes over an entry of that number; `false`: it has been taken over before.
    pub(super) fn advance(&mut self, number: u64) -> bool {
        let is_new = number > self.number;
        self.number = self.number.max(number);
        is_new
    }

    /// Counts one metric.
    pub(super) fn raise(&mut self, row: &Row, windows: &Windows) {
        if row.value == UsageValue::Add(0) {
            return;
        }
        for period in row.periods() {
            self.turn(*period, windows.start(*period));
        }
        let at = self.tallies.binary_search_by_key(&row.metric, |tally| tally.metric).unwrap_or_else(|at| {
            self.tallies.reserve_exact(1);
            self.tallies.insert(at, Tally { metric: row.metric, counts: [0; 7] });
            at
        });
        for period in row.periods() {
            if windows.start(*period) == self.windows.start(*period) {
                let count = &mut self.tallies[at].counts[period.index()];
                *count = changed(*count, row.value);
            } else {
                self.raise_past(row, *period, windows.start(*period));
            }
        }
    }

    /// Begins a window that is newer than the newest so far.
    fn turn(&mut self, period: Period, start: u32) {
        let newest = self.windows.start(period);
        if start <= newest {
            return;
        }
        self.windows.0[period.index()] = start;
        for at in 0..self.tallies.len() {
            let Tally { metric, counts } = &mut self.tallies[at];
            let (metric, count) = (*metric, std::mem::take(&mut counts[period.index()]));
            if count > 0 {
                self.push_past(Past { period, start: newest, metric, count });
            }
        }
    }

    fn raise_past(&mut self, row: &Row, period: Period, start: u32) {
        match self.find_past(row.metric, period, start) {
            Some(at) => self.past[at].count = changed(self.past[at].count, row.value),
            None => {
                let count = changed(0, row.value);
                self.push_past(Past { period, start, metric: row.metric, count });
            }
        }
    }

    fn push_past(&mut self, past: Past) {
        if self.past.len() == self.past.capacity() {
            let newest = self.windows.0.into_iter().max().map_or_else(Timestamp::default, instant);
            self.forget_expired(newest);
        }
        self.past.push(past);
    }

    /// Drops windows that ended long enough ago.
    pub(super) fn forget_expired(&mut self, now: Timestamp) {
        self.past
            .retain(|past| window_expiry(past.period, instant(past.start)).is_none_or(|expiry| now < expiry));
    }

    /// Takes one metric's usage back. A window that is gone, or a counter that was never raised, has nothing to give.
    pub(super) fn lower(&mut self, row: &Row, windows: &Windows) {
        for period in row.periods() {
            let (raised, lowered) = match row.value {
                UsageValue::Add(by) => (0, by),
                UsageValue::Set(to) => (row.replaced[period.index()], to),
            };
            let start = windows.start(*period);
            let count = if start == self.windows.start(*period) {
                self.tally(row.metric).map(|at| &mut self.tallies[at].counts[period.index()])
            } else {
                self.find_past(row.metric, *period, start).map(|at| &mut self.past[at].count)
            };
            if let Some(count) = count {
                *count = (*count + raised).saturating_sub(lowered).min(COUNT_MAX);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::bytes::Reader;
    use crate::embedded::entry::Usage;
    use weir_core::counter::Ceiling;

    const MINUTE: i64 = 60_000;
    const HOUR: i64 = 60 * MINUTE;

    /// A Monday, twelve o'clock.
    fn at(later_ms: i64) -> Timestamp {
        Timestamp::from_unix_ms(1_795_435_200_000 + later_ms)
    }

    fn row(value: UsageValue) -> Row {
        let ceilings = vec![Ceiling { period: Period::Minute, max: 9 }];
        let alert_bins = weir_core::AlertBins::NONE;
        let increment = weir_core::Increment { metric: "hits".parse().unwrap(), value, ceilings, alert_bins };
        let mut out = vec![];
        Usage::write(&mut out, 0, at(0), &[increment], &[7], |_, _| 2);
        let from = &mut Reader(&out);
        Usage::read(from).unwrap().rows(from).next().unwrap().unwrap()
    }

    /// What was counted per minute, hour, day and for ever, as seen at some moment.
    #[track_caller]
    fn check(account: &Account, later_ms: i64, expected: [u64; 4]) {
        let windows = Windows::at(at(later_ms));
        let periods = [Period::Minute, Period::Hour, Period::Day, Period::Eternity];
        assert_eq!(periods.map(|period| account.count(7, period, &windows)), expected, "{later_ms} ms later");
        assert_eq!(account.count(8, Period::Eternity, &windows), 0, "another metric");
    }

    #[test]
    fn every_window_counts_for_itself() {
        let mut account = Account::new("api/a");
        let one = row(UsageValue::Add(1));
        for later_ms in [0, 1, MINUTE] {
            account.raise(&one, &Windows::at(at(later_ms)));
        }
        check(&account, 0, [2, 3, 3, 3]);
        check(&account, MINUTE, [1, 3, 3, 3]);
        for later_ms in [HOUR, 24 * HOUR] {
            account.raise(&one, &Windows::at(at(later_ms)));
        }
        account.forget_expired(at(24 * HOUR));
        check(&account, 0, [0, 3, 4, 5]);
        check(&account, HOUR, [0, 1, 4, 5]);
        check(&account, 24 * HOUR, [1, 1, 1, 5]);
        check(&account, 48 * HOUR, [0, 0, 0, 5]);
    }

    #[test]
    fn what_comes_late_counts_where_it_belongs() {
        let mut account = Account::new("api/a");
        account.raise(&row(UsageValue::Add(1)), &Windows::at(at(HOUR)));
        account.raise(&row(UsageValue::Add(4)), &Windows::at(at(0)));
        check(&account, 0, [4, 4, 5, 5]);
        check(&account, HOUR, [1, 1, 5, 5]);
        account.lower(&row(UsageValue::Add(4)), &Windows::at(at(0)));
        check(&account, 0, [0, 0, 1, 1]);
        account.lower(&row(UsageValue::Add(4)), &Windows::at(at(-HOUR)));
        check(&account, HOUR, [1, 1, 0, 0]);
        account.raise(&row(UsageValue::Set(6)), &Windows::at(at(HOUR)));
        check(&account, HOUR, [6, 6, 6, 6]);
        account.lower(&row(UsageValue::Set(6)), &Windows::at(at(HOUR)));
        check(&account, HOUR, [2, 2, 2, 2]);
    }

    #[test]
    fn old_windows_are_forgotten() {
        let mut account = Account::new("api/a");
        for hour in 0..24 * 30 {
            account.raise(&row(UsageValue::Add(1)), &Windows::at(at(hour * HOUR)));
        }
        assert!(account.past.len() < 200, "{} windows", account.past.len());
        account.forget_expired(at(24 * 30 * HOUR));
        let hours = account.past.iter().filter(|past| past.period == Period::Hour).count();
        assert_eq!(hours, 72, "for late reports; the newest is no past");
        assert_eq!(account.past.iter().filter(|past| past.period == Period::Minute).count(), 0);
    }
}
