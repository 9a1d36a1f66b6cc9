//! Where spending is written down: a slot of the journal, or nowhere where there is none.
//!
//! Without a journal nothing is lost either: what a killed gateway held counts as used.

use weir_core::lease::{Declared, LINES_MAX, LeaseId};
use weir_core::{ApplicationRef, MetricName, Timestamp};
use weir_journal::{COUNTERS_MAX, ClaimError, Journal, Slot};

/// Behind the lines: counters that hold what the ledger declared of a lease, 48 bits each.
const INCARNATION: usize = LINES_MAX;
const MOMENT: usize = LINES_MAX + 1;
const _: () = assert!(MOMENT < COUNTERS_MAX);

/// Places for what is spent.
pub(super) struct Slots(pub(super) Option<Journal>);

/// The place of a lease or a tally.
#[derive(Debug)]
pub(super) struct Tag(Option<Slot>);

impl Slots {
    /// A place; `None`: the journal is full.
    pub(super) fn claim(&self, record: &Record) -> Option<Tag> {
        let Some(journal) = &self.0 else { return Some(Tag(None)) };
        match journal.claim(&record.bytes(), COUNTERS_MAX) {
            Ok(slot) => Some(Tag(Some(slot))),
            // Unwritten, it counts as used if this gateway is killed.
            Err(ClaimError::RecordTooLong(_) | ClaimError::TooManyCounters(_)) => Some(Tag(None)),
            Err(ClaimError::Full(_)) => None,
        }
    }

    /// Forces what is written to disk.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn sync(&self) -> std::io::Result<()> {
        self.0.as_ref().map_or(Ok(()), Journal::sync)
    }

    /// How many places are taken.
    pub(super) fn depth(&self) -> usize {
        self.0.as_ref().map_or(0, Journal::depth)
    }
}

impl Tag {
    /// The place of what an earlier run left.
    pub(super) fn of(slot: Slot) -> Self {
        Self(Some(slot))
    }

    /// For what must not be written down.
    pub(super) fn nowhere() -> Self {
        Self(None)
    }

    /// What the ledger says of a lease, which it may need to be told again. Written before anything is spent.
    pub(super) fn declare(&self, declared: Declared) {
        let Some(slot) = &self.0 else { return };
        let moment = declared.moment.unix_ms().unsigned_abs();
        for (place, number) in [(MOMENT, moment), (INCARNATION, declared.incarnation)] {
            let known = slot.count(place);
            if known != number {
                slot.take_back(place, known);
                slot.add(place, number);
            }
        }
    }

    /// What was declared of a lease of an earlier run; `None`: it was never granted.
    pub(super) fn declared(&self) -> Option<Declared> {
        let slot = self.0.as_ref()?;
        let (incarnation, moment) = (slot.count(INCARNATION), slot.count(MOMENT));
        let moment = Timestamp::from_unix_ms(i64::try_from(moment).ok()?);
        (incarnation > 0).then_some(Declared { incarnation, moment })
    }

    /// So much is spent of a line.
    pub(super) fn add(&self, line: usize, by: u64) {
        if let Some(slot) = &self.0 {
            slot.add(line, by);
        }
    }

    /// So much of it is not.
    pub(super) fn take_back(&self, line: usize, by: u64) {
        if let Some(slot) = &self.0 {
            slot.take_back(line, by);
        }
    }

    /// Whether it is in the journal.
    pub(super) fn is_written(&self) -> bool {
        self.0.is_some()
    }

    /// It is settled.
    pub(super) fn release(self) {
        if let Some(slot) = self.0 {
            slot.release();
        }
    }
}

/// What the journal keeps beside what is spent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    Lease(LeaseRecord),
    Tally(TallyRecord),
}

/// A lease.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LeaseRecord {
    pub(super) id: LeaseId,
    pub(super) application: ApplicationRef,
    pub(super) metrics: Vec<MetricName>,
}

/// What passed in an outage.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TallyRecord {
    pub(super) id: [u8; 16],
    pub(super) application: ApplicationRef,
    /// Since 1970.
    pub(super) minute: i64,
    pub(super) metrics: Vec<MetricName>,
    /// What kind of a tally it is.
    pub(super) kind: TallyKind,
}

/// What a tally holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum TallyKind {
    /// What an application used.
    Known,
    /// What somebody used whom nobody has accepted: theirs are apart, so that what is known of others is in the journal.
    Stranger,
    /// What calls of an application did not cost after all.
    GivenBack,
}

const LEASE: u8 = 1;
const TALLY: u8 = 2;
const STRANGERS_TALLY: u8 = 3;
const GIVEN_BACK: u8 = 4;

impl Record {
    fn metrics(&self) -> &[MetricName] {
        match self {
            Self::Lease(LeaseRecord { metrics, .. }) | Self::Tally(TallyRecord { metrics, .. }) => metrics,
        }
    }

    /// Its kind, its name, then texts in lines.
    fn bytes(&self) -> Vec<u8> {
        let (kind, id, number, application) = match self {
            Self::Lease(lease) => (LEASE, lease.id.boot, lease.id.sequence, &lease.application),
            Self::Tally(tally) => {
                let kind = match tally.kind {
                    TallyKind::Known => TALLY,
                    TallyKind::Stranger => STRANGERS_TALLY,
                    TallyKind::GivenBack => GIVEN_BACK,
                };
                (kind, tally.id, tally.minute.unsigned_abs(), &tally.application)
            }
        };
        let mut bytes = vec![kind];
        bytes.extend_from_slice(&id);
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(application.to_string().as_bytes());
        for metric in self.metrics() {
            bytes.push(b'\n');
            bytes.extend_from_slice(metric.as_str().as_bytes());
        }
        bytes
    }

    /// Reads one; `None`: it is none.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        let (id, rest) = rest.split_first_chunk::<16>()?;
        let (number, rest) = rest.split_first_chunk::<8>()?;
        let number = u64::from_le_bytes(*number);
        let mut texts = std::str::from_utf8(rest).ok()?.split('\n');
        let application = texts.next()?.parse().ok()?;
        let metrics = texts.map(MetricName::parse).collect::<Result<_, _>>().ok()?;
        let kind = match *kind {
            LEASE => {
                let id = LeaseId { boot: *id, sequence: number };
                return Some(Self::Lease(LeaseRecord { id, application, metrics }));
            }
            TALLY => TallyKind::Known,
            STRANGERS_TALLY => TallyKind::Stranger,
            GIVEN_BACK => TallyKind::GivenBack,
            _ => return None,
        };
        let minute = i64::try_from(number).ok()?;
        Some(Self::Tally(TallyRecord { id: *id, application, minute, metrics, kind }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_written() {
        let application: ApplicationRef = "mail_api/globex".parse().unwrap();
        let metrics: Vec<MetricName> = vec!["hits".parse().unwrap(), "mail/sent".parse().unwrap()];
        let id = LeaseId { boot: [9; 16], sequence: 1 << 40 };
        let lease =
            Record::Lease(LeaseRecord { id, application: application.clone(), metrics: metrics.clone() });
        assert_eq!(Record::read(&lease.bytes()), Some(lease));
        for kind in [TallyKind::Known, TallyKind::Stranger, TallyKind::GivenBack] {
            let (application, metrics) = (application.clone(), metrics.clone());
            let record = TallyRecord { id: [7; 16], application, minute: 29_923_412, metrics, kind };
            let tally = Record::Tally(record);
            assert_eq!(Record::read(&tally.bytes()), Some(tally));
        }
        assert_eq!(Record::read(b"short"), None);
    }
}
