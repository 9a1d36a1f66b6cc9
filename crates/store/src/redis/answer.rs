//! What comes of operations, and how Redis tells it: one list of values per shard, read from the front.

use rmp::decode::{read_array_len, read_int, read_str_len};

use super::batch::read_version;
use crate::{Record, Version};

/// What one operation came to.
#[derive(Debug)]
pub(super) enum Answer {
    Admitted {
        used: Vec<u64>,
    },
    Refused {
        exceeded: usize,
        used: Vec<u64>,
    },
    Stale {
        application: Option<Record>,
        service: Option<Version>,
    },
    TakenBack(bool),
    /// It was taken back before it came.
    Buried,
    Reported(bool),
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
        Some(Self(bytes))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next, which tells of so many ceilings if it is one to an ask.
    pub(super) fn next(&mut self, ceilings: usize) -> Option<Told> {
        Some(match self.number()? {
            0 => Told::Together(self.fit(ceilings)?),
            1 => Told::One(self.fit(ceilings)?),
            2 => Told::Answer(Answer::Admitted { used: self.fit(ceilings)?.before }),
            3 => {
                let (version, bytes, service) = (self.text()?, self.text()?, self.text()?);
                let version = version.and_then(read_version);
                let application =
                    version.zip(bytes).map(|(version, bytes)| Record { version, bytes: bytes.into() });
                Told::Answer(Answer::Stale { application, service: service.and_then(read_version) })
            }
            4 => Told::Answer(Answer::Buried),
            5 => Told::Answer(Answer::TakenBack(self.number()? == 1)),
            6 => Told::Answer(Answer::Reported(self.number()? == 1)),
            _ => return None,
        })
    }

    fn fit(&mut self, ceilings: usize) -> Option<Fit> {
        Some(Fit {
            fitting: self.number()?,
            refusing: self.number()?.try_into().ok()?,
            before: (0..ceilings).map(|_| self.number()).collect::<Option<_>>()?,
        })
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
        let bytes = usize::try_from(read_str_len(&mut self.0).ok()?).ok()?;
        let (text, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(Some(text))
    }
}
