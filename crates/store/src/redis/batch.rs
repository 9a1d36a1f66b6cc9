//! The wire form of a batch: operations as MessagePack, answers back from Redis' own types.
//!
//! `functions.lua` documents the shapes; this is their only other end.

use std::time::Duration;

use redis::Value;
use rmp::encode::{write_array_len, write_sint, write_str, write_str_len, write_uint};
use weir_core::{COUNT_MAX, Increment, Period, Timestamp, UsageValue};

use crate::key::window_expiry;
use crate::{Ask, Entry, Mode, Record, RequestId, StoreError, Version};

/// One operation, encoded.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) id: RequestId,
    body: Body,
    /// Asks whose outcome may be known are looked up; the others are safe to repeat as they are.
    pub(super) looked_up: bool,
}

#[derive(Debug)]
enum Body {
    Ask(Ask),
    Report { idempotency_id: Vec<u8>, entries: Vec<Entry> },
    Cancel { attempt: Option<u32> },
}

impl Operation {
    pub(super) fn ask(ask: Ask) -> Self {
        Self { id: ask.request, looked_up: ask.attempt > 0, body: Body::Ask(ask) }
    }

    /// Without an idempotency id of its own a report gets one that only this process knows, so that sending it
    /// again after an unknown outcome is safe all the same.
    pub(super) fn report(part: usize, idempotency_id: &[u8], entries: Vec<Entry>) -> Self {
        let mut id = [0; 16];
        // Without random numbers ids could repeat, and a report be taken for another: the process cannot go on.
        getrandom::fill(&mut id).expect("the system gives random bytes");
        let name = if idempotency_id.is_empty() { &id[..] } else { idempotency_id };
        let idempotency_id = [format!("{part}:").as_bytes(), name].concat();
        Self { id: RequestId(id), looked_up: false, body: Body::Report { idempotency_id, entries } }
    }

    pub(super) fn cancel(id: RequestId, attempt: Option<u32>) -> Self {
        Self { id, looked_up: false, body: Body::Cancel { attempt } }
    }

    /// What takes this back for a caller that left; `None` when it counts nothing.
    pub(super) fn undo(&self) -> Option<Self> {
        match &self.body {
            Body::Ask(ask) if ask.mode == Mode::Count && !ask.increments.is_empty() => {
                Some(Self::cancel(self.id, Some(ask.attempt)))
            }
            _ => None,
        }
    }

    /// Whether this asks for the same as another operation, so that they can be decided together: only first attempts
    /// that add.
    fn asks_like(&self, other: &Self) -> bool {
        let (Body::Ask(ask), Body::Ask(other_ask)) = (&self.body, &other.body) else { return false };
        let is_plain = |operation: &Self, ask: &Ask| {
            !operation.looked_up && ask.mode == Mode::Count && ask.attempt == 0 && !ask.increments.is_empty()
        };
        is_plain(self, ask)
            && is_plain(other, other_ask)
            && ask.application == other_ask.application
            && ask.application_version == other_ask.application_version
            && ask.service_version == other_ask.service_version
            && ask.increments == other_ask.increments
            && ask.increments.iter().all(|increment| matches!(increment.value, UsageValue::Add(_)))
    }

    /// What the ceilings hold once it was counted so many times.
    fn used_after(&self, before: &[u64], times: u64) -> Vec<u64> {
        let Body::Ask(ask) = &self.body else { return vec![] };
        let values = ask.increments.iter().flat_map(|increment| {
            let (UsageValue::Add(value) | UsageValue::Set(value)) = increment.value;
            increment.ceilings.iter().map(move |_| value)
        });
        let after =
            |(before, value): (&u64, u64)| before.saturating_add(value.saturating_mul(times)).min(COUNT_MAX);
        before.iter().zip(values).map(after).collect()
    }

    /// The values of an operation, one after the other.
    fn write(&self, out: &mut Vec<u8>) -> Encoded {
        match &self.body {
            Body::Ask(ask) => {
                write_str(out, "A")?;
                write_bytes(out, &self.id.0)?;
                write_uint(out, self.looked_up.into())?;
                write_str(out, &ask.application.to_string())?;
                write_str(out, &version_text(ask.application_version))?;
                write_str(out, ask.application.service.as_str())?;
                write_str(out, &version_text(ask.service_version))?;
                write_uint(out, (ask.mode == Mode::Count).into())?;
                write_uint(out, ask.attempt.into())?;
                write_increments(out, &ask.increments)?;
            }
            Body::Report { idempotency_id, entries } => {
                write_str(out, "R")?;
                write_bytes(out, idempotency_id)?;
                write_array_len(out, length(entries.len()))?;
                for entry in entries {
                    write_entry(out, entry)?;
                }
            }
            Body::Cancel { attempt } => {
                write_str(out, "C")?;
                write_bytes(out, &self.id.0)?;
                write_sint(out, attempt.map_or(-1, i64::from))?;
            }
        }
        Ok(())
    }
}

type Encoded = Result<(), rmp::encode::ValueWriteError>;

/// As a text, since Redis' decoder knows no binary type; its texts take any bytes.
fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) -> Encoded {
    write_str_len(out, length(bytes.len()))?;
    out.extend_from_slice(bytes);
    Ok(())
}

fn length(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// As a text in MessagePack of its own, by which Redis recognises increments that it has read before.
fn write_increments(out: &mut Vec<u8>, increments: &[Increment]) -> Encoded {
    let mut packed = Vec::with_capacity(128);
    write_array_len(&mut packed, length(increments.len()))?;
    for increment in increments {
        let (sets, value) = match increment.value {
            UsageValue::Add(by) => (0, by),
            UsageValue::Set(to) => (1, to),
        };
        write_array_len(&mut packed, length(4 + 2 * increment.ceilings.len()))?;
        write_str(&mut packed, increment.metric.as_str())?;
        write_uint(&mut packed, sets)?;
        write_uint(&mut packed, value.min(COUNT_MAX))?;
        write_uint(&mut packed, lua_index(increment.periods()[0]))?;
        for ceiling in &increment.ceilings {
            write_uint(&mut packed, lua_index(ceiling.period))?;
            write_uint(&mut packed, ceiling.max.min(COUNT_MAX))?;
        }
    }
    write_bytes(out, &packed)
}

fn write_entry(out: &mut Vec<u8>, entry: &Entry) -> Encoded {
    write_array_len(out, if entry.at.is_some() { 4 } else { 2 })?;
    write_str(out, &entry.application.to_string())?;
    write_increments(out, &entry.increments)?;
    if let Some(at) = entry.at {
        write_str(out, &moment(at))?;
        write_array_len(out, 7)?;
        for period in Period::ALL {
            let seconds = window_expiry(period, at).map_or(0, |end| end.unix_s().unsigned_abs());
            write_uint(out, seconds)?;
        }
    }
    Ok(())
}

/// The name of a minute and of its week, which name all windows around it.
fn moment(at: Timestamp) -> String {
    format!("{} {}", Period::Minute.window(at), Period::Week.window(at))
}

fn lua_index(period: Period) -> u64 {
    period.index() as u64 + 1
}

pub(super) fn version_text(version: Version) -> String {
    format!("{:016x}", version.0)
}

pub(super) fn read_version(text: &[u8]) -> Option<Version> {
    u64::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok().map(Version)
}

/// The most that are decided together: how many values Lua passes on at once is bounded.
const TOGETHER_MAX: usize = 128;

/// The operations of a batch, those that are decided together as one slice.
pub(super) fn together<'a>(operations: &'a [&'a Operation]) -> Vec<&'a [&'a Operation]> {
    let groups = operations.chunk_by(|one, next| one.asks_like(next));
    groups.flat_map(|group| group.chunks(TOGETHER_MAX)).collect()
}

/// The call for a batch of a shard.
pub(super) fn command(
    function: &str,
    shard: usize,
    writer: &str,
    number: u64,
    at: Timestamp,
    groups: &[&[&Operation]],
) -> redis::Cmd {
    let mut command = redis::cmd("FCALL");
    command.arg(function).arg(1).arg(format!("weir:{{{shard}}}"));
    command.arg(writer).arg(number).arg(at.unix_ms()).arg(moment(at));
    let mut encoded = Vec::with_capacity(512);
    for group in groups {
        encoded.clear();
        // Writing to a Vec cannot fail.
        write_group(&mut encoded, group).expect("memory takes all bytes");
        command.arg(&encoded);
    }
    command
}

/// The first operation, and the ids of all where it stands for several.
fn write_group(out: &mut Vec<u8>, group: &[&Operation]) -> Encoded {
    let Some((first, rest)) = group.split_first() else { return Ok(()) };
    first.write(out)?;
    if rest.is_empty() {
        return Ok(());
    }
    write_array_len(out, length(group.len()))?;
    group.iter().try_for_each(|operation| write_bytes(out, &operation.id.0))
}

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

/// The answers to all operations of a batch.
pub(super) fn read_answers(value: Value, groups: &[&[&Operation]]) -> Result<Vec<Answer>, StoreError> {
    let Value::Array(answers) = value else {
        return Err(StoreError::Answer("no array".into()));
    };
    if answers.len() != groups.len() {
        return Err(StoreError::Answer(format!("{} answers to {} operations", answers.len(), groups.len())));
    }
    let mut all = Vec::new();
    for (answer, group) in answers.into_iter().zip(groups) {
        match group {
            [_] => all.push(read_answer(answer)?),
            _ => read_together(answer, group, &mut all)?,
        }
    }
    Ok(all)
}

/// The answers to operations that were decided together.
fn read_together(value: Value, group: &[&Operation], all: &mut Vec<Answer>) -> Result<(), StoreError> {
    let broken = || StoreError::Answer("an answer of unknown shape".into());
    let Value::Array(mut parts) = value else { return Err(broken()) };
    let fitting = match (parts.first().and_then(number), parts.get(1)) {
        (Some(6), Some(fitting)) => number(fitting).ok_or_else(broken)?,
        (Some(7), Some(Value::Array(answers))) if answers.len() == group.len() => {
            let Value::Array(answers) = parts.swap_remove(1) else { return Err(broken()) };
            for answer in answers {
                all.push(read_answer(answer)?);
            }
            return Ok(());
        }
        _ => return Err(broken()),
    };
    let numbers: Option<Vec<u64>> = parts[2..].iter().map(number).collect();
    let numbers = numbers.ok_or_else(broken)?;
    let (exceeded, before) = numbers.split_first().ok_or_else(broken)?;
    let exceeded = usize::try_from(*exceeded).map_err(|_| broken())?;
    for place in 1..=group.len() as u64 {
        let used = group[0].used_after(before, place.min(fitting));
        all.push(if place <= fitting {
            Answer::Admitted { used }
        } else {
            Answer::Refused { exceeded, used }
        });
    }
    Ok(())
}

fn read_answer(value: Value) -> Result<Answer, StoreError> {
    let broken = || StoreError::Answer("an answer of unknown shape".into());
    let Value::Array(parts) = value else { return Err(broken()) };
    let numbers = |from: usize| -> Result<Vec<u64>, StoreError> {
        parts[from..].iter().map(|part| number(part).ok_or_else(broken)).collect()
    };
    match parts.first().and_then(number) {
        Some(0) => Ok(Answer::Admitted { used: numbers(1)? }),
        Some(1) if parts.len() > 1 => {
            let exceeded = number(&parts[1]).and_then(|n| usize::try_from(n).ok()).ok_or_else(broken)?;
            Ok(Answer::Refused { exceeded, used: numbers(2)? })
        }
        Some(2) if parts.len() == 4 => {
            let version = |part: &Value| text(part).and_then(read_version);
            let application = match (version(&parts[1]), text(&parts[2])) {
                (Some(version), Some(bytes)) => Some(Record { version, bytes: bytes.into() }),
                _ => None,
            };
            Ok(Answer::Stale { application, service: version(&parts[3]) })
        }
        Some(3) if parts.len() == 2 => Ok(Answer::TakenBack(number(&parts[1]) == Some(1))),
        Some(5) => Ok(Answer::Buried),
        Some(4) if parts.len() == 2 => Ok(Answer::Reported(number(&parts[1]) == Some(1))),
        _ => Err(broken()),
    }
}

fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(n) => u64::try_from(*n).ok(),
        _ => None,
    }
}

fn text(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

/// Longest pause before a batch whose predecessor failed is sent.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(10);
