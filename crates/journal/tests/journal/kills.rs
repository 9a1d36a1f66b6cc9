//! `kill -9` in the middle of spending: what the process told it had added is found.

use std::io::{ErrorKind, Read, Write};
use std::path::PathBuf;
use std::process::Stdio;

use weir_journal::{Journal, OpenError, Opened};

use crate::world::{World, child_path};

const THREADS: usize = 4;

/// The counter that all threads add to, beside one of their own.
const SHARED: usize = THREADS;

const ROUNDS: usize = 8;

/// Each round kills a process that has told of so many additions and goes on; the rounds' records pile up in one file.
#[test]
fn what_was_told_before_a_kill_is_found_after_it() {
    if let Some(path) = child_path() {
        return spend_until_killed(path);
    }
    let world = World::new();
    let mut expected = Vec::new();
    for round in 0..ROUNDS {
        expected.push(kill_after(&world, 1 + 137 * round));
        let Opened { left, corrupt, .. } = world.open(64);
        assert_eq!(corrupt, []);
        // A kill amid a claim or a release leaves the small lease of that moment, or none.
        let large: Vec<_> = left.iter().filter(|left| left.record == b"large").collect();
        assert_eq!(large.len(), round + 1);
        for (told, left) in expected.iter().zip(large) {
            check(told, &left.counts);
        }
        let small = left.into_iter().filter(|left| left.record != b"large");
        for left in small {
            assert_eq!(left.record, b"small");
            assert!(left.counts[0] <= 3, "{:?}", left.counts);
            left.slot.release();
        }
    }
    let depth = world.open(64).journal.depth();
    assert_eq!(depth, ROUNDS, "what was released stays released");
}

/// How many additions each thread told of.
fn kill_after(world: &World, additions: usize) -> [u64; THREADS] {
    let mut child = world.child("kills::what_was_told_before_a_kill_is_found_after_it");
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("this test starts");
    let mut told = child.stderr.take().expect("a pipe");
    let mut bytes = vec![0; additions];
    told.read_exact(&mut bytes).expect("the process tells until it is killed");
    let error = world.refused(64);
    assert!(matches!(error, OpenError::InUse(_)), "{error}");
    child.kill().expect("it is there");
    told.read_to_end(&mut bytes).expect("what else it told");
    assert!(!child.wait().expect("its end").success());
    let all = String::from_utf8_lossy(&bytes);
    let mut counts = [0; THREADS];
    for byte in &bytes {
        let thread = byte.checked_sub(b'0').map(usize::from).filter(|thread| *thread < THREADS);
        counts[thread.unwrap_or_else(|| panic!("the process failed: {all}"))] += 1;
    }
    counts
}

/// A thread may have added once more than it told, and may have been killed between its counter and the shared one.
fn check(told: &[u64; THREADS], counts: &[u64]) {
    let threads = THREADS as u64;
    for (told, count) in told.iter().zip(counts) {
        assert!((*told..=told + 1).contains(count), "told {told:?}, found {counts:?}");
    }
    let all: u64 = told.iter().sum();
    assert!((all..=all + threads).contains(&counts[SHARED]), "told {told:?}, found {counts:?}");
}

/// In the process that is killed: threads spend a large lease and tell of each addition by a byte on standard error;
/// another claims, spends and releases small ones as fast as it can.
fn spend_until_killed(path: PathBuf) {
    let journal = Journal::open(path, 64).expect("the journal opens").journal;
    let large = journal.claim(b"large", THREADS + 1).expect("a free slot");
    std::thread::scope(|scope| {
        for (thread, name) in (b'0'..).take(THREADS).enumerate() {
            let large = &large;
            scope.spawn(move || {
                loop {
                    large.add(thread, 1);
                    large.add(SHARED, 1);
                    tell(name);
                }
            });
        }
        loop {
            let small = journal.claim(b"small", 1).expect("a free slot");
            (0..3).for_each(|_| small.add(0, 1));
            small.release();
        }
    });
}

fn tell(name: u8) {
    match std::io::stderr().write_all(&[name]) {
        Ok(()) => {}
        // Whoever started this is gone: nobody else would end it.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(1),
        Err(error) => panic!("{error}"),
    }
}
