//! The embedded store and Redis give the same answers to any sequence of questions.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use weir_core::ApplicationRef;
use weir_core::lease::ledger::{Ask as Said, Lease, Wish};
use weir_core::lease::{Declared, LeaseId, Reply, Standing, When};
use weir_store::{Ask, LeaseAsk, LeaseOutcome, Mode, Outcome, Report, RequestId, Store, StoreError, Subject};

use crate::Home;
use crate::events::{acknowledge_all, told};
use crate::leases::{in_ms, incarnation};
use crate::words::{app, ask, increments, publication, read, record, report, request, words};

const APPLICATIONS: [&str; 3] = ["x", "y", "z"];

#[derive(Debug, Clone)]
enum Step {
    Ask {
        application: usize,
        usage: String,
        check: bool,
    },
    /// Asks the n-th ask from the end again.
    Retry {
        back: usize,
        attempt: u32,
    },
    Cancel {
        back: usize,
        attempt: Option<u32>,
    },
    Report {
        /// Application and usage of each entry.
        entries: Vec<(usize, String)>,
        id: u8,
        gives_back: bool,
    },
    Say(Saying),
    /// Says the n-th message from the end again.
    SayAgain {
        back: usize,
    },
}

/// What a gateway says of a lease; its rounds, and what it was granted, follow from what it heard before.
#[derive(Debug, Clone)]
struct Saying {
    application: usize,
    gateway: u8,
    sequence: u64,
    /// Its place in [`LINES`].
    lines: usize,
    opens: Option<When>,
    closes: bool,
    /// Of which life of the store it knows.
    life: Life,
    is_late: bool,
    judges_by_old_records: bool,
    /// How much more was spent of what was granted.
    spends: u64,
    /// Whether it keeps the rest.
    keeps: bool,
    want: u64,
    least: u64,
}

#[derive(Debug, Clone, Copy)]
enum Life {
    Unknown,
    This,
    /// There was a fail-over, as it seems.
    Another,
}

/// What units add: of one plan and another, of limits that lines share, of lines that have none.
const LINES: [&[&str]; 6] = [
    &["a=1<=7/day b=1"],
    &["a=1<=12/eternity b=1<=9/week"],
    &["b=2"],
    &["a=1<=7/day", "a=1<=7/day b=2<=9/week"],
    &["a=1<=7/day<=12/eternity b=3", "b=1"],
    &["b=1<=9/week", "a=1 b=1<=9/week"],
];

fn usage() -> impl Strategy<Value = String> {
    let value = prop_oneof![4 => (0_u64..4).prop_map(|n| n.to_string()), 1 => (0_u64..12).prop_map(|n| format!("#{n}"))];
    let ceilings = prop::sample::subsequence(vec!["<=7/day", "<=9/week", "<=12/eternity"], 0..=3);
    let one = ("[ab]", value, ceilings).prop_map(|(m, v, c)| format!("{m}={v}{}", c.concat()));
    prop::collection::vec(one, 0..3).prop_map(|mut words| {
        words.sort();
        words.dedup_by(|a, b| a[..1] == b[..1]);
        words.join(" ")
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3_usize, usage(), any::<bool>())
            .prop_map(|(application, usage, check)| Step::Ask { application, usage, check }),
        2 => (0..5_usize, 0..4_u32).prop_map(|(back, attempt)| Step::Retry { back, attempt }),
        2 => (0..5_usize, prop::option::of(0..3_u32)).prop_map(|(back, attempt)| Step::Cancel { back, attempt }),
        1 => (prop::collection::vec((0..3_usize, usage()), 1..4), 0..3_u8, prop::bool::weighted(0.4))
            .prop_map(|(entries, id, gives_back)| Step::Report { entries, id, gives_back }),
        8 => saying().prop_map(Step::Say),
        2 => (0..4_usize).prop_map(|back| Step::SayAgain { back }),
    ]
}

fn saying() -> impl Strategy<Value = Saying> {
    let opens = prop_oneof![3 => Just(Some(When::Now)), 1 => Just(Some(When::Next)), 3 => Just(None)];
    let life = prop_oneof![4 => Just(Life::This), 1 => Just(Life::Another), 1 => Just(Life::Unknown)];
    let name = (0..2_usize, 0..3_u8, 1..3_u64, 0..LINES.len());
    let kind =
        (opens, prop::bool::weighted(0.2), life, prop::bool::weighted(0.1), prop::bool::weighted(0.05));
    let amounts = (0..4_u64, any::<bool>(), 0..6_u64, 1..3_u64);
    (name, kind, amounts).prop_map(|(name, kind, amounts)| {
        let (application, gateway, sequence, lines) = name;
        let (opens, closes, life, is_late, judges_by_old_records) = kind;
        let (spends, keeps, want, least) = amounts;
        Saying {
            application,
            gateway,
            sequence,
            lines,
            opens,
            closes,
            life,
            is_late,
            judges_by_old_records,
            spends,
            keeps,
            want,
            least,
        }
    })
}

/// What a gateway knows of its lease.
#[derive(Default)]
struct Known {
    round: u32,
    spent: [u64; 2],
    granted: [u64; 2],
}

/// The gateways of a run.
#[derive(Default)]
struct Gateways {
    leases: HashMap<LeaseId, Known>,
    said: Vec<LeaseAsk>,
    /// Of the store.
    incarnation: u64,
}

impl Gateways {
    fn message(&mut self, prefix: &str, application: &str, saying: &Saying) -> LeaseAsk {
        let mut boot = [saying.gateway; 16];
        boot[..application.len()].copy_from_slice(application.as_bytes());
        let id = LeaseId { boot, sequence: saying.sequence };
        let known = self.leases.entry(id).or_default();
        if !saying.is_late {
            known.round += 1;
        }
        let mut lines = vec![];
        for (line, unit) in LINES[saying.lines].iter().enumerate() {
            let spent = (known.spent[line] + saying.spends).min(known.granted[line].max(known.spent[line]));
            let granted = if saying.keeps { known.granted[line].max(spent) } else { spent };
            (known.spent[line], known.granted[line]) = (spent, granted);
            let Saying { want, least, .. } = *saying;
            lines.push(Wish { unit: increments(unit), spent, granted, want, least });
        }
        // Far enough ahead that no store can have closed it before it began to remember.
        let moment = in_ms(5_000);
        let declared = |incarnation| Declared { incarnation, moment };
        let named = if saying.judges_by_old_records { prefix } else { application };
        LeaseAsk {
            application: Arc::new(Subject::new(app(application))),
            application_version: record(named).version,
            service_version: record("api").version,
            message: Said {
                id,
                holder: format!("gateway-{}", saying.gateway).into(),
                round: known.round - u32::from(saying.is_late && known.round > 0),
                opens: saying.opens,
                closes: saying.closes,
                lasts_ms: if saying.gateway == 1 { 1_000 } else { 60_000 },
                declared: match saying.life {
                    Life::Unknown => None,
                    Life::This => Some(declared(self.incarnation)),
                    Life::Another => Some(declared(self.incarnation + 1)),
                },
                lines,
            },
        }
    }

    /// Says something; returns what is heard, but for times.
    async fn say(&mut self, store: &Store, ask: LeaseAsk) -> String {
        let id = ask.message.id;
        self.said.push(ask.clone());
        let LeaseOutcome::Answered { reply, incarnation } = store.lease(ask).await.unwrap() else {
            return "stale".into();
        };
        self.incarnation = incarnation;
        let Reply::Granted(grant) = reply else { return format!("{reply:?}") };
        assert_eq!(grant.declared.incarnation, incarnation);
        assert!(grant.ends_in_ms <= 60_000 || grant.begins_in_ms > 0, "{grant:?}");
        if let Some(known) = self.leases.get_mut(&id) {
            for (known, granted) in known.granted.iter_mut().zip(&grant.granted) {
                *known = *granted;
            }
        }
        let taken =
            |standing: &Standing| format!("{} {} {}", standing.metric, standing.window, standing.taken);
        let standings: Vec<String> = grant.standings.iter().map(taken).collect();
        format!("{:?} {:?} {:?}", grant.granted, standings, grant.weights)
    }
}

/// All that is known of the leases of an application, but for times.
async fn leases(store: &Store, application: &str) -> Vec<String> {
    let mut leases = store.leases(&app(application)).await.unwrap();
    leases.sort_by_key(|lease| lease.id);
    let told =
        |lease: &Lease| format!("{} {} {:?} {}", lease.holder, lease.round, lease.lines, lease.is_presumed);
    leases.iter().map(told).collect()
}

fn came_to(answer: Result<Outcome, StoreError>) -> String {
    match answer {
        Ok(outcome @ (Outcome::Admitted { .. } | Outcome::Refused { .. })) => {
            let (Outcome::Admitted { held, .. } | Outcome::Refused { held, .. }) = &outcome else {
                unreachable!()
            };
            format!("{} held {held:?}", words(&outcome))
        }
        Ok(outcome) => words(&outcome),
        Err(StoreError::TakenBack) => "taken back".into(),
        Err(problem) => panic!("{problem}"),
    }
}

async fn run(home: &Home, prefix: &str, steps: &[Step]) -> Vec<String> {
    let name = |at: usize| format!("{prefix}-{}", APPLICATIONS[at]);
    let mut asked: Vec<Ask> = Vec::new();
    let mut answers = Vec::new();
    let mut gateways = Gateways { incarnation: incarnation(&home.store).await, ..Gateways::default() };
    for step in steps {
        answers.push(match step {
            Step::Ask { application, usage, check } => {
                let mode = if *check { Mode::Check } else { Mode::Count };
                let ask = Ask { mode, ..ask(&name(*application), usage) };
                asked.push(ask.clone());
                came_to(home.store.apply(ask).await)
            }
            Step::Retry { back, attempt } => match asked.iter().rev().nth(*back) {
                Some(ask) => came_to(home.store.apply(Ask { attempt: *attempt, ..ask.clone() }).await),
                None => "nothing to ask again".into(),
            },
            Step::Cancel { back, attempt } => {
                let (application, request): (_, RequestId) = match asked.iter().rev().nth(*back) {
                    Some(ask) => (ApplicationRef::clone(&ask.application), ask.request),
                    None => (app(&name(0)), request()),
                };
                home.store.cancel(&application, request, *attempt).await.unwrap().to_string()
            }
            Step::Report { entries, id, gives_back } => {
                let id = format!("{prefix}{id}");
                // What is set cannot be given back.
                let usage = |usage: &String| if *gives_back { usage.replace('#', "") } else { usage.clone() };
                let named: Vec<_> = entries.iter().map(|(at, text)| (name(*at), usage(text))).collect();
                let entries: Vec<_> = named.iter().map(|(name, usage)| (&**name, &**usage, None)).collect();
                let report = Report { gives_back: *gives_back, ..report(&id, &entries) };
                home.store.report(report).await.unwrap().to_string()
            }
            Step::Say(saying) => {
                let message = gateways.message(prefix, &name(saying.application), saying);
                gateways.say(&home.store, message).await
            }
            Step::SayAgain { back } => match gateways.said.iter().rev().nth(*back).cloned() {
                Some(message) => gateways.say(&home.store, message).await,
                None => "nothing to say again".into(),
            },
        });
    }
    for at in 0..3 {
        answers.extend(told(&home.store, &name(at)).await);
        let all = "a=0<=99/hour<=99/day<=99/eternity b=0<=99/week<=99/month<=99/year";
        answers.push(read(&home.store, &name(at), all).await);
        answers.extend(leases(&home.store, &name(at)).await);
    }
    acknowledge_all(&home.store).await;
    answers
}

#[test]
fn both_stores_answer_alike() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let homes = runtime.block_on(async { [Home::embedded().await, Home::redis().await] });
    const CASES: u32 = 150;
    let names: Vec<String> =
        (0..CASES + 1000).flat_map(|case| APPLICATIONS.map(|name| format!("{case}-{name}"))).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for home in &homes {
        runtime.block_on(home.store.publish(publication(1, &names))).unwrap();
    }
    let case = std::sync::atomic::AtomicU32::new(0);
    let mut runner = TestRunner::new(Config { cases: CASES, max_shrink_iters: 500, ..Config::default() });
    let outcome = runner.run(&prop::collection::vec(step(), 1..25), |steps| {
        let prefix = case.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_string();
        let [embedded, redis] = &homes;
        let begun = Instant::now();
        let answers = runtime
            .block_on(async { (run(embedded, &prefix, &steps).await, run(redis, &prefix, &steps).await) });
        // A machine so slow that leases end meanwhile says nothing: they do not in both at the same step.
        prop_assume!(begun.elapsed() < Duration::from_secs(1));
        prop_assert_eq!(answers.0, answers.1);
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}
