//! Where a lease's spending is written down: a slot of the journal, or nowhere where there is none.
//!
//! Without a journal nothing is lost either: what a killed gateway held counts as used.

use weir_core::lease::LeaseId;
use weir_core::{ApplicationRef, MetricName};
use weir_journal::{Journal, Slot};

/// Places for leases.
pub(super) struct Slots(pub(super) Option<Journal>);

/// A lease's place.
#[derive(Debug)]
pub(super) struct Tag(Option<Slot>);

impl Slots {
    /// A place for a lease that is about to be asked for; `None`: the journal is full.
    pub(super) fn claim(
        &self,
        id: LeaseId,
        application: &ApplicationRef,
        metrics: &mut dyn Iterator<Item = &MetricName>,
    ) -> Option<Tag> {
        let Some(journal) = &self.0 else { return Some(Tag(None)) };
        let record = Record::new(id, application, metrics);
        let slot = journal.claim(&record.bytes(), record.metrics.len()).ok()?;
        Some(Tag(Some(slot)))
    }
}

impl Slots {
    /// How many leases are written down.
    pub(super) fn depth(&self) -> usize {
        self.0.as_ref().map_or(0, Journal::depth)
    }
}

impl Tag {
    /// The place of a lease of an earlier run.
    pub(super) fn of(slot: Slot) -> Self {
        Self(Some(slot))
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

    /// The lease is over.
    pub(super) fn release(self) {
        if let Some(slot) = self.0 {
            slot.release();
        }
    }
}

/// What the journal keeps of a lease, beside what is spent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) id: LeaseId,
    pub(super) application: ApplicationRef,
    pub(super) metrics: Vec<MetricName>,
}

impl Record {
    fn new(
        id: LeaseId,
        application: &ApplicationRef,
        metrics: &mut dyn Iterator<Item = &MetricName>,
    ) -> Self {
        Self { id, application: application.clone(), metrics: metrics.cloned().collect() }
    }

    /// Its name, then texts in lines.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.id.boot.to_vec();
        bytes.extend_from_slice(&self.id.sequence.to_le_bytes());
        bytes.extend_from_slice(self.application.to_string().as_bytes());
        for metric in &self.metrics {
            bytes.push(b'\n');
            bytes.extend_from_slice(metric.as_str().as_bytes());
        }
        bytes
    }

    /// Reads one; `None`: it is none.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (boot, rest) = bytes.split_first_chunk::<16>()?;
        let (sequence, rest) = rest.split_first_chunk::<8>()?;
        let mut texts = std::str::from_utf8(rest).ok()?.split('\n');
        let application = texts.next()?.parse().ok()?;
        let metrics: Result<_, _> = texts.map(MetricName::parse).collect();
        let id = LeaseId { boot: *boot, sequence: u64::from_le_bytes(*sequence) };
        Some(Self { id, application, metrics: metrics.ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_written() {
        let record = Record {
            id: LeaseId { boot: [9; 16], sequence: 1 << 40 },
            application: "mail_api/globex".parse().unwrap(),
            metrics: vec!["hits".parse().unwrap(), "mail/sent".parse().unwrap()],
        };
        assert_eq!(Record::read(&record.bytes()), Some(record));
        assert_eq!(Record::read(b"short"), None);
    }
}
