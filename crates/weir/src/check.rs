//! `weir check`: all that is wrong with files, before anything is started with them.
//!
//! The kind of a file is told by its outermost keys. A listener's file brings its catalog along, which is then
//! checked under the listener's secrets; a catalog given by itself is checked without knowing them.

use std::path::{Path, PathBuf};

use clap::Args;
use toml::de::DeTable;

use crate::catalog::{self, KeyHashing};
use crate::failure::Failure;
use crate::problem::{Checked, Problem, Reading};
use crate::report::Source;
use crate::{gateway, listener};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  weir check catalog.toml listener.toml gateway.toml\n\n\
    Variables that override keys (WEIR_GATEWAY__…, WEIR_LISTENER__…) are checked, too.\n\
    Exit code 0 when everything may be used, 2 otherwise.")]
pub(crate) struct Arguments {
    /// Catalogs, gateways' and listeners' files, in any order.
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

/// A kind of file and the outermost keys that only it has.
struct Kind {
    marks: &'static [&'static str],
    check: fn(&Path, Source) -> Reading<String>,
}

const KINDS: [Kind; 3] = [
    Kind { marks: &["providers", "revision"], check: check_catalog },
    Kind { marks: &["listeners", "routing", "environment", "state_dir"], check: check_gateway },
    Kind {
        marks: &[
            "gateways",
            "store",
            "catalog",
            "key_hash_secret_file",
            "publish_token",
            "publish_token_file",
            "operator_token",
            "operator_token_file",
        ],
        check: check_listener,
    },
];

/// Checks all files; prints a line for each good one, all problems of the others.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut problems = Vec::new();
    for file in &arguments.files {
        match check(file) {
            Ok(Checked { value, warnings }) => {
                warnings.iter().for_each(|warning| eprintln!("{warning}"));
                println!("{}: ok: {value}", file.display());
            }
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(Failure::BadInput(problems)) }
}

fn check(file: &Path) -> Reading<String> {
    let source = Source::load(file).map_err(|problem| vec![problem])?;
    match kind(&source) {
        Some(kind) => (kind.check)(file, source),
        // Whichever kind it was meant to be, its syntax comes first.
        None if DeTable::parse(&source.text).is_err() => check_catalog(file, source),
        None => Err(vec![Problem::at(
            &source.file,
            1,
            1,
            "is neither a catalog (revision, providers) nor a gateway's file (listeners) nor a listener's \
             (store, gateways)",
        )]),
    }
}

fn kind(source: &Source) -> Option<&'static Kind> {
    // A text with a mistake in its syntax still shows most of its keys.
    let (table, _) = DeTable::parse_recoverable(&source.text);
    let table = table.get_ref();
    KINDS.iter().find(|kind| kind.marks.iter().any(|mark| table.contains_key(*mark)))
}

fn check_catalog(_: &Path, source: Source) -> Reading<String> {
    let Checked { value, warnings } = catalog::parse(&source, &KeyHashing::for_check())?;
    Ok(Checked { value: value.to_string(), warnings })
}

fn check_gateway(file: &Path, _: Source) -> Reading<String> {
    let Checked { value, warnings } = gateway::load(file)?;
    Ok(Checked { value: value.to_string(), warnings })
}

fn check_listener(file: &Path, _: Source) -> Reading<String> {
    let Checked { value, warnings } = listener::load(file)?;
    let catalog = value.catalog.map(|catalog| format!("; its catalog: {}", catalog.file)).unwrap_or_default();
    Ok(Checked { value: format!("{}{catalog}", value.settings), warnings })
}
