//! The table of boots: who is listed, for how long, and whether all they spent is known.

use weir_journal::{BOOTS_MAX, BootId, EarlierBoot, Opened};

use crate::world::{HEAD_BYTES, World};

/// Where the table begins, how long an entry is, and where in it the kernel's boot id and the CRC are.
const TABLE: usize = 64;
const ENTRY_BYTES: usize = 48;
const KERNEL: usize = 24;
const CRC: usize = 40;

fn ids(opened: &Opened) -> Vec<BootId> {
    opened.earlier.iter().map(|boot| boot.id).collect()
}

#[test]
fn boots_are_listed_until_they_are_closed() {
    let world = World::new();
    let first = world.open(1).boot;
    let second = world.open(1).boot;
    assert_ne!(first, second);
    let third = world.open(1);
    assert_eq!(ids(&third), [first, second], "the oldest first");
    assert!(third.earlier.iter().all(|boot| boot.all_kept));
    third.journal.close_boot(first);
    third.journal.close_boot(BootId([1; 16]));
    let third_id = third.boot;
    drop(third);
    let fourth = world.open(1);
    assert_eq!(ids(&fourth), [second, third_id]);
    fourth.journal.close_boot(fourth.boot);
    drop(fourth);
    assert_eq!(ids(&world.open(1)), [second, third_id], "a boot can close itself");
}

#[test]
fn the_oldest_boot_without_records_makes_room() {
    let world = World::new();
    let with_record = world.open(4);
    drop(with_record.journal.claim(b"lease", 1).expect("a free slot"));
    drop(with_record.journal);
    let later: Vec<BootId> = (0..40).map(|_| world.open(4).boot).collect();
    let last = world.open(4);
    let youngest = &later[later.len() - (BOOTS_MAX - 1)..];
    assert_eq!(ids(&last), [&[with_record.boot], youngest].concat());
    assert_eq!(last.left[0].boot, with_record.boot);
}

#[test]
fn where_all_boots_have_records_the_oldest_makes_room_and_its_record_stays() {
    let world = World::new();
    let boots: Vec<BootId> = (0..=BOOTS_MAX)
        .map(|_| {
            let opened = world.open(32);
            drop(opened.journal.claim(b"lease", 1).expect("a free slot"));
            opened.boot
        })
        .collect();
    let opened = world.open(32);
    assert_eq!(ids(&opened), boots[1..]);
    let left: Vec<BootId> = opened.left.iter().map(|left| left.boot).collect();
    assert_eq!(left, boots);
}

#[test]
fn a_boot_before_the_machine_restarted_may_lack_records() {
    let world = World::new();
    let before = world.open(1).boot;
    let file = world.bytes();
    let mut entry = file[TABLE..TABLE + ENTRY_BYTES].to_vec();
    assert_eq!(entry[8..KERNEL], before.0, "the first entry is this boot's");
    entry[KERNEL] ^= 1;
    let crc = u64::from(crc32fast::hash(&entry[..CRC]));
    entry[CRC..].copy_from_slice(&crc.to_ne_bytes());
    world.patch(TABLE as u64, &entry);
    let after = world.open(1);
    assert_eq!(after.earlier, [EarlierBoot { id: before, all_kept: false }]);
    let after_id = after.boot;
    drop(after);
    let earlier = world.open(1).earlier;
    assert_eq!(earlier[0], EarlierBoot { id: before, all_kept: false });
    assert_eq!(earlier[1], EarlierBoot { id: after_id, all_kept: true });
}

#[test]
fn a_torn_entry_is_nobody_and_harms_no_other() {
    let world = World::new();
    let boots = [(); 2].map(|()| world.open(1).boot);
    for byte in 0..ENTRY_BYTES {
        let at = TABLE + byte;
        let whole = world.bytes()[at];
        world.patch(at as u64, &[whole ^ 0x10]);
        let opened = world.open(1);
        assert_eq!(ids(&opened), boots[1..], "byte {byte}");
        opened.journal.close_boot(opened.boot);
        drop(opened);
        // The vacant entry was this boot's, so the first is put back whole.
        let entry = entry_of(1, boots[0], &world.bytes());
        world.patch(TABLE as u64, &entry);
    }
    assert_eq!(ids(&world.open(1)), boots);
}

#[test]
fn a_corrupt_slot_leaves_no_earlier_boot_certain_for_as_long_as_it_is_listed() {
    let world = World::new();
    let first = world.open(1);
    drop(first.journal.claim(b"lease", 1).expect("a free slot"));
    drop(first.journal);
    let second = world.open(1).boot;
    world.patch(HEAD_BYTES + 48, &[0xff]);
    let third = world.open(1);
    assert_eq!(third.corrupt.len(), 1);
    let doubtful = [first.boot, second].map(|id| EarlierBoot { id, all_kept: false });
    assert_eq!(third.earlier, doubtful);
    let third_id = third.boot;
    drop(third);
    let fourth = world.open(1);
    assert!(fourth.corrupt.is_empty(), "it was freed");
    assert_eq!(fourth.earlier[..2], doubtful, "and is not forgotten");
    assert_eq!(fourth.earlier[2], EarlierBoot { id: third_id, all_kept: true });
}

/// An entry with the kernel of the one beside it.
fn entry_of(order: u64, id: BootId, file: &[u8]) -> Vec<u8> {
    let neighbour = &file[TABLE + ENTRY_BYTES..TABLE + 2 * ENTRY_BYTES];
    let mut entry = [&order.to_ne_bytes(), id.0.as_slice(), &neighbour[KERNEL..CRC]].concat();
    entry.extend(u64::from(crc32fast::hash(&entry)).to_ne_bytes());
    entry
}
