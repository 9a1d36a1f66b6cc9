//! The file: made, grown, locked, and refused when it is not what it should be.

use std::error::Error;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use weir_journal::{Journal, OpenError, SLOTS_MAX};

use crate::world::{HEAD_BYTES, SLOT_BYTES, World, child_path};

#[test]
fn a_new_file_is_private_and_all_its_blocks_are_there() {
    let world = World::new();
    let opened = world.open(100);
    let metadata = fs::metadata(&world.path).expect("a file");
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert_eq!(metadata.len(), HEAD_BYTES + 100 * SLOT_BYTES);
    assert!(metadata.blocks() * 512 >= metadata.len(), "{} blocks", metadata.blocks());
    assert_eq!(opened.journal.capacity(), 100);
}

#[test]
fn a_sparse_file_gets_its_blocks_back() {
    let world = World::new();
    world.open(100);
    let whole = world.bytes();
    fs::File::create(&world.path).and_then(|file| file.set_len(whole.len() as u64)).expect("a sparse file");
    world.patch(0, &whole[..4096]);
    world.open(100);
    let metadata = fs::metadata(&world.path).expect("a file");
    assert!(metadata.blocks() * 512 >= metadata.len(), "{} blocks", metadata.blocks());
}

#[test]
fn a_file_grows_and_never_shrinks() {
    let world = World::new();
    let journal = world.open(1).journal;
    drop((journal.claim(b"lease", 1).expect("a free slot"), journal));
    let grown = world.open(200);
    assert_eq!((grown.journal.capacity(), grown.journal.depth(), grown.left.len()), (200, 1, 1));
    let mut slots = Vec::new();
    while let Ok(slot) = grown.journal.claim(b"more", 1) {
        slots.push(slot);
    }
    assert_eq!(slots.len(), 199);
    drop((grown, slots));
    let kept = world.open(3);
    assert_eq!((kept.journal.capacity(), kept.left.len()), (200, 200));
    assert_eq!(world.bytes().len() as u64, HEAD_BYTES + 200 * SLOT_BYTES);
}

#[test]
fn more_slots_than_a_journal_can_have_are_refused() {
    let world = World::new();
    let error = world.refused(SLOTS_MAX + 1);
    assert!(matches!(error, OpenError::TooManySlots(_)), "{error}");
    assert!(!world.path.exists());
}

#[test]
fn a_second_opener_is_refused_while_anything_of_the_first_is_there() {
    let world = World::new();
    let opened = world.open(1);
    let refused = || {
        let error = world.refused(1);
        assert!(matches!(error, OpenError::InUse(_)), "{error}");
        assert!(error.to_string().contains(&world.path.display().to_string()), "{error}");
    };
    refused();
    let slot = opened.journal.claim(b"lease", 1).expect("a free slot");
    drop(opened);
    refused();
    drop(slot);
    assert_eq!(world.open(1).left.len(), 1);
}

#[test]
fn what_is_no_journal_is_refused_and_left_as_it_is() {
    let whole = {
        let world = World::new();
        world.open(2);
        world.bytes()
    };
    let with = |offset: usize, bytes: &[u8]| {
        let mut file = whole.clone();
        file[offset..offset + bytes.len()].copy_from_slice(bytes);
        file
    };
    let cut = |length: usize| whole[..length].to_vec();
    for (what, file, expected) in [
        ("another file", b"# Notes\n".to_vec(), "is no journal"),
        ("another magic", with(0, b"w"), "is no journal"),
        ("zeros, too long for a file that was just made", vec![0; 5000], "is no journal"),
        ("a later version", with(7, b"2"), "has a layout that this version does not know: '2'"),
        ("a changed number of slots", with(10, b"\x07"), "is damaged"),
        ("an impossible number of slots", with(8, &[0xff; 8]), "is damaged"),
        ("a cut head", cut(100), "was cut short: it has 100 of 4096 bytes"),
        ("no slots", cut(4096), "was cut short: it has 4096 of 6144 bytes"),
        ("half a slot", cut(6143), "was cut short: it has 6143 of 6144 bytes"),
    ] {
        let world = World::new();
        fs::write(&world.path, &file).expect("a file");
        let error = world.refused(8).to_string();
        assert!(
            error.contains(expected) && error.contains(&world.path.display().to_string()),
            "{what}: {error}"
        );
        assert!(world.bytes() == file, "{what}: the file was changed");
    }
}

#[test]
fn a_file_that_was_never_made_to_the_end_is_made_now() {
    let whole = {
        let world = World::new();
        world.open(0);
        world.bytes()
    };
    assert_eq!(whole.len() as u64, HEAD_BYTES);
    // Nothing yet; what a power cut may leave; the head without slots; blocks that nobody claims yet.
    for file in [vec![], vec![0; 4096], whole.clone(), [whole, vec![0; 700]].concat()] {
        let world = World::new();
        fs::write(&world.path, &file).expect("a file");
        assert_eq!(world.open(2).journal.capacity(), 2);
    }
}

#[test]
fn a_folder_or_a_missing_one_is_an_error_that_names_the_path() {
    let world = World::new();
    fs::create_dir(&world.path).expect("a folder");
    for path in [world.path.clone(), world.path.join("missing/journal")] {
        let error = Journal::open(&path, 1).expect_err("not a file");
        assert!(matches!(error, OpenError::System { .. }), "{error}");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
}

/// The limit on the size of a file stands in for the size of a disk, which takes root to limit.
#[test]
fn a_full_disk_is_an_error_and_harms_nothing() {
    if let Some(path) = child_path() {
        let error = Journal::open(path, 1000).expect_err("there is no room");
        let source = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
        assert_eq!(source.map(std::io::Error::kind), Some(ErrorKind::FileTooLarge), "{error}");
        assert!(error.to_string().contains("cannot allocate all blocks of the journal"), "{error}");
        return;
    }
    let world = World::new();
    let check_refused = || {
        let child = world.child("files::a_full_disk_is_an_error_and_harms_nothing");
        // Blocks of 512 or 1,024 bytes, which depends on the shell. The signal would end the process.
        let mut limited = Command::new("sh");
        limited.args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\""]);
        limited.arg(child.get_program()).args(child.get_args());
        limited.envs(child.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = limited.output().expect("a shell");
        assert!(output.status.success(), "{output:?}");
    };
    check_refused();
    let opened = world.open(2);
    drop((opened.journal.claim(b"lease", 1).expect("a free slot"), opened));
    check_refused();
    let opened = world.open(2);
    assert_eq!((opened.journal.capacity(), opened.left.len()), (2, 1));
}
