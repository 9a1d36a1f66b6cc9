//! What a decision within a lease costs: finding who calls, taking it from the lease, writing it to the journal.

use divan::Bencher;
use weir_gateway::measuring::Deciding;

#[divan::bench]
fn call_is_decided(bencher: Bencher<'_, '_>) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let gateway = Deciding::start(dir.path()).expect("a journal");
    assert!(gateway.decide());
    bencher.bench(|| gateway.decide());
}
