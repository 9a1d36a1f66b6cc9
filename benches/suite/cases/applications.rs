//! 1,000 to 1,000,000 applications, published in bulk: what a decision costs at random among them, how much memory
//! they take, how long a listener needs to be ready again.
//!
//! Every application is asked about once before anything is measured, so that decisions find it in memory, and its
//! counters in the store. Memory of a cached application is that of a listener over Redis, which keeps nothing
//! else; with the embedded store records and counters come on top.

use std::time::{Duration, Instant};

use crate::catalog;
use crate::figure::{Figure, thousands};
use crate::lab::Lab;
use crate::load::Load;
use crate::load::stream::{Shape, StreamLoad};
use crate::peers::Redis;
use crate::question::Questions;
use crate::turns::{Case, Part, count, in_turns};
use crate::weir::{Catalog, Listener, Store};

const EMBEDDED: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];
/// A million would take minutes to load.
const OVER_REDIS: [usize; 2] = [1_000, 100_000];
/// Decisions of a turn.
const MANY: u64 = 96_000;
const FEW: u64 = 24_000;
/// Longest wait for a listener with a million applications.
const RESTART_WAIT: Duration = Duration::from_secs(60);

/// Measures all of it.
pub(super) async fn measure(lab: &Lab) -> anyhow::Result<Vec<Figure>> {
    let mut figures = embedded(lab).await?;
    figures.extend(over_redis(lab).await.unwrap_or_else(|error| vec![cached_bytes(Err(error))]));
    Ok(figures)
}

async fn embedded(lab: &Lab) -> anyhow::Result<Vec<Figure>> {
    let sizes = if lab.scale.quick { &EMBEDDED[..3] } else { &EMBEDDED };
    let mut listeners = vec![];
    for size in sizes {
        let name = format!("applications-{size}");
        let listener = Listener::start(lab, &name, &Store::Embedded, &Catalog::Published, &[]).await?;
        load(&listener, *size).await?;
        touch(&listener, *size).await?;
        listeners.push(listener);
    }
    let case = |(size, listener): (&usize, &Listener)| {
        case(lab, &format!("embedded, {size} applications"), listener, vec![listener.part()], *size, MANY)
    };
    let mut cases: Vec<Case> = sizes.iter().zip(&listeners).map(case).collect();
    in_turns(&mut cases, lab).await;
    let cost = |(size, case): (&usize, &Case)| {
        let title = format!("Embedded store, {} applications", thousands(&size.to_string()));
        Figure::cpu(format!("applications_{size}_cpu_us"), title, case, &[])
    };
    let mut figures: Vec<Figure> = sizes.iter().zip(&cases).map(cost).collect();
    if let [thousand, _, _, million] = &figures[..] {
        let title = "1,000,000 applications against 1,000, embedded store";
        figures.push(Figure::times("applications_1m_vs_1k", title, million, thousand).at_most(1.2));
        figures.extend(memory_and_restart(lab, &mut listeners).await);
    }
    Ok(figures)
}

/// Of the embedded listeners, the first and the last one.
async fn memory_and_restart(lab: &Lab, listeners: &mut [Listener]) -> Vec<Figure> {
    let [smallest, .., largest] = listeners else { return vec![] };
    let more = count((EMBEDDED[3] - EMBEDDED[0]) as u64);
    let held = || -> anyhow::Result<f64> {
        Ok(count(largest.memory_bytes()?.saturating_sub(smallest.memory_bytes()?)) / more)
    };
    let bytes = Figure::new(
        "application_embedded_bytes",
        "Memory per application: cache, records and counters",
        "bytes",
        held().map(|bytes| vec![bytes]),
    );
    let took = largest.launch(lab, RESTART_WAIT).await;
    eprintln!("  restarted with {} applications: {took:.2?}", EMBEDDED[3]);
    let ready = Figure::new(
        "restart_to_ready_1m_s",
        "From the start of a listener with 1,000,000 applications to ready",
        "s",
        took.map(|took| vec![took.as_secs_f64()]),
    );
    vec![bytes, ready.at_most(10.0)]
}

async fn over_redis(lab: &Lab) -> anyhow::Result<Vec<Figure>> {
    let (mut redises, mut listeners, mut cached) = (vec![], vec![], 0.0);
    for size in OVER_REDIS {
        let redis = Redis::start(lab, &format!("applications-redis-{size}")).await?;
        let store = Store::Redis(redis.address);
        let name = format!("applications-over-redis-{size}");
        let mut listener = Listener::start(lab, &name, &store, &Catalog::Published, &[]).await?;
        load(&listener, size).await?;
        // Anew, so that memory holds what is cached and nothing of the publication.
        listener.launch(lab, RESTART_WAIT).await?;
        let before = listener.memory_bytes()?;
        touch(&listener, size).await?;
        cached = count(listener.memory_bytes()?.saturating_sub(before)) / count(size as u64);
        redises.push(redis);
        listeners.push(listener);
    }
    let case = |((size, listener), redis): ((usize, &Listener), &Redis)| {
        let parts = vec![listener.part(), redis.part()];
        case(lab, &format!("Redis, {size} applications"), listener, parts, size, FEW)
    };
    let mut cases: Vec<Case> = OVER_REDIS.into_iter().zip(&listeners).zip(&redises).map(case).collect();
    in_turns(&mut cases, lab).await;
    let [thousand, many]: [Figure; 2] = std::array::from_fn(|at| {
        let size = OVER_REDIS[at];
        let title = format!("Listener and Redis, {} applications", thousands(&size.to_string()));
        Figure::cpu(format!("applications_redis_{size}_cpu_us"), title, &cases[at], &[])
    });
    let title = "100,000 applications against 1,000, Redis";
    let times = Figure::times("applications_redis_100k_vs_1k", title, &many, &thousand);
    Ok(vec![thousand, many, times, cached_bytes(Ok(vec![cached]))])
}

fn cached_bytes(samples: anyhow::Result<Vec<f64>>) -> Figure {
    let title = "Listener's memory per cached application";
    Figure::new("application_cached_bytes", title, "bytes", samples).at_most(1024.0)
}

fn case(lab: &Lab, name: &str, listener: &Listener, parts: Vec<Part>, size: usize, full: u64) -> Case {
    let load =
        StreamLoad { address: listener.grpc, questions: Questions::at_random(size), shape: Shape::CALLERS };
    Case::new(name, parts, Load::Stream(load), lab.scale.operations(full))
}

/// Publishes applications.
async fn load(listener: &Listener, size: usize) -> anyhow::Result<()> {
    let started = Instant::now();
    catalog::publish(listener.grpc, size).await?;
    eprintln!("  {size} applications published: {:.1?}", started.elapsed());
    Ok(())
}

/// Asks about every application once.
async fn touch(listener: &Listener, size: usize) -> anyhow::Result<()> {
    let started = Instant::now();
    let questions = Questions::one_by_one(size);
    let load = StreamLoad { address: listener.grpc, questions, shape: Shape::WIDE };
    Load::Stream(load).open().await?.run(size as u64).await?;
    eprintln!("  {size} applications asked about: {:.1?}", started.elapsed());
    Ok(())
}
