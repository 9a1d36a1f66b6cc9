//! One lease: what was granted, what is spent of it, and what is said of it.

use super::demand::{Demand, Terms};
use super::last_words::ANSWER_MS;
use crate::lease::{Declared, Grant, LIFETIME_MS, LeaseId, Line, Message, Standing, When};
use crate::period::Timestamp;

/// Most metrics that one request may take from a lease; requests keep this in memory until they are answered.
const TAKEN_MAX: usize = 8;
/// Shortest pause between two messages about one lease that nothing hurries.
const PAUSE_MS: u64 = 20;
/// Pause before asking again where little was granted.
pub(super) const SCARCE_MS: u64 = 100;

/// A lease.
#[derive(Debug)]
pub(super) struct Held<T> {
    pub(super) tag: T,
    pub(super) id: LeaseId,
    pub(super) round: u32,
    opens: When,
    pub(super) is_granted: bool,
    /// When the latest message was sent, until it is answered.
    pub(super) asked_at: Option<u64>,
    answered_at: u64,
    pub(super) begins: u64,
    ends: u64,
    pub(super) window_ends: u64,
    pub(super) lines: Vec<HeldLine>,
    standings: Vec<Standing>,
    declared: Option<Declared>,
    /// The records it was granted by may be old.
    pub(super) is_outdated: bool,
}

#[derive(Debug, Default)]
pub(super) struct HeldLine {
    pub(super) spent: u64,
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
    pub(super) lease: &'a Held<T>,
    pub(super) taken: Taken,
    /// The owner should see to what is [due](super::Holding::due).
    pub is_low: bool,
}

/// Lines and amounts.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Taken {
    lines: [u8; TAKEN_MAX],
    amounts: [u64; TAKEN_MAX],
    len: u8,
}

impl Taken {
    /// `None`: there are too many.
    pub(super) fn push(&mut self, line: usize, by: u64) -> Option<()> {
        let place = usize::from(self.len);
        *self.lines.get_mut(place)? = u8::try_from(line).ok()?;
        self.amounts[place] = by;
        self.len += 1;
        Some(())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        let taken = self.lines.iter().zip(&self.amounts).take(self.len.into());
        taken.map(|(line, by)| (usize::from(*line), *by))
    }
}

/// What a request took from which lease, for [`Holding::take_back`](super::Holding::take_back).
#[derive(Debug, Clone, Copy)]
pub struct Receipt {
    pub(super) id: LeaseId,
    moment: Timestamp,
    pub(super) taken: Taken,
}

impl Receipt {
    /// For a part of what was taken: as much of each metric as `amounts` says, in the order in which the request named
    /// them; never more than was taken.
    #[must_use]
    pub fn part(&self, amounts: impl IntoIterator<Item = u64>) -> Self {
        let mut taken = self.taken;
        for (taken, amount) in taken.amounts.iter_mut().zip(amounts) {
            *taken = amount.min(*taken);
        }
        Self { taken, ..*self }
    }

    /// A moment in the windows that it counts in.
    pub fn moment(&self) -> Timestamp {
        self.moment
    }
}

impl<T> Spent<'_, T> {
    /// With this it can be taken back.
    pub fn receipt(&self) -> Receipt {
        let moment = self.lease.declared.map(|declared| declared.moment).unwrap_or_default();
        Receipt { id: self.lease.id, moment, taken: self.taken }
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
    pub(super) fn open(id: LeaseId, tag: T, opens: When, lines: usize) -> Self {
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
            is_outdated: false,
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

    pub(super) fn is_alive(&self, now: u64) -> bool {
        self.is_granted && self.begins <= now && now < self.ends
    }

    pub(super) fn is_waiting(&self, now: u64) -> bool {
        self.asked_at.is_some_and(|asked| now < asked + ANSWER_MS)
    }

    pub(super) fn fits(&self, taken: &Taken) -> bool {
        taken
            .iter()
            .all(|(line, by)| self.lines.get(line).is_some_and(|l| l.spent.saturating_add(by) <= l.granted))
    }

    pub(super) fn take(&mut self, taken: &Taken, record: &mut impl FnMut(&T, usize, u64)) -> bool {
        let mut is_low = false;
        for (line, by) in taken.iter() {
            record(&self.tag, line, by);
            let line = &mut self.lines[line];
            line.spent += by;
            is_low |= line.is_low();
        }
        is_low
    }

    /// Whether there is need of another message, so long `ahead` of its end.
    pub(super) fn is_due(&self, ahead: u64, incarnation: Option<u64>, now: u64) -> bool {
        let is_low = self.lines.iter().any(HeldLine::is_low);
        let pause = if self.lines.iter().any(|line| line.is_scarce) { SCARCE_MS } else { PAUSE_MS };
        let is_forgotten = self.declared.map(|declared| declared.incarnation) != incarnation;
        // However long it lives, it is heard of.
        let renewed_by = self.ends.min(self.answered_at.saturating_add(LIFETIME_MS));
        // With its window it ends for good.
        let is_ending = now + ahead >= renewed_by && renewed_by < self.window_ends;
        self.is_outdated || is_forgotten || is_ending || (is_low && now >= self.answered_at + pause)
    }

    /// The next message about it.
    pub(super) fn message(
        &mut self,
        demands: &[Demand],
        terms: Terms,
        incarnation: Option<u64>,
        now: u64,
    ) -> Message {
        self.round += 1;
        self.is_outdated = false;
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

    pub(super) fn last_word(self, demands: &[Demand]) -> (T, Message) {
        let lines = demands.iter().zip(&self.lines).map(|(demand, line)| (demand.metric.clone(), line.spent));
        let message = Message::last_word(self.id, self.declared, lines);
        (self.tag, Message { round: self.round, ..message })
    }

    pub(super) fn granted(&mut self, grant: Grant, asked_at: u64, now: u64) {
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
