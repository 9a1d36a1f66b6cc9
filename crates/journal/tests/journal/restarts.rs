//! The machine restarted: what was claimed before is told apart, since the disk may have less than was added.

use weir_journal::{Journal, Left};

use crate::world::{HEAD_BYTES, World};

/// Where in the first slot the id of the kernel's run is.
const KERNEL: u64 = HEAD_BYTES + 32;

/// CRC-32's own polynomial as a file has it: flipping these bits leaves the CRC as it was.
const UNSEEN_FLIP: [u8; 5] = [0x41, 0x06, 0x71, 0xdb, 0x01];

fn spend(journal: &Journal, record: &[u8]) {
    journal.claim(record, 1).expect("a free slot").add(0, 5);
}

#[test]
fn what_was_claimed_before_the_machine_restarted_is_told_apart_until_it_is_released() {
    let world = World::new();
    let journal = world.open(2).journal;
    spend(&journal, b"before");
    spend(&journal, b"since");
    drop(journal);
    let kernel = usize::try_from(KERNEL).expect("an offset");
    for (at, (byte, flip)) in (KERNEL..).zip(world.bytes()[kernel..].iter().zip(UNSEEN_FLIP)) {
        world.patch(at, &[byte ^ flip]);
    }
    for round in 0..2 {
        let opened = world.open(2);
        assert_eq!(opened.corrupt, [], "round {round}");
        check(&opened.left, [(b"before", true), (b"since", false)]);
    }
    let mut opened = world.open(2);
    opened.left.remove(0).slot.release();
    spend(&opened.journal, b"again");
    drop(opened);
    check(&world.open(2).left, [(b"again", false), (b"since", false)]);
}

#[track_caller]
fn check(left: &[Left], expected: [(&[u8], bool); 2]) {
    let found = left.iter().map(|left| (left.record.as_slice(), left.machine_restarted));
    assert_eq!(found.collect::<Vec<_>>(), expected);
    assert!(left.iter().all(|left| left.counts == [5]), "{left:?}");
}
