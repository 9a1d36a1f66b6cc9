//! A file for a test, and a process to try things on.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use weir_journal::{Journal, OpenError, Opened};

/// The head of a file.
pub(crate) const HEAD_BYTES: u64 = 4096;

/// A slot of a file.
pub(crate) const SLOT_BYTES: u64 = 1024;

/// Tells a process which file it has to work on.
const CHILD: &str = "WEIR_JOURNAL_TEST_FILE";

/// A folder with room for one journal.
pub(crate) struct World {
    pub(crate) path: PathBuf,
    _dir: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        Self { path: dir.path().join("journal"), _dir: dir }
    }

    #[track_caller]
    pub(crate) fn open(&self, slots: u32) -> Opened {
        Journal::open(&self.path, slots).expect("the journal opens")
    }

    #[track_caller]
    pub(crate) fn refused(&self, slots: u32) -> OpenError {
        Journal::open(&self.path, slots).expect_err("the journal does not open")
    }

    /// What the file's bytes are.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        fs::read(&self.path).expect("the journal's file")
    }

    /// Writes into the file behind everybody's back.
    pub(crate) fn patch(&self, offset: u64, bytes: &[u8]) {
        let file = fs::OpenOptions::new().write(true).open(&self.path).expect("the journal's file");
        file.write_all_at(bytes, offset).expect("the journal's file takes bytes");
    }

    /// A process that runs the named test again, which then finds its file by [`child_path`].
    pub(crate) fn child(&self, test: &str) -> Command {
        let test_binary = std::env::current_exe().expect("this test has a file");
        let mut command = Command::new(test_binary);
        command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(CHILD, &self.path);
        command
    }
}

/// In a process that another test started: the file to work on.
pub(crate) fn child_path() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(PathBuf::from)
}
