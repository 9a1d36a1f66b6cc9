//! CPU time and memory of processes, from `/proc`.
//!
//! Time is summed over threads: `/proc/PID/task/*/schedstat` counts nanoseconds on a core, where the process's own
//! `stat` counts ticks. Rates depend on who shares the machine; CPU time much less, so it is what is compared.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, ensure};

/// How long each thread of some processes has run so far, in nanoseconds.
pub(crate) struct Reading(HashMap<u32, u64>);

impl Reading {
    /// Now.
    ///
    /// # Errors
    /// When one of the processes is gone.
    pub(crate) fn of(processes: &[u32]) -> anyhow::Result<Self> {
        let mut threads = HashMap::new();
        for process in processes {
            let folder = format!("/proc/{process}/task");
            let entries = std::fs::read_dir(&folder).with_context(|| format!("{folder} is gone"))?;
            for entry in entries.flatten() {
                // A thread may end while its folder is read.
                let Some((id, time_ns)) = thread(&entry.path()) else { continue };
                threads.insert(id, time_ns);
            }
        }
        ensure!(!threads.is_empty(), "this kernel keeps no schedstat");
        Ok(Self(threads))
    }

    /// How long they ran between an earlier reading and this one. Threads that ended in between do not count.
    pub(crate) fn nanoseconds_since(&self, earlier: &Self) -> u64 {
        let since = |(id, now): (&u32, &u64)| now.saturating_sub(earlier.0.get(id).copied().unwrap_or(0));
        self.0.iter().map(since).sum()
    }
}

fn thread(folder: &Path) -> Option<(u32, u64)> {
    let id = folder.file_name()?.to_str()?.parse().ok()?;
    let text = std::fs::read_to_string(folder.join("schedstat")).ok()?;
    Some((id, text.split(' ').next()?.parse().ok()?))
}

/// Memory of a process that is in use, in bytes.
///
/// # Errors
/// When it is gone.
pub(crate) fn memory_bytes(process: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS")?;
    Ok(kib * 1024)
}

/// A process and its children.
pub(crate) fn family(parent: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    [parent].into_iter().chain(processes.filter(|id| parent_of(*id) == Some(parent))).collect()
}

fn parent_of(process: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name in brackets may hold blanks: what counts comes behind it.
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_summed_over_threads() {
        let earlier = Reading([(1, 500), (2, 900)].into());
        let later = Reading([(1, 700), (3, 50)].into());
        assert_eq!(later.nanoseconds_since(&earlier), 250, "one went on, one ended, one began");
    }

    #[test]
    fn work_is_counted() {
        let own = [std::process::id()];
        let before = Reading::of(&own).unwrap();
        while Reading::of(&own).unwrap().nanoseconds_since(&before) < 1_000_000 {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn memory_is_in_bytes() {
        assert!(memory_bytes(std::process::id()).unwrap() > 1 << 20);
    }

    #[test]
    fn children_are_found() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert!(family(std::process::id()).contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
