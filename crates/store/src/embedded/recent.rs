//! What was counted in the last seconds, by request, so that it can be looked up and taken back.
//!
//! Two generations of at least ten seconds each. How a request is taken back is kept as the log has it, one after the
//! other; a generation is forgotten as a whole.

use hashbrown::HashMap;
use weir_core::Timestamp;

use crate::RequestId;
use crate::key::RECENT_KEPT_MS;

/// What is known of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    Nothing,
    /// It was counted lately.
    Counted,
    /// It was taken back, this attempt of it included.
    Buried,
}

#[derive(Default)]
pub(super) struct Recent {
    newer: Generation,
    older: Generation,
    rotated: Timestamp,
}

#[derive(Default)]
struct Generation {
    requests: HashMap<RequestId, Request>,
    /// The usages of all of them.
    usages: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Request {
    /// The latest one: whose it is to take back. Of a buried one, the last that counts nothing.
    attempt: u32,
    /// Where its usage begins and how long it is; `None`: buried.
    usage: Option<(usize, u32)>,
}

impl Recent {
    /// Remembers a request that was counted.
    pub(super) fn insert(&mut self, request: RequestId, attempt: u32, usage: &[u8], now: Timestamp) {
        self.rotate(now);
        let Generation { requests, usages: all } = &mut self.newer;
        // A service has at most 4,096 metrics.
        let length = u32::try_from(usage.len()).unwrap_or(u32::MAX);
        requests.insert(request, Request { attempt, usage: Some((all.len(), length)) });
        all.extend_from_slice(usage);
    }

    fn find(&self, request: RequestId) -> Option<&Request> {
        self.newer.requests.get(&request).or_else(|| self.older.requests.get(&request))
    }

    /// The usage of a request that was counted lately, and belongs to that attempt where one is named.
    pub(super) fn usage(&self, request: RequestId, attempt: Option<u32>) -> Option<&[u8]> {
        [&self.newer, &self.older].into_iter().find_map(|generation| {
            let found = generation.requests.get(&request)?;
            let (begin, length) = found.usage?;
            let bytes = generation.usages.get(begin..begin + length as usize);
            bytes.filter(|_| attempt.is_none_or(|attempt| attempt == found.attempt))
        })
    }

    /// Looks a request up for an attempt; if it was counted lately, it belongs to the latest attempt from then on.
    pub(super) fn recall(&mut self, request: RequestId, attempt: u32) -> Known {
        let newer = self.newer.requests.get_mut(&request);
        match newer.or_else(|| self.older.requests.get_mut(&request)) {
            None => Known::Nothing,
            Some(Request { attempt: last, usage: None }) if attempt <= *last => Known::Buried,
            Some(Request { usage: None, .. }) => Known::Nothing,
            Some(counted) => {
                counted.attempt = counted.attempt.max(attempt);
                Known::Counted
            }
        }
    }

    /// Forgets a request.
    pub(super) fn remove(&mut self, request: RequestId) {
        self.newer.requests.remove(&request);
        self.older.requests.remove(&request);
    }

    /// Attempts of a request up to `last` count nothing from now on, unless it was counted for a later one.
    pub(super) fn bury(&mut self, request: RequestId, last: u32, now: Timestamp) {
        self.rotate(now);
        let buried_until = match self.find(request) {
            Some(Request { usage: Some(_), .. }) => return,
            Some(buried) => buried.attempt.max(last),
            None => last,
        };
        self.newer.requests.insert(request, Request { attempt: buried_until, usage: None });
    }

    fn rotate(&mut self, now: Timestamp) {
        if now.unix_ms() - self.rotated.unix_ms() <= RECENT_KEPT_MS {
            return;
        }
        self.rotated = now;
        std::mem::swap(&mut self.newer, &mut self.older);
        self.newer.clear();
        // As many again are likely: to grow little by little would copy all of them many times.
        self.newer.requests.reserve(self.older.requests.len());
        self.newer.usages.reserve(self.older.usages.len());
    }
}

impl Generation {
    /// Keeps the memory that as many again will need.
    fn clear(&mut self) {
        let (requests, bytes) = (self.requests.len(), self.usages.len());
        self.requests.clear();
        self.usages.clear();
        if requests < self.requests.capacity() / 4 {
            self.requests.shrink_to(2 * requests);
            self.usages.shrink_to(2 * bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: RequestId = RequestId([1; 16]);

    fn at(later_ms: i64) -> Timestamp {
        Timestamp::from_unix_ms(1_000_000 + later_ms)
    }

    #[test]
    fn a_request_is_known_for_ten_seconds_at_least() {
        let mut recent = Recent::default();
        recent.insert(RequestId([2; 16]), 0, b"other", at(0));
        recent.insert(ID, 0, b"usage", at(RECENT_KEPT_MS));
        recent.insert(RequestId([3; 16]), 0, b"third", at(RECENT_KEPT_MS + 1));
        recent.insert(RequestId([4; 16]), 0, b"fourth", at(2 * RECENT_KEPT_MS + 1));
        assert_eq!(recent.usage(ID, None), Some(&b"usage"[..]));
        recent.insert(RequestId([5; 16]), 0, b"fifth", at(2 * RECENT_KEPT_MS + 2));
        assert_eq!(recent.usage(ID, None), None);
        assert_eq!(recent.usage(RequestId([3; 16]), None), Some(&b"third"[..]));
    }

    #[test]
    fn what_was_counted_belongs_to_the_latest_attempt() {
        let mut recent = Recent::default();
        recent.insert(ID, 0, b"usage", at(0));
        assert_eq!(recent.recall(ID, 2), Known::Counted);
        assert_eq!(recent.recall(ID, 1), Known::Counted);
        assert_eq!([recent.usage(ID, Some(1)), recent.usage(ID, Some(2))], [None, Some(&b"usage"[..])]);
        recent.bury(ID, 1, at(1));
        assert!(recent.usage(ID, None).is_some(), "a later attempt's is not buried");
        recent.remove(ID);
        recent.bury(ID, 2, at(1));
        recent.bury(ID, 1, at(1));
        assert_eq!([recent.recall(ID, 2), recent.recall(ID, 3)], [Known::Buried, Known::Nothing]);
    }
}
