//! The gateway's side of leases: what it holds for one application, what it spends, and what it has to say when.
//!
//! Requests call [`Holding::spend`]; whoever talks to the listener calls [`Holding::due`] for what there is to say and
//! hands in the answers. Times are milliseconds of a clock that never goes back and counts while the machine sleeps.
//!
//! `T` is what the owner keeps of each lease, such as its place in a journal.

mod demand;
mod held;
mod last_words;

pub use self::demand::Terms;
use self::demand::{Demand, SAMPLE_MS};
use self::held::{Held, SCARCE_MS, Taken};
pub use self::held::{Receipt, Spent};
use self::last_words::LastWords;
use super::{Declared, LIFETIME_MS, LINES_MAX, LeaseId, Message, Reply, When};
use crate::id::MetricName;
use crate::usage::{Usage, UsageValue};

/// Pause before asking again where none may be granted.
const REFUSED_MS: u64 = 1_000;
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
        taken.iter().for_each(|(line, by)| self.demands[line].add(by));
        let is_low = lease.take(&taken, &mut record) && lease.asked_at.is_none();
        // Told once, until somebody has looked.
        let is_news = is_low && !self.is_low;
        self.is_low |= is_low;
        Some(Spent { lease, taken, is_low: is_news })
    }

    /// Whether [`Self::spend`] would find what a request uses; nothing is taken.
    pub fn fits(&self, usage: &Usage, now: u64) -> bool {
        let fits = |taken: &Taken, held: &Option<Held<T>>| {
            held.as_ref().is_some_and(|held| held.is_alive(now) && held.fits(taken))
        };
        self.lines_of(usage).is_some_and(|taken| fits(&taken, &self.current) || fits(&taken, &self.next))
    }

    /// `None`: a lease cannot express it.
    fn lines_of(&self, usage: &Usage) -> Option<Taken> {
        let mut taken = Taken::default();
        for (metric, value) in usage.iter() {
            let UsageValue::Add(by) = value else { return None };
            let line = self.demands.iter().position(|demand| demand.metric == *metric)?;
            taken.push(line, by)?;
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
            demand.add(by);
            demand.least = by;
        }
    }

    fn begin(&mut self, metric: &MetricName) -> Option<usize> {
        if self.demands.len() == LINES_MAX {
            return None;
        }
        self.demands.push(Demand::of(metric.clone()));
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
        let mut opened = None;
        if self.current.is_none() && self.next.is_none() && self.may_open(now) {
            self.current = opens(When::Now, &self.demands);
            opened = self.current.as_mut();
        } else if self.next.is_none() && self.may_open(now) && self.is_near_the_end(now) {
            self.next = opens(When::Next, &self.demands);
            opened = self.next.as_mut();
        }
        messages.extend(opened.map(|held| held.message(&self.demands, self.terms, self.incarnation, now)));
        messages
    }

    fn sample(&mut self, now: u64) {
        let elapsed = now.saturating_sub(self.sampled_at);
        if elapsed < SAMPLE_MS {
            return;
        }
        self.sampled_at = now;
        self.demands.iter_mut().for_each(|demand| demand.sample(elapsed));
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
        let Receipt { id, taken, .. } = receipt;
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
        (held.is_due(ahead, self.incarnation, now) && !held.is_waiting(now))
            .then(|| held.message(&self.demands, self.terms, self.incarnation, now))
    }

    /// How long before its end a lease is renewed.
    fn ahead(&self) -> u64 {
        (3 * self.answer_took).clamp(AHEAD_MS, LIFETIME_MS / 2)
    }

    fn may_open(&self, now: u64) -> bool {
        self.terms.is_busy(self.used_before, self.used_at, now)
            && !self.has_stopped
            && now >= self.rests_until
            && self.last_words.unheard() < CLOSING_MAX
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

    /// The records that leases were granted by are others now: the one that is spent from is renewed at once, the next one
    /// asked for anew.
    pub fn outdated(&mut self) {
        self.give_back_next();
        self.current.iter_mut().for_each(|held| held.is_outdated = true);
    }

    /// What is held was granted by records that are others now, or may have been.
    pub fn is_outdated(&self) -> bool {
        self.current.as_ref().is_some_and(|held| held.is_outdated)
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

    /// Whether the ledger has heard the last words of all leases that have said theirs.
    pub fn is_heard(&self) -> bool {
        self.last_words.unheard() == 0
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
