//! The wire form of a batch: for each shard its operations as MessagePack, and the answers to them likewise.
//!
//! `functions.lua` documents the shapes; this is their only other end.

use std::sync::Arc;

use redis::Value;
use rmp::encode::{ValueWriteError, write_array_len, write_sint, write_str, write_str_len, write_uint};
use weir_core::counter::{ceilings, changed};
use weir_core::lease::{Declared, LIFETIME_MAX_MS, LIFETIME_MS, When};
use weir_core::{ApplicationRef, COUNT_MAX, Increment, Period, ServiceId, Timestamp, UsageValue};

use super::answer::{Answer, Answers, Fit, Told};
use super::lease::lease_id_bytes;
use super::{SHARDS, shard_of};
use crate::key::window_expiry;
use crate::{Ask, Entry, LeaseAsk, Mode, RequestId, StoreError, Version};

/// Of most so many applications of a shard leases are presumed at a time: bounds how long Redis is busy with them.
pub(super) const PRESUMED_MAX: u64 = 64;

/// One operation.
#[derive(Debug)]
pub(super) struct Operation {
    shard: usize,
    body: Body,
    /// Asks whose outcome may be known are looked up; the others are safe to repeat as they are.
    pub(super) looked_up: bool,
}

#[derive(Debug)]
enum Body {
    Ask { asks: Arc<Vec<Ask>>, place: usize },
    Report { idempotency_id: Vec<u8>, gives_back: bool, entries: Vec<Entry> },
    Cancel { id: RequestId, attempt: Option<u32> },
    Lease(Box<LeaseAsk>),
    Presume,
}

impl Operation {
    /// One of several asks.
    pub(super) fn ask(asks: &Arc<Vec<Ask>>, place: usize) -> Self {
        let ask = &asks[place];
        let body = Body::Ask { asks: Arc::clone(asks), place };
        Self { shard: shard_of(&ask.application), looked_up: ask.attempt > 0, body }
    }

    /// Without an idempotency id of its own a report gets one that only this process knows, so that sending it
    /// again after an unknown outcome is safe all the same.
    pub(super) fn report(part: usize, idempotency_id: &[u8], gives_back: bool, entries: Vec<Entry>) -> Self {
        let mut id = [0; 16];
        // Without random numbers ids could repeat, and a report be taken for another: the process cannot go on.
        getrandom::fill(&mut id).expect("the system gives random bytes");
        let name = if idempotency_id.is_empty() { &id[..] } else { idempotency_id };
        let idempotency_id = [format!("{part}:").as_bytes(), name].concat();
        Self {
            shard: part % SHARDS,
            looked_up: false,
            body: Body::Report { idempotency_id, gives_back, entries },
        }
    }

    pub(super) fn cancel(application: &ApplicationRef, id: RequestId, attempt: Option<u32>) -> Self {
        Self { shard: shard_of(application), looked_up: false, body: Body::Cancel { id, attempt } }
    }

    /// A message about a lease: said again, it changes nothing.
    pub(super) fn lease(ask: LeaseAsk) -> Self {
        Self { shard: shard_of(&ask.application), looked_up: false, body: Body::Lease(Box::new(ask)) }
    }

    /// Presumes leases whose time is over, in a shard.
    pub(super) fn presume(shard: usize) -> Self {
        Self { shard, looked_up: false, body: Body::Presume }
    }

    fn as_ask(&self) -> Option<&Ask> {
        match &self.body {
            Body::Ask { asks, place } => Some(&asks[*place]),
            _ => None,
        }
    }

    /// What takes this back for a caller that left; `None` when it counts nothing.
    pub(super) fn undo(&self) -> Option<Self> {
        let ask = self.as_ask().filter(|ask| counts(ask))?;
        let body = Body::Cancel { id: ask.request, attempt: Some(ask.attempt) };
        Some(Self { shard: self.shard, looked_up: false, body })
    }

    /// Whether this asks for the same as another operation, so that they can be decided together: only first attempts.
    fn asks_like(&self, other: &Self) -> bool {
        let (Some(ask), Some(other_ask)) = (self.as_ask(), other.as_ask()) else { return false };
        let is_first = |operation: &Self, ask: &Ask| !operation.looked_up && ask.attempt == 0;
        is_first(self, ask)
            && is_first(other, other_ask)
            && ask.mode == other_ask.mode
            && ask.application == other_ask.application
            && ask.application_version == other_ask.application_version
            && ask.service_version == other_ask.service_version
            && ask.increments == other_ask.increments
    }
}

fn counts(ask: &Ask) -> bool {
    ask.mode == Mode::Count && !ask.increments.is_empty()
}

type Encoded = Result<(), ValueWriteError>;

/// As a text, since Redis' decoder knows no binary type; its texts take any bytes.
fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) -> Encoded {
    write_str_len(out, length(bytes.len()))?;
    out.extend_from_slice(bytes);
    Ok(())
}

fn length(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn write_application(out: &mut Vec<u8>, application: &ApplicationRef) -> Encoded {
    let (service, id) = (application.service.as_str(), application.application.as_str());
    write_str_len(out, length(service.len() + 1 + id.len()))?;
    out.extend_from_slice(service.as_bytes());
    out.push(b'/');
    out.extend_from_slice(id.as_bytes());
    Ok(())
}

/// In MessagePack of its own, by which Redis recognises what it has read before.
fn write_usage(out: &mut Vec<u8>, increments: &[Increment]) -> Encoded {
    let mut packed = Vec::with_capacity(128);
    write_array_len(&mut packed, length(increments.len()))?;
    for increment in increments {
        let (sets, value) = match increment.value {
            UsageValue::Add(by) => (0, by),
            UsageValue::Set(to) => (1, to),
        };
        write_array_len(&mut packed, length(4 + 2 * increment.ceilings.len()))?;
        write_str(&mut packed, increment.metric.as_str())?;
        write_uint(&mut packed, sets + 2 * u64::from(increment.alert_bins.bits()))?;
        write_uint(&mut packed, value.min(COUNT_MAX))?;
        write_uint(&mut packed, lua_index(increment.periods()[0]))?;
        for ceiling in &increment.ceilings {
            write_uint(&mut packed, lua_index(ceiling.period))?;
            write_uint(&mut packed, ceiling.max.min(COUNT_MAX))?;
        }
    }
    write_bytes(out, &packed)
}

fn write_expiries(out: &mut Vec<u8>, at: Timestamp) -> Encoded {
    write_array_len(out, length(Period::ALL.len()))?;
    for period in Period::ALL {
        let seconds = window_expiry(period, at).map_or(0, |end| end.unix_s().unsigned_abs());
        write_uint(out, seconds)?;
    }
    Ok(())
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

/// How far back services and usages are looked for that were named before: what is named twice is only sent twice.
const LOOKED_BACK: usize = 8;

/// What many operations name alike is sent once.
#[derive(Default)]
struct Named<'a> {
    services: Vec<(&'a ServiceId, Version)>,
    usages: Vec<&'a [Increment]>,
}

impl<'a> Named<'a> {
    fn service(&mut self, id: &'a ServiceId, version: Version) -> usize {
        place_of(&mut self.services, (id, version))
    }

    fn usage(&mut self, increments: &'a [Increment]) -> usize {
        place_of(&mut self.usages, increments)
    }

    fn write(&self, out: &mut Vec<u8>) -> Encoded {
        write_uint(out, self.services.len() as u64)?;
        for (id, version) in &self.services {
            write_str(out, id.as_str())?;
            write_str(out, &version_text(*version))?;
        }
        write_uint(out, self.usages.len() as u64)?;
        self.usages.iter().try_for_each(|increments| write_usage(out, increments))
    }

    /// How many values it takes.
    fn values(&self) -> usize {
        2 + 2 * self.services.len() + self.usages.len()
    }
}

/// The place of a value in a list, counted from 1; it is added where it is not among the last.
fn place_of<T: PartialEq>(list: &mut Vec<T>, value: T) -> usize {
    let recent = list.len().saturating_sub(LOOKED_BACK);
    if let Some(place) = list[recent..].iter().position(|held| *held == value) {
        return recent + place + 1;
    }
    list.push(value);
    list.len()
}

/// The operations of a shard. Those that are decided together follow each other.
struct Part<'a> {
    shard: usize,
    operations: Vec<&'a Operation>,
    /// Where each stands in the batch.
    places: Vec<usize>,
}

impl<'a> Part<'a> {
    fn groups(&self) -> impl Iterator<Item = &[&'a Operation]> {
        self.operations.chunk_by(|one, next| one.asks_like(next))
    }

    fn encode(&self) -> Result<Vec<u8>, ValueWriteError> {
        let (mut named, mut body, mut values) = (Named::default(), Vec::with_capacity(1024), 0);
        for group in self.groups() {
            values += write_group(&mut body, group, &mut named)?;
        }
        let mut out = Vec::with_capacity(body.len() + 256);
        write_array_len(&mut out, length(named.values() + values))?;
        named.write(&mut out)?;
        out.extend_from_slice(&body);
        Ok(out)
    }
}

/// Returns how many values it wrote.
fn write_group<'a>(
    out: &mut Vec<u8>,
    group: &[&'a Operation],
    named: &mut Named<'a>,
) -> Result<usize, ValueWriteError> {
    let Some(first) = group.first() else { return Ok(0) };
    match &first.body {
        Body::Ask { asks, place } => {
            let ask = &asks[*place];
            write_str(out, "A")?;
            write_application(out, &ask.application)?;
            write_str(out, &version_text(ask.application_version))?;
            write_uint(out, named.service(&ask.application.service, ask.service_version) as u64)?;
            write_uint(out, named.usage(&ask.increments) as u64)?;
            write_uint(out, counts(ask).into())?;
            write_uint(out, first.looked_up.into())?;
            write_uint(out, ask.attempt.into())?;
            write_uint(out, group.len() as u64)?;
            let runs = runs(group);
            write_uint(out, 2 * runs.len() as u64)?;
            for (page, last_bytes) in &runs {
                write_bytes(out, page)?;
                write_bytes(out, last_bytes)?;
            }
            Ok(10 + 2 * runs.len())
        }
        Body::Report { idempotency_id, gives_back, entries } => {
            write_str(out, if *gives_back { "G" } else { "R" })?;
            write_bytes(out, idempotency_id)?;
            write_uint(out, entries.len() as u64)?;
            for entry in entries {
                write_application(out, &entry.application)?;
                write_uint(out, named.usage(&entry.increments) as u64)?;
                match entry.at {
                    Some(at) => {
                        write_uint(out, at.unix_s().unsigned_abs() / 60)?;
                        write_expiries(out, at)?;
                    }
                    None => out.extend_from_slice(&[rmp::Marker::False.to_u8(); 2]),
                }
            }
            Ok(3 + 4 * entries.len())
        }
        Body::Cancel { id, attempt } => {
            write_str(out, "C")?;
            write_bytes(out, &page_of(*id))?;
            write_uint(out, id.0[15].into())?;
            write_sint(out, attempt.map_or(-1, i64::from))?;
            Ok(4)
        }
        Body::Lease(ask) => write_lease(out, ask, named),
        Body::Presume => {
            write_str(out, "P")?;
            write_uint(out, PRESUMED_MAX)?;
            Ok(2)
        }
    }
}

/// The page that an id lies in: 64 that follow each other.
fn page_of(id: RequestId) -> [u8; 16] {
    let mut page = id.0;
    page[15] /= 64;
    page
}

/// The ids of asks, in their order: a page, and the last bytes of those in it that ascend.
fn runs(group: &[&Operation]) -> Vec<([u8; 16], Vec<u8>)> {
    let mut runs: Vec<([u8; 16], Vec<u8>)> = Vec::with_capacity(1);
    for ask in group.iter().filter_map(|operation| operation.as_ask()) {
        let (page, last_byte) = (page_of(ask.request), ask.request.0[15]);
        match runs.last_mut() {
            Some((last, bytes)) if *last == page && bytes.last() < Some(&last_byte) => bytes.push(last_byte),
            _ => runs.push((page, vec![last_byte])),
        }
    }
    runs
}

fn write_lease<'a>(
    out: &mut Vec<u8>,
    ask: &'a LeaseAsk,
    named: &mut Named<'a>,
) -> Result<usize, ValueWriteError> {
    let message = &ask.message;
    let declared = message.declared.unwrap_or(Declared { incarnation: 0, moment: Timestamp::default() });
    write_str(out, "L")?;
    write_application(out, &ask.application)?;
    write_str(out, &version_text(ask.application_version))?;
    write_uint(out, named.service(&ask.application.service, ask.service_version) as u64)?;
    write_bytes(out, &lease_id_bytes(message.id))?;
    write_str(out, &message.holder)?;
    write_uint(out, message.round.into())?;
    write_uint(out, message.opens.map_or(0, |when| if when == When::Now { 1 } else { 2 }))?;
    write_uint(out, message.closes.into())?;
    write_uint(out, declared.incarnation.min(COUNT_MAX))?;
    write_sint(out, declared.moment.unix_ms())?;
    write_uint(out, message.lasts_ms.clamp(LIFETIME_MS, LIFETIME_MAX_MS))?;
    write_uint(out, message.lines.len() as u64)?;
    for wish in &message.lines {
        write_uint(out, named.usage(&wish.unit) as u64)?;
        for number in [wish.spent, wish.granted, wish.want, wish.least] {
            write_uint(out, number.min(COUNT_MAX))?;
        }
    }
    Ok(13 + 5 * message.lines.len())
}

/// A batch, divided into shards.
pub(super) struct Batch<'a> {
    parts: Vec<Part<'a>>,
    operations: usize,
}

impl<'a> Batch<'a> {
    pub(super) fn new(operations: impl Iterator<Item = &'a Operation>) -> Self {
        let part = |shard| Part { shard, operations: vec![], places: vec![] };
        let mut batch = Self { parts: (0..SHARDS).map(part).collect(), operations: 0 };
        for operation in operations {
            let part = &mut batch.parts[operation.shard];
            part.operations.push(operation);
            part.places.push(batch.operations);
            batch.operations += 1;
        }
        batch.parts.retain(|part| !part.operations.is_empty());
        batch
    }

    /// The call for it.
    pub(super) fn command(&self, function: &str, writer: &str, number: u64, at: Timestamp) -> redis::Cmd {
        let mut command = redis::cmd("FCALL");
        command.arg(function).arg(self.parts.len());
        for part in &self.parts {
            command.arg(format!("weir:{{{}}}", part.shard));
        }
        command.arg(writer).arg(number).arg(at.unix_ms());
        for part in &self.parts {
            command.arg(part.encode().expect("memory takes all bytes"));
        }
        command
    }

    /// The answers to all operations, in their order.
    pub(super) fn read_answers(&self, value: Value) -> Result<Vec<Answer>, StoreError> {
        let broken = || StoreError::Answer("an answer of unknown shape".into());
        let Value::Array(parts) = value else { return Err(broken()) };
        let mut all: Vec<Option<Answer>> = (0..self.operations).map(|_| None).collect();
        for (part, answers) in self.parts.iter().zip(parts) {
            let Value::BulkString(bytes) = answers else { return Err(broken()) };
            let answers = part.read_answers(&bytes).ok_or_else(broken)?;
            for (place, answer) in part.places.iter().zip(answers) {
                all[*place] = Some(answer);
            }
        }
        all.into_iter().collect::<Option<_>>().ok_or_else(broken)
    }
}

impl Part<'_> {
    fn read_answers(&self, bytes: &[u8]) -> Option<Vec<Answer>> {
        let mut answers = Answers::begin(bytes)?;
        let mut all = Vec::with_capacity(self.operations.len());
        for group in self.groups() {
            let end = all.len() + group.len();
            let ask = group.first().and_then(|operation| operation.as_ask());
            let ceilings = ask.map_or(0, |ask| ceilings(&ask.increments).count());
            while all.len() < end {
                let left = (end - all.len()) as u64;
                match (answers.next(ceilings)?, ask) {
                    (Told::Answer(answer), _) => all.push(answer),
                    (Told::One(fit), Some(ask)) => all.push(answer_of(ask, 1, &fit)),
                    (Told::Together(fit), Some(ask)) => {
                        all.extend((1..=left).map(|number| answer_of(ask, number, &fit)));
                    }
                    _ => return None,
                }
            }
        }
        answers.is_empty().then_some(all)
    }
}

/// The answer to one of several that ask for the same, by its number from 1.
fn answer_of(ask: &Ask, number: u64, fit: &Fit) -> Answer {
    let counted = if counts(ask) { number.min(fit.fitting) } else { 0 };
    let after = |(used, (increment, _)): (&u64, (&Increment, _))| match increment.value {
        _ if counted == 0 => *used,
        UsageValue::Add(by) => changed(*used, UsageValue::Add(by.saturating_mul(counted))),
        set @ UsageValue::Set(_) => changed(*used, set),
    };
    let used = fit.before.iter().zip(ceilings(&ask.increments)).map(after).collect();
    let held = fit.held.clone();
    if number <= fit.fitting {
        Answer::Admitted { used, held }
    } else {
        Answer::Refused { exceeded: fit.refusing, used, held }
    }
}
