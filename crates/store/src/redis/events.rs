//! Events in Redis: a stream per shard, `weir:{7}:events`, written by `events.lua` in the step that counts.
//!
//! An entry has one field, a line of words: a list of a thousand is read in milliseconds, and by people.

use redis::Pipeline;
use weir_core::Timestamp;
use weir_core::alert::Alert;

use super::{Redis, SHARDS};
use crate::{Event, EventId, EventKind, StoreError};

/// An entry of a stream: its id, and its field with its name.
type Entry = (String, (String, String));

fn key(shard: usize) -> String {
    format!("weir:{{{shard}}}:events")
}

fn broken() -> StoreError {
    StoreError::Answer("an event of unknown shape".into())
}

impl Redis {
    pub(crate) async fn events(&self, most: usize) -> Result<Vec<Event>, StoreError> {
        let mut connection = self.connection().await?;
        let mut events = vec![];
        // One after the other: each answer has the time that one may take.
        for shard in 0..SHARDS {
            let mut range = redis::cmd("XRANGE");
            range.arg(key(shard)).arg("-").arg("+").arg("COUNT").arg(most);
            let entries: Vec<Entry> = range.query_async(&mut connection).await?;
            let here = entries.iter().map(|entry| read(shard as u64, entry).ok_or_else(broken));
            events.extend(here.collect::<Result<Vec<_>, _>>()?);
        }
        // All places are moments of the same clock.
        events.sort_by_key(|event| event.id);
        events.truncate(most);
        Ok(events)
    }

    pub(crate) async fn acknowledge(&self, ids: &[EventId]) -> Result<(), StoreError> {
        let mut pipe = Pipeline::new();
        for shard in 0..SHARDS {
            let here: Vec<String> = ids.iter().filter(|id| id.shard == shard as u64).map(place).collect();
            if !here.is_empty() {
                pipe.cmd("XDEL").arg(key(shard)).arg(here).ignore();
            }
        }
        if pipe.is_empty() {
            return Ok(());
        }
        Ok(pipe.query_async::<()>(&mut self.connection().await?).await?)
    }
}

/// As Redis names an entry.
fn place(id: &EventId) -> String {
    format!("{}-{}", id.place.0, id.place.1)
}

fn read(shard: u64, (id, (_, line)): &Entry) -> Option<Event> {
    let (first, second) = id.split_once('-')?;
    let mut words = line.split(' ');
    let at = Timestamp::from_unix_ms(words.next()?.parse().ok()?);
    let application = words.next()?.parse().ok()?;
    let kind = match words.next()? {
        "first_traffic" => EventKind::FirstTraffic,
        "first_daily_traffic" => EventKind::FirstDailyTraffic,
        "alert" => EventKind::Alert(Alert {
            bin: words.next()?.parse().ok()?,
            metric: words.next()?.parse().ok()?,
            period: words.next()?.parse().ok()?,
            current: words.next()?.parse().ok()?,
            max: words.next()?.parse().ok()?,
        }),
        _ => return None,
    };
    let id = EventId { shard, place: (first.parse().ok()?, second.parse().ok()?) };
    Some(Event { id, application, at, kind })
}
