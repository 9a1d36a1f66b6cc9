//! `weir-bench`, the load suite: Weir's processes, peers and floors under the same load, in turns.
//!
//! Run by `make bench`, which builds `weir` beside it first. `docs/performance.md` says how it measures and what it
//! found. The servers that it needs of its own are subcommands of the same binary.
#![allow(clippy::print_stdout, reason = "the table is its output")]

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod cases;
mod catalog;
mod cpu;
mod delay;
mod figure;
mod issuer;
mod lab;
mod load;
mod machine;
mod origin;
mod peers;
mod question;
mod report;
mod run;
mod serve;
mod server;
mod turns;
mod weir;

/// Measures Weir beside its peers.
#[derive(Debug, Parser)]
#[command(name = "weir-bench", args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(flatten)]
    run: run::Arguments,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one of the suite's own servers.
    Serve {
        /// Which.
        kind: serve::Kind,
        /// Where it listens.
        #[arg(long)]
        address: SocketAddr,
        /// Where a proxy passes requests on to.
        #[arg(long)]
        origin: Option<SocketAddr>,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    let CommandLine { run, command } = CommandLine::parse();
    match command {
        None => run::run(&run),
        Some(Command::Serve { kind, address, origin }) => {
            serve::run(kind, address, origin)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
