//! The ledger in memory: accounts, records, and what was counted in the last seconds.
//!
//! Changes only by [`Entry`]s as they lie in the log, live and at replay alike, so that both come to the same state.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::hint::black_box;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use weir_core::counter::{beyond, ceilings, first_exceeded};
use weir_core::{ApplicationId, ApplicationRef, Increment, KeyHash, MetricName, ServiceId, Timestamp};

use super::account::{Account, Windows};
use super::bytes::Reader;
use super::entry::{Counted, Entry, Row, Usage};
use super::errors::{Errors, read_error};
use super::events::Events;
use super::leases::Leases;
use super::recent::{Known, Recent};
use super::tail::Tail;
use crate::key::{GIVEN_BACK_KEPT_MS, IDEMPOTENCY_KEPT_MS, shard_of};
use crate::{Ask, Mode, Outcome, Publication, Record, Report, RequestId, StoreError};

#[derive(Default)]
pub(super) struct Ledger {
    /// Numbered by their place; none ever goes.
    pub(super) accounts: Vec<Account>,
    by_name: HashTable<u32>,
    by_user_key: HashTable<u32>,
    hashing: DefaultHashBuilder,
    /// Numbered by their place.
    pub(super) metrics: Vec<MetricName>,
    pub(super) metric_numbers: HashMap<MetricName, u32>,
    pub(super) services: HashMap<ServiceId, Record>,
    /// Revision and digest of the catalog.
    pub(super) held: Option<(u64, u64)>,
    /// A minute, and its windows.
    latest: (i64, Windows),
    recent: Recent,
    pub(super) leases: Leases,
    pub(super) errors: Errors,
    pub(super) events: Events,
    /// Shard and idempotency id → until when it is kept.
    pub(super) reported: HashMap<Vec<u8>, Timestamp>,
}

impl Ledger {
    /// The number of an application's account.
    pub(super) fn find(&self, application: &ApplicationRef) -> Option<usize> {
        self.find_name(&application.to_string())
    }

    fn find_name(&self, name: &str) -> Option<usize> {
        let accounts = &self.accounts;
        let found =
            self.by_name.find(self.hashing.hash_one(name), |at| *account(accounts, *at).name == *name);
        found.map(|at| *at as usize)
    }

    pub(super) fn application_of_user_key(
        &self,
        service: &ServiceId,
        hash: &KeyHash,
    ) -> Option<ApplicationId> {
        let accounts = &self.accounts;
        let found = self.by_user_key.find(self.hash_of_key(hash), |at| {
            let account = account(accounts, *at);
            account.user_key.as_ref() == Some(hash) && service_of(&account.name) == service.as_str()
        });
        let (_, application) = account(accounts, *found?).name.split_once('/')?;
        application.parse().ok()
    }

    fn hash_of_key(&self, hash: &KeyHash) -> u64 {
        self.hashing.hash_one(hash.digest)
    }

    /// Reads what deciding these will need. Where there are many accounts, reading one means waiting for memory; here
    /// nothing depends on the one before, so it is waited for many of them at once.
    pub(super) fn fetch(&self, asks: &[Ask]) {
        let account = |ask: &Ask| self.accounts.get(ask.application.account(|_| None)?);
        let accounts: Vec<&Account> = asks.iter().filter_map(account).collect();
        black_box(accounts.iter().fold(0, |all, account| all ^ account.number));
        black_box(accounts.iter().fold(0, |all, account| all ^ account.fetch()));
        black_box(asks.iter().filter(|ask| self.recent.usage(ask.request, None).is_some()).count());
    }

    /// Decides one request; what it counts is in the tail then.
    pub(super) fn decide(
        &mut self,
        ask: &Ask,
        tail: &mut Tail,
        at: Timestamp,
    ) -> Result<Outcome, StoreError> {
        let account = ask.application.account(|application| self.find(application));
        let record = account.and_then(|at| self.accounts[at].record.as_ref());
        let service = self.services.get(&ask.application.service).map(|record| record.version);
        let current = service == Some(ask.service_version)
            && record.is_some_and(|record| record.version == ask.application_version);
        let Some(account) = account.filter(|_| current) else {
            let application = record.cloned();
            // Judged anew, it may be refused: what an earlier attempt counted must not stay.
            if ask.attempt > 0 {
                self.take_back(ask.request, None, ask.attempt - 1, tail, at);
            }
            return Ok(Outcome::Stale { application, service });
        };
        let windows = self.windows(at);
        let counts = ask.mode == Mode::Count && !ask.increments.is_empty();
        // Even a first attempt may come after a later one, or after it was taken back.
        if counts || ask.attempt > 0 {
            match self.recent.recall(ask.request, ask.attempt) {
                Known::Buried => return Err(StoreError::TakenBack),
                Known::Counted => {
                    let used = self.used(account, &ask.increments, &windows);
                    let held = self.held(account, &ask.increments, at);
                    return Ok(Outcome::Admitted { used, held, at });
                }
                Known::Nothing => {}
            }
        }
        self.presume(account, tail, at);
        let used = self.used(account, &ask.increments, &windows);
        let held = self.held(account, &ask.increments, at);
        if let Some(exceeded) = first_exceeded(&ask.increments, &used, &held) {
            return Ok(Outcome::Refused { exceeded, used, held, at });
        }
        if !counts {
            return Ok(Outcome::Admitted { used, held, at });
        }
        self.count(account, ask, &used, tail, at);
        Ok(Outcome::Admitted { used: self.used(account, &ask.increments, &windows), held, at })
    }

    /// The windows of an instant, which are those of its minute.
    pub(super) fn windows(&mut self, at: Timestamp) -> Windows {
        let minute = at.unix_s() / 60;
        if self.latest.0 != minute {
            self.latest = (minute, Windows::at(at));
        }
        self.latest.1
    }

    /// What the counter of each ceiling holds.
    pub(super) fn used(&self, account: usize, increments: &[Increment], windows: &Windows) -> Vec<u64> {
        let account = &self.accounts[account];
        let mut used = Vec::with_capacity(ceilings(increments).count());
        for increment in increments.iter().filter(|increment| !increment.ceilings.is_empty()) {
            let metric = self.metric_numbers.get(&increment.metric);
            let count = |period| metric.map_or(0, |metric| account.count(*metric, period, windows));
            used.extend(increment.ceilings.iter().map(|ceiling| count(ceiling.period)));
        }
        used
    }

    fn count(&mut self, account: usize, ask: &Ask, used: &[u64], tail: &mut Tail, at: Timestamp) {
        let new = self.new_events(account, &ask.increments, used, (at, at));
        let metrics = self.number_metrics(&ask.increments, tail);
        let counted =
            Counted { request: ask.request, attempt: ask.attempt, at, idempotency_id: &[], usage: &[] };
        let (number, bytes) = tail.append(|out| {
            counted.write_head(out);
            self.write_usage(out, account, at, &ask.increments, &metrics);
        });
        self.take_over(number, bytes);
        self.tell(account, new, tail, at);
    }

    fn write_usage(
        &self,
        out: &mut Vec<u8>,
        account: usize,
        at: Timestamp,
        increments: &[Increment],
        metrics: &[u32],
    ) {
        let held = |metric, period| self.accounts[account].count(metric, period, &Windows::at(at));
        Usage::write(out, account, at, increments, metrics, held);
    }

    pub(super) fn number_metrics(&mut self, increments: &[Increment], tail: &mut Tail) -> Vec<u32> {
        let number = |increment: &Increment| match self.metric_numbers.get(&increment.metric) {
            Some(number) => *number,
            None => {
                self.step(&Entry::Metric(increment.metric.as_str()), tail);
                self.metric_numbers[&increment.metric]
            }
        };
        increments.iter().map(number).collect()
    }

    /// The number of an application's account, which begins if need be.
    pub(super) fn open(&mut self, application: &ApplicationRef, tail: &mut Tail) -> usize {
        let name = application.to_string();
        self.find_name(&name).unwrap_or_else(|| {
            self.step(&Entry::Account(&name), tail);
            self.accounts.len() - 1
        })
    }

    /// Puts the services of a publication in place; returns which have changed or are gone.
    pub(super) fn put_services(&mut self, publication: &Publication, tail: &mut Tail) -> Vec<ServiceId> {
        let mut changed = vec![];
        for (id, record) in &publication.services {
            if self.services.get(id) != Some(record) {
                self.step(&Entry::Service { id: id.as_str(), record: Some(&record.bytes) }, tail);
                changed.push(id.clone());
            }
        }
        let named = |id: &ServiceId| publication.services.iter().any(|(named, _)| named == id);
        let unnamed = self.services.keys().filter(|id| publication.complete && !named(id));
        let gone: Vec<ServiceId> = unnamed.chain(&publication.removed_services).cloned().collect();
        for id in &gone {
            self.step(&Entry::Service { id: id.as_str(), record: None }, tail);
        }
        changed.extend(gone);
        changed
    }

    /// Appends an entry and takes it over.
    pub(super) fn step(&mut self, entry: &Entry<'_>, tail: &mut Tail) {
        let (number, bytes) = tail.append(|out| entry.write(out));
        self.take_over(number, bytes);
    }

    fn take_over(&mut self, number: u64, bytes: &[u8]) {
        self.apply(number, bytes).expect("an entry is read as it was written");
    }

    /// Takes a request back that was counted, for that attempt where one is named. Attempts up to `last` that come
    /// later count nothing.
    pub(super) fn take_back(
        &mut self,
        request: RequestId,
        attempt: Option<u32>,
        last: u32,
        tail: &mut Tail,
        now: Timestamp,
    ) -> bool {
        // A request is the usage of one account.
        let counted = self.recent.usage(request, attempt).map(<[u8]>::to_vec);
        if let Some(usage) = &counted {
            self.step(&Entry::TakenBack { request, usage }, tail);
        }
        self.recent.bury(request, last, now);
        counted.is_some()
    }

    /// Counts a report; returns false when all of it was counted before. Applications of one shard share the fate of an
    /// idempotency id, as in Redis.
    pub(super) fn report(&mut self, report: &Report, tail: &mut Tail, at: Timestamp) -> bool {
        let mut by_shard: BTreeMap<usize, Vec<&crate::Entry>> = BTreeMap::new();
        for entry in &report.entries {
            by_shard.entry(shard_of(&entry.application)).or_default().push(entry);
        }
        let mut counted = false;
        for (shard, entries) in by_shard {
            let id = match &report.idempotency_id[..] {
                [] => vec![],
                id => [&shard.to_be_bytes(), id].concat(),
            };
            if self.reported.get(&id).is_none_or(|until| *until <= at) {
                self.count_reported(id, report.gives_back, &entries, tail, at);
                counted = true;
            }
        }
        counted
    }

    /// All of it lies in one frame of the log, so the id in front holds for all.
    fn count_reported(
        &mut self,
        id: Vec<u8>,
        gives_back: bool,
        entries: &[&crate::Entry],
        tail: &mut Tail,
        at: Timestamp,
    ) {
        let (mut idempotency_id, mut over) = (&id[..], 0);
        for entry in entries {
            let (increments, moment) = (&entry.increments, entry.at.unwrap_or(at));
            let account = self.open(&entry.application, tail);
            let windows = self.windows(moment);
            let metrics = self.number_metrics(increments, tail);
            let mut usage = vec![];
            self.write_usage(&mut usage, account, moment, increments, &metrics);
            let id = std::mem::take(&mut idempotency_id);
            if gives_back {
                self.step(&Entry::GivenBack { id, at, usage: &usage }, tail);
                continue;
            }
            let before = self.used(account, increments, &windows);
            let new = self.new_events(account, increments, &before, (moment, at));
            let request = RequestId([0; 16]);
            let counted = Counted { request, attempt: 0, at, idempotency_id: id, usage: &usage };
            self.step(&Entry::Counted(counted), tail);
            over += beyond(increments, &self.used(account, increments, &windows));
            self.tell(account, new, tail, at);
        }
        crate::tell_over_admitted(over);
    }

    /// Takes over one entry; nothing happens for accounts that hold it already. `None`: it is none.
    pub(super) fn apply(&mut self, number: u64, bytes: &[u8]) -> Option<()> {
        match Entry::read(bytes)? {
            Entry::Account(name) => self.begin_account(name),
            Entry::Metric(name) => self.begin_metric(name.parse().ok()?),
            Entry::Counted(counted) => self.apply_counted(number, &counted),
            Entry::GivenBack { id, at, usage } => {
                self.apply_usage(&mut Reader(usage), |_, account| account.advance(number), Account::lower)?;
                self.keep_id(id, at, GIVEN_BACK_KEPT_MS);
                Some(())
            }
            Entry::TakenBack { request, usage } => self.apply_taken_back(number, request, usage),
            Entry::Application { account, record, user_key } => {
                let user_key = match user_key {
                    Some(hash) => Some(hash.parse().ok()?),
                    None => None,
                };
                self.put_application(number, account, record.map(Record::new), user_key)
            }
            Entry::Service { id, record } => {
                let id = id.parse().ok()?;
                match record {
                    Some(bytes) => self.services.insert(id, Record::new(bytes)),
                    None => self.services.remove(&id),
                };
                Some(())
            }
            Entry::Leased(leased) => self.apply_leased(number, &leased),
            Entry::Revision { revision, digest } => {
                self.held = Some((revision, digest));
                Some(())
            }
            Entry::ErrorKept { service, error } => {
                self.errors.keep(number, service.parse().ok()?, read_error(&mut Reader(error))?);
                Some(())
            }
            Entry::ErrorsForgotten { service } => {
                self.errors.forget(number, &service.parse().ok()?);
                Some(())
            }
            Entry::Told(told) => {
                self.apply_told(number, told);
                Some(())
            }
            Entry::Acknowledged { numbers } => {
                self.events.acknowledge(number, &Reader(numbers).list(Reader::number)?);
                Some(())
            }
        }
    }

    fn begin_account(&mut self, name: &str) -> Option<()> {
        if self.find_name(name).is_none() {
            self.put_account(Account::new(name))?;
        }
        Some(())
    }

    /// Adds an account under the next number.
    pub(super) fn put_account(&mut self, account: Account) -> Option<()> {
        let number = u32::try_from(self.accounts.len()).ok()?;
        let Self { accounts, by_name, hashing, leases, .. } = self;
        leases.watch(accounts.len(), account.leases());
        accounts.push(account);
        let hash = |at: &u32| hashing.hash_one(&*self::account(accounts, *at).name);
        by_name.insert_unique(hash(&number), number, hash);
        self.index_user_key(number);
        Some(())
    }

    pub(super) fn begin_metric(&mut self, name: MetricName) -> Option<()> {
        if !self.metric_numbers.contains_key(&name) {
            let number = u32::try_from(self.metrics.len()).ok()?;
            self.metrics.push(name.clone());
            self.metric_numbers.insert(name, number);
        }
        Some(())
    }

    fn apply_counted(&mut self, number: u64, counted: &Counted<'_>) -> Option<()> {
        let from = &mut Reader(counted.usage);
        self.apply_usage(from, |_, account| account.advance(number), Account::raise)?;
        if counted.request.0 != [0; 16] {
            self.recent.insert(counted.request, counted.attempt, counted.usage, counted.at);
        }
        self.keep_id(counted.idempotency_id, counted.at, IDEMPOTENCY_KEPT_MS);
        Some(())
    }

    /// Remembers a report by its id, if it has one.
    fn keep_id(&mut self, id: &[u8], at: Timestamp, kept_ms: i64) {
        if id.is_empty() {
            return;
        }
        if self.reported.len() == self.reported.capacity() {
            self.reported.retain(|_, until| at < *until);
        }
        self.reported.insert(id.to_vec(), at.plus_ms(kept_ms));
    }

    fn apply_taken_back(&mut self, number: u64, request: RequestId, usage: &[u8]) -> Option<()> {
        self.recent.remove(request);
        self.apply_usage(&mut Reader(usage), |_, account| account.advance(number), Account::lower)
    }

    /// Changes the counters of one account, if the entry is new to it.
    pub(super) fn apply_usage(
        &mut self,
        from: &mut Reader<'_>,
        is_new: impl FnOnce(usize, &mut Account) -> bool,
        change: impl Fn(&mut Account, &Row, &Windows),
    ) -> Option<()> {
        let usage = Usage::read(from)?;
        let windows = self.windows(usage.at);
        let account = self.accounts.get_mut(usage.account)?;
        let is_new = is_new(usage.account, account);
        for row in usage.rows(from) {
            let row = row?;
            if is_new {
                change(account, &row, &windows);
            }
        }
        Some(())
    }

    fn put_application(
        &mut self,
        number: u64,
        at: usize,
        record: Option<Record>,
        user_key: Option<KeyHash>,
    ) -> Option<()> {
        let account = self.accounts.get_mut(at)?;
        if !account.advance(number) {
            return Some(());
        }
        account.record = record;
        if account.user_key == user_key {
            return Some(());
        }
        let at = u32::try_from(at).ok()?;
        self.forget_user_key(at);
        self.accounts[at as usize].user_key = user_key;
        self.index_user_key(at);
        Some(())
    }

    /// Unless the key has moved to another application already.
    fn forget_user_key(&mut self, number: u32) {
        let Some(hash) = &account(&self.accounts, number).user_key else { return };
        let hash = self.hash_of_key(hash);
        if let Ok(found) = self.by_user_key.find_entry(hash, |at| *at == number) {
            found.remove();
        }
    }

    /// From now on an application's key leads to it, even if it led to another.
    fn index_user_key(&mut self, number: u32) {
        let Self { accounts, by_user_key, hashing, .. } = self;
        let of = |at: u32| account(accounts, at);
        let Some(key) = &of(number).user_key else { return };
        let hash = |at: &u32| of(*at).user_key.as_ref().map_or(0, |key| hashing.hash_one(key.digest));
        let service = service_of(&of(number).name);
        let is_key =
            |at: &u32| of(*at).user_key.as_ref() == Some(key) && service_of(&of(*at).name) == service;
        match by_user_key.find_mut(hash(&number), is_key) {
            Some(leads_to) => *leads_to = number,
            None => {
                by_user_key.insert_unique(hash(&number), number, hash);
            }
        }
    }
}

fn account(accounts: &[Account], number: u32) -> &Account {
    &accounts[number as usize]
}

fn service_of(name: &str) -> &str {
    name.split_once('/').map_or(name, |(service, _)| service)
}
