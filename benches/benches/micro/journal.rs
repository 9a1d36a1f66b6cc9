//! What the spend journal costs: an addition for each call through a gateway, a claim and a release for each lease.

use divan::{Bencher, black_box};
use weir_journal::{Journal, Slot};

/// Threads share the counter, as the workers of a gateway do that serve one application.
#[divan::bench(threads = [1, 2])]
fn journal_adds(bencher: Bencher<'_, '_>) {
    let world = World::new();
    let slot = world.claim();
    bencher.bench(|| slot.add(black_box(3), black_box(1)));
    slot.release();
}

#[divan::bench]
fn journal_claims_and_releases(bencher: Bencher<'_, '_>) {
    let world = World::new();
    bencher.bench(|| world.claim().release());
}

/// A journal of which nothing else is in use.
struct World {
    journal: Journal,
    // Outlives the journal.
    _dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let opened = Journal::open(dir.path().join("journal"), 16).expect("a journal");
        Self { journal: opened.journal, _dir: dir }
    }

    /// A record such as a lease has.
    fn claim(&self) -> Slot {
        self.journal.claim(black_box(&[7; 200]), 4).expect("a free slot")
    }
}
