//! What the log of the embedded store holds: one entry per step, in serde-free MessagePack.
//!
//! Entries say what changed, not the result, so replay skips those that an application's checkpoint already holds
//! (by their number).

use rmp::decode::{RmpRead, read_array_len, read_bin_len, read_int, read_str_len};
use rmp::encode::{write_array_len, write_bin, write_sint, write_str, write_uint};
use weir_core::{ApplicationRef, Increment, KeyHash, MetricName, Period, ServiceId, Timestamp, UsageValue};

use super::ledger::Services;
use crate::key::shard_of;
use crate::{Entry, Publication, PublishedApplication, Record, RequestId};

/// One step.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum LogEntry {
    /// A request or report was counted.
    Counted {
        shard: usize,
        request: RequestId,
        attempt: u32,
        /// Empty for requests and for reports without one.
        idempotency_id: Vec<u8>,
        at: Timestamp,
        usages: Vec<Usage>,
    },
    /// It was taken back.
    TakenBack {
        request: RequestId,
        application: ApplicationRef,
    },
    Application(ApplicationChange),
    Service(ServiceChange),
    Revision {
        revision: u64,
        digest: u64,
    },
}

/// Usage of one application at one moment.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Usage {
    pub(super) application: ApplicationRef,
    pub(super) at: Timestamp,
    pub(super) rows: Vec<Row>,
    /// What each counter held that a set value replaced, in the order of rows and periods.
    pub(super) replaced: Vec<u64>,
}

/// One metric of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) metric: MetricName,
    pub(super) value: UsageValue,
    pub(super) by_minute: bool,
}

/// An application put in place, or gone when it has no record.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ApplicationChange {
    pub(super) application: ApplicationRef,
    pub(super) record: Option<Record>,
    pub(super) user_key: Option<KeyHash>,
}

impl ApplicationChange {
    pub(super) fn put(published: &PublishedApplication) -> Self {
        Self {
            application: published.application.clone(),
            record: Some(published.record.clone()),
            user_key: published.user_key.clone(),
        }
    }
}

/// A service put in place, or gone when it has no record.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ServiceChange {
    pub(super) id: ServiceId,
    pub(super) record: Option<Record>,
}

impl ServiceChange {
    /// All that a publication changes.
    pub(super) fn all(publication: &Publication, held: &Services) -> Vec<Self> {
        let put = publication
            .services
            .iter()
            .filter(|(id, record)| held.records.get(id) != Some(record))
            .map(|(id, record)| Self { id: id.clone(), record: Some(record.clone()) });
        let named = |id: &ServiceId| publication.services.iter().any(|(named, _)| named == id);
        let gone = held
            .records
            .keys()
            .filter(|id| publication.complete && !named(id))
            .chain(&publication.removed_services)
            .map(|id| Self { id: id.clone(), record: None });
        put.chain(gone).collect()
    }
}

impl LogEntry {
    pub(super) fn counted(
        request: RequestId,
        attempt: u32,
        application: ApplicationRef,
        increments: &[Increment],
        at: Timestamp,
    ) -> Self {
        let shard = shard_of(&application);
        let usages = vec![Usage { application, at, rows: rows(increments), replaced: vec![] }];
        Self::Counted { shard, request, attempt, idempotency_id: vec![], at, usages }
    }

    pub(super) fn reported(shard: usize, idempotency_id: &[u8], entries: Vec<Entry>, at: Timestamp) -> Self {
        let usage = |entry: Entry| Usage {
            application: entry.application,
            at: entry.at.unwrap_or(at),
            rows: rows(&entry.increments),
            replaced: vec![],
        };
        Self::Counted {
            shard,
            request: RequestId([0; 16]),
            attempt: 0,
            idempotency_id: idempotency_id.to_vec(),
            at,
            usages: entries.into_iter().map(usage).collect(),
        }
    }

    /// When it happened, where that matters.
    pub(super) fn at(&self) -> Timestamp {
        match self {
            Self::Counted { at, .. } => *at,
            _ => Timestamp::default(),
        }
    }
}

fn rows(increments: &[Increment]) -> Vec<Row> {
    increments
        .iter()
        .map(|increment| Row {
            metric: increment.metric.clone(),
            value: increment.value,
            by_minute: increment.periods()[0] == Period::Minute,
        })
        .collect()
}

const COUNTED: u64 = 1;
const TAKEN_BACK: u64 = 2;
const APPLICATION: u64 = 3;
const SERVICE: u64 = 4;
const REVISION: u64 = 5;

type Encoded = Result<(), rmp::encode::ValueWriteError>;

impl LogEntry {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        // Writing to a Vec cannot fail.
        self.write(out).expect("memory takes all bytes");
    }

    fn write(&self, out: &mut Vec<u8>) -> Encoded {
        match self {
            Self::Counted { shard, request, attempt, idempotency_id, at, usages } => {
                write_uint(out, COUNTED)?;
                write_uint(out, *shard as u64)?;
                write_bin(out, &request.0)?;
                write_uint(out, (*attempt).into())?;
                write_bin(out, idempotency_id)?;
                write_sint(out, at.unix_ms())?;
                write_len(out, usages.len())?;
                for usage in usages {
                    write_usage(out, usage)?;
                }
            }
            Self::TakenBack { request, application } => {
                write_uint(out, TAKEN_BACK)?;
                write_bin(out, &request.0)?;
                write_str(out, &application.to_string())?;
            }
            Self::Application(change) => {
                write_uint(out, APPLICATION)?;
                write_str(out, &change.application.to_string())?;
                write_record(out, change.record.as_ref())?;
                let user_key = change.user_key.as_ref().map(KeyHash::to_string).unwrap_or_default();
                write_str(out, &user_key)?;
            }
            Self::Service(change) => {
                write_uint(out, SERVICE)?;
                write_str(out, change.id.as_str())?;
                write_record(out, change.record.as_ref())?;
            }
            Self::Revision { revision, digest } => {
                write_uint(out, REVISION)?;
                write_uint(out, *revision)?;
                write_uint(out, *digest)?;
            }
        }
        Ok(())
    }

    /// Reads an entry; `None` when the bytes are none.
    pub(super) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let from = &mut bytes;
        Some(match read_int(from).ok()? {
            COUNTED => Self::Counted {
                shard: read_int(from).ok()?,
                request: RequestId(read_bytes(from)?.try_into().ok()?),
                attempt: read_int(from).ok()?,
                idempotency_id: read_bytes(from)?,
                at: read_timestamp(from)?,
                usages: read_list(from, read_usage)?,
            },
            TAKEN_BACK => Self::TakenBack {
                request: RequestId(read_bytes(from)?.try_into().ok()?),
                application: read_text(from)?.parse().ok()?,
            },
            APPLICATION => Self::Application(ApplicationChange {
                application: read_text(from)?.parse().ok()?,
                record: read_record(from)?,
                user_key: match read_text(from)?.as_str() {
                    "" => None,
                    hash => Some(hash.parse().ok()?),
                },
            }),
            SERVICE => Self::Service(ServiceChange {
                id: read_text(from)?.parse().ok()?,
                record: read_record(from)?,
            }),
            REVISION => Self::Revision { revision: read_int(from).ok()?, digest: read_int(from).ok()? },
            _ => return None,
        })
    }
}

pub(super) fn write_len(out: &mut Vec<u8>, n: usize) -> Encoded {
    write_array_len(out, u32::try_from(n).unwrap_or(u32::MAX)).map(|_| ())
}

fn write_usage(out: &mut Vec<u8>, usage: &Usage) -> Encoded {
    write_str(out, &usage.application.to_string())?;
    write_sint(out, usage.at.unix_ms())?;
    write_len(out, usage.rows.len())?;
    for row in &usage.rows {
        write_str(out, row.metric.as_str())?;
        let (sets, value) = match row.value {
            UsageValue::Add(by) => (0, by),
            UsageValue::Set(to) => (1, to),
        };
        write_uint(out, u64::from(row.by_minute) * 2 + sets)?;
        write_uint(out, value)?;
    }
    write_len(out, usage.replaced.len())?;
    for held in &usage.replaced {
        write_uint(out, *held)?;
    }
    Ok(())
}

fn read_usage(from: &mut &[u8]) -> Option<Usage> {
    Some(Usage {
        application: read_text(from)?.parse().ok()?,
        at: read_timestamp(from)?,
        rows: read_list(from, |from| {
            let metric = read_text(from)?.parse().ok()?;
            let flags: u64 = read_int(from).ok()?;
            let value = read_int(from).ok()?;
            let value = if flags & 1 == 1 { UsageValue::Set(value) } else { UsageValue::Add(value) };
            Some(Row { metric, value, by_minute: flags & 2 == 2 })
        })?,
        replaced: read_list(from, |from| read_int(from).ok())?,
    })
}

pub(super) fn write_record(out: &mut Vec<u8>, record: Option<&Record>) -> Encoded {
    write_uint(out, record.is_some().into())?;
    write_bin(out, record.map(|record| &record.bytes[..]).unwrap_or_default())
}

pub(super) fn read_record(from: &mut &[u8]) -> Option<Option<Record>> {
    let present: u64 = read_int(from).ok()?;
    let bytes = read_bytes(from)?;
    Some((present == 1).then(|| Record::new(bytes)))
}

pub(super) fn read_list<T>(from: &mut &[u8], read: impl Fn(&mut &[u8]) -> Option<T>) -> Option<Vec<T>> {
    let length = read_array_len(from).ok()?;
    (0..length).map(|_| read(from)).collect()
}

pub(super) fn read_timestamp(from: &mut &[u8]) -> Option<Timestamp> {
    read_int(from).ok().map(Timestamp::from_unix_ms)
}

pub(super) fn read_bytes(from: &mut &[u8]) -> Option<Vec<u8>> {
    let length = read_bin_len(from).ok()? as usize;
    take(from, length)
}

pub(super) fn read_text(from: &mut &[u8]) -> Option<String> {
    let length = read_str_len(from).ok()? as usize;
    String::from_utf8(take(from, length)?).ok()
}

/// A length that the bytes do not hold is refused before memory is asked for.
fn take(from: &mut &[u8], length: usize) -> Option<Vec<u8>> {
    if length > from.len() {
        return None;
    }
    let mut bytes = vec![0; length];
    from.read_exact_buf(&mut bytes).ok()?;
    Some(bytes)
}
