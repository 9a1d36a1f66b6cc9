//! Slots whose parts do not agree: found with their offset, freed, and no harm to the others.

use weir_journal::{Corrupt, Opened};

use crate::world::{HEAD_BYTES, SLOT_BYTES, World};

/// Of the slot that is damaged.
const OFFSET: u64 = HEAD_BYTES + SLOT_BYTES;

/// Three claimed slots, each with a record and counts of its own.
fn filled() -> World {
    let world = World::new();
    let journal = world.open(3).journal;
    for (record, by) in [(b"first lease", 1), (b"other lease", 0x1234_5678), (b"third lease", 3)] {
        let slot = journal.claim(record, 2).expect("a free slot");
        slot.add(0, by);
        slot.add(1, 2 * by);
    }
    world
}

#[track_caller]
fn check(world: &World, what: &str) {
    let Opened { journal, left, corrupt } = world.open(3);
    assert_eq!(corrupt, [Corrupt { offset: OFFSET }], "{what}");
    let others: Vec<_> = left.iter().map(|left| (left.record.as_slice(), left.counts.as_slice())).collect();
    assert_eq!(others, [(b"first lease".as_slice(), &[1, 2][..]), (b"third lease", &[3, 6])], "{what}");
    let slot = journal.claim(b"again", 2).expect("the corrupt slot was freed");
    assert_eq!((slot.count(0), slot.count(1)), (0, 0), "{what}");
    slot.release();
}

#[test]
fn a_changed_byte_is_found_wherever_it_is() {
    let world = filled();
    let whole = world.bytes();
    let parts = [("state and head", 0..48), ("counters", 48..64), ("record and its zeros", 192..208)];
    for (part, places) in parts {
        for byte in places {
            for flip in [0x01, 0x80, 0xff] {
                let at = OFFSET + byte;
                world.patch(0, &whole);
                world.patch(at, &[whole[usize::try_from(at).expect("an offset")] ^ flip]);
                check(&world, &format!("{part}: byte {byte} ^ {flip:x}"));
            }
        }
    }
}

#[test]
fn lengths_beyond_the_slot_are_found() {
    let world = filled();
    let whole = world.bytes();
    for lengths in [2 << 32 | 833, 19 << 32 | 11, u64::MAX, u64::from(u32::MAX), 2 << 32 | 0x8000_0000] {
        world.patch(0, &whole);
        world.patch(OFFSET + 16, &lengths.to_ne_bytes());
        check(&world, &format!("lengths {lengths:x}"));
    }
}

#[test]
fn what_belongs_to_another_slot_or_counter_is_found() {
    let world = filled();
    let whole = world.bytes();
    let at = |offset: u64| usize::try_from(offset).expect("an offset");
    let neighbour = HEAD_BYTES + 2 * SLOT_BYTES;
    for (what, from, to, bytes) in [
        ("a slot in another's place", neighbour, OFFSET, SLOT_BYTES),
        ("another's record", neighbour + 192, OFFSET + 192, 16),
        ("another counter of the slot", OFFSET + 56, OFFSET + 48, 8),
    ] {
        world.patch(0, &whole);
        world.patch(to, &whole[at(from)..at(from + bytes)]);
        check(&world, what);
    }
}

#[test]
fn counters_of_an_earlier_claim_are_found() {
    // One claim in 65,536 shares the check of the one before; of two, one is enough.
    let found = (0..2).filter(|_| {
        let world = World::new();
        let journal = world.open(1).journal;
        let slot = journal.claim(b"lease", 1).expect("a free slot");
        slot.add(0, 5);
        let stale = world.bytes()[4096 + 48..][..8].to_vec();
        slot.release();
        drop((journal.claim(b"lease", 1).expect("a free slot"), journal));
        world.patch(HEAD_BYTES + 48, &stale);
        let opened = world.open(1);
        opened.corrupt == [Corrupt { offset: HEAD_BYTES }] && opened.left.is_empty()
    });
    assert!(found.count() > 0);
}
