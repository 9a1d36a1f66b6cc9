//! The machine: which core runs what, how many files may be open, and what a reader of the figures has to know of it.
//!
//! The suite pins itself to the second core and starts every server under test on the first, so that both sides
//! never compete. With a single core nothing is pinned, and the report says so.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use crate::turns::count;

/// Files that ten thousand connections need, with room for what else is open.
const OPEN_FILES_WANTED: u64 = 20_480;

/// Who runs where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cores {
    /// Servers under test on one core; generator and origin on the other.
    Apart {
        /// Of the servers under test.
        server: usize,
        /// Of everything else.
        load: usize,
    },
    /// Too few cores, or no `taskset`: nothing is pinned.
    Shared,
}

impl Cores {
    /// The first two cores this process may use.
    pub(crate) fn find() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        match allowed(list.unwrap_or_default())[..] {
            [server, load, ..] if has("taskset") => Self::Apart { server, load },
            _ => Self::Shared,
        }
    }

    /// Moves the suite itself, all its threads, out of the servers' way.
    pub(crate) fn pin_self(self) {
        if let Self::Apart { load, .. } = self {
            let id = std::process::id().to_string();
            run("taskset", &["-a", "-c", "-p", &load.to_string(), &id]);
        }
    }
}

/// The cores of a list like `0-2,5`.
fn allowed(list: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse::<usize>().ok()?..=last.trim().parse().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

/// Raises the number of files that the suite and its children may open, as far as that is allowed; returns it.
pub(crate) fn raise_open_files() -> u64 {
    let (soft, hard) = open_files();
    let id = std::process::id().to_string();
    for (soft, hard) in [(OPEN_FILES_WANTED, hard.max(OPEN_FILES_WANTED)), (hard, hard)] {
        if open_files().0 < OPEN_FILES_WANTED.min(soft) {
            run("prlimit", &["--pid", &id, &format!("--nofile={soft}:{hard}")]);
        }
    }
    open_files().0.max(soft)
}

/// The limits on open files, soft and hard.
fn open_files() -> (u64, u64) {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap_or_default();
    let mut values = line.split_whitespace().map(|word| word.parse().unwrap_or(u64::MAX));
    let soft = values.next().unwrap_or(1024);
    (soft, values.next().unwrap_or(soft))
}

/// Whether a program is installed.
pub(crate) fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian keeps servers where a plain user's PATH does not look.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    folders.map(|folder| folder.join(program)).any(|file| file.is_file())
}

fn run(program: &str, arguments: &[&str]) {
    // What did not work is seen in what is read afterwards.
    let _ = Command::new(program).args(arguments).output();
}

/// The first line a program says of itself, on either stream; empty when it is not there.
fn version(program: &str, argument: &str) -> String {
    let Ok(output) = Command::new(program).arg(argument).output() else { return String::new() };
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned()
}

/// How long the machine and this process have worked so far, in ticks of a hundredth of a second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Work {
    machine: u64,
    own: u64,
    at: Instant,
}

impl Work {
    /// Until now. Children count once they have ended.
    pub(crate) fn now() -> Self {
        let numbers =
            |text: &str| text.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<u64>>();
        let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let all = numbers(stat.lines().next().unwrap_or_default());
        let idle: u64 = all.iter().skip(3).take(2).sum();
        let own = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let own = own
            .rsplit_once(") ")
            .map(|(_, rest)| rest.split_whitespace().skip(11).take(4).collect::<Vec<_>>());
        let own = numbers(&own.unwrap_or_default().join(" ")).iter().sum();
        // Guests' time, in the last two columns, is in the first two as well.
        Self { machine: all.iter().take(8).sum::<u64>().saturating_sub(idle), own, at: Instant::now() }
    }

    /// How many cores others have kept busy since then: what figures are disturbed by.
    pub(crate) fn cores_of_others(self) -> f64 {
        let now = Self::now();
        let others = (now.machine - self.machine).saturating_sub(now.own - self.own);
        count(others) / 100.0 / self.at.elapsed().as_secs_f64().max(0.01)
    }
}

/// What the figures were measured on.
pub(crate) fn facts(cores: Cores, weir: &Path) -> Value {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    json!({
        "cores": cpus.lines().filter(|line| line.starts_with("processor")).count(),
        "cpu": model.map(|(_, name)| name),
        "kernel": kernel.trim(),
        "pinned": matches!(cores, Cores::Apart { .. }),
        "weir": version(&weir.display().to_string(), "--version"),
        "nginx": version(nginx(), "-v"),
        "redis": version("redis-server", "--version"),
    })
}

/// The program, also where PATH does not lead.
pub(crate) fn nginx() -> &'static str {
    if Path::new("/usr/sbin/nginx").is_file() { "/usr/sbin/nginx" } else { "nginx" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_work_is_not_that_of_others() {
        let before = Work::now();
        // Ends by itself: whatever else runs, this loop works.
        while Work::now().own - before.own < 5 {
            std::hint::spin_loop();
        }
        assert!(before.cores_of_others() >= 0.0);
    }

    #[test]
    fn cores_are_read_from_the_list() {
        assert_eq!(allowed("\t0-2,5"), [0, 1, 2, 5]);
        assert_eq!(allowed("3"), [3]);
        assert!(allowed("").is_empty());
    }
}
