//! Short ways to say what a store is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use weir_core::counter::{Ceiling, Increment};
use weir_core::{AlertBins, ApplicationRef, Timestamp};
use weir_store::{
    Ask, Entry, Mode, Outcome, Publication, PublishedApplication, Record, Report, RequestId, Store, Subject,
};

pub(crate) fn app(name: &str) -> ApplicationRef {
    format!("api/{name}").parse().unwrap()
}

pub(crate) fn request() -> RequestId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut id = [7; 16];
    id[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    RequestId(id)
}

pub(crate) fn record(text: &str) -> Record {
    Record::new(text.as_bytes())
}

/// `"hits=1<=10/day<=20/month mail=#3"`: usage with ceilings.
pub(crate) fn increments(text: &str) -> Vec<Increment> {
    let increment = |word: &str| {
        let mut parts = word.split("<=");
        let (metric, value) = parts.next().unwrap().split_once('=').unwrap();
        let ceiling = |part: &str| {
            let (max, period) = part.split_once('/').unwrap();
            Ceiling { period: period.parse().unwrap(), max: max.parse().unwrap() }
        };
        Increment {
            metric: metric.parse().unwrap(),
            value: value.parse().unwrap(),
            ceilings: parts.map(ceiling).collect(),
            alert_bins: AlertBins::ALL,
        }
    };
    text.split_whitespace().map(increment).collect()
}

pub(crate) fn ask(application: &str, usage: &str) -> Ask {
    Ask {
        request: request(),
        attempt: 0,
        application: Arc::new(Subject::new(app(application))),
        application_version: record(application).version,
        service_version: record("api").version,
        increments: increments(usage),
        mode: Mode::Count,
    }
}

/// What an ask comes to, in words: `"ok 3 5"`, `"over 0: 10"`, `"stale"`.
pub(crate) fn words(outcome: &Outcome) -> String {
    let list = |used: &[u64]| used.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
    match outcome {
        Outcome::Admitted { used, .. } => format!("ok {}", list(used)).trim_end().to_owned(),
        Outcome::Refused { exceeded, used, .. } => format!("over {exceeded}: {}", list(used)),
        Outcome::Stale { .. } => "stale".into(),
    }
}

#[track_caller]
pub(crate) fn check(outcome: &Outcome, expected: &str) {
    assert_eq!(words(outcome), expected);
}

pub(crate) async fn apply(store: &Store, application: &str, usage: &str) -> String {
    words(&store.apply(ask(application, usage)).await.unwrap())
}

/// What the counters of these ceilings hold, without changing them.
pub(crate) async fn read(store: &Store, application: &str, usage: &str) -> String {
    let ask = Ask { mode: Mode::Check, ..ask(application, usage) };
    words(&store.apply(ask).await.unwrap())
}

pub(crate) fn publication(revision: u64, applications: &[&str]) -> Publication {
    let published =
        |name: &&str| PublishedApplication { application: app(name), record: record(name), user_key: None };
    Publication {
        revision,
        complete: true,
        services: vec![("api".parse().unwrap(), record("api"))],
        applications: applications.iter().map(published).collect(),
        ..Publication::default()
    }
}

pub(crate) fn report(id: &str, entries: &[(&str, &str, Option<Timestamp>)]) -> Report {
    let entry = |(application, usage, at): &(&str, &str, Option<Timestamp>)| Entry {
        application: app(application),
        increments: increments(usage),
        at: *at,
    };
    Report {
        idempotency_id: id.as_bytes().to_vec(),
        gives_back: false,
        entries: entries.iter().map(entry).collect(),
    }
}
