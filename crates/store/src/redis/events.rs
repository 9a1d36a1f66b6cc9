//! Events in Redis: a stream per shard, `weir:{7}:events`, written by `news.lua` in the step that counts.

use std::collections::HashMap;

use redis::Pipeline;
use weir_core::Timestamp;
use weir_core::alert::Alert;

use super::{Redis, SHARDS};
use crate::{Event, EventId, EventKind, StoreError};

/// An entry of a stream: its id, and its fields.
type Entry = (String, HashMap<String, String>);

fn key(shard: usize) -> String {
    format!("weir:{{{shard}}}:events")
}

fn broken() -> StoreError {
    StoreError::Answer("an event of unknown shape".into())
}

impl Redis {
    pub(crate) async fn events(&self, most: usize) -> Result<Vec<Event>, StoreError> {
        let mut pipe = redis::pipe();
        for shard in 0..SHARDS {
            pipe.cmd("XRANGE").arg(key(shard)).arg("-").arg("+").arg("COUNT").arg(most);
        }
        let shards: Vec<Vec<Entry>> = pipe.query_async(&mut self.reader()).await?;
        let entries =
            shards.iter().zip(0..).flat_map(|(entries, shard)| entries.iter().map(move |e| (shard, e)));
        let mut events: Vec<Event> =
            entries.map(|(shard, entry)| read(shard, entry).ok_or_else(broken)).collect::<Result<_, _>>()?;
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
        Ok(pipe.query_async::<()>(&mut self.reader()).await?)
    }
}

/// As Redis names an entry.
fn place(id: &EventId) -> String {
    format!("{}-{}", id.place.0, id.place.1)
}

fn read(shard: u64, (id, fields): &Entry) -> Option<Event> {
    let (first, second) = id.split_once('-')?;
    let field = |name: &str| fields.get(name).map(String::as_str);
    let kind = match field("kind")? {
        "first_traffic" => EventKind::FirstTraffic,
        "first_daily_traffic" => EventKind::FirstDailyTraffic,
        "alert" => EventKind::Alert(Alert {
            bin: field("bin")?.parse().ok()?,
            metric: field("metric")?.parse().ok()?,
            period: field("period")?.parse().ok()?,
            current: field("current")?.parse().ok()?,
            max: field("max")?.parse().ok()?,
        }),
        _ => return None,
    };
    Some(Event {
        id: EventId { shard, place: (first.parse().ok()?, second.parse().ok()?) },
        application: field("application")?.parse().ok()?,
        at: Timestamp::from_unix_ms(field("at")?.parse().ok()?),
        kind,
    })
}
