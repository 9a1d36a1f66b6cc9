//! What comes of operations, and how Redis tells it: one list of values per shard, read from the front.

use rmp::decode::{read_array_len, read_int};
use weir_core::counter::ceilings;
use weir_core::lease::Reply;
use weir_core::lease::ledger::grant;
use weir_core::{MetricName, Timestamp, Window};

use super::batch::read_version;
use super::lease::{read_lease, read_text};
use crate::{Record, Version};

/// Added to a kind of answer: leases hold something of a ceiling, and what they hold of each is told, too.
const LENT: u64 = 16;

/// What one operation came to.
#[derive(Debug)]
pub(super) enum Answer {
    Admitted {
        used: Vec<u64>,
        held: Vec<u64>,
    },
    Refused {
        exceeded: usize,
        used: Vec<u64>,
        held: Vec<u64>,
    },
    Stale {
        application: Option<Record>,
        service: Option<Version>,
    },
    TakenBack(bool),
    /// It was taken back before it came.
    Buried,
    Reported(bool),
    Heard {
        reply: Reply,
        incarnation: u64,
    },
    /// Of so many applications leases were looked at whose time is over.
    Presumed {
        applications: u64,
        /// How many others something is out on lease of.
        lent: u64,
    },
}

impl Answer {
    pub(super) fn is_admission(&self) -> bool {
        matches!(self, Self::Admitted { .. })
    }
}

/// How many of the asks for the same fit one after the other.
pub(super) struct Fit {
    pub(super) fitting: u64,
    /// The place of the ceiling that refuses the others.
    pub(super) refusing: usize,
    /// What the ceilings held before.
    pub(super) before: Vec<u64>,
    /// What leases hold of each; empty: nothing.
    pub(super) held: Vec<u64>,
}

/// What Redis tells.
pub(super) enum Told {
    /// About one operation.
    Answer(Answer),
    /// About one ask.
    One(Fit),
    /// About all that ask for the same.
    Together(Fit),
}

/// Answers that are not read yet.
pub(super) struct Answers<'a>(&'a [u8]);

impl<'a> Answers<'a> {
    pub(super) fn begin(mut bytes: &'a [u8]) -> Option<Self> {
        read_array_len(&mut bytes).ok()?;
        let mut answers = Self(bytes);
        match answers.number()? {
            0 => {}
            presumed => metrics::counter!("weir_leases_presumed_total").increment(presumed),
        }
        crate::tell_under_admitted(answers.number()?);
        crate::event::tell_dropped(answers.number()?);
        Some(answers)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next, which tells of so many ceilings if it is one to an ask.
    pub(super) fn next(&mut self, ceilings: usize) -> Option<Told> {
        let kind = self.number()?;
        let is_lent = kind & LENT != 0;
        Some(match kind & !LENT {
            0 => Told::Together(self.fit(ceilings, is_lent)?),
            1 => Told::One(self.fit(ceilings, is_lent)?),
            2 => {
                let Fit { before, held, .. } = self.fit(ceilings, is_lent)?;
                Told::Answer(Answer::Admitted { used: before, held })
            }
            3 => {
                let (version, bytes, service) = (self.text()?, self.text()?, self.text()?);
                let version = version.and_then(read_version);
                let application =
                    version.zip(bytes).map(|(version, bytes)| Record { version, bytes: bytes.into() });
                Told::Answer(Answer::Stale { application, service: service.and_then(read_version) })
            }
            4 => Told::Answer(Answer::Buried),
            5 => Told::Answer(Answer::TakenBack(self.number()? == 1)),
            6 => {
                let is_new = self.number()? == 1;
                crate::tell_over_admitted(self.number()?);
                Told::Answer(Answer::Reported(is_new))
            }
            7 => {
                let incarnation = self.number()?;
                Told::Answer(Answer::Heard { reply: self.reply(incarnation)?, incarnation })
            }
            8 => Told::Answer(Answer::Presumed { applications: self.number()?, lent: self.number()? }),
            _ => return None,
        })
    }

    fn fit(&mut self, ceilings: usize, is_lent: bool) -> Option<Fit> {
        Some(Fit {
            fitting: self.number()?,
            refusing: self.number()?.try_into().ok()?,
            before: self.numbers(ceilings)?,
            held: self.numbers(if is_lent { ceilings } else { 0 })?,
        })
    }

    /// What a message about a lease came to.
    fn reply(&mut self, incarnation: u64) -> Option<Reply> {
        Some(match self.number()? {
            0 => {
                let now = Timestamp::from_unix_ms(self.number()?.try_into().ok()?);
                let lease = read_lease(&mut self.text()??)?;
                let units = lease.lines.iter().flat_map(|line| ceilings(&line.unit));
                let named = units.map(|(increment, ceiling)| {
                    let window = ceiling.period.window(lease.moment);
                    Some((&increment.metric, window, self.number()?))
                });
                let named: Vec<_> = named.collect::<Option<_>>()?;
                let taken = |metric: &MetricName, window: &Window| {
                    named
                        .iter()
                        .find(|(m, w, _)| *m == metric && w == window)
                        .map_or(0, |(_, _, taken)| *taken)
                };
                Reply::Granted(grant(&lease, &taken, incarnation, now))
            }
            1 => Reply::Closed,
            2 => Reply::Short,
            _ => return None,
        })
    }

    fn numbers(&mut self, count: usize) -> Option<Vec<u64>> {
        (0..count).map(|_| self.number()).collect()
    }

    fn number(&mut self) -> Option<u64> {
        read_int(&mut self.0).ok()
    }

    /// A text, or nothing where `false` stands in its place.
    fn text(&mut self) -> Option<Option<&'a [u8]>> {
        if let Some(rest) = self.0.strip_prefix(&[rmp::Marker::False.to_u8()]) {
            self.0 = rest;
            return Some(None);
        }
        read_text(&mut self.0).map(Some)
    }
}
