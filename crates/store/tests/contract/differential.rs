//! The embedded store and Redis give the same answers to any sequence of questions.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use weir_core::ApplicationRef;
use weir_store::{Ask, Mode, Outcome, RequestId, StoreError};

use crate::Home;
use crate::words::{app, ask, publication, read, report, request, words};

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
        application: usize,
        usage: String,
        id: u8,
    },
}

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
        1 => (0..3_usize, usage(), 0..3_u8)
            .prop_map(|(application, usage, id)| Step::Report { application, usage, id }),
    ]
}

fn told(answer: Result<Outcome, StoreError>) -> String {
    match answer {
        Ok(outcome) => words(&outcome),
        Err(StoreError::TakenBack) => "taken back".into(),
        Err(problem) => panic!("{problem}"),
    }
}

async fn run(home: &Home, prefix: &str, steps: &[Step]) -> Vec<String> {
    let name = |at: usize| format!("{prefix}-{}", APPLICATIONS[at]);
    let mut asked: Vec<Ask> = Vec::new();
    let mut answers = Vec::new();
    for step in steps {
        answers.push(match step {
            Step::Ask { application, usage, check } => {
                let mode = if *check { Mode::Check } else { Mode::Count };
                let ask = Ask { mode, ..ask(&name(*application), usage) };
                asked.push(ask.clone());
                told(home.store.apply(ask).await)
            }
            Step::Retry { back, attempt } => match asked.iter().rev().nth(*back) {
                Some(ask) => told(home.store.apply(Ask { attempt: *attempt, ..ask.clone() }).await),
                None => "nothing to ask again".into(),
            },
            Step::Cancel { back, attempt } => {
                let (application, request): (_, RequestId) = match asked.iter().rev().nth(*back) {
                    Some(ask) => (ApplicationRef::clone(&ask.application), ask.request),
                    None => (app(&name(0)), request()),
                };
                home.store.cancel(&application, request, *attempt).await.unwrap().to_string()
            }
            Step::Report { application, usage, id } => {
                let id = format!("{prefix}{id}");
                let report = report(&id, &[(&name(*application), usage, None)]);
                home.store.report(report).await.unwrap().to_string()
            }
        });
    }
    for at in 0..3 {
        let all = "a=0<=99/hour<=99/day<=99/eternity b=0<=99/week<=99/month<=99/year";
        answers.push(read(&home.store, &name(at), all).await);
    }
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
        let answers = runtime
            .block_on(async { (run(embedded, &prefix, &steps).await, run(redis, &prefix, &steps).await) });
        prop_assert_eq!(answers.0, answers.1);
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}
