//! A simulation of the lease protocol: gateways, listeners and a store in virtual time, where everything that can go wrong
//! does, and after every step what must be so is so. A seed draws all of it, and repeats it exactly.
//!
//! It runs what runs in production, `Holding` and `ledger::answer`, with a store around them as both stores are: counters,
//! leases, what was closed lately, decisions on single requests, taking back. What is drawn: one to three applications
//! with methods and one to three limits each, small and large, across the end of every window; one to four gateways with
//! journals of few or many slots; loss, duplicates, disorder and delays of messages; cut links; killed gateways and
//! listeners; a store that pauses, restarts, or fails over to a replica that is behind; clocks of gateways that jump ahead
//! and drift by up to a hundredth; clients that leave after their request was spent; leases that are asked back; leases that
//! are kept for an outage; a store that answers only what its replica has.
//!
//! What is checked, after every step: what is used and held is within every limit; what is forwarded is, too; of no lease
//! more is counted than was spent. When a journal lets a lease go, all of it is counted. At the end every counter is the
//! sum of what was forwarded; nothing is held two seconds after the last request, and all that a limit has left is
//! admitted. A fail-over may admit once more what the writes that it forgot had admitted or granted, and nothing else; nothing
//! at all where only what the replica has was answered.
//!
//! Not in it: two stores that both believe to be the one; a store whose clock jumps; messages that are older than what
//! the ledger remembers of closed leases (ten seconds); set values; plans that change; who gets how much, and how soon.
//!
//! `SEED=n` runs one seed and tells all that happens, `SEEDS=n` runs so many.

mod faults;
mod random;
mod scenario;
mod seen;
mod service;
mod store;
mod traffic;
mod truth;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::seen::Seen;
use crate::world::World;

const SEEDS: u64 = 300;

#[expect(clippy::disallowed_methods, reason = "how much to run is said by the environment")]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a whole number"))
}

#[expect(clippy::disallowed_methods, reason = "progress is told in real time")]
fn begin() -> Instant {
    Instant::now()
}

#[test]
fn nothing_is_admitted_beyond_a_limit_nor_counted_twice_nor_lost() {
    if let Some(seed) = number("SEED") {
        let seen = World::new(seed, true).run();
        eprintln!("seed {seed}: {seen:?}");
        return;
    }
    let seeds = number("SEEDS").unwrap_or(SEEDS);
    let seen = run(seeds);
    eprintln!("seeds 0 to {}: no failure", seeds - 1);
    for (name, times) in seen.each() {
        eprintln!("{times:>12} {}", name.replace('_', " "));
        assert!(times > 0 || seeds < SEEDS, "{name} did not happen");
    }
}

/// Runs the seeds from 0, on all cores.
fn run(seeds: u64) -> Seen {
    let next = AtomicU64::new(0);
    let is_over = AtomicBool::new(false);
    let seen = Mutex::new(Seen::default());
    let work = || {
        let mut mine = Seen::default();
        while !is_over.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                break;
            }
            match catch_unwind(AssertUnwindSafe(|| World::new(seed, false).run())) {
                Ok(seen) => mine.add(&seen),
                Err(failure) => {
                    is_over.store(true, Ordering::Relaxed);
                    eprintln!("seed {seed} failed; SEED={seed} tells all that happens");
                    resume_unwind(failure);
                }
            }
        }
        seen.lock().expect("nobody died with it").add(&mine);
    };
    std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        tell(&next, seeds, || workers.iter().all(std::thread::ScopedJoinHandle::is_finished));
    });
    seen.into_inner().expect("nobody died with it")
}

/// A line every two seconds.
fn tell(next: &AtomicU64, seeds: u64, is_over: impl Fn() -> bool) {
    let (began, mut told) = (begin(), 0);
    while !is_over() {
        std::thread::sleep(Duration::from_millis(20));
        let elapsed = began.elapsed().as_secs();
        if elapsed >= told + 2 {
            told = elapsed;
            eprintln!("{elapsed:>5} s: {} of {seeds} seeds", next.load(Ordering::Relaxed).min(seeds));
        }
    }
}
