//! What a gateway decides within a lease asks nobody for memory.

use allocation_counter::measure;
use weir_gateway::measuring::Deciding;

#[test]
fn a_decision_within_a_lease_allocates_nothing() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let gateway = Deciding::start(dir.path()).expect("a journal");
    // What is only done once, such as making this thread's part of a histogram.
    assert!(gateway.decide());
    let allocated = measure(|| {
        for _ in 0..1_000 {
            assert!(gateway.decide());
        }
    });
    assert_eq!((allocated.count_total, allocated.bytes_total), (0, 0), "{allocated:?}");
}
