//! `weir import apicast`: turns the configuration of a 3scale gateway into a catalog, and says of each part what became
//! of it.
//!
//! The catalog goes to standard output, the account of it to standard error, a line for each field that is in the
//! document: mapped as it is, changed, or left out, with the reason. What comes out has been read by the catalog's own
//! parser.

mod account;
mod apicast;
mod draft;
mod policies;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};

use self::account::Account;
use crate::catalog::{self, KeyHashing};
use crate::failure::Failure;
use crate::problem::Problem;
use crate::report::Source;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Turn the configuration document of 3scale's gateway (APIcast) into a catalog.
    Apicast(Apicast),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    weir import apicast config.json > catalog.toml\n  \
    weir import apicast config.json --quiet > catalog.toml && weir check catalog.toml\n\n\
    FILE is what the gateway loads (THREESCALE_CONFIG_FILE), what the portal answers to\n\
    /admin/api/account/proxy_configs/production.json, or one service's content.\n\n\
    Each line on standard error says what became of a field:\n  \
    mapped    it is in the catalog as it was\n  \
    changed   it is there, but not as it was: see why\n  \
    left out  it is not there: see why\n\n\
    Plans, limits and applications are not in such a document: add them to the catalog. The\n\
    output holds the document's secrets.\n\n\
    Exit codes: 0 all of it was mapped or changed, 1 the catalog cannot be printed, 2 FILE cannot be\n\
    read, 3 something was left out.")]
struct Apicast {
    /// The document, JSON.
    file: PathBuf,
    /// Say nothing of what was mapped.
    #[arg(long)]
    quiet: bool,
}

/// Longest document.
const BYTES_MAX: u64 = 256 << 20;

fn read(file: &Path) -> std::io::Result<Vec<u8>> {
    if std::fs::metadata(file)?.len() > BYTES_MAX {
        return Err(std::io::Error::other(format!("it is longer than {BYTES_MAX} bytes")));
    }
    std::fs::read(file)
}

/// Runs the subcommand.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Command::Apicast(Apicast { file, quiet }) = &arguments.command;
    let name = file.display().to_string();
    let bad = |problem| Failure::BadInput(vec![problem]);
    let bytes =
        read(file).map_err(|error| bad(Problem::of_file(&name, format!("cannot be read: {error}"))))?;
    let document = serde_json::from_slice(&bytes).map_err(|error| {
        bad(Problem::at(&name, error.line(), error.column(), format!("is no JSON: {error}")))
    })?;
    let mut account = Account::default();
    let draft = apicast::read(&document, &mut account)
        .ok_or_else(|| bad(Problem::of_file(&name, "holds no service of a 3scale gateway")))?;
    let text = draft.to_toml();
    // Whatever was not foreseen is found here, and not by the listener.
    let source = Source { file: "the catalog".into(), text: text.clone(), ..Source::default() };
    if let Err(problems) = catalog::parse(&source, &KeyHashing::for_check()) {
        problems.iter().for_each(|problem| account.left_out("the catalog", &problem.to_string()));
    }
    eprint!("{}", account.lines(*quiet));
    std::io::stdout().write_all(text.as_bytes()).context("cannot print the catalog")?;
    if account.is_whole() { Ok(()) } else { Err(Failure::Said(3)) }
}
