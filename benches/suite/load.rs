//! What makes servers work: closed loops that check every answer.
//!
//! A load says what is asked and how many ask at a time; opened, it is a driver with its connections, which makes as
//! many operations as it is told. The first answer that is not as it has to be ends the driver with an error.

use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) mod http;
pub(crate) mod redis;
pub(crate) mod stream;
pub(crate) mod unary;

/// What is asked of servers.
#[derive(Clone)]
pub(crate) enum Load {
    /// HTTP/1.1 requests.
    Http(http::HttpLoad),
    /// Questions over one gRPC stream.
    Stream(stream::StreamLoad),
    /// Questions one by one by gRPC.
    Unary(unary::UnaryLoad),
    /// Increments in Redis' own words.
    Redis(redis::RedisLoad),
}

impl Load {
    /// Opens its connections.
    ///
    /// # Errors
    /// When the server takes none.
    pub(crate) async fn open(&self) -> anyhow::Result<Driver> {
        Ok(match self {
            Self::Http(load) => Driver::Http(load.open().await?),
            Self::Stream(load) => Driver::Stream(Box::new(load.open().await?)),
            Self::Unary(load) => Driver::Unary(load.open().await?),
            Self::Redis(load) => Driver::Redis(load.open().await?),
        })
    }
}

/// A load with its connections.
pub(crate) enum Driver {
    /// Of HTTP/1.1.
    Http(http::HttpDriver),
    /// Of a gRPC stream.
    Stream(Box<stream::StreamDriver>),
    /// Of unary gRPC.
    Unary(unary::UnaryDriver),
    /// Of Redis.
    Redis(redis::RedisDriver),
}

impl Driver {
    /// Makes so many operations and waits for all answers.
    ///
    /// # Errors
    /// The first answer that is wrong, or does not come.
    pub(crate) async fn run(&mut self, operations: u64) -> anyhow::Result<()> {
        match self {
            Self::Http(driver) => driver.run(operations).await,
            Self::Stream(driver) => driver.run(operations).await,
            Self::Unary(driver) => driver.run(operations).await,
            Self::Redis(driver) => driver.run(operations).await,
        }
    }
}

/// Operations that several tasks share.
#[derive(Default)]
struct Budget(AtomicU64);

impl Budget {
    fn put(&self, operations: u64) {
        self.0.store(operations, Ordering::Relaxed);
    }

    /// Takes one if there is one.
    fn take(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

/// Numbers without order, the same in every run (SplitMix64).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// Another seed, other numbers.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A place among so many, at least one.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        let count = count as u64;
        usize::try_from(self.next() % count).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_once() {
        let budget = Budget::default();
        assert!(!budget.take());
        budget.put(2);
        assert_eq!([budget.take(), budget.take(), budget.take()], [true, true, false]);
    }

    #[test]
    fn all_places_are_chosen() {
        let mut random = Random::new(1);
        let mut seen = [false; 10];
        (0..1_000).for_each(|_| seen[random.below(10)] = true);
        assert_eq!(seen, [true; 10]);
    }
}
