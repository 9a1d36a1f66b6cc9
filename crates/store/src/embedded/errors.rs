//! The error lists of services, in memory, in the log and in the checkpoint.
//!
//! A checkpoint holds all lists as they are at one moment, with the number of the last entry in them, so that an entry
//! which is also in the log is not taken over twice.

use std::collections::VecDeque;

use hashbrown::HashMap;
use weir_core::{ServiceId, Timestamp};

use super::bytes::{Reader, put_bytes, put_number};
use super::entry::Entry;
use super::{Book, Embedded};
use crate::key::now;
use crate::service_error::{ERRORS_KEPT_MAX, ERRORS_KEPT_MS, places};
use crate::{ErrorPage, ServiceError, StoreError};

/// All lists.
#[derive(Debug, Default)]
pub(super) struct Errors {
    /// Of the last log entry that is in here.
    number: u64,
    /// Newest first.
    lists: HashMap<ServiceId, VecDeque<ServiceError>>,
}

impl Errors {
    /// Takes over an error, if its entry is new.
    pub(super) fn keep(&mut self, number: u64, service: ServiceId, error: ServiceError) {
        if self.advance(number) {
            let list = self.lists.entry(service).or_default();
            list.truncate(ERRORS_KEPT_MAX - 1);
            list.push_front(error);
        }
    }

    /// Takes over that a list is emptied, if the entry is new.
    pub(super) fn forget(&mut self, number: u64, service: &ServiceId) {
        if self.advance(number) {
            self.lists.remove(service);
        }
    }

    fn advance(&mut self, number: u64) -> bool {
        let is_new = number > self.number;
        self.number = self.number.max(number);
        is_new
    }

    /// Drops lists that nothing was added to for long.
    pub(super) fn forget_old(&mut self, now: Timestamp) {
        self.lists.retain(|_, list| !is_old(list, now));
    }

    fn page(&self, service: &ServiceId, page: usize, per_page: usize, now: Timestamp) -> ErrorPage {
        let Some(list) = self.lists.get(service).filter(|list| !is_old(list, now)) else {
            return ErrorPage::default();
        };
        let (first, end) = places(page, per_page);
        let errors = list.range(first.min(list.len())..end.min(list.len())).cloned().collect();
        ErrorPage { errors, total: list.len() as u64 }
    }

    /// Writes all of them.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        put_number(out, self.number);
        put_number(out, self.lists.len() as u64);
        for (service, list) in &self.lists {
            put_bytes(out, service.as_str().as_bytes());
            put_number(out, list.len() as u64);
            list.iter().for_each(|error| put_error(out, error));
        }
    }

    /// Reads what [`Self::put`] wrote.
    pub(super) fn read(from: &mut Reader<'_>) -> Option<Self> {
        let number = from.number()?;
        let list = |from: &mut Reader<'_>| Some((from.text()?.parse().ok()?, from.list(read_error)?.into()));
        Some(Self { number, lists: from.list(list)?.into_iter().collect() })
    }
}

fn is_old(list: &VecDeque<ServiceError>, now: Timestamp) -> bool {
    list.front().is_none_or(|newest| newest.at.plus_ms(ERRORS_KEPT_MS) <= now)
}

/// Writes an error as log and checkpoint have it.
fn put_error(out: &mut Vec<u8>, error: &ServiceError) {
    put_number(out, error.at.unix_ms().unsigned_abs());
    for text in [&error.code, &error.message, &error.request] {
        put_bytes(out, text.as_bytes());
    }
}

/// Reads one; `None`: it is none.
pub(super) fn read_error(from: &mut Reader<'_>) -> Option<ServiceError> {
    Some(ServiceError {
        at: from.small().map(Timestamp::from_unix_ms)?,
        code: from.text()?.to_owned(),
        message: from.text()?.to_owned(),
        request: from.text()?.to_owned(),
    })
}

impl Embedded {
    pub(crate) async fn keep_error(
        &self,
        service: &ServiceId,
        error: &ServiceError,
    ) -> Result<(), StoreError> {
        let mut bytes = vec![];
        put_error(&mut bytes, &error.clipped());
        self.step(&Entry::ErrorKept { service: service.as_str(), error: &bytes }).await
    }

    pub(crate) async fn forget_errors(&self, service: &ServiceId) -> Result<(), StoreError> {
        self.step(&Entry::ErrorsForgotten { service: service.as_str() }).await
    }

    pub(crate) fn errors(&self, service: &ServiceId, page: usize, per_page: usize) -> ErrorPage {
        self.shared.book.lock().ledger.errors.page(service, page, per_page, now())
    }

    /// One step that counts nothing. Given up while the log cannot be written.
    async fn step(&self, entry: &Entry<'_>) -> Result<(), StoreError> {
        self.shared.catch_up().map_err(StoreError::Log)?;
        {
            let mut book = self.shared.book.lock();
            let Book { ledger, tail } = &mut *book;
            ledger.step(entry, tail);
        }
        self.persist().await.map_err(StoreError::Log)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EmbeddedConfig, Publication};

    fn error(at_ms: i64, code: &str) -> ServiceError {
        let (message, request) = ("no such application".into(), "GET /transactions/authrep.xml".into());
        ServiceError { code: code.into(), message, at: Timestamp::from_unix_ms(at_ms), request }
    }

    /// On a full disk the refused calls of a day would be as much memory.
    #[tokio::test]
    async fn what_cannot_be_written_does_not_pile_up() {
        let dir = tempfile::tempdir().unwrap();
        // In the background, nothing is written meanwhile.
        let config =
            EmbeddedConfig { sync_interval_ms: 60_000, ..EmbeddedConfig::new(dir.path().to_owned()) };
        let store = Embedded::open(config).await.unwrap();
        let service: ServiceId = "one".parse().unwrap();
        store.keep_error(&service, &error(1, "a")).await.unwrap();
        let good = store.shared.log.swap_file(std::fs::File::create("/dev/full").unwrap());
        let waiting = || store.shared.book.lock().tail.bytes();
        store.keep_error(&service, &error(2, "b")).await.unwrap_err();
        let bytes = waiting();
        for _ in 0..3 {
            store.keep_error(&service, &error(3, "c")).await.unwrap_err();
            store.forget_errors(&service).await.unwrap_err();
            store.publish(Publication { revision: 1, ..Publication::default() }).unwrap_err();
            store.presume_due().await.unwrap_err();
        }
        assert_eq!(waiting(), bytes);
        store.shared.log.swap_file(good);
        store.keep_error(&service, &error(4, "d")).await.unwrap();
        assert_eq!(waiting(), 0);
        let page = store.shared.book.lock().ledger.errors.page(&service, 1, 9, Timestamp::from_unix_ms(5));
        let codes: Vec<&str> = page.errors.iter().map(|error| &error.code[..]).collect();
        assert_eq!(codes, ["d", "b", "a"], "of those that failed the one that found it out");
    }

    #[test]
    fn lists_are_read_as_written_and_take_no_entry_twice() {
        let (one, two): (ServiceId, ServiceId) = ("one".parse().unwrap(), "two".parse().unwrap());
        let mut errors = Errors::default();
        errors.keep(3, one.clone(), error(1, "a"));
        errors.keep(4, one.clone(), error(2, "b"));
        errors.keep(4, one.clone(), error(2, "b"));
        errors.keep(5, two.clone(), error(2, "c"));
        errors.forget(6, &two);
        let mut out = vec![];
        errors.put(&mut out);
        for end in 0..out.len() {
            assert!(Errors::read(&mut Reader(&out[..end])).is_none(), "cut after {end}");
        }
        let mut read = Errors::read(&mut Reader(&out)).unwrap();
        read.keep(5, two.clone(), error(2, "c"));
        let now = Timestamp::from_unix_ms(3);
        let found = read.page(&one, 1, 9, now);
        assert_eq!(found, ErrorPage { errors: vec![error(2, "b"), error(1, "a")], total: 2 });
        assert_eq!(read.page(&one, 2, 1, now).errors, [error(1, "a")]);
        assert_eq!(read.page(&two, 1, 9, now), ErrorPage::default());
    }

    #[test]
    fn a_list_that_nothing_is_added_to_is_forgotten() {
        let service: ServiceId = "one".parse().unwrap();
        let mut errors = Errors::default();
        errors.keep(1, service.clone(), error(0, "a"));
        errors.keep(2, service.clone(), error(10, "b"));
        let total =
            |errors: &Errors, at_ms| errors.page(&service, 1, 9, Timestamp::from_unix_ms(at_ms)).total;
        assert_eq!([total(&errors, ERRORS_KEPT_MS + 9), total(&errors, ERRORS_KEPT_MS + 10)], [2, 0]);
        errors.forget_old(Timestamp::from_unix_ms(ERRORS_KEPT_MS + 9));
        assert_eq!(errors.lists.len(), 1);
        errors.forget_old(Timestamp::from_unix_ms(ERRORS_KEPT_MS + 10));
        assert!(errors.lists.is_empty());
    }
}
