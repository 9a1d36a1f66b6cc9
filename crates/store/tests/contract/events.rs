//! What is told of applications: their first usage, the first of a day, and limits whose use comes to a step; once.

use std::sync::Arc;

use weir_core::lease::When;
use weir_core::{AlertBins, ApplicationRef};
use weir_store::{
    Ask, EVENTS_KEPT_MAX, EVENTS_LISTED_MAX, Entry, Event, EventId, EventKind, FIRSTS_KEPT_MAX, Mode, Report,
    Store, Write,
};
use weir_tests::wait::until_async;

use crate::leases::{closing, hear, in_ms, opening, said};
use crate::words::{app, apply, ask, increments, publication, read, report};

const APPLICATIONS: [&str; 13] = [
    "first", "steps", "once", "refused", "together", "reported", "settled", "lined", "presumed", "quiet",
    "set", "bare", "ahead",
];
const FIRSTS: [&str; 2] = ["first_traffic", "first_daily_traffic"];

/// To be asked last: the catalog is another one afterwards.
pub(crate) async fn all(store: &Store) {
    let revision = store.revision().await.unwrap() + 1;
    store.publish(publication(revision, &APPLICATIONS)).await.unwrap();
    acknowledge_all(store).await;
    the_first_usage_is_told_and_the_first_of_a_day(store).await;
    every_step_that_is_crossed_is_told(store).await;
    an_applications_step_is_told_once_a_day(store).await;
    a_refusal_tells_nothing(store).await;
    what_is_counted_together_is_told_as_one_by_one(store).await;
    reports_tell_of_the_windows_they_are_booked_to(store).await;
    reports_from_ahead_take_no_day(store).await;
    settlements_tell(store).await;
    lines_of_a_lease_are_told_one_after_the_other(store).await;
    what_is_presumed_is_told(store).await;
    steps_that_are_not_enabled_are_not_told(store).await;
    what_is_set_is_told(store).await;
    events_are_kept_until_they_are_acknowledged(store).await;
    alerts_displace_the_oldest_and_first_traffic_displaces_none(store).await;
}

fn word(event: &Event) -> String {
    match &event.kind {
        EventKind::Alert(alert) => format!("{} % {alert}", alert.bin),
        kind => kind.as_str().to_owned(),
    }
}

/// What was told of an application and is not acknowledged, in its order.
pub(crate) async fn told(store: &Store, application: &str) -> Vec<String> {
    let events = listed(store).await;
    events.iter().filter(|event| event.application == app(application)).map(word).collect()
}

/// As many as there may be. That is much for a Redis on a busy machine, and may be asked for again.
async fn listed(store: &Store) -> Vec<Event> {
    until_async("events to be listed", || async { store.events(EVENTS_LISTED_MAX).await.ok() }).await
}

/// Forgets all there is; returns how much that was.
pub(crate) async fn acknowledge_all(store: &Store) -> usize {
    let mut acknowledged = 0;
    loop {
        let events = listed(store).await;
        if events.is_empty() {
            return acknowledged;
        }
        acknowledged += events.len();
        let ids: Vec<EventId> = events.iter().map(|event| event.id).collect();
        until_async("them to be acknowledged", || async { store.acknowledge(&ids).await.ok() }).await;
    }
}

/// The two that come first, then others.
fn after_firsts(others: &[&str]) -> Vec<String> {
    FIRSTS.iter().chain(others).map(|word| (*word).to_owned()).collect()
}

async fn the_first_usage_is_told_and_the_first_of_a_day(store: &Store) {
    assert_eq!(apply(store, "first", "hits=0<=9/day").await, "ok 0");
    assert_eq!(read(store, "first", "hits=1<=9/day").await, "ok 0");
    assert_eq!(told(store, "first").await, [""; 0], "nothing was used");
    let before = in_ms(0);
    let counted = ask("first", "hits=1");
    store.apply(counted.clone()).await.unwrap();
    assert_eq!(told(store, "first").await, FIRSTS);
    let events = store.events(9).await.unwrap();
    assert!(events.iter().all(|event| before <= event.at && event.at <= in_ms(0)), "{events:?}");
    assert!(store.cancel(&app("first"), counted.request, None).await.unwrap());
    apply(store, "first", "hits=1 mail=1").await;
    assert_eq!(told(store, "first").await, FIRSTS, "what is taken back was told all the same, and once");
}

async fn every_step_that_is_crossed_is_told(store: &Store) {
    for usage in ["hits=4<=10/day", "hits=1<=10/day", "hits=1<=10/day", "hits=4<=10/day"] {
        assert!(apply(store, "steps", usage).await.starts_with("ok"));
    }
    let expected = [
        "50 % hits per day: 5/10",
        "80 % hits per day: 10/10",
        "90 % hits per day: 10/10",
        "100 % hits per day: 10/10",
    ];
    assert_eq!(told(store, "steps").await, after_firsts(&expected));
}

async fn an_applications_step_is_told_once_a_day(store: &Store) {
    let half = ask("once", "hits=5<=10/year");
    store.apply(half.clone()).await.unwrap();
    assert_eq!(told(store, "once").await, after_firsts(&["50 % hits per year: 5/10"]));
    assert!(store.cancel(&app("once"), half.request, None).await.unwrap());
    apply(store, "once", "hits=6<=10/year").await;
    apply(store, "once", "mail=2<=4/week").await;
    assert_eq!(told(store, "once").await.len(), 3, "whichever limit comes to it, and however often");
    apply(store, "once", "mail=2<=4/week hits=2<=10/year").await;
    let expected = [
        "50 % hits per year: 5/10",
        "80 % mail per week: 4/4",
        "90 % mail per week: 4/4",
        "100 % mail per week: 4/4",
    ];
    assert_eq!(told(store, "once").await, after_firsts(&expected), "of two limits the one named first");
    acknowledge_all(store).await;
    apply(store, "once", "disk=1<=1/month").await;
    assert_eq!(told(store, "once").await, [""; 0], "acknowledged or not");
}

async fn a_refusal_tells_nothing(store: &Store) {
    assert_eq!(apply(store, "refused", "hits=11<=10/day").await, "over 0: 0");
    let stale = Ask { service_version: weir_store::Version(1), ..ask("refused", "hits=5<=10/day") };
    store.apply(stale).await.unwrap();
    let check = Ask { mode: Mode::Check, ..ask("refused", "hits=5<=10/day") };
    store.apply(check).await.unwrap();
    assert_eq!(told(store, "refused").await, [""; 0]);
}

/// Redis counts those that are alike at once.
async fn what_is_counted_together_is_told_as_one_by_one(store: &Store) {
    let asks: Vec<Ask> = (0..12).map(|_| ask("together", "a=1<=10/day b=1<=8/week")).collect();
    store.apply_all(&Arc::new(asks), Write::Now).await;
    let expected =
        ["50 % b per week: 4/8", "80 % b per week: 7/8", "90 % b per week: 8/8", "100 % b per week: 8/8"];
    assert_eq!(told(store, "together").await, after_firsts(&expected), "8 fit, and b is always ahead");
}

async fn reports_tell_of_the_windows_they_are_booked_to(store: &Store) {
    let yesterday = in_ms(-86_400_000);
    store.report(report("", &[("reported", "hits=0", Some(yesterday))])).await.unwrap();
    store.report(report("", &[("reported", "hits=5<=10/day", Some(yesterday))])).await.unwrap();
    let late = ["first_traffic", "50 % hits per day: 5/10"];
    assert_eq!(told(store, "reported").await, late, "its first ever, but none of this day");
    let entries = [
        ("reported", "mail=1<=10/day", Some(yesterday)),
        ("reported", "hits=7<=10/day", None),
        ("reported", "hits=8<=10/day", None),
        ("reported", "hits=30<=10/day", None),
    ];
    let expected = [
        "first_daily_traffic",
        "80 % hits per day: 15/10",
        "90 % hits per day: 15/10",
        "100 % hits per day: 15/10",
        "120 % hits per day: 15/10",
        "150 % hits per day: 15/10",
        "200 % hits per day: 45/10",
        "300 % hits per day: 45/10",
    ];
    for _ in 0..2 {
        store.report(report("events", &entries)).await.unwrap();
        assert_eq!(told(store, "reported").await, [&late[..], &expected].concat(), "the same id once");
    }
}

async fn reports_from_ahead_take_no_day(store: &Store) {
    store.report(report("", &[("ahead", "hits=1", Some(in_ms(86_400_000)))])).await.unwrap();
    assert_eq!(told(store, "ahead").await, ["first_traffic"]);
    for _ in 0..2 {
        apply(store, "ahead", "hits=1").await;
        assert_eq!(told(store, "ahead").await, FIRSTS, "this day is told, and once");
    }
}

async fn settlements_tell(store: &Store) {
    const UNIT: &str = "hits=1<=10/year";
    let opened = opening(said("settled", (1, 1, 1), &[(UNIT, [0, 0, 4])]));
    assert_eq!(hear(store, opened).await, "granted 4");
    assert_eq!(told(store, "settled").await, [""; 0], "what is held is not used");
    assert_eq!(hear(store, said("settled", (1, 1, 2), &[(UNIT, [4, 4, 4])])).await, "granted 7");
    assert_eq!(told(store, "settled").await, FIRSTS);
    let closed = closing(said("settled", (1, 1, 3), &[(UNIT, [7, 7, 0])]));
    for _ in 0..2 {
        assert_eq!(hear(store, closed.clone()).await, "closed");
        let expected = after_firsts(&["50 % hits per year: 5/10"]);
        assert_eq!(told(store, "settled").await, expected, "as if each had been asked for");
    }
}

async fn lines_of_a_lease_are_told_one_after_the_other(store: &Store) {
    const LINES: [&str; 2] = ["hits=1<=10/year read=1", "hits=1<=10/year write=1<=2/year"];
    let lines = |spent: [u64; 2]| LINES.map(|line| line).into_iter().zip(spent).collect::<Vec<_>>();
    let say = |round, spent, granted, want| {
        let lines: Vec<_> =
            lines(spent).into_iter().map(|(line, spent)| (line, [spent, granted, want])).collect();
        said("lined", (1, 1, round), &lines)
    };
    assert_eq!(hear(store, opening(say(1, [0, 0], 0, 4))).await, "granted 4 1");
    let closed = said("lined", (1, 1, 2), &[(LINES[0], [4, 4, 0]), (LINES[1], [1, 1, 0])]);
    assert_eq!(hear(store, closing(closed)).await, "closed");
    let expected = after_firsts(&["50 % hits per year: 5/10"]);
    assert_eq!(told(store, "lined").await, expected, "with the 4 of the first line in front");
}

async fn what_is_presumed_is_told(store: &Store) {
    const UNIT: &str = "hits=1<=10/year";
    let mut opened = opening(said("presumed", (1, 1, 1), &[(UNIT, [0, 0, 5])]));
    opened.message.opens = Some(When::Now);
    assert_eq!(hear(store, opened).await, "granted 5");
    until_async("the lease to count as used", || async {
        store.presume_due().await.unwrap();
        (read(store, "presumed", UNIT.replace("=1<", "=0<").as_str()).await == "ok 5").then_some(())
    })
    .await;
    let expected = after_firsts(&["50 % hits per year: 5/10"]);
    assert_eq!(told(store, "presumed").await, expected);
    assert_eq!(hear(store, closing(said("presumed", (1, 1, 3), &[(UNIT, [1, 1, 0])]))).await, "closed");
    assert_eq!(apply(store, "presumed", "hits=4<=10/year").await, "ok 5");
    assert_eq!(told(store, "presumed").await, expected, "given back, and told all the same");
}

async fn steps_that_are_not_enabled_are_not_told(store: &Store) {
    let with = |usage: &str, bins: &[u64]| {
        let mut ask = ask("quiet", usage);
        for increment in &mut ask.increments {
            increment.alert_bins = AlertBins::of(bins.iter().copied()).unwrap();
        }
        ask
    };
    store.apply(with("hits=9<=10/day", &[])).await.unwrap();
    assert_eq!(told(store, "quiet").await, FIRSTS);
    store.apply(with("mail=9<=10/day", &[80])).await.unwrap();
    assert_eq!(told(store, "quiet").await, after_firsts(&["80 % mail per day: 9/10"]));
    store.apply(with("disk=9", &[50])).await.unwrap();
    let entry = Entry {
        application: app("quiet"),
        increments: increments("off=5<=0/day tape=149<=100/day")
            .into_iter()
            .map(|increment| weir_core::Increment { alert_bins: AlertBins::of([150]).unwrap(), ..increment })
            .collect(),
        at: None,
    };
    store.report(Report { idempotency_id: vec![], gives_back: false, entries: vec![entry] }).await.unwrap();
    assert_eq!(told(store, "quiet").await.len(), 3, "no limit, a limit of nothing, and one short of a step");
}

async fn what_is_set_is_told(store: &Store) {
    assert_eq!(apply(store, "set", "disk=#0<=10/month").await, "ok 0");
    assert_eq!(told(store, "set").await, FIRSTS, "to set is to use");
    assert_eq!(apply(store, "set", "disk=#8<=10/month<=16/year").await, "ok 8 8");
    assert_eq!(apply(store, "set", "disk=#1<=10/month").await, "ok 1");
    assert_eq!(apply(store, "set", "disk=#9<=10/month").await, "ok 9");
    let expected = ["50 % disk per month: 8/10", "80 % disk per month: 8/10", "90 % disk per month: 9/10"];
    assert_eq!(told(store, "set").await, after_firsts(&expected));
}

async fn events_are_kept_until_they_are_acknowledged(store: &Store) {
    acknowledge_all(store).await;
    assert_eq!(store.events(9).await.unwrap(), []);
    store.acknowledge(&[]).await.unwrap();
    store.acknowledge(&["0-1-0".parse().unwrap(), "3000-1-0".parse().unwrap()]).await.unwrap();
    apply(store, "bare", "hits=8<=10/day").await;
    let events = store.events(9).await.unwrap();
    assert_eq!(
        events.iter().map(word).collect::<Vec<_>>()[2..],
        ["50 % hits per day: 8/10", "80 % hits per day: 8/10"]
    );
    assert!(events.windows(2).all(|pair| pair[0].id < pair[1].id), "{events:?}");
    let others: Vec<EventId> = events.iter().flat_map(|event| others_than(event.id)).collect();
    store.acknowledge(&others).await.unwrap();
    assert_eq!(store.events(2).await.unwrap(), events[..2]);
    assert_eq!(store.events(0).await.unwrap(), []);
    for event in &events {
        let read: EventId = event.id.to_string().parse().unwrap();
        assert_eq!(read, event.id);
    }
    for _ in 0..2 {
        store.acknowledge(&[events[2].id, events[0].id]).await.unwrap();
        assert_eq!(store.events(9).await.unwrap(), [events[1].clone(), events[3].clone()]);
    }
    assert_eq!(acknowledge_all(store).await, 2);
}

/// Ids that differ in one number, and name nothing.
fn others_than(id: EventId) -> [EventId; 2] {
    let id = id.to_string();
    let (shard, place) = id.split_once('-').unwrap();
    let (first, _) = place.split_once('-').unwrap();
    [format!("{shard}4-{place}"), format!("{shard}-{first}-9999")].map(|id| id.parse().unwrap())
}

/// Of more applications than there is room for, in each shard.
async fn alerts_displace_the_oldest_and_first_traffic_displaces_none(store: &Store) {
    let shards = if matches!(store, Store::Embedded(_)) { 1 } else { 4 };
    apply(store, "bare", "hits=1<=10/day").await;
    report_of_a_crowd(store, shards * (FIRSTS_KEPT_MAX / 2 + 1_000), "hits=1").await;
    let oldest = until_async("events to be listed", || async { store.events(usize::MAX).await.ok() }).await;
    assert_eq!(oldest.len(), EVENTS_LISTED_MAX, "no more at a time");
    assert_eq!(word(&oldest[0]), "90 % hits per day: 9/10");
    assert_eq!(acknowledge_all(store).await, shards * FIRSTS_KEPT_MAX);
    apply(store, "bare", "hits=1<=10/day").await;
    report_of_a_crowd(store, shards * (EVENTS_KEPT_MAX / 8 + 500), "hits=29<=10/day").await;
    assert!(listed(store).await.iter().all(|event| event.application != app("bare")), "the oldest is gone");
    assert_eq!(acknowledge_all(store).await, shards * EVENTS_KEPT_MAX);
}

/// Each counts a usage, which raises 2 events the first time, or 8.
async fn report_of_a_crowd(store: &Store, applications: usize, usage: &str) {
    for first in (0..applications).step_by(500) {
        let name = |number: usize| -> ApplicationRef { format!("api/crowd-{number}").parse().unwrap() };
        let entry = |number| Entry { application: name(number), increments: increments(usage), at: None };
        let entries = (first..first + 500).map(entry).collect();
        store.report(Report { idempotency_id: vec![], gives_back: false, entries }).await.unwrap();
    }
}
