//! A run: the groups that were asked for, one after the other, and the report of them.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::Args;
use serde_json::json;

use crate::cases::Group;
use crate::lab::{Lab, Scale};
use crate::machine::{self, Cores, Work};
use crate::report::Report;

const ALL: [Group; 11] = [
    Group::Gateway,
    Group::Leases,
    Group::Listener,
    Group::HttpApi,
    Group::Rules,
    Group::Connections,
    Group::Services,
    Group::Tokens,
    Group::Policies,
    Group::Applications,
    Group::Micro,
];

/// Cores that others may keep busy without being worth a word.
const OTHERS_MAX: f64 = 0.15;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// One short round of everything: to see that it works, not to quote figures.
    #[arg(long)]
    quick: bool,
    /// These groups only.
    #[arg(long, value_name = "GROUP", value_delimiter = ',')]
    only: Vec<Group>,
    /// An older build of weir: what services without policies cost is measured beside it.
    #[arg(long, value_name = "FILE")]
    before: Option<PathBuf>,
}

impl Arguments {
    /// What to type for the same again.
    fn command(&self) -> String {
        let words: Vec<String> = std::env::args().skip(1).collect();
        if words.is_empty() {
            "make bench".into()
        } else {
            format!("make bench ARGS=\"{}\"", words.join(" "))
        }
    }

    fn groups(&self) -> Vec<Group> {
        if self.only.is_empty() { ALL.to_vec() } else { self.only.clone() }
    }
}

/// Measures, prints and writes.
///
/// # Errors
/// When the run cannot begin, or its results cannot be written.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let out = folder()?;
    std::fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let cores = Cores::find();
    if cores == Cores::Shared {
        eprintln!("One core, or no taskset: servers and load share it. Figures are higher, and vary more.");
    }
    cores.pin_self();
    let scale = Scale::new(arguments.quick);
    let lab = Lab::new(&out, cores, scale, machine::raise_open_files(), arguments.before.clone())?;
    let started = Instant::now();
    let work_before = Work::now();
    // Children are to end with the thread that starts them: this one, so it also runs everything else.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut groups = vec![];
    for group in arguments.groups() {
        eprintln!("{} ({:.0} s)", group.title(), started.elapsed().as_secs_f64());
        groups.push((group, runtime.block_on(group.measure(&lab))));
    }
    let mut facts = machine::facts(cores, &lab.weir);
    let others = work_before.cores_of_others();
    facts["cores_of_others"] = json!((others * 100.0).round() / 100.0);
    facts["rounds"] = json!(scale.rounds);
    facts["seconds"] = json!(started.elapsed().as_secs());
    let report = Report { command: arguments.command(), machine: facts, groups };
    report.write(&out)?;
    println!("{}", report.table());
    eprintln!("{} s; results and pictures are in {}", started.elapsed().as_secs(), out.display());
    if others > OTHERS_MAX {
        eprintln!(
            "Others kept {others:.1} cores busy meanwhile: the figures are higher than on a calm machine."
        );
    }
    let failures = report.failures();
    failures.iter().for_each(|(name, why)| eprintln!("{name}: not measured: {why}"));
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `target/bench`, beside the profile's folder that the suite was built into.
fn folder() -> anyhow::Result<PathBuf> {
    let suite = std::env::current_exe()?;
    let target = suite.ancestors().nth(2).context("the suite is in no target folder")?;
    Ok(target.join("bench"))
}
