//! What happened to applications that a control plane wants to hear of, until it has acknowledged it.
//!
//! The store finds it in the step that counts (reference: Service Management API, section 4): usage of an application
//! that had none before, or none on this day, and limits whose use comes to a step. Lists are bounded, one per shard:
//! where nobody fetches, the oldest goes for an alert, and what is told of every application alike, its first traffic,
//! finds no room. What is taken back later does not take an event back.

use std::fmt;

use weir_core::alert::Alert;
use weir_core::{ApplicationRef, Timestamp};

/// Most events that are kept of a shard: the newest.
pub const EVENTS_KEPT_MAX: usize = 20_000;
/// First traffic is told while fewer events than this are kept of its shard, so that it displaces no alert.
pub const FIRSTS_KEPT_MAX: usize = 10_000;
/// Most events that are listed or acknowledged at a time.
pub const EVENTS_LISTED_MAX: usize = 1_000;

/// An application's alert is not repeated for so long, whichever limit raised it: 24 hours.
pub(crate) const ALERT_PAUSE_MS: i64 = 86_400_000;

/// Names an event: unique, and of one shard the later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId {
    /// Its place among all: a moment or a number, as the store has it.
    pub(crate) place: (u64, u64),
    pub(crate) shard: u64,
}

/// Something that happened to an application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What it is acknowledged by.
    pub id: EventId,
    /// Whose.
    pub application: ApplicationRef,
    /// When it was counted.
    pub at: Timestamp,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// The first usage that the application ever counted.
    FirstTraffic,
    /// Its first of this day, in UTC.
    FirstDailyTraffic,
    /// A limit's use came to a step.
    Alert(Alert),
}

impl EventKind {
    /// 3scale's name of it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::FirstTraffic => "first_traffic",
            Self::FirstDailyTraffic => "first_daily_traffic",
            Self::Alert(_) => "alert",
        }
    }
}

impl fmt::Display for EventId {
    /// `3-1795404719123-0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, second) = self.place;
        write!(f, "{}-{first}-{second}", self.shard)
    }
}

/// A text that names no event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is not the id of an event")]
pub struct EventIdError;

impl std::str::FromStr for EventId {
    type Err = EventIdError;

    fn from_str(text: &str) -> Result<Self, EventIdError> {
        let mut numbers = text.splitn(3, '-').map(|number| number.parse().map_err(|_| EventIdError));
        let mut next = || numbers.next().unwrap_or(Err(EventIdError));
        Ok(Self { shard: next()?, place: (next()?, next()?) })
    }
}

/// Events that nobody has fetched in time.
pub(crate) fn tell_dropped(events: u64) {
    if events > 0 {
        metrics::counter!("weir_events_dropped_total").increment(events);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_written() {
        let id = EventId { shard: 3, place: (1_795_404_719_123, 0) };
        assert_eq!(id.to_string(), "3-1795404719123-0");
        assert_eq!("3-1795404719123-0".parse(), Ok(id));
        for text in ["", "1", "1-2", "1-2-", "1-2-3-4", "a-2-3", "1-2--3"] {
            assert_eq!(text.parse::<EventId>(), Err(EventIdError), "{text}");
        }
    }
}
