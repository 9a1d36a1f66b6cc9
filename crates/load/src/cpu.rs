//! How long this program's own threads ran or waited for a core, so that a run can say when it measured itself.
//!
//! The kernel counts both for each thread (`/proc/thread-self/schedstat` of Linux). Where it does not tell, only the time
//! that a thread ran is known.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// How long the calling thread has wanted a core so far, in nanoseconds.
pub(crate) fn wanted_ns() -> u64 {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    told.and_then(|text| ran_and_waited_ns(&text)).unwrap_or_else(ran_ns)
}

fn ran_and_waited_ns(schedstat: &str) -> Option<u64> {
    let mut numbers = schedstat.split_ascii_whitespace().map(str::parse::<u64>);
    let (ran, waited) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(ran.saturating_add(waited))
}

fn ran_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let time = Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default());
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_shows() {
        assert_eq!(ran_and_waited_ns("120 30 7\n"), Some(150));
        assert_eq!(ran_and_waited_ns("0"), None);
        for clock in [wanted_ns, ran_ns] {
            let before = clock();
            while clock() < before + 1_000_000 {}
        }
    }
}
