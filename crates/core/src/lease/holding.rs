//! The gateway's side of leases: what it holds for one application, what it spends, and what it has to say when.
//!
//! Requests call [`Holding::spend`]; whoever talks to the listener calls [`Holding::due`] for what there is to say and
//! hands in the answers. Times are milliseconds of a clock that never goes back and counts while the machine sleeps.
//!
//! `T` is what the owner keeps of each lease, such as its place in a journal.

mod last_words;

use self::last_words::{ANSWER_MS, LastWords};
use super::{Declared, Grant, LIFETIME_MS, LINES_MAX, LeaseId, Line, Message, Reply, Standing, When};
use crate::id::MetricName;
use crate::period::Timestamp;
use crate::usage::{Usage, UsageValue};

/// Most metrics that one request may take from a lease; requests keep this in memory until they are answered.
const TAKEN_MAX: usize = 8;
/// How often demand is measured.
const SAMPLE_MS: u64 = 200;
/// A lease that nobody spent from for so long is given back.
const IDLE_MS: u64 = 300;
/// Pause before asking again where little was granted.
const SCARCE_MS: u64 = 100;
/// Pause before asking again where none may be granted.
const REFUSED_MS: u64 = 1_000;
/// Shortest pause between two messages about one lease that nothing hurries.
const PAUSE_MS: u64 = 20;
/// Renewals are asked for at least this long before a lease ends.
const AHEAD_MS: u64 = 200;
/// Over how long applications spread what they ask of a new window.
const SPREAD_MS: u64 = 250;
/// Most leases of one application that wait for their last word to be heard; more, and no new one is asked for.
const CLOSING_MAX: usize = 8;

/// What a gateway holds for one application.
#[derive(Debug)]
pub struct Holding<T> {
    demands: Vec<Demand>,
    current: Option<Held<T>>,
    /// In the windows that come next.
    next: Option<Held<T>>,
    last_words: LastWords<T>,
    /// The ledger's life, as far as is known.
    incarnation: Option<u64>,
    used_at: u64,
    /// The time before.
    used_before: u64,
    sampled_at: u64,
    /// No lease is asked for until then.
    rests_until: u64,
    answer_took: u64,
    spread: u64,
    /// Too little is left of a lease.
    is_low: bool,
    terms: Terms,
    /// No lease is asked for any more.
    has_stopped: bool,
}

/// What an application's leases are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Terms {
    /// To decide without asking, while the ledger can be asked.
    #[default]
    Ordinary,
    /// Also to go on while it cannot: leases live for two minutes, hold as much for an outage as for ordinary use, and are
    /// kept as long after the last request.
    Outage,
}

/// How long leases under [`Terms::Outage`] live, and are kept.
const OUTAGE_MS: u64 = 120_000;
/// At least so many requests pass in an outage, where there is as much.
const OUTAGE_REQUESTS: u64 = 20;

impl Terms {
    fn lasts_ms(self) -> u64 {
        match self {
            Self::Ordinary => LIFETIME_MS,
            Self::Outage => OUTAGE_MS,
        }
    }

    fn idle_ms(self) -> u64 {
        match self {
            Self::Ordinary => IDLE_MS,
            Self::Outage => OUTAGE_MS,
        }
    }
}

/// How much of a metric is used.
#[derive(Debug)]
struct Demand {
    metric: MetricName,
    since_sample: u64,
    per_second: u64,
    least: u64,
}

/// A lease.
#[derive(Debug)]
struct Held<T> {
    tag: T,
    id: LeaseId,
    round: u32,
    opens: When,
    is_granted: bool,
    /// When the latest message was sent, until it is answered.
    asked_at: Option<u64>,
    answered_at: u64,
    begins: u64,
    ends: u64,
    window_ends: u64,
    lines: Vec<HeldLine>,
    standings: Vec<Standing>,
    declared: Option<Declared>,
}

#[derive(Debug, Default)]
struct HeldLine {
    spent: u64,
    granted: u64,
    /// `spent` in the latest message.
    told: u64,
    /// What the latest answer left to be spent.
    piece: u64,
    /// It was less than was wanted.
    is_scarce: bool,
    /// How much was wanted.
    wanted: u64,
    weights: Vec<(usize, u64)>,
}

impl HeldLine {
    /// More than half of what there was is spent.
    fn is_low(&self) -> bool {
        (self.granted - self.spent).saturating_mul(2) < self.piece
    }
}

/// What a request took from a lease.
#[derive(Debug)]
pub struct Spent<'a, T> {
    lease: &'a Held<T>,
    taken: Taken,
    /// The owner should see to what is [due](Holding::due).
    pub is_low: bool,
}

/// Lines and amounts.
#[derive(Debug, Clone, Copy, Default)]
struct Taken {
    lines: [u8; TAKEN_MAX],
    amounts: [u64; TAKEN_MAX],
    len: u8,
}

impl Taken {
    fn iter(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        let taken = self.lines.iter().zip(&self.amounts).take(self.len.into());
        taken.map(|(line, by)| (usize::from(*line), *by))
    }
}

/// What a request took from which lease, for [`Holding::take_back`].
#[derive(Debug, Clone, Copy)]
pub struct Receipt {
    id: LeaseId,
    taken: Taken,
}

/// What became of an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard<'a, T> {
    /// Nothing: it came too late, or was a last word's.
    Nothing,
    /// The lease may be spent from. Its owner writes down what the ledger declared before anything is.
    Granted(&'a T, Declared),
    /// The lease never came to be; nothing is left to be said of it.
    Refused(T),
}

impl<T> Spent<'_, T> {
    /// With this it can be taken back.
    pub fn receipt(&self) -> Receipt {
        Receipt { id: self.lease.id, taken: self.taken }
    }

    /// Where the limits that the request touched stand, and what is taken of each.
    pub fn standings(&self) -> impl Iterator<Item = (&Standing, u64)> {
        let is_touched = |at: usize| {
            self.taken.iter().any(|(line, _)| self.lease.lines[line].weights.iter().any(|(s, _)| *s == at))
        };
        let standings = self.lease.standings.iter().enumerate();
        standings.filter(move |(at, _)| is_touched(*at)).map(|(at, s)| (s, self.lease.taken(at)))
    }
}

impl<T> Held<T> {
    fn open(id: LeaseId, tag: T, opens: When, lines: usize) -> Self {
        Self {
            tag,
            id,
            round: 0,
            opens,
            is_granted: false,
            asked_at: None,
            answered_at: 0,
            begins: 0,
            ends: 0,
            window_ends: u64::MAX,
            lines: (0..lines).map(|_| HeldLine::default()).collect(),
            standings: vec![],
            declared: None,
        }
    }

    /// What is taken of a limit, as far as is known here.
    fn taken(&self, standing: usize) -> u64 {
        let since = |line: &HeldLine| -> u64 {
            let adds = line.weights.iter().filter(|(at, _)| *at == standing).map(|(_, by)| by);
            adds.map(|by| by.saturating_mul(line.spent.saturating_sub(line.told))).sum()
        };
        self.standings[standing].taken.saturating_add(self.lines.iter().map(since).sum())
    }

    fn is_alive(&self, now: u64) -> bool {
        self.is_granted && self.begins <= now && now < self.ends
    }

    fn is_waiting(&self, now: u64) -> bool {
        self.asked_at.is_some_and(|asked| now < asked + ANSWER_MS)
    }

    fn fits(&self, taken: &Taken) -> bool {
        taken
            .iter()
            .all(|(line, by)| self.lines.get(line).is_some_and(|l| l.spent.saturating_add(by) <= l.granted))
    }

    fn take(&mut self, taken: &Taken, record: &mut impl FnMut(&T, usize, u64)) -> bool {
        let mut is_low = false;
        for (line, by) in taken.iter() {
            record(&self.tag, line, by);
            let line = &mut self.lines[line];
            line.spent += by;
            is_low |= line.is_low();
        }
        is_low
    }

    /// The next message about it.
    fn message(&mut self, demands: &[Demand], terms: Terms, incarnation: Option<u64>, now: u64) -> Message {
        self.round += 1;
        let elapsed = now.saturating_sub(self.answered_at).max(50);
        let mut lines = Vec::with_capacity(self.lines.len());
        for (line, demand) in self.lines.iter_mut().zip(demands) {
            let lately = line.spent.saturating_sub(line.told).saturating_mul(1_000) / elapsed;
            let want = demand.want(lately, terms);
            // What has no limit is held from nobody.
            if terms == Terms::Ordinary || !line.weights.is_empty() {
                line.granted = line.granted.min(line.spent.saturating_add(want));
            }
            line.told = line.spent;
            line.wanted = want;
            let HeldLine { spent, granted, .. } = *line;
            lines.push(Line {
                metric: demand.metric.clone(),
                spent,
                granted,
                want,
                least: demand.least.max(1),
            });
        }
        self.asked_at = Some(now);
        let opens = (!self.is_granted).then_some(self.opens);
        let meant_for = |incarnation| Declared { incarnation, moment: Timestamp::default() };
        let declared = self.declared.or(incarnation.map(meant_for));
        let lasts_ms = terms.lasts_ms();
        Message { id: self.id, round: self.round, opens, closes: false, lasts_ms, declared, lines }
    }

    fn last_word(self, demands: &[Demand]) -> (T, Message) {
        let lines = demands.iter().zip(&self.lines).map(|(demand, line)| (demand.metric.clone(), line.spent));
        let message = Message::last_word(self.id, self.declared, lines);
        (self.tag, Message { round: self.round, ..message })
    }

    fn granted(&mut self, grant: Grant, asked_at: u64, now: u64) {
        self.is_granted = true;
        self.answered_at = now;
        self.begins = now.saturating_add(grant.begins_in_ms);
        self.ends = asked_at.saturating_add(grant.ends_in_ms);
        self.window_ends = asked_at.saturating_add(grant.window_ends_in_ms);
        self.standings = grant.standings;
        self.declared = Some(grant.declared);
        for ((line, granted), weights) in self.lines.iter_mut().zip(grant.granted).zip(grant.weights) {
            line.granted = granted.max(line.spent);
            line.piece = line.granted - line.spent;
            line.is_scarce = line.piece < line.wanted;
            line.weights = weights;
        }
    }
}

impl Demand {
    /// Half as much again as what is used in a lease's time; for an outage, as much as is used in it.
    fn want(&self, lately: u64, terms: Terms) -> u64 {
        let just_now = self.since_sample.saturating_mul(1_000) / SAMPLE_MS;
        let rate = self.per_second.max(lately).max(just_now);
        let used = rate.saturating_mul(terms.lasts_ms()) / 1_000;
        match (terms, rate) {
            (Terms::Ordinary, 0) => 0,
            (Terms::Ordinary, _) => used.saturating_mul(3) / 2 + self.least,
            (Terms::Outage, _) => used.max(self.least.saturating_mul(OUTAGE_REQUESTS)),
        }
    }
}

impl<T> Holding<T> {
    /// Nothing yet. `spread` is any number that tells applications apart: it keeps them from asking all at once.
    pub fn new(spread: u64, now: u64) -> Self {
        Self {
            demands: vec![],
            current: None,
            next: None,
            last_words: LastWords::new(),
            incarnation: None,
            used_at: 0,
            used_before: 0,
            sampled_at: now,
            rests_until: 0,
            answer_took: 0,
            spread: spread % SPREAD_MS,
            is_low: false,
            terms: Terms::default(),
            has_stopped: false,
        }
    }

    /// From now on leases are for this.
    pub fn set_terms(&mut self, terms: Terms) {
        self.terms = terms;
    }

    /// The ledger's present life, as other answers told: without it the first opening only finds it out.
    #[must_use]
    pub fn knowing(mut self, incarnation: Option<u64>) -> Self {
        self.incarnation = incarnation;
        self
    }

    /// Takes a request's usage from a lease, all or nothing; `record` is told of each line that is taken from, first.
    /// `None`: it has to be decided by the listener.
    pub fn spend(
        &mut self,
        usage: &Usage,
        now: u64,
        mut record: impl FnMut(&T, usize, u64),
    ) -> Option<Spent<'_, T>> {
        let taken = self.lines_of(usage)?;
        let fits = |held: &Option<Held<T>>| held.as_ref().is_some_and(|h| h.is_alive(now) && h.fits(&taken));
        let lease = if fits(&self.current) {
            self.current.as_mut()?
        } else if fits(&self.next) {
            self.next.as_mut()?
        } else {
            return None;
        };
        self.used_before = std::mem::replace(&mut self.used_at, now);
        for (line, by) in taken.iter() {
            let demand = &mut self.demands[line];
            demand.since_sample = demand.since_sample.saturating_add(by);
        }
        let is_low = lease.take(&taken, &mut record) && lease.asked_at.is_none();
        // Told once, until somebody has looked.
        let is_news = is_low && !self.is_low;
        self.is_low |= is_low;
        Some(Spent { lease, taken, is_low: is_news })
    }

    /// `None`: a lease cannot express it.
    fn lines_of(&self, usage: &Usage) -> Option<Taken> {
        let mut taken = Taken::default();
        for (metric, value) in usage.iter() {
            let UsageValue::Add(by) = value else { return None };
            let line = self.demands.iter().position(|demand| demand.metric == *metric)?;
            let place = usize::from(taken.len);
            *taken.lines.get_mut(place)? = u8::try_from(line).ok()?;
            taken.amounts[place] = by;
            taken.len += 1;
        }
        Some(taken)
    }

    /// A request was admitted by the listener: leases would have to have as much.
    pub fn note(&mut self, usage: &Usage, now: u64) {
        self.used_before = std::mem::replace(&mut self.used_at, now);
        for (metric, value) in usage.iter() {
            let UsageValue::Add(by) = value else { continue };
            let known = self.demands.iter().position(|demand| demand.metric == *metric);
            let Some(at) = known.or_else(|| self.begin(metric)) else { continue };
            let demand = &mut self.demands[at];
            demand.since_sample = demand.since_sample.saturating_add(by);
            demand.least = by;
        }
    }

    fn begin(&mut self, metric: &MetricName) -> Option<usize> {
        if self.demands.len() == LINES_MAX {
            return None;
        }
        self.demands.push(Demand { metric: metric.clone(), since_sample: 0, per_second: 0, least: 1 });
        Some(self.demands.len() - 1)
    }

    /// What there is to say now. `open` gives a new lease its name, and what is kept of it; `None`: there is no room.
    pub fn due(
        &mut self,
        now: u64,
        mut open: impl FnMut(&mut dyn Iterator<Item = &MetricName>) -> Option<(LeaseId, T)>,
    ) -> Vec<Message> {
        self.sample(now);
        self.turn(now);
        self.is_low = false;
        let mut messages: Vec<Message> = self.last_words.due(now).collect();
        messages.extend(self.renewal(now));
        let mut opens = |when, demands: &[Demand]| {
            let (id, tag) = open(&mut demands.iter().map(|demand| &demand.metric))?;
            Some(Held::open(id, tag, when, demands.len()))
        };
        if self.current.is_none() && self.next.is_none() && self.may_open(now) {
            self.current = opens(When::Now, &self.demands);
            messages.extend(
                self.current
                    .as_mut()
                    .map(|held| held.message(&self.demands, self.terms, self.incarnation, now)),
            );
        }
        if self.next.is_none() && self.may_open(now) && self.is_near_the_end(now) {
            self.next = opens(When::Next, &self.demands);
            messages.extend(
                self.next.as_mut().map(|held| held.message(&self.demands, self.terms, self.incarnation, now)),
            );
        }
        messages
    }

    fn sample(&mut self, now: u64) {
        let elapsed = now.saturating_sub(self.sampled_at);
        if elapsed < SAMPLE_MS {
            return;
        }
        self.sampled_at = now;
        for demand in &mut self.demands {
            let rate = std::mem::take(&mut demand.since_sample).saturating_mul(1_000) / elapsed;
            demand.per_second = rate.max(demand.per_second.midpoint(rate));
        }
    }

    /// Puts away what is over, or not needed any more.
    fn turn(&mut self, now: u64) {
        if self.current.as_ref().is_some_and(|held| held.is_granted && held.window_ends <= now) {
            self.give_back_current();
        }
        if self.next.as_ref().is_some_and(|held| !held.is_granted && !held.is_waiting(now)) {
            // Asked for again, it might come to be for the window after.
            self.give_back_next();
        }
        if self.current.is_none()
            && self.next.as_ref().is_some_and(|held| held.is_granted && held.begins <= now)
        {
            self.current = self.next.take();
        }
        let lacks_lines = self.current.as_ref().is_some_and(|held| held.lines.len() < self.demands.len());
        if lacks_lines || now >= self.used_at + self.terms.idle_ms() {
            self.give_back();
        }
    }

    /// Spends nothing more from any lease.
    pub fn give_back(&mut self) {
        self.give_back_current();
        self.give_back_next();
    }

    fn give_back_current(&mut self) {
        let held = self.current.take();
        self.put_away(held);
    }

    fn give_back_next(&mut self) {
        let held = self.next.take();
        self.put_away(held);
    }

    fn put_away(&mut self, held: Option<Held<T>>) {
        if let Some(held) = held {
            let (tag, message) = held.last_word(&self.demands);
            self.last_words.add(tag, message);
        }
    }

    /// A lease of an earlier life of this gateway, whose last word was perhaps never heard.
    pub fn restore(&mut self, tag: T, last_word: Message) {
        self.last_words.add(tag, last_word);
    }

    /// A request did not come to pass: gives back what it took, and tells `record` of each line. `false`: the lease has
    /// said its last word, and the request stays counted.
    pub fn take_back(&mut self, receipt: &Receipt, mut record: impl FnMut(&T, usize, u64)) -> bool {
        let Receipt { id, taken } = receipt;
        let mut held = self.current.iter_mut().chain(&mut self.next);
        if let Some(held) = held.find(|held| held.id == *id) {
            for (line, by) in taken.iter() {
                held.lines[line].spent -= by;
                record(&held.tag, line, by);
            }
            return true;
        }
        let Some((tag, message)) = self.last_words.unsaid(*id) else { return false };
        for (line, by) in taken.iter() {
            message.lines[line].spent -= by;
            message.lines[line].granted -= by;
            record(tag, line, by);
        }
        true
    }

    fn renewal(&mut self, now: u64) -> Option<Message> {
        let ahead = self.ahead();
        let held = self.current.as_mut()?;
        let is_low = held.lines.iter().any(HeldLine::is_low);
        let pause = if held.lines.iter().any(|line| line.is_scarce) { SCARCE_MS } else { PAUSE_MS };
        let is_forgotten = held.declared.map(|declared| declared.incarnation) != self.incarnation;
        // However long it lives, it is heard of.
        let renewed_by = held.ends.min(held.answered_at.saturating_add(LIFETIME_MS));
        // With its window it ends for good.
        let is_ending = now + ahead >= renewed_by && renewed_by < held.window_ends;
        let is_due = is_forgotten || is_ending || (is_low && now >= held.answered_at + pause);
        (is_due && !held.is_waiting(now))
            .then(|| held.message(&self.demands, self.terms, self.incarnation, now))
    }

    /// How long before its end a lease is renewed.
    fn ahead(&self) -> u64 {
        (3 * self.answer_took).clamp(AHEAD_MS, LIFETIME_MS / 2)
    }

    /// Requests come so often that a lease is worth its while.
    fn may_open(&self, now: u64) -> bool {
        let is_busy = match self.terms {
            Terms::Ordinary => now < self.used_before + IDLE_MS && now < self.used_at + IDLE_MS,
            // Whoever was seen once is known.
            Terms::Outage => self.used_at > 0 && now < self.used_at + OUTAGE_MS,
        };
        is_busy && !self.has_stopped && now >= self.rests_until && self.last_words.unheard() < CLOSING_MAX
    }

    fn is_near_the_end(&self, now: u64) -> bool {
        let before = self.ahead() + self.spread;
        let is_near = |held: &Held<T>| held.is_granted && now.saturating_add(before) >= held.window_ends;
        self.current.as_ref().is_some_and(is_near)
    }

    /// The answer to a message, and the life of the ledger that gave it.
    pub fn answered(
        &mut self,
        id: LeaseId,
        round: u32,
        reply: Reply,
        incarnation: u64,
        now: u64,
    ) -> Heard<'_, T> {
        if self.incarnation.replace(incarnation) != Some(incarnation) {
            // It may have forgotten what it heard last. Which of both lives is the later one shows the next answer.
            self.last_words.forgotten();
            self.unheard();
            return Heard::Nothing;
        }
        if reply == Reply::Closed && self.last_words.heard(id, round, now) {
            return Heard::Nothing;
        }
        let is_it = |slot: &&mut Option<Held<T>>| slot.as_ref().is_some_and(|held| held.id == id);
        let slots = [&mut self.current, &mut self.next];
        let Some(slot) = slots.into_iter().find(is_it) else { return Heard::Nothing };
        // Only the first answer counts: the end of a lease is reckoned from when the message was sent.
        let is_first = |held: &mut Held<T>| held.round == round && held.asked_at.is_some();
        let Some(mut held) = slot.take_if(is_first) else { return Heard::Nothing };
        let asked_at = held.asked_at.take().unwrap_or(now);
        self.last_words.lived(asked_at);
        match reply {
            Reply::Granted(grant) => {
                self.answer_took = now.saturating_sub(asked_at).max(self.answer_took / 2);
                let declared = grant.declared;
                held.granted(grant, asked_at, now);
                Heard::Granted(&slot.insert(held).tag, declared)
            }
            Reply::Short => {
                self.rests_until = now + SCARCE_MS;
                Heard::Refused(held.tag)
            }
            Reply::Closed => {
                let (tag, message) = held.last_word(&self.demands);
                self.last_words.add(tag, message);
                Heard::Nothing
            }
        }
    }

    /// What was kept of a lease that is over, one after the other.
    pub fn retire(&mut self) -> Option<T> {
        self.last_words.retire()
    }

    /// Somebody else needs what is held here.
    pub fn recalled(&mut self, now: u64) {
        self.give_back();
        self.rests_until = now + SCARCE_MS;
    }

    /// The ledger says that the application may not be used, or not as it was: what it used is measured anew.
    pub fn refused(&mut self, now: u64) {
        self.give_back();
        self.demands.clear();
        self.rests_until = now + REFUSED_MS;
    }

    /// Gives everything back, and asks for nothing more.
    pub fn stop(&mut self) {
        self.give_back();
        self.has_stopped = true;
    }

    /// Messages that were not answered may be lost: they are said again.
    pub fn unheard(&mut self) {
        self.current.iter_mut().chain(&mut self.next).for_each(|held| held.asked_at = None);
        self.last_words.unanswered();
    }

    /// Whether there is nothing to be spent, said or heard.
    pub fn is_empty(&self) -> bool {
        self.current.is_none() && self.next.is_none() && self.last_words.is_empty()
    }

    /// How many leases are out, as far as the ledger has been heard.
    pub fn outstanding(&self) -> usize {
        self.current.iter().chain(&self.next).count() + self.last_words.unheard()
    }

    /// When somebody was last admitted.
    pub fn used_at(&self) -> u64 {
        self.used_at
    }

    /// What is kept of all leases, until they are [retired](Self::retire).
    pub fn tags(&self) -> impl Iterator<Item = &T> {
        let held = self.current.iter().chain(&self.next).map(|held| &held.tag);
        held.chain(self.last_words.tags())
    }
}

#[cfg(test)]
mod tests;
