//! Slots while a journal is open: how many there are, what they hold, what their counters do.

use std::sync::Barrier;

use weir_journal::{COUNT_MAX, COUNTERS_MAX, ClaimError, RECORD_BYTES_MAX};

use crate::world::World;

#[test]
fn records_and_counts_are_found_again_until_they_are_released() {
    let world = World::new();
    let longest = vec![0xa5; RECORD_BYTES_MAX];
    let records: [(&[u8], usize); 4] =
        [(b"", 0), (b"lease", 1), (b"a lease of 23 bytes ...", 3), (&longest, 18)];
    let opened = world.open(8);
    assert!(opened.left.is_empty());
    for (record, counters) in records {
        let slot = opened.journal.claim(record, counters).expect("a free slot");
        (0..counters).for_each(|counter| slot.add(counter, 10 * counter as u64));
        assert_eq!(slot.record(), record);
    }
    drop(opened.journal);
    for round in 0..2 {
        let opened = world.open(8);
        assert_eq!(opened.journal.depth(), 4, "round {round}: what was not released stays");
        for (left, (record, counters)) in opened.left.iter().zip(records) {
            let counts: Vec<u64> = (0..counters).map(|counter| 10 * counter as u64).collect();
            assert_eq!((left.record.as_slice(), &left.counts), (record, &counts));
            assert_eq!(left.slot.record(), record);
        }
    }
    let mut opened = world.open(8);
    let second = opened.left.remove(1).slot;
    second.add(0, 5);
    second.take_back(0, 2);
    opened.left.remove(0).slot.release();
    assert_eq!(opened.journal.depth(), 3);
    drop((opened, second));
    let opened = world.open(8);
    let found: Vec<_> = opened.left.iter().map(|left| (left.record.as_slice(), left.counts[0])).collect();
    assert_eq!(found, [(b"lease".as_slice(), 3), (b"a lease of 23 bytes ...", 0), (&longest, 0)]);
}

#[test]
fn claims_end_when_all_slots_are_claimed_and_begin_again_after_a_release() {
    let world = World::new();
    let journal = world.open(3).journal;
    let mut slots: Vec<_> = (0..3_u8).map(|n| journal.claim(&[n], 1).expect("a free slot")).collect();
    assert_eq!((journal.depth(), journal.capacity()), (3, 3));
    assert_eq!(journal.claim(b"one more", 1).expect_err("no slot is free"), ClaimError::Full(3));
    slots[1].add(0, 7);
    slots.remove(1).release();
    assert_eq!(journal.depth(), 2);
    let slot = journal.claim(b"another", 2).expect("the released slot");
    assert_eq!((slot.count(0), slot.count(1)), (0, 0), "nothing of the earlier lease is left");
    drop(slot);
    assert_eq!(journal.claim(b"one more", 1).expect_err("not released"), ClaimError::Full(3));
}

#[test]
fn what_does_not_fit_into_a_slot_is_refused_and_takes_none() {
    let world = World::new();
    let journal = world.open(1).journal;
    let too_long = vec![1; RECORD_BYTES_MAX + 1];
    let refused = |record: &[u8], counters| journal.claim(record, counters).expect_err("it does not fit");
    assert_eq!(refused(&too_long, 1), ClaimError::RecordTooLong(RECORD_BYTES_MAX + 1));
    assert_eq!(refused(b"", COUNTERS_MAX + 1), ClaimError::TooManyCounters(COUNTERS_MAX + 1));
    assert_eq!(journal.depth(), 0);
    let none = World::new();
    assert_eq!(none.open(0).journal.claim(b"", 0).expect_err("no slots"), ClaimError::Full(0));
}

#[test]
fn counters_stop_at_both_ends() {
    let world = World::new();
    let journal = world.open(1).journal;
    let slot = journal.claim(b"", 2).expect("a free slot");
    slot.add(0, COUNT_MAX - 1);
    slot.add(0, 1);
    assert_eq!(slot.count(0), COUNT_MAX);
    slot.add(0, 1);
    slot.add(0, u64::MAX);
    assert_eq!(slot.count(0), COUNT_MAX);
    slot.take_back(0, 1);
    assert_eq!(slot.count(0), COUNT_MAX - 1);
    slot.add(0, 9);
    slot.take_back(1, 1);
    assert_eq!(slot.count(1), 0, "no neighbour is touched, and nothing is below 0");
    drop((slot, journal));
    assert_eq!(world.open(1).left[0].counts, [COUNT_MAX, 0]);
}

#[test]
#[should_panic(expected = "counter 2 of a slot with 2")]
fn a_counter_that_was_not_claimed_is_a_mistake() {
    let world = World::new();
    world.open(1).journal.claim(b"", 2).expect("a free slot").add(2, 1);
}

#[test]
fn threads_share_a_slot_and_never_get_the_same_one() {
    const ROUNDS: u64 = 2_000;
    const THREADS: u64 = 4;
    let world = World::new();
    let journal = world.open(5).journal;
    let shared = journal.claim(b"shared", 2).expect("a free slot");
    let together = Barrier::new(4);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (journal, shared, together) = (&journal, &shared, &together);
            scope.spawn(move || {
                together.wait();
                for round in 0..ROUNDS {
                    let record = [thread.to_ne_bytes(), round.to_ne_bytes()].concat();
                    let own = journal.claim(&record, 1).expect("one slot for each thread");
                    shared.add(0, 2);
                    shared.add(1, 1);
                    own.add(0, round);
                    shared.take_back(0, 1);
                    assert_eq!((own.record(), own.count(0)), (record, round));
                    own.release();
                }
            });
        }
    });
    assert_eq!((shared.count(0), shared.count(1)), (THREADS * ROUNDS, THREADS * ROUNDS));
    assert_eq!(journal.depth(), 1);
    journal.sync().expect("the disk takes it");
}
