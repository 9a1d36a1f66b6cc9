//! The contract of leases, case by case: what is held is nobody else's, what is said twice or late counts once.

use std::sync::Arc;
use std::time::SystemTime;

use weir_core::lease::ledger::{Ask as Said, Wish};
use weir_core::lease::{Declared, LeaseId, Reply, When};
use weir_core::{Period, Timestamp};
use weir_store::{LeaseAsk, LeaseOutcome, Publication, Recall, Store, Subject};
use weir_tests::wait::until_async;

use crate::words::{app, apply, increments, publication, read, record};

const APPLICATIONS: [&str; 11] = [
    "lent",
    "shared",
    "twice",
    "dead",
    "renamed",
    "methods",
    "free",
    "forgotten",
    "ahead",
    "crowded",
    "newly",
];

/// Revisions rise from case to case: these come after all others.
pub(crate) async fn all(store: &Store) {
    store.publish(publication(100, &APPLICATIONS)).await.unwrap();
    what_is_lent_is_nobody_elses(store).await;
    gateways_get_fair_shares(store).await;
    what_is_said_twice_or_late_counts_once(store).await;
    lines_share_their_parents_limit(store).await;
    what_has_no_limit_is_only_settled(store).await;
    a_limit_that_comes_later_holds_no_more_than_is_granted_under_it(store).await;
    dead_holders_are_presumed_and_corrected(store).await;
    old_records_grant_nothing_but_settle(store).await;
    what_a_fail_over_forgot_is_taken_over(store).await;
    nothing_is_lent_of_a_window_far_ahead(store).await;
    what_is_said_at_once_is_heard_one_by_one(store).await;
    all_hear_what_anybody_asks_back(store).await;
    all_hear_of_what_was_published(store).await;
}

/// What a gateway says: a line is a unit, what is spent, what is granted and what is wanted.
pub(crate) fn said(
    application: &str,
    (gateway, sequence, round): (u8, u64, u32),
    lines: &[(&str, [u64; 3])],
) -> LeaseAsk {
    let wish = |(unit, [spent, granted, want]): &(&str, [u64; 3])| Wish {
        unit: increments(unit),
        spent: *spent,
        granted: *granted,
        want: *want,
        least: 1,
    };
    // Names are the gateways' own, and no two leases share one.
    let mut boot = [gateway; 16];
    boot[..application.len()].copy_from_slice(application.as_bytes());
    LeaseAsk {
        application: Arc::new(Subject::new(app(application))),
        application_version: record(application).version,
        service_version: record("api").version,
        message: Said {
            id: LeaseId { boot, sequence },
            holder: format!("gateway-{gateway}").into(),
            round,
            opens: None,
            closes: false,
            lasts_ms: 1_000,
            declared: None,
            lines: lines.iter().map(wish).collect(),
        },
    }
}

pub(crate) fn opening(mut ask: LeaseAsk) -> LeaseAsk {
    ask.message.opens = Some(When::Now);
    ask
}

pub(crate) fn closing(mut ask: LeaseAsk) -> LeaseAsk {
    ask.message.closes = true;
    ask
}

/// `"granted 5 10"`, `"closed"`, `"short"`, `"stale"`. Leases are asked of this life of the store, unless another is named.
pub(crate) async fn hear(store: &Store, mut ask: LeaseAsk) -> String {
    if ask.message.opens.is_some() && ask.message.declared.is_none() {
        ask.message.declared = Some(Declared { incarnation: incarnation(store).await, moment: in_ms(0) });
    }
    let lasts_ms = ask.message.lasts_ms;
    match store.lease(ask).await.unwrap() {
        LeaseOutcome::Answered { reply: Reply::Granted(grant), .. } => {
            assert!(grant.ends_in_ms <= lasts_ms && grant.begins_in_ms == 0, "{grant:?}");
            let granted: Vec<String> = grant.granted.iter().map(u64::to_string).collect();
            format!("granted {}", granted.join(" "))
        }
        LeaseOutcome::Answered { reply: Reply::Closed, .. } => "closed".into(),
        LeaseOutcome::Answered { reply: Reply::Short, .. } => "short".into(),
        LeaseOutcome::Stale { .. } => "stale".into(),
    }
}

/// The life of the store, as anybody hears it.
pub(crate) async fn incarnation(store: &Store) -> u64 {
    match store.lease(closing(said("nobody", (0, 0, 0), &[]))).await.unwrap() {
        LeaseOutcome::Answered { incarnation, .. } => incarnation,
        LeaseOutcome::Stale { .. } => panic!("a last word is heard whatever the versions"),
    }
}

async fn what_is_lent_is_nobody_elses(store: &Store) {
    const UNIT: &str = "hits=1<=10/year all=1";
    assert_eq!(apply(store, "lent", "hits=2<=10/year all=2").await, "ok 2");
    let opened = opening(said("lent", (1, 1, 1), &[(UNIT, [0, 0, 3])]));
    assert_eq!(hear(store, opened).await, "granted 3");
    assert_eq!(apply(store, "lent", "hits=6<=10/year").await, "over 0: 2", "3 are held");
    assert_eq!(apply(store, "lent", "hits=5<=10/year all=5").await, "ok 7");
    assert_eq!(read(store, "lent", "hits=0<=10/year").await, "ok 7", "what is held is not used");
    let renewed = said("lent", (1, 1, 2), &[(UNIT, [2, 3, 3])]);
    assert_eq!(hear(store, renewed).await, "granted 3", "1 is left to it, and nothing to grant");
    assert_eq!(read(store, "lent", "hits=0<=10/year all=0<=99/year").await, "ok 9 9");
    assert_eq!(store.leases(&app("lent")).await.unwrap().len(), 1);
    assert_eq!(hear(store, closing(said("lent", (1, 1, 3), &[(UNIT, [2, 2, 0])]))).await, "closed");
    assert_eq!(store.leases(&app("lent")).await.unwrap(), []);
    assert_eq!(apply(store, "lent", "hits=1<=10/year all=1").await, "ok 10");
    let refused = opening(said("lent", (1, 2, 1), &[(UNIT, [0, 0, 3])]));
    assert_eq!(hear(store, refused).await, "short");
}

async fn gateways_get_fair_shares(store: &Store) {
    const UNIT: &str = "hits=1<=100/year";
    let wants_all = |gateway, round, spent, granted| {
        let said = said("shared", (gateway, 1, round), &[(UNIT, [spent, granted, 1_000])]);
        if granted == 0 { opening(said) } else { said }
    };
    assert_eq!(hear(store, wants_all(1, 1, 0, 0)).await, "granted 50", "half of what is left, alone");
    assert_eq!(hear(store, wants_all(2, 1, 0, 0)).await, "granted 12", "a quarter of 50");
    assert_eq!(hear(store, wants_all(1, 2, 20, 40)).await, "granted 40", "it keeps what it kept");
    assert_eq!(hear(store, wants_all(2, 2, 12, 12)).await, "granted 24", "a quarter of 48");
    assert_eq!(apply(store, "shared", "hits=37<=100/year").await, "over 0: 32");
    assert_eq!(apply(store, "shared", "hits=36<=100/year").await, "ok 68");
}

async fn what_is_said_twice_or_late_counts_once(store: &Store) {
    const UNIT: &str = "hits=1<=1000/year";
    let opened = opening(said("twice", (1, 1, 1), &[(UNIT, [0, 0, 10])]));
    for _ in 0..3 {
        assert_eq!(hear(store, opened.clone()).await, "granted 10");
    }
    let renewed = said("twice", (1, 1, 3), &[(UNIT, [8, 10, 10])]);
    for _ in 0..2 {
        assert_eq!(hear(store, renewed.clone()).await, "granted 18");
    }
    let late = said("twice", (1, 1, 2), &[(UNIT, [4, 10, 10])]);
    assert_eq!(hear(store, late.clone()).await, "granted 18");
    assert_eq!(read(store, "twice", "hits=0<=1000/year").await, "ok 8");
    let taken_back = said("twice", (1, 1, 4), &[(UNIT, [7, 18, 11])]);
    assert_eq!(hear(store, taken_back).await, "granted 18");
    assert_eq!(read(store, "twice", "hits=0<=1000/year").await, "ok 7", "a request did not go on");
    let closed = closing(said("twice", (1, 1, 5), &[(UNIT, [9, 9, 0])]));
    for _ in 0..2 {
        assert_eq!(hear(store, closed.clone()).await, "closed");
    }
    for late in [opened, renewed, late] {
        assert_eq!(hear(store, late).await, "closed");
    }
    assert_eq!(read(store, "twice", "hits=0<=1000/year").await, "ok 9");
    let never_opened = said("twice", (1, 7, 5), &[(UNIT, [3, 3, 0])]);
    assert_eq!(hear(store, closing(never_opened.clone())).await, "closed");
    assert_eq!(hear(store, opening(never_opened)).await, "closed", "its last word came first");
    assert_eq!(read(store, "twice", "hits=0<=1000/year").await, "ok 9");
}

async fn lines_share_their_parents_limit(store: &Store) {
    const READ: &str = "hits=1<=10/year read=1";
    const WRITE: &str = "hits=1<=10/year write=1<=3/day";
    let opened = opening(said("methods", (1, 1, 1), &[(READ, [0, 0, 4]), (WRITE, [0, 0, 4])]));
    assert_eq!(hear(store, opened).await, "granted 4 1", "half of 10, half of the 3 that writing may");
    assert_eq!(apply(store, "methods", "hits=6<=10/year").await, "over 0: 0");
    assert_eq!(apply(store, "methods", "hits=5<=10/year write=3<=3/day").await, "over 1: 0 0");
    let closed = closing(said("methods", (1, 1, 2), &[(READ, [3, 3, 0]), (WRITE, [1, 1, 0])]));
    assert_eq!(hear(store, closed).await, "closed");
    let all = "hits=0<=99/year read=0<=99/year write=0<=99/day";
    assert_eq!(read(store, "methods", all).await, "ok 4 3 1");
}

async fn what_has_no_limit_is_only_settled(store: &Store) {
    let opened = opening(said("free", (1, 1, 1), &[("mail=2", [0, 0, 1])]));
    assert_eq!(hear(store, opened).await, format!("granted {}", weir_core::COUNT_MAX));
    let closed = closing(said("free", (1, 1, 2), &[("mail=2", [21, 21, 0])]));
    assert_eq!(hear(store, closed).await, "closed");
    assert_eq!(read(store, "free", "mail=0<=99/hour<=99/eternity").await, "ok 42 42");
}

/// A plan that begins to limit a metric: what was lent without limit is not held from everybody.
async fn a_limit_that_comes_later_holds_no_more_than_is_granted_under_it(store: &Store) {
    let opened = opening(said("newly", (1, 1, 1), &[("mail=1", [0, 0, 5])]));
    assert_eq!(hear(store, opened).await, format!("granted {}", weir_core::COUNT_MAX));
    const LIMITED: &str = "mail=1<=100/year";
    let renewed = said("newly", (1, 1, 2), &[(LIMITED, [10, weir_core::COUNT_MAX, 20])]);
    assert_eq!(hear(store, renewed).await, "granted 30");
    assert_eq!(apply(store, "newly", "mail=71<=100/year").await, "over 0: 10");
    assert_eq!(apply(store, "newly", "mail=70<=100/year").await, "ok 80");
}

async fn dead_holders_are_presumed_and_corrected(store: &Store) {
    const UNIT: &str = "hits=1<=100/year all=1";
    let opened = opening(said("dead", (1, 1, 1), &[(UNIT, [0, 0, 20])]));
    assert_eq!(hear(store, opened).await, "granted 20");
    let used = "hits=0<=100/year all=0<=100/eternity";
    assert_eq!(read(store, "dead", used).await, "ok 0 0");
    until_async("the lease to count as used", || async {
        store.presume_due().await.unwrap();
        (read(store, "dead", used).await == "ok 20 20").then_some(())
    })
    .await;
    assert!(store.leases(&app("dead")).await.unwrap()[0].is_presumed);
    let late = said("dead", (1, 1, 2), &[(UNIT, [3, 20, 20])]);
    assert_eq!(hear(store, late).await, "closed", "it has to say its last word");
    assert_eq!(read(store, "dead", used).await, "ok 20 20");
    for _ in 0..2 {
        let last = closing(said("dead", (1, 1, 3), &[(UNIT, [7, 7, 0])]));
        assert_eq!(hear(store, last).await, "closed");
        assert_eq!(read(store, "dead", used).await, "ok 7 7");
    }
}

async fn old_records_grant_nothing_but_settle(store: &Store) {
    const UNIT: &str = "hits=1<=100/year";
    let opened = opening(said("renamed", (1, 1, 1), &[(UNIT, [0, 0, 5])]));
    assert_eq!(hear(store, opened).await, "granted 5");
    let mut old = said("renamed", (1, 1, 2), &[(UNIT, [2, 5, 5])]);
    old.application_version = record("before").version;
    assert_eq!(hear(store, old.clone()).await, "stale");
    assert_eq!(read(store, "renamed", "hits=0<=100/year").await, "ok 0");
    old.message.round = 3;
    assert_eq!(hear(store, closing(old)).await, "closed", "a last word is heard whatever the versions");
    assert_eq!(read(store, "renamed", "hits=0<=100/year").await, "ok 2");
}

async fn what_a_fail_over_forgot_is_taken_over(store: &Store) {
    const UNIT: &str = "hits=1<=100/year all=1";
    const USED: &str = "hits=0<=100/year all=0<=100/eternity";
    let now = incarnation(store).await;
    let declared = |mut ask: LeaseAsk, incarnation| {
        // As if it had been granted since the store remembers what it closed.
        ask.message.declared = Some(Declared { incarnation, moment: in_ms(3_000) });
        ask
    };
    let renewed = said("forgotten", (1, 1, 7), &[(UNIT, [30, 40, 20])]);
    assert_eq!(hear(store, declared(renewed.clone(), now)).await, "closed", "this life never knew of it");
    assert_eq!(read(store, "forgotten", USED).await, "ok 0 0");
    let renewed = said("forgotten", (1, 2, 7), &[(UNIT, [30, 40, 20])]);
    for _ in 0..2 {
        assert_eq!(hear(store, declared(renewed.clone(), now + 1)).await, "granted 50");
        assert_eq!(read(store, "forgotten", USED).await, "ok 30 30", "all that was spent of it, once");
    }
    assert_eq!(apply(store, "forgotten", "hits=51<=100/year").await, "over 0: 30", "20 are held");
    let closed = closing(said("forgotten", (1, 2, 8), &[(UNIT, [35, 35, 0])]));
    let unheard = closing(said("forgotten", (1, 3, 3), &[(UNIT, [5, 5, 0])]));
    for last_word in [closed, unheard, closing(renewed)] {
        assert_eq!(hear(store, declared(last_word, now + 1)).await, "closed");
    }
    assert_eq!(read(store, "forgotten", USED).await, "ok 40 40", "35 and 5; what was closed stays so");
    let opened = opening(said("forgotten", (1, 5, 1), &[(UNIT, [0, 0, 5])]));
    assert_eq!(hear(store, declared(opened, now + 1)).await, "short", "it was asked of another life");
    let mut old = closing(said("forgotten", (1, 4, 3), &[(UNIT, [5, 5, 0])]));
    old.message.declared = Some(Declared { incarnation: now + 1, moment: in_ms(-86_400_000) });
    assert_eq!(hear(store, old).await, "closed");
    assert_eq!(read(store, "forgotten", USED).await, "ok 40 40", "it may have been counted long since");
}

async fn nothing_is_lent_of_a_window_far_ahead(store: &Store) {
    let to_next_hour = || {
        let now = in_ms(0);
        Period::Hour.window(now).end.unwrap().unix_ms() - now.unix_ms()
    };
    until_async("the next hour to be more than seconds ahead", || async {
        (to_next_hour() > 10_000).then_some(())
    })
    .await;
    let mut ask = said("ahead", (1, 1, 1), &[("hits=1<=100/year", [0, 0, 1])]);
    ask.message.opens = Some(When::Next);
    assert_eq!(hear(store, ask).await, "short");
    assert_eq!(store.leases(&app("ahead")).await.unwrap(), []);
}

async fn what_is_said_at_once_is_heard_one_by_one(store: &Store) {
    const UNIT: &str = "hits=1<=1000/year";
    let asked = (1..=20_u64).map(|n| async move {
        let opened = hear(store, opening(said("crowded", (1, n, 1), &[(UNIT, [0, 0, 10]); 2]))).await;
        (opened, apply(store, "crowded", "hits=1<=1000/year all=1").await)
    });
    for (opened, admitted) in futures_util::future::join_all(asked).await {
        assert_eq!(opened, "granted 10 10");
        assert!(admitted.starts_with("ok"), "{admitted}");
    }
    assert_eq!(apply(store, "crowded", "hits=581<=1000/year").await, "over 0: 20", "400 are held");
    assert_eq!(apply(store, "crowded", "hits=580<=1000/year").await, "ok 600");
}

async fn all_hear_what_anybody_asks_back(store: &Store) {
    let mut hearers = [store.recalls(), store.recalls()];
    for hearer in &mut hearers {
        // Nobody says when a hearer is connected; what is said before is lost.
        until_async("a recall to be heard", || {
            let heard = hearer.try_recv();
            async {
                store.recall(&app("lent")).await;
                (heard.ok()? == Recall::Needed(app("lent"))).then_some(())
            }
        })
        .await;
    }
}

/// Publishes revisions until a hearer has heard; `of` makes one, other than the one before.
async fn hears_of(store: &Store, of: impl Fn(u64) -> Publication, expected: &[&str]) {
    let mut hearer = store.recalls();
    let mut heard = vec![];
    until_async("a publication to be heard of", || {
        while let Ok(recall) = hearer.try_recv() {
            heard.push(recall.to_string());
        }
        let is_heard = expected.iter().all(|expected| heard.iter().any(|heard| heard == expected));
        let publication = async {
            let revision = store.revision().await.unwrap() + 1;
            store.publish(of(revision)).await.unwrap();
        };
        async move {
            publication.await;
            is_heard.then_some(())
        }
    })
    .await;
    heard.retain(|heard| !expected.contains(&heard.as_str()));
    assert!(heard.is_empty(), "{heard:?}");
}

/// To be asked last: the catalog is another one afterwards.
async fn all_hear_of_what_was_published(store: &Store) {
    let with = |revision: u64, application: &str| {
        let mut publication = publication(revision, &["a", "b"]);
        publication.applications[0].record = record(application);
        publication
    };
    store.publish(with(store.revision().await.unwrap() + 1, "a")).await.unwrap();
    hears_of(store, |revision| with(revision, &format!("a {revision}")), &["changed api/a"]).await;
    let service = |revision: u64| {
        let services = vec![("api".parse().unwrap(), record(&format!("api {revision}")))];
        Publication { services, ..with(revision, "a") }
    };
    store.publish(with(store.revision().await.unwrap() + 1, "a")).await.unwrap();
    hears_of(store, service, &["changed api"]).await;
}

pub(crate) fn in_ms(ms: i64) -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp::from_unix_ms(i64::try_from(since_epoch.as_millis()).unwrap() + ms)
}
