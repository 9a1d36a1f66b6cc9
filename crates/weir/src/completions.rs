//! `weir completions`: scripts that teach a shell the command line.

use std::io::Write;

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::CommandLine;
use crate::failure::Failure;

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  weir completions bash > /etc/bash_completion.d/weir")]
pub(crate) struct Arguments {
    /// Which shell.
    shell: Shell,
}

/// Prints the script.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    // By way of memory: the generator panics when its reader goes away early.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut CommandLine::command(), "weir", &mut script);
    std::io::stdout().write_all(&script).context("cannot print the script")?;
    Ok(())
}
