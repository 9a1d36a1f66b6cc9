//! What edge limits have counted, in memory.
//!
//! A table lives as long as a service has its limit, through changes of everything else. Callers are told apart by a
//! keyed hash of who they are; a bounded number of them, further ones share an entry.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Arc, Weak};
use std::time::Instant;

use hashbrown::HashMap;
use parking_lot::Mutex;
use weir_core::ServiceId;
use weir_core::policy::edge_limits::{EdgeLimit, KEYS_MAX};

/// Parts that are locked one by one.
const PARTS: usize = 16;
/// Most callers of one part.
const PART_MAX: usize = KEYS_MAX / PARTS;
/// The least time between two looks for callers that can be forgotten.
const SWEEP_PAUSE_NS: u64 = 100_000_000;
/// Who has no entry of its own.
const OTHERS: u64 = 0;

/// By service, limit, and which of those that are alike.
type Key = (ServiceId, EdgeLimit, usize);

/// The tables of a gateway.
#[derive(Default)]
pub(crate) struct EdgeTables(Mutex<HashMap<Key, Weak<EdgeTable>>>);

impl EdgeTables {
    /// The table of a service's limit, the `nth` of those that are alike.
    pub(crate) fn of(&self, service: &ServiceId, limit: &EdgeLimit, nth: usize) -> Arc<EdgeTable> {
        let mut tables = self.0.lock();
        let key = (service.clone(), limit.clone(), nth);
        if let Some(table) = tables.get(&key).and_then(Weak::upgrade) {
            return table;
        }
        tables.retain(|_, table| table.strong_count() > 0);
        let table = Arc::new(EdgeTable::new(limit.clone()));
        tables.insert(key, Arc::downgrade(&table));
        table
    }
}

/// What one limit has counted.
pub(crate) struct EdgeTable {
    limit: EdgeLimit,
    hashing: RandomState,
    since: Instant,
    parts: [Mutex<Part>; PARTS],
}

#[derive(Default)]
struct Part {
    callers: HashMap<u64, Entry>,
    swept_ns: u64,
}

#[derive(Clone, Copy, Default)]
struct Entry {
    /// Of its bucket.
    state_ns: u64,
    under_way: u64,
}

/// Why a call is too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TooMuch {
    /// It came too soon.
    Rate { wait_ns: u64 },
    /// Too many are under way.
    Concurrency,
}

/// A call that was taken; its place among those under way is free again when this is dropped.
pub(crate) struct Held {
    table: Arc<EdgeTable>,
    part: usize,
    caller: u64,
}

impl Held {
    /// The call did not go on after all: its token comes back.
    pub(super) fn put_back(self) {
        if let Some(rate) = &self.table.limit.rate {
            self.change(|entry| entry.state_ns = entry.state_ns.saturating_sub(rate.each_ns()));
        }
    }

    fn change(&self, change: impl FnOnce(&mut Entry)) {
        let mut part = self.table.parts[self.part].lock();
        part.callers.get_mut(&self.caller).map(change);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.table.limit.concurrent_max.is_some() {
            self.change(|entry| entry.under_way = entry.under_way.saturating_sub(1));
        }
    }
}

impl EdgeTable {
    fn new(limit: EdgeLimit) -> Self {
        Self {
            limit,
            hashing: RandomState::new(),
            since: Instant::now(),
            parts: std::array::from_fn(|_| Mutex::default()),
        }
    }

    /// Who it counts as one.
    pub(super) fn limit(&self) -> &EdgeLimit {
        &self.limit
    }

    /// A caller's number.
    pub(super) fn caller(&self, who: impl Hash) -> u64 {
        self.hashing.hash_one(who).max(OTHERS + 1)
    }

    /// Takes a call of a caller's.
    ///
    /// # Errors
    /// When it is too much.
    pub(super) fn take(self: &Arc<Self>, caller: u64) -> Result<Held, TooMuch> {
        let (part, caller) = self.judge(caller, true)?;
        Ok(Held { table: Arc::clone(self), part, caller })
    }

    /// The same without taking anything.
    ///
    /// # Errors
    /// When it would be too much.
    pub(super) fn look(&self, caller: u64) -> Result<(), TooMuch> {
        self.judge(caller, false).map(drop)
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// In which part, under which number it was counted.
    fn judge(&self, caller: u64, takes: bool) -> Result<(usize, u64), TooMuch> {
        let now_ns = self.now_ns();
        let at = usize::try_from(caller % PARTS as u64).unwrap_or_default();
        let mut part = self.parts[at].lock();
        let caller = if part.has_room_for(caller, now_ns) { caller } else { OTHERS };
        let known = part.callers.get(&caller).copied().unwrap_or_default();
        if self.limit.concurrent_max.is_some_and(|max| known.under_way >= max) {
            return Err(TooMuch::Concurrency);
        }
        let state_ns = match &self.limit.rate {
            Some(rate) => rate.take(known.state_ns, now_ns).map_err(|wait_ns| TooMuch::Rate { wait_ns })?,
            None => 0,
        };
        if takes {
            let under_way = known.under_way + u64::from(self.limit.concurrent_max.is_some());
            part.callers.insert(caller, Entry { state_ns, under_way });
        }
        Ok((at, caller))
    }
}

impl Part {
    fn has_room_for(&mut self, caller: u64, now_ns: u64) -> bool {
        if self.callers.len() < PART_MAX || self.callers.contains_key(&caller) {
            return true;
        }
        if now_ns >= self.swept_ns.saturating_add(SWEEP_PAUSE_NS) {
            self.swept_ns = now_ns;
            // A full bucket is as good as none.
            self.callers.retain(|_, entry| entry.under_way > 0 || entry.state_ns > now_ns);
        }
        self.callers.len() < PART_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_core::policy::edge_limits::{Per, Rate};

    fn table(requests: u64, concurrent_max: Option<u64>) -> Arc<EdgeTable> {
        let rate = Some(Rate { requests, period_s: 86_400, burst: requests });
        Arc::new(EdgeTable::new(EdgeLimit { per: Per::Address, rate, concurrent_max }))
    }

    #[test]
    fn exactly_the_burst_passes_under_parallel_load() {
        let table = table(1_000, None);
        let caller = table.caller("one");
        let take = || (0..1_000).filter(|_| table.take(caller).is_ok()).count();
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 1_000);
        assert!(table.look(table.caller("other")).is_ok());
        let one_left = EdgeTable::new(table.limit().clone());
        let one_left = Arc::new(one_left);
        let held = one_left.take(caller).unwrap();
        held.put_back();
        assert_eq!((0..2_000).filter(|_| one_left.take(caller).is_ok()).count(), 1_000);
    }

    #[test]
    fn places_come_back() {
        let table = table(1_000, Some(2));
        let caller = table.caller("one");
        let held = [table.take(caller).unwrap(), table.take(caller).unwrap()];
        assert_eq!(table.take(caller).err(), Some(TooMuch::Concurrency));
        drop(held);
        assert!(table.take(caller).is_ok());
    }

    #[test]
    fn there_is_a_most_of_callers() {
        let table = table(1, None);
        for number in 0..2 * KEYS_MAX {
            let _ = table.take(table.caller(number));
        }
        let known: usize = table.parts.iter().map(|part| part.lock().callers.len()).sum();
        assert!(known <= KEYS_MAX + PARTS, "{known}");
        assert!(table.take(table.caller("one more")).is_err(), "it shares what further ones have");
    }

    #[test]
    fn tables_outlive_changes() {
        let (tables, service) = (EdgeTables::default(), ServiceId::parse("api").unwrap());
        let limit = table(1, None).limit().clone();
        let first = tables.of(&service, &limit, 0);
        assert!(Arc::ptr_eq(&first, &tables.of(&service, &limit, 0)));
        assert!(!Arc::ptr_eq(&first, &tables.of(&service, &limit, 1)));
        drop(first);
        assert_eq!(Arc::strong_count(&tables.of(&service, &limit, 0)), 1);
    }
}
