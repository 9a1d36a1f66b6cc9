//! What the log of the embedded store holds: one entry per step.
//!
//! Accounts and metrics are written by their numbers, which they get in the order in which they first appear. Entries
//! say what changed, not the result, so replay skips those that an account of the checkpoint already holds (by their
//! number).

use weir_core::lease::LeaseId;
use weir_core::{Increment, Period, Timestamp, UsageValue};

use super::bytes::{Reader, put_bytes, put_number, put_optional};
use super::events::Told;
use crate::RequestId;

/// One step, as it lies in the log.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Entry<'a> {
    /// An account begins, under the next number: `service/application`.
    Account(&'a str),
    /// A metric begins, under the next number.
    Metric(&'a str),
    /// A request was counted, or what a report says of one application.
    Counted(Counted<'a>),
    /// What a report gives back: its idempotency id as in [`Counted`], when it came, and a [`Usage`].
    GivenBack { id: &'a [u8], at: Timestamp, usage: &'a [u8] },
    /// A request was taken back: its [`Usage`].
    TakenBack { request: RequestId, usage: &'a [u8] },
    /// An application is put in place, or gone when it has no record.
    Application { account: usize, record: Option<&'a [u8]>, user_key: Option<&'a str> },
    /// A service is put in place, or gone when it has no record.
    Service { id: &'a str, record: Option<&'a [u8]> },
    /// What became of a lease.
    Leased(Leased<'a>),
    /// A publication is complete.
    Revision { revision: u64, digest: u64 },
    /// An error joins the list of a service.
    ErrorKept { service: &'a str, error: &'a [u8] },
    /// The error list of a service is emptied.
    ErrorsForgotten { service: &'a str },
    /// Something happened to an application.
    Told(Told),
    /// Events were acknowledged: a list of the numbers of their entries, ascending.
    Acknowledged { numbers: &'a [u8] },
}

/// What was counted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Counted<'a> {
    /// All zeros for reports.
    pub(super) request: RequestId,
    pub(super) attempt: u32,
    pub(super) at: Timestamp,
    /// Empty for requests, for reports without one, and for all of a report but its first.
    pub(super) idempotency_id: &'a [u8],
    /// A [`Usage`].
    pub(super) usage: &'a [u8],
}

/// What became of a lease, and what that counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Leased<'a> {
    pub(super) account: usize,
    pub(super) id: LeaseId,
    pub(super) at: Timestamp,
    /// Empty: it is no more.
    pub(super) lease: &'a [u8],
    /// A [`Usage`] or nothing.
    pub(super) raised: &'a [u8],
    /// A [`Usage`] or nothing.
    pub(super) lowered: &'a [u8],
}

/// Usage of one account at one moment: how many rows follow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Usage {
    pub(super) account: usize,
    pub(super) at: Timestamp,
    rows: u32,
}

/// One metric of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Row {
    pub(super) metric: u32,
    pub(super) value: UsageValue,
    by_minute: bool,
    /// What each counter held that a set value replaced, in the order of periods.
    pub(super) replaced: [u64; 7],
}

const ACCOUNT: u64 = 1;
const METRIC: u64 = 2;
const COUNTED: u64 = 3;
const TAKEN_BACK: u64 = 4;
const APPLICATION: u64 = 5;
const SERVICE: u64 = 6;
const REVISION: u64 = 7;
const LEASED: u64 = 8;
const ERROR_KEPT: u64 = 9;
const ERRORS_FORGOTTEN: u64 = 10;
const TOLD: u64 = 11;
const ACKNOWLEDGED: u64 = 12;
const GIVEN_BACK: u64 = 13;

impl<'a> Entry<'a> {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Account(name) => put_kind_and_text(out, ACCOUNT, name),
            Self::Metric(name) => put_kind_and_text(out, METRIC, name),
            Self::Counted(counted) => {
                counted.write_head(out);
                out.extend_from_slice(counted.usage);
            }
            Self::GivenBack { id, at, usage } => {
                put_number(out, GIVEN_BACK);
                put_bytes(out, id);
                put_timestamp(out, *at);
                out.extend_from_slice(usage);
            }
            Self::TakenBack { request, usage } => {
                put_number(out, TAKEN_BACK);
                out.extend_from_slice(&request.0);
                out.extend_from_slice(usage);
            }
            Self::Application { account, record, user_key } => {
                put_number(out, APPLICATION);
                put_number(out, *account as u64);
                put_optional(out, *record);
                put_optional(out, user_key.map(str::as_bytes));
            }
            Self::Service { id, record } => {
                put_kind_and_text(out, SERVICE, id);
                put_optional(out, *record);
            }
            Self::Leased(leased) => leased.write(out),
            Self::Revision { revision, digest } => {
                put_number(out, REVISION);
                put_number(out, *revision);
                put_number(out, *digest);
            }
            Self::ErrorKept { service, error } => {
                put_kind_and_text(out, ERROR_KEPT, service);
                put_bytes(out, error);
            }
            Self::ErrorsForgotten { service } => put_kind_and_text(out, ERRORS_FORGOTTEN, service),
            Self::Told(told) => {
                put_number(out, TOLD);
                told.write(out);
            }
            Self::Acknowledged { numbers } => {
                put_number(out, ACKNOWLEDGED);
                out.extend_from_slice(numbers);
            }
        }
    }

    /// Reads an entry; `None` when the bytes are none.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let from = &mut Reader(bytes);
        Some(match from.number()? {
            ACCOUNT => Self::Account(from.text()?),
            METRIC => Self::Metric(from.text()?),
            COUNTED => Self::Counted(Counted {
                request: RequestId(from.array()?),
                attempt: from.small()?,
                at: read_timestamp(from)?,
                idempotency_id: from.bytes()?,
                usage: from.0,
            }),
            GIVEN_BACK => Self::GivenBack { id: from.bytes()?, at: read_timestamp(from)?, usage: from.0 },
            TAKEN_BACK => Self::TakenBack { request: RequestId(from.array()?), usage: from.0 },
            APPLICATION => Self::Application {
                account: from.small()?,
                record: from.optional()?,
                user_key: match from.optional()? {
                    Some(hash) => Some(std::str::from_utf8(hash).ok()?),
                    None => None,
                },
            },
            SERVICE => Self::Service { id: from.text()?, record: from.optional()? },
            LEASED => Self::Leased(Leased::read(from)?),
            REVISION => Self::Revision { revision: from.number()?, digest: from.number()? },
            ERROR_KEPT => Self::ErrorKept { service: from.text()?, error: from.bytes()? },
            ERRORS_FORGOTTEN => Self::ErrorsForgotten { service: from.text()? },
            TOLD => Self::Told(Told::read(from)?),
            ACKNOWLEDGED => Self::Acknowledged { numbers: from.0 },
            _ => return None,
        })
    }
}

fn put_kind_and_text(out: &mut Vec<u8>, kind: u64, text: &str) {
    put_number(out, kind);
    put_bytes(out, text.as_bytes());
}

impl<'a> Leased<'a> {
    fn write(&self, out: &mut Vec<u8>) {
        put_number(out, LEASED);
        put_number(out, self.account as u64);
        out.extend_from_slice(&self.id.boot);
        put_number(out, self.id.sequence);
        put_timestamp(out, self.at);
        for part in [self.lease, self.raised, self.lowered] {
            put_bytes(out, part);
        }
    }

    fn read(from: &mut Reader<'a>) -> Option<Self> {
        Some(Self {
            account: from.small()?,
            id: LeaseId { boot: from.array()?, sequence: from.number()? },
            at: read_timestamp(from)?,
            lease: from.bytes()?,
            raised: from.bytes()?,
            lowered: from.bytes()?,
        })
    }
}

impl Counted<'_> {
    /// Everything but the usage, which follows.
    pub(super) fn write_head(&self, out: &mut Vec<u8>) {
        put_number(out, COUNTED);
        out.extend_from_slice(&self.request.0);
        put_number(out, self.attempt.into());
        put_timestamp(out, self.at);
        put_bytes(out, self.idempotency_id);
    }
}

impl Usage {
    /// Appends one; `number` tells a metric's, `held` what its counter in a period holds.
    pub(super) fn write(
        out: &mut Vec<u8>,
        account: usize,
        at: Timestamp,
        increments: &[Increment],
        metrics: &[u32],
        held: impl Fn(u32, Period) -> u64,
    ) {
        put_number(out, account as u64);
        put_timestamp(out, at);
        // What is only looked at leaves nothing behind.
        let counts = |(increment, _): &(&Increment, &u32)| increment.value != UsageValue::Add(0);
        let rows = increments.iter().zip(metrics).filter(counts);
        put_number(out, rows.clone().count() as u64);
        for (increment, metric) in rows {
            let (sets, value) = match increment.value {
                UsageValue::Add(by) => (false, by),
                UsageValue::Set(to) => (true, to),
            };
            let by_minute = increment.periods()[0] == Period::Minute;
            put_number(out, u64::from(*metric) * 4 + u64::from(by_minute) * 2 + u64::from(sets));
            put_number(out, value);
            if sets {
                increment.periods().iter().for_each(|period| put_number(out, held(*metric, *period)));
            }
        }
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Option<Self> {
        Some(Self { account: from.small()?, at: read_timestamp(from)?, rows: from.small()? })
    }

    /// Its rows, read one by one: `None` for one that is broken.
    pub(super) fn rows<'a>(self, from: &'a mut Reader<'_>) -> impl Iterator<Item = Option<Row>> + 'a {
        (0..self.rows).map(move |_| Row::read(from))
    }
}

impl Row {
    fn read(from: &mut Reader<'_>) -> Option<Self> {
        let metric_and_flags = from.number()?;
        let value = from.number()?;
        let (by_minute, sets) = (metric_and_flags & 2 == 2, metric_and_flags & 1 == 1);
        let mut row = Self {
            metric: u32::try_from(metric_and_flags / 4).ok()?,
            value: if sets { UsageValue::Set(value) } else { UsageValue::Add(value) },
            by_minute,
            replaced: [0; 7],
        };
        if sets {
            for period in row.periods() {
                row.replaced[period.index()] = from.number()?;
            }
        }
        Some(row)
    }

    pub(super) fn periods(&self) -> &'static [Period] {
        if self.by_minute { &Period::ALL } else { &Period::ALL[1..] }
    }
}

fn put_timestamp(out: &mut Vec<u8>, at: Timestamp) {
    put_number(out, at.unix_ms().unsigned_abs());
}

fn read_timestamp(from: &mut Reader<'_>) -> Option<Timestamp> {
    from.small().map(Timestamp::from_unix_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_core::AlertBins;
    use weir_core::counter::Ceiling;

    #[track_caller]
    fn check(entry: &Entry<'_>) {
        let mut bytes = vec![];
        entry.write(&mut bytes);
        assert_eq!(Entry::read(&bytes).as_ref(), Some(entry));
        for end in 0..bytes.len() {
            // Cut short it is another entry at most, never a panic.
            let _ = Entry::read(&bytes[..end]);
        }
    }

    #[test]
    fn entries_are_read_as_written() {
        check(&Entry::Account("api/a/b"));
        check(&Entry::Metric("hits"));
        check(&Entry::TakenBack { request: RequestId([7; 16]), usage: b"usage" });
        check(&Entry::Application { account: 3, record: Some(b"record"), user_key: Some("hmac:1:00") });
        check(&Entry::Application { account: 0, record: None, user_key: None });
        check(&Entry::Service { id: "api", record: Some(b"") });
        check(&Entry::Revision { revision: u64::MAX, digest: 1 });
        check(&Entry::ErrorKept { service: "api", error: b"error" });
        check(&Entry::ErrorsForgotten { service: "api" });
        check(&Entry::Acknowledged { numbers: b"numbers" });
        check(&Entry::Counted(Counted {
            request: RequestId([9; 16]),
            attempt: 4,
            at: Timestamp::from_unix_ms(1_795_404_719_123),
            idempotency_id: b"id",
            usage: b"usage",
        }));
        assert_eq!(Entry::read(&[99]), None);
    }

    #[test]
    fn usages_are_read_as_written() {
        let increment = |value, period| Increment {
            metric: "hits".parse().unwrap(),
            value,
            ceilings: vec![Ceiling { period, max: 9 }],
            alert_bins: AlertBins::NONE,
        };
        let increments =
            [increment(UsageValue::Add(3), Period::Minute), increment(UsageValue::Set(5), Period::Day)];
        let at = Timestamp::from_unix_ms(1_795_404_719_123);
        let mut out = vec![];
        Usage::write(&mut out, 70_000, at, &increments, &[0, 300], |_, period| period.index() as u64);
        let mut from = Reader(&out);
        let usage = Usage::read(&mut from).unwrap();
        assert_eq!((usage.account, usage.at), (70_000, at));
        let rows: Vec<Row> = usage.rows(&mut from).map(Option::unwrap).collect();
        let adds = Row { metric: 0, value: UsageValue::Add(3), by_minute: true, replaced: [0; 7] };
        let sets =
            Row { metric: 300, value: UsageValue::Set(5), by_minute: false, replaced: [0, 1, 2, 3, 4, 5, 6] };
        assert_eq!(rows, [adds, sets]);
        assert!(from.is_empty());
    }
}
