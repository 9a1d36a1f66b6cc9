//! The checkpoint: all accounts and services in one file, so that the log may be cut.
//!
//! Written from the first byte to the last while the store answers: the log begins a new file first, then accounts are
//! copied some at a time, in the order of their numbers. An account carries the number of the last entry in it, so an
//! entry that is both in the checkpoint and in the log is not counted twice.
//!
//! The file takes the place of the one before once it is whole and on disk, and so is the log with all that is in it.

use std::fs::File;
use std::io::{BufReader, Error, Read, Result, Write};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use weir_core::{KeyHash, Period, Timestamp};

use super::Book;
use super::account::{Account, Past, Tally, Windows};
use super::bytes::{Reader, put_bytes, put_number, put_optional};
use super::errors::Errors;
use super::events::Events;
use super::leases::{put_lease, read_lease};
use super::ledger::Ledger;
use super::log::{Log, fill_head, read_frame};
use super::tail::FRAME_HEAD_BYTES;
use crate::key::now;
use crate::{Record, Version};

const FILE: &str = "checkpoint";
const NEW_FILE: &str = "checkpoint.new";
/// What the file of an earlier version is called.
const EARLIER_FILE: &str = "checkpoint.redb";
const MAGIC: &[u8; 8] = b"WEIRCKP4";

/// How many accounts are copied at a time, while nobody else is served.
const ACCOUNTS_AT_A_TIME: usize = 128;
/// How much is written at a time.
const WRITTEN_BYTES: usize = 1 << 20;

/// What a frame holds.
const HEAD: u64 = 1;
const ACCOUNTS: u64 = 2;
const END: u64 = 3;

/// Reads the checkpoint of a folder; returns the ledger and the number of the first entry that may be missing in it.
pub(super) fn load(dir: &Path) -> Result<(Ledger, u64)> {
    if dir.join(EARLIER_FILE).exists() {
        return Err(Error::other(format!("{EARLIER_FILE} is of an earlier version")));
    }
    let mut ledger = Ledger::default();
    if !dir.join(FILE).exists() {
        return Ok((ledger, 1));
    }
    let mut file = BufReader::with_capacity(WRITTEN_BYTES, File::open(dir.join(FILE))?);
    let mut magic = [0; MAGIC.len()];
    file.read_exact(&mut magic)?;
    if magic != *MAGIC {
        return Err(Error::other(format!("{FILE} is of another version")));
    }
    let next = read(&mut file, &mut ledger).ok_or_else(|| Error::other(format!("{FILE} is damaged")))?;
    Ok((ledger, next))
}

/// How long it is; 0 when there is none.
pub(super) fn bytes(dir: &Path) -> u64 {
    std::fs::metadata(dir.join(FILE)).map_or(0, |metadata| metadata.len())
}

fn read(file: &mut impl Read, ledger: &mut Ledger) -> Option<u64> {
    let mut body = vec![];
    let mut next = None;
    let mut secret_ids = vec![];
    while read_frame(file, &mut body) {
        let from = &mut Reader(&body);
        match from.number()? {
            HEAD => next = Some(from.number()?),
            ACCOUNTS => {
                while !from.is_empty() {
                    ledger.put_account(read_account(from, &mut secret_ids)?)?;
                }
            }
            END => {
                read_rest(from, ledger)?;
                return next;
            }
            _ => return None,
        }
    }
    None
}

/// Writes all there is, then cuts the log; returns how long the checkpoint is.
pub(super) fn write(dir: &Path, log: &Log, book: &Mutex<Book>) -> Result<u64> {
    let next = log.rotate(book)?;
    let mut file = File::create(dir.join(NEW_FILE))?;
    let mut out = MAGIC.to_vec();
    frame(&mut out, |out| {
        put_number(out, HEAD);
        put_number(out, next);
    })?;
    let mut copied = 0;
    while copied < book.lock().ledger.accounts.len() {
        frame(&mut out, |out| {
            put_number(out, ACCOUNTS);
            copied = copy_accounts(out, &mut book.lock().ledger, copied);
        })?;
        if out.len() >= WRITTEN_BYTES {
            file.write_all(&out)?;
            out.clear();
        }
    }
    frame(&mut out, |out| write_rest(out, &mut book.lock().ledger))?;
    file.write_all(&out)?;
    file.sync_all()?;
    // A number that the checkpoint knows must not be given again.
    log.sync(book)?;
    std::fs::rename(dir.join(NEW_FILE), dir.join(FILE))?;
    File::open(dir)?.sync_all()?;
    log.remove_before(next)?;
    Ok(file.metadata()?.len())
}

fn frame(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
    let begin = out.len();
    out.resize(begin + FRAME_HEAD_BYTES, 0);
    write(out);
    fill_head(&mut out[begin..])
}

/// Copies some accounts and forgets old windows on the way; returns where to go on.
fn copy_accounts(out: &mut Vec<u8>, ledger: &mut Ledger, from: usize) -> usize {
    let now = now();
    let to = ledger.accounts.len().min(from + ACCOUNTS_AT_A_TIME);
    for account in &mut ledger.accounts[from..to] {
        account.forget_expired(now);
        write_account(out, account);
    }
    to
}

fn write_account(out: &mut Vec<u8>, account: &Account) {
    put_bytes(out, account.name.as_bytes());
    put_number(out, account.number);
    put_record(out, account.record.as_ref());
    put_optional(out, account.user_key.as_ref().map(|key| key.secret_id.as_bytes()));
    out.extend_from_slice(&account.user_key.as_ref().map_or([0; 32], |key| key.digest));
    account.windows.0.iter().for_each(|start| put_number(out, (*start).into()));
    put_number(out, account.told_day.into());
    put_number(out, account.tallies.len() as u64);
    for tally in &account.tallies {
        put_number(out, tally.metric.into());
        tally.counts.iter().for_each(|count| put_number(out, *count));
    }
    put_number(out, account.past.len() as u64);
    for past in &account.past {
        put_number(out, past.period.index() as u64);
        put_number(out, past.start.into());
        put_number(out, past.metric.into());
        put_number(out, past.count);
    }
    put_number(out, account.leases().len() as u64);
    account.leases().iter().for_each(|lease| put_lease(out, lease));
}

fn read_account(from: &mut Reader<'_>, secret_ids: &mut Vec<Arc<str>>) -> Option<Account> {
    let mut account = Account::new(from.text()?);
    account.number = from.number()?;
    account.record = read_record(from)?;
    let secret_id = from.optional()?;
    let digest = from.array()?;
    if let Some(id) = secret_id {
        account.user_key =
            Some(KeyHash { secret_id: shared(std::str::from_utf8(id).ok()?, secret_ids), digest });
    }
    let mut windows = [0; 7];
    for start in &mut windows {
        *start = from.small()?;
    }
    account.windows = Windows(windows);
    account.told_day = from.small()?;
    account.tallies = from.list(|from| {
        let mut tally = Tally { metric: from.small()?, counts: [0; 7] };
        for count in &mut tally.counts {
            *count = from.number()?;
        }
        Some(tally)
    })?;
    account.past = from.list(|from| {
        Some(Past {
            period: *Period::ALL.get(from.small::<usize>()?)?,
            start: from.small()?,
            metric: from.small()?,
            count: from.number()?,
        })
    })?;
    account.set_leases(from.list(read_lease)?);
    Some(account)
}

/// The same text once in memory: there are few secrets and many keys.
fn shared(text: &str, known: &mut Vec<Arc<str>>) -> Arc<str> {
    match known.iter().find(|known| ***known == *text) {
        Some(known) => Arc::clone(known),
        None => {
            known.push(text.into());
            Arc::clone(&known[known.len() - 1])
        }
    }
}

/// Metrics come last, since accounts are copied while new ones begin.
fn write_rest(out: &mut Vec<u8>, ledger: &mut Ledger) {
    put_number(out, END);
    let (revision, digest) = ledger.held.unwrap_or_default();
    put_number(out, revision);
    put_number(out, digest);
    put_number(out, ledger.metrics.len() as u64);
    ledger.metrics.iter().for_each(|name| put_bytes(out, name.as_str().as_bytes()));
    put_number(out, ledger.services.len() as u64);
    for (id, record) in &ledger.services {
        put_bytes(out, id.as_str().as_bytes());
        put_record(out, Some(record));
    }
    put_number(out, ledger.reported.len() as u64);
    for (id, until) in &ledger.reported {
        put_bytes(out, id);
        put_number(out, until.unix_ms().unsigned_abs());
    }
    ledger.errors.forget_old(now());
    ledger.errors.put(out);
    ledger.events.put(out, now());
}

fn read_rest(from: &mut Reader<'_>, ledger: &mut Ledger) -> Option<()> {
    let held = (from.number()?, from.number()?);
    ledger.held = (held.0 > 0).then_some(held);
    for name in from.list(|from| from.text()?.parse().ok())? {
        ledger.begin_metric(name)?;
    }
    ledger.services =
        from.list(|from| Some((from.text()?.parse().ok()?, read_record(from)??)))?.into_iter().collect();
    let reported =
        |from: &mut Reader<'_>| Some((from.bytes()?.to_vec(), Timestamp::from_unix_ms(from.small()?)));
    ledger.reported = from.list(reported)?.into_iter().collect();
    ledger.errors = Errors::read(from)?;
    ledger.events = Events::read(from)?;
    Some(())
}

/// With its version, which would take a hash of it to find out.
fn put_record(out: &mut Vec<u8>, record: Option<&Record>) {
    put_optional(out, record.map(|record| &record.bytes[..]));
    put_number(out, record.map_or(0, |record| record.version.0));
}

fn read_record(from: &mut Reader<'_>) -> Option<Option<Record>> {
    let bytes = from.optional()?;
    let version = Version(from.number()?);
    Some(bytes.map(|bytes| Record { version, bytes: bytes.into() }))
}
