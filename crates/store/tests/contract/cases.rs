//! The contract, case by case. Each uses applications of its own; revisions rise from case to case.

use std::sync::Arc;

use weir_core::{KeyHash, Timestamp};
use weir_store::{Ask, Mode, Outcome, PublishError, Report, Store, StoreError, Write};

use crate::words::{app, apply, ask, check, increments, publication, read, record, report, request, words};

const APPLICATIONS: [&str; 15] =
    ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "late", "crowd", "m", "n"];

pub(crate) async fn all(store: &Store) {
    store.publish(publication(1, &APPLICATIONS)).await.unwrap();
    all_increments_fit_or_none_counts(store).await;
    every_window_counts_from_its_start(store).await;
    parallel_callers_never_pass_a_limit(store).await;
    parallel_callers_are_told_where_they_stand(store).await;
    what_is_asked_together_is_answered_in_order(store).await;
    a_retry_counts_once_and_cancel_takes_back(store).await;
    what_comes_late_counts_nothing(store).await;
    set_values_replace_and_come_back(store).await;
    what_nobody_waits_for_is_taken_back(store).await;
    reports_count_whatever_the_limits(store).await;
    what_was_free_is_given_back(store).await;
    counters_saturate(store).await;
    thousands_of_ceilings_are_judged_at_once(store).await;
    old_records_are_answered_with_new_ones(store).await;
    publications_never_go_back(store).await;
    keys_may_move_between_applications(store).await;
}

async fn all_increments_fit_or_none_counts(store: &Store) {
    let usage = "hits=1<=3/day mail=2<=4/hour<=100/eternity";
    assert_eq!(apply(store, "a", usage).await, "ok 1 2 2");
    assert_eq!(apply(store, "a", usage).await, "ok 2 4 4");
    assert_eq!(apply(store, "a", usage).await, "over 1: 2 4 4", "mail refuses, hits stays");
    assert_eq!(apply(store, "a", "hits=1<=3/day").await, "ok 3", "exactly the limit");
    assert_eq!(apply(store, "a", "hits=1<=3/day").await, "over 0: 3", "and not one more");
    assert_eq!(apply(store, "a", "hits=0<=3/day").await, "ok 3");
    assert_eq!(apply(store, "a", "off=1<=0/eternity").await, "over 0: 0");
    assert_eq!(apply(store, "a", "").await, "ok");
}

async fn every_window_counts_from_its_start(store: &Store) {
    assert_eq!(apply(store, "b", "hits=5").await, "ok");
    let all = "hits=1<=9/hour<=9/day<=9/week<=9/month<=9/year<=9/eternity";
    assert_eq!(apply(store, "b", all).await, "ok 6 6 6 6 6 6", "a limit added later counts from the start");
    assert_eq!(read(store, "b", "hits=0<=9/minute").await, "ok 0", "minutes count where a limit needs them");
}

async fn parallel_callers_never_pass_a_limit(store: &Store) {
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut admitted = 0;
                for _ in 0..25 {
                    let outcome = store.apply(ask("c", "hits=1<=1000/day all=1")).await.unwrap();
                    admitted += u64::from(matches!(outcome, Outcome::Admitted { .. }));
                }
                admitted
            })
        })
        .collect();
    let mut admitted = 0;
    for task in tasks {
        admitted += task.await.unwrap();
    }
    assert_eq!(admitted, 1000);
    assert_eq!(read(store, "c", "hits=0<=2000/day all=0<=2000/day").await, "ok 1000 1000");
}

/// Asks that come together may be decided together: each is answered as if it had come alone.
async fn parallel_callers_are_told_where_they_stand(store: &Store) {
    let asks = (0..200).map(|_| store.apply(ask("crowd", "hits=3<=100/day all=3<=9999/week")));
    let outcomes = futures_util::future::join_all(asks).await;
    let mut told: Vec<u64> = Vec::new();
    for outcome in outcomes {
        match outcome.unwrap() {
            Outcome::Admitted { used, .. } => {
                assert_eq!(used[0], used[1]);
                told.push(used[0]);
            }
            other => check(&other, "over 0: 99 99"),
        }
    }
    told.sort_unstable();
    assert_eq!(told, (1..=33).map(|n| 3 * n).collect::<Vec<_>>());
    assert_eq!(read(store, "crowd", "hits=0<=999/hour all=0<=999/eternity").await, "ok 99 99");
}

async fn told_together(store: &Store, asks: Vec<Ask>) -> Vec<String> {
    let told = |outcome: &Result<Outcome, StoreError>| words(outcome.as_ref().unwrap());
    store.apply_all(&Arc::new(asks), Write::Now).await.iter().map(told).collect()
}

/// Of several shards, alike and not, more than a call to Redis takes; the same request twice counts once.
async fn what_is_asked_together_is_answered_in_order(store: &Store) {
    let twice = ask("m", "hits=1<=9/day");
    let check = Ask { mode: Mode::Check, ..ask("m", "hits=1<=9/day") };
    let asks = vec![
        twice.clone(),
        twice.clone(),
        ask("n", "hits=2<=3/day"),
        ask("n", "hits=2<=3/day"),
        check.clone(),
        Ask { request: request(), ..check },
        ask("m", "hits=#5<=9/day"),
        ask("m", "hits=#5<=9/day"),
        Ask { attempt: 1, ..twice },
        ask("n", "hits=1<=3/day"),
    ];
    let expected = ["ok 1", "ok 1", "ok 2", "over 0: 2", "ok 1", "ok 1", "ok 5", "ok 5", "ok 5", "ok 3"];
    assert_eq!(told_together(store, asks).await, expected);
    let many =
        (0..700).map(|place| ask(if place < 300 { "m" } else { "n" }, "mail=1<=350/eternity")).collect();
    let one = |place: u64| match place {
        0..300 => format!("ok {}", place + 1),
        300..650 => format!("ok {}", place - 299),
        _ => "over 0: 350".into(),
    };
    assert_eq!(told_together(store, many).await, (0..700).map(one).collect::<Vec<_>>());
    assert!(told_together(store, vec![]).await.is_empty());
}

async fn a_retry_counts_once_and_cancel_takes_back(store: &Store) {
    let first = ask("d", "hits=2<=9/day");
    let again = Ask { attempt: 1, ..first.clone() };
    check(&store.apply(first.clone()).await.unwrap(), "ok 2");
    check(&store.apply(again.clone()).await.unwrap(), "ok 2");
    check(&store.apply(again.clone()).await.unwrap(), "ok 2");
    assert!(store.cancel(&app("d"), first.request, None).await.unwrap());
    assert!(!store.cancel(&app("d"), first.request, None).await.unwrap(), "once");
    assert_eq!(read(store, "d", "hits=0<=9/day").await, "ok 0");
    let first = ask("d", "hits=2<=9/day");
    for attempt in [0, 1, 2] {
        check(&store.apply(Ask { attempt, ..first.clone() }).await.unwrap(), "ok 2");
    }
    assert!(!store.cancel(&app("d"), first.request, Some(1)).await.unwrap(), "a later attempt owns it");
    assert_eq!(read(store, "d", "hits=0<=9/day").await, "ok 2");
    assert!(!store.cancel(&app("d"), request(), None).await.unwrap(), "an unknown request");
    let refused = ask("d", "hits=8<=9/day");
    check(&store.apply(refused.clone()).await.unwrap(), "over 0: 2");
    assert!(
        !store.cancel(&app("d"), refused.request, None).await.unwrap(),
        "a refused request counted nothing"
    );
}

/// A listener that hangs or dies may send what was asked of it long after the caller turned to another one.
async fn what_comes_late_counts_nothing(store: &Store) {
    let first = ask("late", "hits=2<=9/day");
    let attempt = |attempt| Ask { attempt, ..first.clone() };
    check(&store.apply(attempt(1)).await.unwrap(), "ok 2");
    check(&store.apply(attempt(0)).await.unwrap(), "ok 2");
    assert!(!store.cancel(&app("late"), first.request, Some(0)).await.unwrap(), "the latest attempt owns it");
    assert!(store.cancel(&app("late"), first.request, None).await.unwrap());
    for late in [0, 1, 2] {
        let answer = store.apply(attempt(late)).await;
        assert!(matches!(answer, Err(StoreError::TakenBack)), "{late}: {answer:?}");
    }

    let next = ask("late", "hits=2<=9/day");
    assert!(!store.cancel(&app("late"), next.request, Some(1)).await.unwrap(), "not counted yet");
    for (attempt, expected) in [(0, None), (1, None), (2, Some("ok 2")), (1, Some("ok 2"))] {
        let answer = store.apply(Ask { attempt, ..next.clone() }).await;
        match expected {
            Some(expected) => check(&answer.unwrap(), expected),
            None => assert!(matches!(answer, Err(StoreError::TakenBack)), "{attempt}: {answer:?}"),
        }
    }
    assert_eq!(read(store, "late", "hits=0<=9/day").await, "ok 2");

    let checked = Ask { mode: Mode::Check, ..ask("late", "hits=2<=9/day") };
    store.cancel(&app("late"), checked.request, Some(1)).await.unwrap();
    for attempt in [2, 1] {
        let answer = store.apply(Ask { attempt, ..checked.clone() }).await;
        assert_eq!(
            answer.is_ok(),
            attempt == 2,
            "a later attempt does not dig up an earlier one: {answer:?}"
        );
    }
}

async fn set_values_replace_and_come_back(store: &Store) {
    assert_eq!(apply(store, "e", "disk=7<=9/month").await, "ok 7");
    let set = ask("e", "disk=#4<=9/month<=9/eternity");
    check(&store.apply(set.clone()).await.unwrap(), "ok 4 4");
    assert_eq!(apply(store, "e", "disk=2<=9/month").await, "ok 6");
    assert!(store.cancel(&app("e"), set.request, None).await.unwrap());
    assert_eq!(read(store, "e", "disk=0<=9/month").await, "ok 9", "what came after stays");
    assert_eq!(apply(store, "e", "disk=#10<=9/month").await, "over 0: 9");
    assert_eq!(apply(store, "e", "disk=#0<=9/month").await, "ok 0", "a set value is judged by itself");
}

async fn what_nobody_waits_for_is_taken_back(store: &Store) {
    let mut answered = 0;
    for _ in 0..50 {
        // One poll sends it; then the caller leaves.
        let mut pending = Box::pin(store.apply(ask("f", "hits=1<=1000/day")));
        let polled = futures_poll_once(&mut pending).await;
        if let Some(outcome) = polled {
            // The embedded store answers at once: nobody can leave before. Redis may where this thread has to wait.
            assert_eq!(words(&outcome.unwrap()).split(' ').next(), Some("ok"));
            answered += 1;
        }
    }
    assert!(answered < 50 || matches!(store, Store::Embedded(_)), "nobody ever left");
    weir_tests::wait::until_async("nothing to stay counted but what was answered", || async {
        let settled = read(store, "f", "hits=0<=1000/day").await == format!("ok {answered}");
        settled.then_some(())
    })
    .await;
}

async fn futures_poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

async fn reports_count_whatever_the_limits(store: &Store) {
    let usage = "hits=5<=1/day";
    assert!(store.report(report("r1", &[("g", usage, None), ("h", usage, None)])).await.unwrap());
    assert!(!store.report(report("r1", &[("g", usage, None), ("h", usage, None)])).await.unwrap());
    assert!(store.report(report("", &[("g", usage, None)])).await.unwrap());
    assert!(store.report(report("", &[("g", usage, None)])).await.unwrap(), "without an id each counts");
    assert_eq!(read(store, "g", "hits=0<=99/day").await, "ok 15");
    assert_eq!(read(store, "h", "hits=0<=99/day").await, "ok 5");
    let often = [("h", "hits=1", None), ("g", "hits=0", None), ("h", "hits=2", None), ("h", "hits=3", None)];
    assert!(store.report(report("r2", &often)).await.unwrap());
    assert_eq!(read(store, "h", "hits=0<=99/day").await, "ok 11", "all of one application's");
    let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let yesterday = Timestamp::from_unix_ms(i64::try_from(now_ms).unwrap() - 86_400_000);
    store.report(report("", &[("g", "hits=2", Some(yesterday))])).await.unwrap();
    assert_eq!(read(store, "g", "hits=0<=99/day<=99/eternity").await, "ok 15 17", "booked to its own day");
}

async fn what_was_free_is_given_back(store: &Store) {
    let usage = "hits=5<=9/day";
    let given_back =
        |id: &str, usage: &str, at| Report { gives_back: true, ..report(id, &[("k", usage, at)]) };
    assert!(store.report(report("", &[("k", usage, None)])).await.unwrap());
    assert!(store.report(given_back("b1", "hits=3", None)).await.unwrap());
    assert!(!store.report(given_back("b1", "hits=3", None)).await.unwrap(), "once by its id");
    assert_eq!(read(store, "k", "hits=0<=9/minute<=9/day<=9/eternity").await, "ok 0 2 2");
    assert_eq!(apply(store, "k", "hits=7<=9/day").await, "ok 9", "there is room again");
    // Another day's is another window's; what it never had stays 0.
    let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let yesterday = Some(Timestamp::from_unix_ms(i64::try_from(now_ms).unwrap() - 86_400_000));
    store.report(report("", &[("k", "hits=2", yesterday)])).await.unwrap();
    store.report(given_back("", "hits=2", yesterday)).await.unwrap();
    assert_eq!(read(store, "k", "hits=0<=9/day<=99/eternity").await, "ok 9 9");
    assert!(store.report(given_back("b2", "hits=99 mails=1", None)).await.unwrap());
    assert_eq!(
        read(store, "k", "hits=0<=9/day<=9/eternity mails=0<=9/day").await,
        "ok 0 0 0",
        "no counter falls below 0"
    );
    // An id is one of reports, whatever they do.
    assert!(!store.report(report("b2", &[("k", usage, None)])).await.unwrap());
}

async fn counters_saturate(store: &Store) {
    let most = (1_u64 << 53) - 1;
    store.report(report("", &[("i", &format!("hits={most}"), None)])).await.unwrap();
    store.report(report("", &[("i", "hits=5", None)])).await.unwrap();
    assert_eq!(read(store, "i", &format!("hits=0<={most}/eternity")).await, format!("ok {most}"));
    assert_eq!(apply(store, "i", &format!("hits=1<={most}/eternity")).await, format!("over 0: {most}"));
}

async fn thousands_of_ceilings_are_judged_at_once(store: &Store) {
    let all = |last: &str| {
        let many: String = (0..4_000).map(|n| format!("m{n}=1<=1/day<=1/week<=1/month ")).collect();
        format!("{many}{last}")
    };
    assert!(apply(store, "j", &all("last=2<=1/day")).await.starts_with("over 12000: 0 0"));
    assert_eq!(apply(store, "j", &all("last=1<=1/day")).await, format!("ok{}", " 1".repeat(12_001)));
    assert!(apply(store, "j", &all("")).await.starts_with("over 0: 1 1"));
}

async fn old_records_are_answered_with_new_ones(store: &Store) {
    let old_application = Ask { application_version: record("old").version, ..ask("j", "hits=1<=9/day") };
    let Outcome::Stale { application, service } = store.apply(old_application).await.unwrap() else {
        panic!("an old application record was trusted");
    };
    assert_eq!(application, Some(record("j")));
    assert_eq!(service, Some(record("api").version));
    let old_service = Ask { service_version: record("old").version, ..ask("j", "hits=1<=9/day") };
    assert!(matches!(store.apply(old_service).await.unwrap(), Outcome::Stale { .. }));
    let unknown = Ask { increments: increments(""), mode: Mode::Check, ..ask("nobody", "") };
    let Outcome::Stale { application: None, .. } = store.apply(unknown).await.unwrap() else {
        panic!("an application that does not exist was trusted");
    };
    assert_eq!(read(store, "j", "hits=0<=9/day").await, "ok 0", "nothing was counted");

    let counted = ask("j", "hits=1<=9/day");
    check(&store.apply(counted.clone()).await.unwrap(), "ok 1");
    let old = record("old").version;
    let judged_by_old_records = Ask { attempt: 1, application_version: old, ..counted };
    assert!(matches!(store.apply(judged_by_old_records).await.unwrap(), Outcome::Stale { .. }));
    assert_eq!(read(store, "j", "hits=0<=9/day").await, "ok 0", "it is judged anew: nothing stays counted");
}

/// Renames and swaps, enough of them to meet every order of shards.
async fn keys_may_move_between_applications(store: &Store) {
    let names = |prefix: &str| (0..24).map(|n| format!("{prefix}{n}")).collect::<Vec<_>>();
    let key = |n: usize| -> KeyHash { format!("hmac:1:{n:064x}").parse().unwrap() };
    let service = "api".parse().unwrap();
    let (old, new) = (names("old"), names("new"));
    let stay: Vec<usize> = (0..24).collect();
    let swapped: Vec<usize> = stay.iter().map(|n| n ^ 1).collect();
    for (revision, apps, keys) in
        [(20, &old, &stay), (21, &new, &stay), (22, &new, &swapped), (23, &old, &stay)]
    {
        let mut next = publication(revision, &apps.iter().map(String::as_str).collect::<Vec<_>>());
        for (published, n) in next.applications.iter_mut().zip(keys) {
            published.user_key = Some(key(*n));
            published.record = record(&format!("{} with key {n}", published.application));
        }
        store.publish(next).await.unwrap();
        for (name, n) in apps.iter().zip(keys) {
            let found = store.application_of_user_key(&service, &key(*n)).await.unwrap();
            assert_eq!(found.map(|id| id.to_string()), Some(name.clone()), "revision {revision}");
        }
    }
}

async fn publications_never_go_back(store: &Store) {
    let key: KeyHash = format!("hmac:1:{}", "ab".repeat(32)).parse().unwrap();
    let mut next = publication(7, &["a", "new"]);
    next.applications[1].user_key = Some(key.clone());
    store.publish(next.clone()).await.unwrap();
    store.publish(next.clone()).await.unwrap();
    assert_eq!(store.revision().await.unwrap(), 7);
    let older = store.publish(publication(6, &["a"])).await;
    assert!(matches!(older, Err(PublishError::Older { held: 7, offered: 6 })));
    let other = store.publish(publication(7, &["a"])).await;
    assert!(matches!(other, Err(PublishError::OtherContent { revision: 7 })));
    assert_eq!(store.application(&app("new")).await.unwrap(), Some(record("new")));
    assert_eq!(store.application(&app("b")).await.unwrap(), None, "gone with the complete publication");
    assert_eq!(read(store, "a", "hits=0<=9/day").await, "ok 3", "counters outlive publications");

    let service = "api".parse().unwrap();
    let found = store.application_of_user_key(&service, &key).await.unwrap();
    assert_eq!(found.unwrap().as_str(), "new");
    next.revision = 8;
    next.applications[1].user_key = None;
    next.applications[1].record = record("new, without key");
    store.publish(next).await.unwrap();
    assert_eq!(store.application_of_user_key(&service, &key).await.unwrap(), None);

    let mut removal = publication(9, &[]);
    (removal.complete, removal.services) = (false, vec![]);
    removal.removed_applications = vec![app("new")];
    store.publish(removal).await.unwrap();
    assert_eq!(store.application(&app("new")).await.unwrap(), None);
    assert_eq!(store.application(&app("a")).await.unwrap(), Some(record("a")), "not named, not touched");
    let services = store.services().await.unwrap();
    assert_eq!(services, vec![(service.clone(), record("api"))]);
    assert_eq!(store.service(&service).await.unwrap(), Some(record("api")));
}
