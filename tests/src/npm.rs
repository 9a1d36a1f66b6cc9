//! Packages of npm that tests run: installed once, from the lock beside what uses them.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What to do without Node.
pub const INSTALL: &str = "the test needs Node 20 or later with npm: \
                           sudo apt-get update && sudo apt-get install --no-install-recommends nodejs npm";

/// Where `tests/clients/<name>` is.
pub fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name)
}

/// The folder with what `tests/clients/<name>` needs; its packages are in `node_modules`.
///
/// # Panics
/// When they cannot be installed.
pub fn installed(name: &str) -> PathBuf {
    let source = source(name);
    // target/<profile>/deps/<test> stands beside target/tmp.
    let test = std::env::current_exe().expect("the test's own path");
    let target = test.ancestors().nth(3).expect("a target folder");
    let folder = target.join("tmp").join(name);
    std::fs::create_dir_all(&folder).expect("a folder of its own");
    // Test programs that run side by side install one after the other.
    let lock_file = std::fs::File::create(folder.join("installing")).expect("a file of its own");
    lock_file.lock().expect("a lock");
    let lock = std::fs::read_to_string(source.join("package-lock.json")).expect("a lock of packages");
    // Written once all is there.
    let mark = folder.join("installed.json");
    if std::fs::read_to_string(&mark).is_ok_and(|installed| installed == lock) {
        return folder;
    }
    for name in ["package.json", "package-lock.json"] {
        std::fs::copy(source.join(name), folder.join(name)).expect("a file of its own");
    }
    let arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"];
    let done = Command::new("npm").args(arguments).current_dir(&folder).output().expect(INSTALL);
    assert!(done.status.success(), "npm ci: {}", String::from_utf8_lossy(&done.stderr));
    std::fs::write(mark, lock).expect("a file of its own");
    folder
}
