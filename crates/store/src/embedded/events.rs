//! Events in memory, in the log and in the checkpoint, and how they are found.
//!
//! What is worth telling is found before usage is counted, and told by entries of its own right behind the entry that
//! counts: in the same frame of the log, so it lasts as long, and at replay nothing is found again. An application's
//! first usage is known by its account, which has no day yet, and its first of a day by the newest day that was told.

use std::collections::VecDeque;

use hashbrown::HashMap;
use weir_core::alert::{Alert, crossed};
use weir_core::lease::ledger::Change;
use weir_core::{Increment, Period, Timestamp, UsageValue};

use super::bytes::{Reader, put_number};
use super::entry::Entry;
use super::ledger::Ledger;
use super::tail::Tail;
use super::{Book, Embedded};
use crate::event::{ALERT_PAUSE_MS, EVENTS_KEPT_MAX, FIRSTS_KEPT_MAX, tell_dropped};
use crate::{Event, EventId, EventKind, StoreError};

/// An event as the log has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Told {
    pub(super) account: u32,
    pub(super) at: Timestamp,
    pub(super) what: What,
}

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum What {
    FirstTraffic,
    FirstDailyTraffic,
    Alert { bin: u16, metric: u32, period: Period, current: u64, max: u64 },
}

/// In place of a step.
const FIRST_TRAFFIC: u16 = 0;
const FIRST_DAILY_TRAFFIC: u16 = 1;

impl Told {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        put_number(out, self.account.into());
        put_number(out, self.at.unix_ms().unsigned_abs());
        match self.what {
            What::FirstTraffic => put_number(out, FIRST_TRAFFIC.into()),
            What::FirstDailyTraffic => put_number(out, FIRST_DAILY_TRAFFIC.into()),
            What::Alert { bin, metric, period, current, max } => {
                let numbers = [bin.into(), metric.into(), period.index() as u64, current, max];
                numbers.into_iter().for_each(|number| put_number(out, number));
            }
        }
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Option<Self> {
        let (account, at) = (from.small()?, Timestamp::from_unix_ms(from.small()?));
        let what = match from.small()? {
            FIRST_TRAFFIC => What::FirstTraffic,
            FIRST_DAILY_TRAFFIC => What::FirstDailyTraffic,
            bin => What::Alert {
                bin,
                metric: from.small()?,
                period: *Period::ALL.get(from.small::<usize>()?)?,
                current: from.number()?,
                max: from.number()?,
            },
        };
        Some(Self { account, at, what })
    }
}

/// What was told and is not acknowledged, and which alerts are not to be repeated yet.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// Of the last log entry that is in here.
    number: u64,
    /// Oldest first, each with the number of its entry.
    kept: VecDeque<(u64, Told)>,
    /// Account and step → when it was told. At most the steps of each account.
    alerted: HashMap<(u32, u16), Timestamp>,
}

impl Events {
    /// Takes over an event, if its entry is new.
    pub(super) fn tell(&mut self, number: u64, told: Told) {
        if !self.advance(number) {
            return;
        }
        let has_room = !self.is_full(told.what);
        let is_alert = matches!(told.what, What::Alert { .. });
        if !has_room && is_alert {
            self.kept.pop_front();
        }
        if has_room || is_alert {
            self.kept.push_back((number, told));
        }
        if let What::Alert { bin, .. } = told.what {
            if self.alerted.len() == self.alerted.capacity() {
                self.alerted.retain(|_, at| !is_over(*at, told.at));
            }
            self.alerted.insert((told.account, bin), told.at);
        }
    }

    /// Takes over that events are acknowledged, if the entry is new: their numbers, ascending.
    pub(super) fn acknowledge(&mut self, number: u64, acknowledged: &[u64]) {
        if self.advance(number) {
            self.kept.retain(|(number, _)| acknowledged.binary_search(number).is_err());
        }
    }

    fn advance(&mut self, number: u64) -> bool {
        let is_new = number > self.number;
        self.number = self.number.max(number);
        is_new
    }

    /// Whether one has to go, the oldest or, of what is told of every application, this.
    fn is_full(&self, what: What) -> bool {
        let most = match what {
            What::FirstTraffic | What::FirstDailyTraffic => FIRSTS_KEPT_MAX,
            What::Alert { .. } => EVENTS_KEPT_MAX,
        };
        self.kept.len() >= most
    }

    fn is_quiet(&self, account: u32, bin: u16, now: Timestamp) -> bool {
        self.alerted.get(&(account, bin)).is_some_and(|at| !is_over(*at, now))
    }

    /// Those of some that are kept, ascending.
    fn known(&self, ids: &[EventId]) -> Vec<u64> {
        let is_kept = |number: &u64| self.kept.binary_search_by_key(number, |(number, _)| *number).is_ok();
        // Others name events of another store.
        let ours = ids.iter().filter(|id| id.shard == 0 && id.place.1 == 0);
        let mut known: Vec<u64> = ours.map(|id| id.place.0).filter(is_kept).collect();
        known.sort_unstable();
        known
    }

    /// Writes all of it but alerts that may be repeated.
    pub(super) fn put(&self, out: &mut Vec<u8>, now: Timestamp) {
        put_number(out, self.number);
        put_number(out, self.kept.len() as u64);
        for (number, told) in &self.kept {
            put_number(out, *number);
            told.write(out);
        }
        let quiet: Vec<_> = self.alerted.iter().filter(|(_, at)| !is_over(**at, now)).collect();
        put_number(out, quiet.len() as u64);
        for ((account, bin), at) in quiet {
            put_number(out, (*account).into());
            put_number(out, (*bin).into());
            put_number(out, at.unix_ms().unsigned_abs());
        }
    }

    /// Reads what [`Self::put`] wrote.
    pub(super) fn read(from: &mut Reader<'_>) -> Option<Self> {
        let number = from.number()?;
        let kept = from.list(|from| Some((from.number()?, Told::read(from)?)))?;
        let alerted = |from: &mut Reader<'_>| {
            Some(((from.small()?, from.small()?), Timestamp::from_unix_ms(from.small()?)))
        };
        Some(Self { number, kept: kept.into(), alerted: from.list(alerted)?.into_iter().collect() })
    }
}

fn is_over(told: Timestamp, now: Timestamp) -> bool {
    told.plus_ms(ALERT_PAUSE_MS) <= now
}

/// What is worth telling of usage.
#[derive(Debug, Default)]
pub(super) struct NewEvents {
    is_first: bool,
    is_first_of_day: bool,
    alerts: Vec<Alert>,
}

impl Ledger {
    /// What is worth telling of usage that is to be counted in the windows of a moment, whose ceilings' counters hold
    /// `used` before.
    pub(super) fn new_events(
        &mut self,
        account: usize,
        increments: &[Increment],
        used: &[u64],
        (moment, now): (Timestamp, Timestamp),
    ) -> NewEvents {
        let mut new = NewEvents { alerts: crossed(increments, used, 1), ..NewEvents::default() };
        if increments.iter().any(|increment| increment.value != UsageValue::Add(0)) {
            self.find_firsts(account, &mut new, (moment, now));
        }
        new
    }

    fn find_firsts(&mut self, account: usize, new: &mut NewEvents, (moment, now): (Timestamp, Timestamp)) {
        let (day, today) = (self.windows(moment).start(Period::Day), self.windows(now).start(Period::Day));
        let account = &self.accounts[account];
        // It only ever rises, whatever is taken back.
        new.is_first = account.windows.start(Period::Day) == 0;
        // Not by the newest day: a report from ahead takes no day from those who come on it.
        new.is_first_of_day = account.told_day < day && day == today;
    }

    /// Takes over an event.
    pub(super) fn apply_told(&mut self, number: u64, told: Told) {
        let day = self.windows(told.at).start(Period::Day);
        if let (What::FirstDailyTraffic, Some(account)) =
            (told.what, self.accounts.get_mut(told.account as usize))
        {
            account.told_day = account.told_day.max(day);
        }
        self.events.tell(number, told);
    }

    /// The same of what is settled of a lease: one change after the other, as far as they count.
    pub(super) fn new_events_of_lease(
        &mut self,
        account: usize,
        changes: &[Change],
        now: Timestamp,
    ) -> NewEvents {
        let raised: Vec<&Change> = changes.iter().filter(|change| change.times > 0).collect();
        let Some(moment) = raised.first().map(|change| change.moment) else { return NewEvents::default() };
        let windows = self.windows(moment);
        let mut new = NewEvents::default();
        self.find_firsts(account, &mut new, (moment, now));
        for (place, change) in raised.iter().enumerate() {
            let mut used = self.used(account, &change.unit, &windows);
            // All of a lease's changes are of one moment, so of the same windows.
            for earlier in &raised[..place] {
                let ceilings = weir_core::counter::ceilings(&change.unit);
                for ((increment, ceiling), used) in ceilings.zip(&mut used) {
                    *used = used.saturating_add(counted_by(earlier, increment, ceiling.period));
                }
            }
            new.alerts.extend(crossed(&change.unit, &used, change.times.unsigned_abs()));
        }
        new
    }

    /// Tells what is new, but for alerts that are not to be repeated yet.
    pub(super) fn tell(&mut self, account: usize, new: NewEvents, tail: &mut Tail, now: Timestamp) {
        let NewEvents { is_first, is_first_of_day, alerts } = new;
        let Ok(account) = u32::try_from(account) else { return };
        if is_first {
            self.tell_one(Told { account, at: now, what: What::FirstTraffic }, tail);
        }
        if is_first_of_day {
            self.tell_one(Told { account, at: now, what: What::FirstDailyTraffic }, tail);
        }
        for Alert { bin, metric, period, current, max } in alerts {
            // Whatever was counted has a number.
            let Some(metric) = self.metric_numbers.get(&metric).copied() else { continue };
            if !self.events.is_quiet(account, bin, now) {
                let what = What::Alert { bin, metric, period, current, max };
                self.tell_one(Told { account, at: now, what }, tail);
            }
        }
    }

    fn tell_one(&mut self, told: Told, tail: &mut Tail) {
        tell_dropped(self.events.is_full(told.what).into());
        self.step(&Entry::Told(told), tail);
    }

    fn event(&self, number: u64, told: &Told) -> Option<Event> {
        let kind = match told.what {
            What::FirstTraffic => EventKind::FirstTraffic,
            What::FirstDailyTraffic => EventKind::FirstDailyTraffic,
            What::Alert { bin, metric, period, current, max } => {
                let metric = self.metrics.get(metric as usize)?.clone();
                EventKind::Alert(Alert { bin, metric, period, current, max })
            }
        };
        let application = self.accounts.get(told.account as usize)?.name.parse().ok()?;
        Some(Event { id: EventId { shard: 0, place: (number, 0) }, application, at: told.at, kind })
    }
}

/// How much a change adds to a counter that another one's increment names.
fn counted_by(change: &Change, increment: &Increment, period: Period) -> u64 {
    let is_it = |other: &&Increment| other.metric == increment.metric && other.periods().contains(&period);
    let by = |other: &Increment| {
        let (UsageValue::Add(by) | UsageValue::Set(by)) = other.value;
        by.saturating_mul(change.times.unsigned_abs())
    };
    change.unit.iter().filter(is_it).map(by).fold(0, u64::saturating_add)
}

impl Embedded {
    pub(crate) fn events(&self, most: usize) -> Vec<Event> {
        let book = self.shared.book.lock();
        let kept = book.ledger.events.kept.iter().take(most);
        kept.filter_map(|(number, told)| book.ledger.event(*number, told)).collect()
    }

    pub(crate) async fn acknowledge(&self, ids: &[EventId]) -> Result<(), StoreError> {
        self.shared.catch_up().map_err(StoreError::Log)?;
        {
            let mut book = self.shared.book.lock();
            let Book { ledger, tail } = &mut *book;
            let known = ledger.events.known(ids);
            if known.is_empty() {
                return Ok(());
            }
            let mut numbers = vec![];
            put_number(&mut numbers, known.len() as u64);
            known.iter().for_each(|number| put_number(&mut numbers, *number));
            ledger.step(&Entry::Acknowledged { numbers: &numbers }, tail);
        }
        self.persist().await.map_err(StoreError::Log)
    }
}

#[cfg(test)]
mod tests;
