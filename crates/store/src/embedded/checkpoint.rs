//! The checkpoint: all applications and services in one redb file, so that the log may be cut.
//!
//! Written while the store answers: the log begins a new file first, then each shard's changed accounts are copied
//! under its lock. An account carries the number of the last entry in it, so an entry that is both in the checkpoint
//! and in the log is not counted twice.

use std::path::Path;

use parking_lot::{Mutex, RwLock};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use rmp::decode::read_int;
use rmp::encode::{write_sint, write_str, write_uint};
use weir_core::{ApplicationRef, KeyHash, Period, Timestamp};

use super::entry::{
    ApplicationChange, LogEntry, ServiceChange, read_list, read_record, read_text, read_timestamp, write_len,
    write_record,
};
use super::ledger::{Account, Services, Shard, WindowCounts};
use super::log::Log;
use crate::OpenError;
use crate::key::{now, shard_of};

const ACCOUNTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("applications");
const SERVICES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("services");
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
/// Shard and idempotency id → until when it is kept, in ms.
const REPORTED: TableDefinition<'_, (u64, &[u8]), i64> = TableDefinition::new("reported");
const FILE: &str = "checkpoint.redb";

/// Fills memory from the checkpoint of a folder; returns the number of the first entry that may be missing in it.
pub(super) fn load(dir: &Path, shards: &mut [Shard], services: &mut Services) -> Result<u64, OpenError> {
    if !dir.join(FILE).exists() {
        return Ok(0);
    }
    read(dir, shards, services)
        .map_err(|error| OpenError::Checkpoint { dir: dir.to_owned(), problem: error.to_string() })
}

fn read(dir: &Path, shards: &mut [Shard], services: &mut Services) -> Result<u64, Box<redb::Error>> {
    let database = Database::open(dir.join(FILE)).map_err(boxed)?;
    let transaction = database.begin_read().map_err(boxed)?;
    for row in transaction.open_table(ACCOUNTS).map_err(boxed)?.iter().map_err(boxed)? {
        let (name, bytes) = row.map_err(boxed)?;
        let parsed = name.value().parse::<ApplicationRef>().ok().zip(decode(bytes.value()));
        let (application, (account, user_key)) = parsed.ok_or_else(|| damaged(name.value()))?;
        let record = account.record.clone();
        let change = ApplicationChange { application: application.clone(), record, user_key };
        services.index(&LogEntry::Application(change));
        shards[shard_of(&application)].accounts.insert(application, account);
    }
    for row in transaction.open_table(REPORTED).map_err(boxed)?.iter().map_err(boxed)? {
        let (key, until) = row.map_err(boxed)?;
        let (place, id) = key.value();
        let shard = usize::try_from(place).ok().and_then(|place| shards.get_mut(place));
        let shard = shard.ok_or_else(|| damaged("a report"))?;
        shard.reported.insert(id.to_vec(), Timestamp::from_unix_ms(until.value()));
    }
    for row in transaction.open_table(SERVICES).map_err(boxed)?.iter().map_err(boxed)? {
        let (id, bytes) = row.map_err(boxed)?;
        let id = id.value().parse().map_err(|_| damaged(id.value()))?;
        let record = Some(crate::Record::new(bytes.value()));
        services.apply(&LogEntry::Service(ServiceChange { id, record }));
    }
    let numbers = transaction.open_table(NUMBERS).map_err(boxed)?;
    let number = |name: &str| -> Result<u64, Box<redb::Error>> {
        Ok(numbers.get(name).map_err(boxed)?.map_or(0, |n| n.value()))
    };
    if number("revision")? > 0 {
        services.held = Some((number("revision")?, number("digest")?));
    }
    number("next")
}

/// Writes all that changed since the last checkpoint, then cuts the log.
pub(super) fn write(
    dir: &Path,
    log: &Log,
    shards: &[Mutex<Shard>],
    services: &RwLock<Services>,
) -> Result<(), Box<dyn std::error::Error>> {
    let written = try_write(dir, log, shards, services);
    if written.is_err() {
        // Which accounts were copied is no longer known: the next checkpoint writes them all.
        for shard in shards {
            shard.lock().accounts.values_mut().for_each(|account| account.dirty = true);
        }
    }
    written
}

fn try_write(
    dir: &Path,
    log: &Log,
    shards: &[Mutex<Shard>],
    services: &RwLock<Services>,
) -> Result<(), Box<dyn std::error::Error>> {
    let next = log.rotate()?;
    let database = Database::create(dir.join(FILE))?;
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(ACCOUNTS)?;
        for shard in shards {
            for (application, bytes) in take_changed(&mut shard.lock(), &services.read()) {
                table.insert(application.as_str(), bytes.as_slice())?;
            }
        }
        let mut table = transaction.open_table(REPORTED)?;
        table.retain(|_, _| false)?;
        for (place, shard) in (0_u64..).zip(shards) {
            for (id, until) in &shard.lock().reported {
                table.insert((place, id.as_slice()), until.unix_ms())?;
            }
        }
        let services = services.read();
        let mut table = transaction.open_table(SERVICES)?;
        table.retain(|id, _| services.records.contains_key(id))?;
        for (id, record) in &services.records {
            table.insert(id.as_str(), &record.bytes[..])?;
        }
        let (revision, digest) = services.held.unwrap_or_default();
        let mut table = transaction.open_table(NUMBERS)?;
        table.insert("next", next)?;
        table.insert("revision", revision)?;
        table.insert("digest", digest)?;
    }
    transaction.commit()?;
    log.remove_before(next)?;
    Ok(())
}

/// Copies the changed accounts of a shard and forgets old windows on the way.
fn take_changed(shard: &mut Shard, services: &Services) -> Vec<(String, Vec<u8>)> {
    let at = now();
    let changed = shard.accounts.iter_mut().filter(|(_, account)| account.dirty);
    changed
        .map(|(application, account)| {
            account.forget_expired(at);
            account.dirty = false;
            (application.to_string(), encode(account, services.user_key_of(application)))
        })
        .collect()
}

fn encode(account: &Account, user_key: Option<&KeyHash>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut write = || -> Result<(), rmp::encode::ValueWriteError> {
        write_uint(&mut out, account.number)?;
        write_record(&mut out, account.record.as_ref())?;
        write_str(&mut out, &user_key.map(KeyHash::to_string).unwrap_or_default())?;
        write_len(&mut out, account.windows.len())?;
        for window in &account.windows {
            write_uint(&mut out, window.period.index() as u64)?;
            write_sint(&mut out, window.start.unix_ms())?;
            write_len(&mut out, window.counts.len())?;
            for (metric, count) in &window.counts {
                write_str(&mut out, metric.as_str())?;
                write_uint(&mut out, *count)?;
            }
        }
        Ok(())
    };
    write().expect("memory takes all bytes");
    out
}

fn decode(mut bytes: &[u8]) -> Option<(Account, Option<KeyHash>)> {
    let from = &mut bytes;
    let number = read_int(from).ok()?;
    let record = read_record(from)?;
    let user_key = match read_text(from)?.as_str() {
        "" => None,
        hash => Some(hash.parse().ok()?),
    };
    let windows = read_list(from, |from| {
        let period = *Period::ALL.get(read_int::<usize, _>(from).ok()?)?;
        let start = read_timestamp(from)?;
        let count = |from: &mut &[u8]| Some((read_text(from)?.parse().ok()?, read_int(from).ok()?));
        Some(WindowCounts { period, start, counts: read_list(from, count)? })
    })?;
    Some((Account { record, windows, number, dirty: false }, user_key))
}

fn boxed(error: impl Into<redb::Error>) -> Box<redb::Error> {
    Box::new(error.into())
}

fn damaged(name: &str) -> Box<redb::Error> {
    Box::new(redb::Error::Corrupted(format!("the entry of {name} cannot be read")))
}
