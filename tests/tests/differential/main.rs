//! No request is read differently behind the gateway than the gateway read it.
//!
//! Sound, odd and smuggling requests, as they stand in the corpus and mutated, go through the gateway to a recording
//! upstream, straight and with Debian's nginx and HAProxy between. What arrives is compared with what a small strict
//! parser reads in the client's bytes, with what was answered, and with what was counted. The same cases go to nginx
//! and HAProxy alone; how they read them is told, not judged.
//!
//! `WEIR_DIFFERENTIAL_SEED` chooses other mutations, `WEIR_DIFFERENTIAL_CASES` more of them, or none but the corpus.
//! It is one test, since servers find no free ports while another one uses them up for clients.
#![allow(clippy::unwrap_used, reason = "a test fails by it, with the place")]

mod client;
mod corpus;
mod mutate;
mod proxies;
mod recorder;
mod reference;
mod target;
mod verdict;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;

use corpus::Vector;
use mutate::Case;
use verdict::Relation;
use world::{BEHIND, Lane, Outcome, World};

/// What `make test` runs.
const SEED: u64 = 1;
const CASES: u64 = 1500;
/// Most faults that are shown.
const FAULTS_MAX: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_read_otherwise_behind_the_gateway() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let seed = number("WEIR_DIFFERENTIAL_SEED").unwrap_or(SEED);
    let count = number("WEIR_DIFFERENTIAL_CASES").unwrap_or(CASES);
    eprintln!("WEIR_DIFFERENTIAL_SEED={seed} WEIR_DIFFERENTIAL_CASES={count}");
    let vectors: Vec<Vector> = corpus::vectors().collect();
    let known = vectors.iter().enumerate();
    let known = known.map(|(at, vector)| Item { case: Case::of(vector.0, at), expected: Some(vector.1) });
    let mutated = (0..count).map(|at| Item { case: Case::mutated(seed, at, &vectors), expected: None });
    run(known.chain(mutated).collect()).await;
}

/// A case and, of the corpus, what has to come of it.
struct Item {
    case: Case,
    expected: Option<&'static str>,
}

/// What a lane finds.
#[derive(Default)]
struct Found {
    faults: Vec<String>,
    /// How often who read how.
    relations: BTreeMap<(&'static str, Relation), usize>,
}

/// Sends all cases through everything, a part of them on each lane.
async fn run(items: Vec<Item>) {
    let mut world = World::start().await;
    let items = Arc::new(items);
    let lanes = std::mem::take(&mut world.lanes);
    let count = lanes.len();
    let of_lane = |lane| (lane..items.len()).step_by(count);
    let tasks: Vec<_> = lanes
        .into_iter()
        .enumerate()
        .map(|(number, lane)| (lane, of_lane(number), Arc::clone(&items)))
        .map(|(lane, part, items)| tokio::spawn(sweep(lane, part, items)))
        .collect();
    let mut found = Found::default();
    for task in tasks {
        let part = task.await.unwrap();
        found.faults.extend(part.faults);
        for (key, times) in part.relations {
            *found.relations.entry(key).or_default() += times;
        }
    }
    found.faults.extend(paths_read_otherwise(&world));
    for who in ["Weir", "nginx", "HAProxy"] {
        let times = |relation| found.relations.get(&(who, relation)).copied().unwrap_or_default();
        let [same, less, more] = [Relation::Same, Relation::Less, Relation::More].map(times);
        eprintln!(
            "{who}: {same} cases read as the strict parser reads them, {less} with less, {more} with more"
        );
    }
    let shown = &found.faults[..found.faults.len().min(FAULTS_MAX)];
    assert!(shown.is_empty(), "{} cases with faults:\n{}", found.faults.len(), shown.join("\n"));
}

/// Sends cases one after the other; through the gateway first, so that what the others do late disturbs nothing.
async fn sweep(mut lane: Lane, part: impl Iterator<Item = usize> + Clone, items: Arc<Vec<Item>>) -> Found {
    let mut found = Found::default();
    for item in part.clone().map(|at| &items[at]) {
        let outcome = lane.through_gateway(&item.case).await;
        found.faults.extend(judge(item, &outcome));
        *found.relations.entry(("Weir", verdict::relation(&outcome.seen[0]))).or_default() += 1;
    }
    for item in part.map(|at| &items[at]) {
        for (seen, who) in lane.through_others(&item.case).await.iter().zip(&BEHIND[1..]) {
            *found.relations.entry((who, verdict::relation(seen))).or_default() += 1;
        }
    }
    found
}

/// What is wrong with what came of a case, for a reader.
fn judge(item: &Item, outcome: &Outcome) -> Option<String> {
    let Item { case, expected } = item;
    let mut faults = verdict::faults(case, outcome);
    let summary = verdict::summary(&outcome.seen[0]);
    if let Some(expected) = expected.filter(|expected| !verdict::is_expected(&summary, expected)) {
        faults.push(format!("should be {expected:?}"));
    }
    let bytes = case.bytes.escape_ascii();
    let sent = format!(
        "case {}, cut at {:?}: {bytes}\n    came out as {summary:?}, strictly {}",
        case.name, case.cuts, outcome.seen[0].script
    );
    (!faults.is_empty()).then(|| format!("{sent}\n    {}", faults.join("\n    ")))
}

/// Paths that nginx took for others than the gateway had matched.
fn paths_read_otherwise(world: &World) -> Vec<String> {
    let read = proxies::paths_read(&world.nginx);
    assert!(!read.is_empty(), "nginx wrote down which paths it read");
    let matched = |target: &str| {
        let path = target::parse(target).and_then(|target| target::decode(target.path));
        String::from_utf8_lossy(&path.unwrap_or_default()).into_owned()
    };
    let other = read.iter().filter(|(target, path)| matched(target) != *path);
    other.map(|(target, path)| format!("nginx takes {target} for {path:?}")).collect()
}
