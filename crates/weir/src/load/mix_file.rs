//! Mix files: who calls what, and perhaps when and where, in TOML.
//!
//! The keys are described in `docs/load-testing.md`, which a test holds against what is asked for here. Keys of callers
//! stand in the file or in files that it names; no problem shows one.

use http::HeaderValue;
use http::uri::Authority;
use weir_core::ServiceId;
use weir_load::{Group, Proof, Span, Stage};

use crate::problem::Reading;
use crate::report::{self, Source};
use crate::section::Section;

mod call;
mod caller;
#[cfg(test)]
mod tests;

/// Highest rate, requests per second.
pub(super) const RATE_MAX: u32 = 1_000_000;
/// Most stages of a run.
pub(super) const STAGES_MAX: usize = 200;
/// Largest weight.
const WEIGHT_MAX: u64 = 1_000_000;
/// Most calls of all services together: each has a line in the report.
pub(super) const CALLS_MAX: usize = 256;
/// Most callers of all services together.
pub(super) const CALLERS_MAX: usize = 100_000;

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct MixFile {
    /// URLs; empty: the command line has them.
    pub(super) targets: Vec<String>,
    /// Empty: the command line has them.
    pub(super) stages: Vec<Stage>,
    /// One for each service, with at least one call.
    pub(super) groups: Vec<Group>,
}

/// Reads a file.
///
/// # Errors
/// Everything that is wrong with it.
pub(super) fn parse(source: &Source) -> Reading<MixFile> {
    report::read(source, |section| Some(read(section)))
}

fn read(section: &Section<'_>) -> MixFile {
    let targets = section.texts("targets").unwrap_or_default();
    let stages = section.each("stages", stage);
    if stages.len() > STAGES_MAX {
        section.report().error(section.place(), format!("stages: more than {STAGES_MAX}"));
    }
    let groups = some(section, "services", group);
    for (count, max, what) in [
        (groups.iter().map(|group| group.calls.len()).sum::<usize>(), CALLS_MAX, "requests"),
        (groups.iter().map(|group| group.callers.len()).sum(), CALLERS_MAX, "applications and keys"),
    ] {
        if count > max {
            section.report().error(section.place(), format!("all services together: more than {max} {what}"));
        }
    }
    MixFile { targets: targets.iter().map(|url| url.value.to_owned()).collect(), stages, groups }
}

fn stage(section: &Section<'_>) -> Option<Stage> {
    section.require("rate");
    section.require("for");
    let rate = |key, least| section.whole(key, least..=RATE_MAX.into()).and_then(|n| u32::try_from(n).ok());
    // A ramp may begin with nothing.
    let from = rate("rate", u64::from(!section.gives("to")));
    let to = rate("to", 1);
    let length = section.parsed::<Span>("for");
    let is_warm_up = section.flag("warm_up").unwrap_or(false);
    let from = from?;
    Some(Stage { from, to: to.unwrap_or(from), length: length?.value.0, is_warm_up })
}

fn group(section: &Section<'_>) -> Option<Group> {
    let weight = weight(section);
    let service = section.parsed::<ServiceId>("id").map(|id| id.value);
    let proof = section.secret("service_token").map(|token| Proof::ServiceToken(token.value));
    let host = host(section);
    let callers = caller::read(section);
    let calls = some(section, "requests", call::read);
    Some(Group { weight, service, proof, host, callers, calls })
}

/// The tables of a list that must have one at least.
fn some<T>(section: &Section<'_>, key: &str, read: fn(&Section<'_>) -> Option<T>) -> Vec<T> {
    section.require(key);
    let mut count = 0;
    let found = section.each(key, |section| {
        count += 1;
        read(section)
    });
    if count == 0 && section.gives(key) {
        section.report().error(section.place(), format!("{key} is empty: there is nothing to call"));
    }
    found
}

/// How often something is chosen, compared with its neighbours.
fn weight(section: &Section<'_>) -> u32 {
    let weight = section.whole("weight", 1..=WEIGHT_MAX);
    weight.and_then(|weight| u32::try_from(weight).ok()).unwrap_or(1)
}

/// A host, perhaps with a port, as requests name it.
fn host(section: &Section<'_>) -> Option<String> {
    let host = section.text("host")?;
    let is_host = host.value.parse::<Authority>().is_ok_and(|authority| !authority.as_str().contains('@'));
    if !is_host || HeaderValue::from_str(host.value).is_err() {
        section
            .report()
            .error(host.place, format!("host {:?} is not a host such as api.example.org", host.value));
        return None;
    }
    Some(host.value.to_owned())
}
