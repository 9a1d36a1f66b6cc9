//! The ledger's side of leases: what one application's leases hold, and what a holder's message does to them.
//!
//! [`answer`] takes everything as arguments and changes nothing: it says what becomes of the lease, by how much counters
//! change, and what the holder hears. The embedded store does just that; the functions in Redis are the same rules in Lua.

use std::sync::Arc;

use super::{
    CORRECTABLE_MS, Declared, GRACE_MS, Grant, LIFETIME_MAX_MS, LIFETIME_MS, LeaseId, Message, Reply,
    Standing, When,
};
use crate::counter::{COUNT_MAX, Increment};
use crate::id::MetricName;
use crate::period::{Period, Timestamp, Window};
use crate::usage::UsageValue;

/// How long before a window begins a lease for it may be asked for.
const AHEAD_MAX_MS: i64 = 2_000;

/// A lease as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Which.
    pub id: LeaseId,
    /// The gateway that holds it.
    pub holder: Arc<str>,
    /// Of the last message.
    pub round: u32,
    /// It counts in the windows of this moment.
    pub moment: Timestamp,
    /// When it counts as used, unless its holder speaks.
    pub deadline: Timestamp,
    /// Its metrics.
    pub lines: Vec<Line>,
    /// It counts as used already.
    pub is_presumed: bool,
}

/// One metric of a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What one unit adds to which counters. All of them add.
    pub unit: Vec<Increment>,
    /// How far its holder may go, in units.
    pub granted: u64,
    /// How much of it is counted.
    pub settled: u64,
}

/// What a message asks of the ledger, worked out by the listener from a [`super::Message`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Which lease.
    pub id: LeaseId,
    /// The gateway that speaks.
    pub holder: Arc<str>,
    /// As in the message.
    pub round: u32,
    /// As in the message.
    pub opens: Option<When>,
    /// As in the message.
    pub closes: bool,
    /// As in the message.
    pub lasts_ms: u64,
    /// As in the message.
    pub declared: Option<Declared>,
    /// As in the message, with what a unit of each adds.
    pub lines: Vec<Wish>,
}

impl Ask {
    /// What a holder's message asks for; `units`: what a unit of each of its lines adds.
    pub fn new(holder: Arc<str>, message: &Message, units: impl IntoIterator<Item = Vec<Increment>>) -> Self {
        let &Message { id, round, opens, closes, lasts_ms, declared, ref lines } = message;
        let wish = |(line, unit): (&super::Line, Vec<Increment>)| Wish {
            unit,
            spent: line.spent,
            granted: line.granted,
            want: line.want,
            least: line.least,
        };
        let lines = lines.iter().zip(units).map(wish).collect();
        Self { id, holder, round, opens, closes, lasts_ms, declared, lines }
    }
}

/// One metric of an [`Ask`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// What one unit adds to which counters now.
    pub unit: Vec<Increment>,
    /// As in [`super::Line`].
    pub spent: u64,
    /// As in [`super::Line`].
    pub granted: u64,
    /// As in [`super::Line`].
    pub want: u64,
    /// As in [`super::Line`].
    pub least: u64,
}

/// What an application's counters hold.
pub trait Counters {
    /// One of them.
    fn used(&self, metric: &MetricName, window: &Window) -> u64;
}

impl<F: Fn(&MetricName, &Window) -> u64> Counters for F {
    fn used(&self, metric: &MetricName, window: &Window) -> u64 {
        self(metric, window)
    }
}

/// What has to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What becomes of the lease.
    pub outcome: Outcome,
    /// What counters change by.
    pub changes: Vec<Change>,
    /// What its holder hears.
    pub reply: Reply,
}

/// What becomes of a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing.
    Unchanged,
    /// It is this from now on.
    Put(Lease),
    /// It is no more; messages about it that come late change nothing.
    Closed,
}

/// So many units of a line, counted or taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What one unit adds.
    pub unit: Vec<Increment>,
    /// In the windows of this moment.
    pub moment: Timestamp,
    /// How many units; negative ones are taken back.
    pub times: i64,
}

impl Line {
    fn is_limited(&self) -> bool {
        is_limited(&self.unit)
    }

    /// What it may still take, as far as that is limited.
    fn unsettled(&self) -> u64 {
        if self.is_limited() { self.granted.saturating_sub(self.settled) } else { 0 }
    }
}

fn is_limited(unit: &[Increment]) -> bool {
    unit.iter().any(|increment| !increment.ceilings.is_empty())
}

fn by(increment: &Increment) -> u64 {
    let (UsageValue::Add(by) | UsageValue::Set(by)) = increment.value;
    by
}

/// How much a unit adds to a counter.
fn total(unit: &[Increment], metric: &MetricName, period: Period) -> u64 {
    let counted =
        |increment: &&Increment| increment.metric == *metric && increment.periods().contains(&period);
    unit.iter().filter(counted).map(by).sum()
}

/// The same, as far as it is limited.
fn weight(unit: &[Increment], metric: &MetricName, period: Period) -> u64 {
    let limited = |increment: &&Increment| increment.ceilings.iter().any(|ceiling| ceiling.period == period);
    unit.iter().filter(|increment| increment.metric == *metric).filter(limited).map(by).sum()
}

impl Lease {
    fn held(&self, metric: &MetricName, window: &Window) -> u64 {
        if self.is_presumed || window.period.window(self.moment) != *window {
            return 0;
        }
        let held = |line: &Line| line.unsettled().saturating_mul(weight(&line.unit, metric, window.period));
        self.lines.iter().map(held).fold(0, u64::saturating_add)
    }

    /// The shortest of its windows.
    fn window(&self) -> Window {
        shortest(self.lines.iter().map(|line| &line.unit)).window(self.moment)
    }

    /// The lease once its deadline is over, and what that counts; `None` before, or when that is done.
    pub fn presumed(&self, now: Timestamp) -> Option<(Self, Vec<Change>)> {
        if self.is_presumed || now < self.deadline {
            return None;
        }
        let changes = self.lines.iter().filter_map(|line| change(line, self.moment, line.unsettled(), 0));
        let changes = changes.collect();
        let mut presumed = self.clone();
        presumed.is_presumed = true;
        for line in &mut presumed.lines {
            line.settled += line.unsettled();
        }
        Some((presumed, changes))
    }

    /// When it is to be presumed used; or, where it is already, to be forgotten.
    pub fn due(&self) -> Timestamp {
        if self.is_presumed { self.deadline.plus_ms(CORRECTABLE_MS.cast_signed()) } else { self.deadline }
    }
}

fn shortest<'a>(mut units: impl Iterator<Item = &'a Vec<Increment>>) -> Period {
    let by_minute = |unit: &Vec<Increment>| unit.iter().any(|i| i.periods()[0] == Period::Minute);
    if units.any(by_minute) { Period::Minute } else { Period::Hour }
}

/// `None`: nothing changes.
fn change(line: &Line, moment: Timestamp, up: u64, down: u64) -> Option<Change> {
    let times = up.min(COUNT_MAX).cast_signed() - down.min(COUNT_MAX).cast_signed();
    (times != 0).then(|| Change { unit: line.unit.clone(), moment, times })
}

/// What an application's leases hold of a counter.
pub fn held(leases: &[Lease], metric: &MetricName, window: &Window) -> u64 {
    held_by(leases.iter(), metric, window)
}

fn held_by<'a>(leases: impl Iterator<Item = &'a Lease>, metric: &MetricName, window: &Window) -> u64 {
    let held = leases.map(|lease| lease.held(metric, window)).fold(0, u64::saturating_add);
    held.min(COUNT_MAX)
}

/// What there is of an application when a message comes.
#[derive(Debug, Clone, Copy)]
pub struct Book<'a, C> {
    /// All leases of the application.
    pub leases: &'a [Lease],
    /// Its counters.
    pub counters: &'a C,
    /// The lease that the message is about was closed lately.
    pub is_closed: bool,
    /// Since when the ledger remembers whatever it closed. A fail-over leaves that as it is.
    pub closed_since: Timestamp,
    /// The ledger's life.
    pub incarnation: u64,
    /// The ledger's clock.
    pub now: Timestamp,
}

impl<C> Book<'_, C> {
    /// A lease that is not there was forgotten in a fail-over. Where it may also have been closed so long ago that this
    /// is not remembered, it is left alone: to count it twice would be worse.
    fn may_have_forgotten(&self, declared: &Declared) -> bool {
        declared.incarnation != self.incarnation
            && declared.moment.plus_ms(-AHEAD_MAX_MS) >= self.closed_since
    }
}

/// What a holder's message does.
pub fn answer<C: Counters>(book: &Book<'_, C>, ask: &Ask) -> Step {
    let leases = book.leases;
    let nothing = |reply| Step { outcome: Outcome::Unchanged, changes: vec![], reply };
    let Some(lease) = leases.iter().find(|lease| lease.id == ask.id) else {
        let forgotten = ask.declared.filter(|declared| book.may_have_forgotten(declared));
        let is_meant = ask.declared.is_some_and(|declared| declared.incarnation == book.incarnation);
        return match (ask.opens, forgotten) {
            // From before a fail-over, perhaps: it may have been answered, and the lease be spent and closed since.
            (Some(_), _) if !is_meant => nothing(Reply::Short),
            (Some(when), _) if !book.is_closed && !ask.closes => open(book, ask, when),
            (None, Some(declared)) if !book.is_closed => take_over(book, ask, declared.moment),
            // Closed before, or its opening was lost: should it come yet, it comes too late.
            _ => Step { outcome: Outcome::Closed, changes: vec![], reply: Reply::Closed },
        };
    };
    if ask.closes {
        return close(lease, ask);
    }
    if lease.is_presumed {
        // Its holder has to stop, and say what it spent in all.
        return nothing(Reply::Closed);
    }
    if ask.round <= lease.round || ask.lines.len() != lease.lines.len() {
        return nothing(granted(book, book.counters, lease));
    }
    renew(book, ask, lease)
}

fn renew<C: Counters>(book: &Book<'_, C>, ask: &Ask, lease: &Lease) -> Step {
    let (mut next, changes) = settle(book, lease, ask);
    let settled = |metric: &MetricName, window: &Window| {
        let more = changes.iter().filter(|change| window.period.window(change.moment) == *window);
        let more = more.map(|change| change.times * total(&change.unit, metric, window.period).cast_signed());
        book.counters.used(metric, window).saturating_add_signed(more.sum())
    };
    for (line, wish) in next.lines.iter_mut().zip(&ask.lines) {
        if !line.is_limited() && is_limited(&wish.unit) {
            // The plan limits it since: what was granted without limit must not be held from everybody.
            line.granted = line.settled;
        }
        line.unit.clone_from(&wish.unit);
    }
    extend(&mut next, book, &settled, ask);
    let reply = granted(book, &settled, &next);
    Step { outcome: Outcome::Put(next), changes, reply }
}

fn open<C: Counters>(book: &Book<'_, C>, ask: &Ask, when: When) -> Step {
    let period = shortest(ask.lines.iter().map(|wish| &wish.unit));
    let moment = match when {
        When::Now => book.now,
        When::Next => period.window(book.now).end.unwrap_or(book.now),
    };
    if moment > book.now.plus_ms(AHEAD_MAX_MS) {
        // Asked for before a window's end, and come after it: that would be the window after the one that was meant.
        return Step { outcome: Outcome::Closed, changes: vec![], reply: Reply::Short };
    }
    let line = |wish: &Wish| Line { unit: wish.unit.clone(), granted: 0, settled: 0 };
    let mut lease = blank(ask, moment, line);
    lease.round = ask.round;
    extend(&mut lease, book, book.counters, ask);
    if lease.lines.iter().all(|line| line.granted == 0) {
        return Step { outcome: Outcome::Closed, changes: vec![], reply: Reply::Short };
    }
    let reply = granted(book, book.counters, &lease);
    Step { outcome: Outcome::Put(lease), changes: vec![], reply }
}

/// A fail-over has forgotten the lease, so nothing of it is counted: what was written of it later is forgotten, too.
fn take_over<C: Counters>(book: &Book<'_, C>, ask: &Ask, moment: Timestamp) -> Step {
    let line = |wish: &Wish| Line { unit: wish.unit.clone(), granted: wish.granted, settled: 0 };
    let lease = blank(ask, moment, line);
    if ask.closes { close(&lease, ask) } else { renew(book, ask, &lease) }
}

/// A lease of the past, as far as its round and deadline go.
fn blank(ask: &Ask, moment: Timestamp, line: impl Fn(&Wish) -> Line) -> Lease {
    Lease {
        id: ask.id,
        holder: Arc::clone(&ask.holder),
        round: 0,
        moment,
        deadline: Timestamp::default(),
        lines: ask.lines.iter().map(line).collect(),
        is_presumed: false,
    }
}

fn close(lease: &Lease, ask: &Ask) -> Step {
    let changes = lease.lines.iter().zip(&ask.lines);
    let changes = changes.filter_map(|(line, wish)| change(line, lease.moment, wish.spent, line.settled));
    Step { outcome: Outcome::Closed, changes: changes.collect(), reply: Reply::Closed }
}

/// The lease after its holder's account of it, and what that counts.
fn settle<C>(book: &Book<'_, C>, lease: &Lease, ask: &Ask) -> (Lease, Vec<Change>) {
    let mut next = lease.clone();
    let mut changes = vec![];
    next.round = ask.round;
    // From before a fail-over: what was forgotten may be more than what is known, and the holder may have been granted
    // again since what it says it does without.
    let is_known = ask.declared.is_none_or(|declared| declared.incarnation == book.incarnation);
    for (line, wish) in next.lines.iter_mut().zip(&ask.lines) {
        // Less than before where its holder took a request back.
        let spent = wish.spent;
        changes.extend(change(line, lease.moment, spent, line.settled));
        line.settled = spent;
        let granted = if is_known { wish.granted.min(line.granted) } else { wish.granted.max(line.granted) };
        line.granted = granted.max(spent);
    }
    (next, changes)
}

/// Grants what is wanted, as far as it is there and fair, until the lease's next end.
fn extend<C>(lease: &mut Lease, book: &Book<'_, C>, counters: &impl Counters, ask: &Ask) {
    let Book { leases, now, .. } = *book;
    let window = lease.window();
    let from = now.max(window.start);
    let end = from.plus_ms(ask.lasts_ms.clamp(LIFETIME_MS, LIFETIME_MAX_MS).cast_signed());
    let end = window.end.map_or(end, |window_end| window_end.min(end));
    lease.deadline = end.plus_ms(GRACE_MS.cast_signed());
    if end <= now {
        return;
    }
    let share = 2 * holders(leases, lease);
    for (at, wish) in ask.lines.iter().enumerate() {
        let kept = lease.lines[at].granted.saturating_sub(lease.lines[at].settled);
        let piece = if lease.lines[at].is_limited() {
            let free = free(lease, at, leases, counters);
            wish.want.min(free.saturating_add(kept) / share)
        } else {
            COUNT_MAX
        };
        if piece >= wish.least {
            lease.lines[at].granted = (lease.lines[at].settled + kept.max(piece)).min(COUNT_MAX);
        }
    }
}

/// How many gateways hold leases of the application, this lease's included.
fn holders(leases: &[Lease], lease: &Lease) -> u64 {
    // Each run of a gateway: several may share a name.
    let mut holders: Vec<[u8; 16]> = leases.iter().filter(|l| !l.is_presumed).map(|l| l.id.boot).collect();
    holders.push(lease.id.boot);
    holders.sort_unstable();
    holders.dedup();
    holders.len() as u64
}

/// How many more units of a line fit under all its limits.
fn free(lease: &Lease, at: usize, leases: &[Lease], counters: &impl Counters) -> u64 {
    let mut free = COUNT_MAX;
    for increment in &lease.lines[at].unit {
        for ceiling in &increment.ceilings {
            let window = ceiling.period.window(lease.moment);
            let taken = taken(lease, leases, counters, &increment.metric, &window)
                .saturating_add(lease.held(&increment.metric, &window));
            let weight = weight(&lease.lines[at].unit, &increment.metric, ceiling.period);
            free = free.min(ceiling.max.saturating_sub(taken).checked_div(weight).unwrap_or(COUNT_MAX));
        }
    }
    free
}

/// What is used of a counter, or held by other leases than this.
fn taken(
    lease: &Lease,
    leases: &[Lease],
    counters: &impl Counters,
    metric: &MetricName,
    window: &Window,
) -> u64 {
    let others = leases.iter().filter(|other| other.id != lease.id);
    counters.used(metric, window).saturating_add(held_by(others, metric, window)).min(COUNT_MAX)
}

fn granted<C>(book: &Book<'_, C>, counters: &impl Counters, lease: &Lease) -> Reply {
    let Book { leases, now, incarnation, .. } = *book;
    let taken = |metric: &MetricName, window: &Window| taken(lease, leases, counters, metric, window);
    Reply::Granted(grant(lease, &taken, incarnation, now))
}

/// What the holder of a lease hears; `taken` is what is used of each counter, or held by other leases.
pub fn grant(lease: &Lease, taken: &impl Counters, incarnation: u64, now: Timestamp) -> Grant {
    let window = lease.window();
    let until = |then: Timestamp| u64::try_from(then.unix_ms() - now.unix_ms()).unwrap_or(0);
    let mut standings: Vec<Standing> = vec![];
    let mut weights = vec![];
    for line in &lease.lines {
        let mut adds = vec![];
        for increment in &line.unit {
            for ceiling in &increment.ceilings {
                let window = ceiling.period.window(lease.moment);
                let is_it = |s: &Standing| s.metric == increment.metric && s.window == window;
                let at = standings.iter().position(is_it).unwrap_or_else(|| {
                    let metric = increment.metric.clone();
                    let taken = taken.used(&metric, &window);
                    standings.push(Standing { metric, window, max: ceiling.max, taken });
                    standings.len() - 1
                });
                adds.push((at, by(increment)));
            }
        }
        weights.push(adds);
    }
    Grant {
        declared: Declared { incarnation, moment: lease.moment },
        granted: lease.lines.iter().map(|line| line.granted).collect(),
        begins_in_ms: until(window.start),
        ends_in_ms: until(lease.deadline.plus_ms(-GRACE_MS.cast_signed())),
        window_ends_in_ms: window.end.map_or(u64::MAX, until),
        standings,
        weights,
    }
}

#[cfg(test)]
mod tests;
