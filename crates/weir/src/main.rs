//! The binary `weir`: every role, and the tools around them, as subcommands.
//!
//! Only this crate reads the command line, files, environment and signals; the crates it starts get plain
//! configuration. One file per subcommand, one match here.
#![allow(clippy::print_stdout, reason = "the command line prints; the roles it starts log")]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::failure::Failure;

mod argument_file;
mod catalog;
mod catalog_watch;
mod check;
mod completions;
mod config;
mod demo;
#[cfg(test)]
mod documented;
mod explain;
mod explain_route;
mod failure;
mod gateway;
mod import;
mod ledger;
mod listener;
mod load;
mod logging;
mod names;
mod nginx_config;
mod policies;
mod problem;
mod report;
mod roles;
mod section;
mod shutdown;
mod spans;
mod suggest;
mod telemetry;

/// With glibc's allocator a listener's CPU time per decision grows by a half within minutes.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// API management: a gateway that proves who calls, counts what they use and holds them to their plan.
#[derive(Debug, Parser)]
#[command(name = "weir", version, after_help = AFTER_HELP)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a gateway: it proxies API calls and asks its listeners whether they may pass.
    Gateway(gateway::Arguments),
    /// Run a listener: it authorises calls and counts them in its store.
    Listener(listener::Arguments),
    /// Run everything at once, with an example to try: gateways, listener and a sample e-mail API.
    Demo(demo::Arguments),
    /// Say everything that is wrong with configuration and catalog files; start nothing.
    Check(check::Arguments),
    /// Send load at a rate of your choice to a deployment of your own, and say what came of it.
    Load(Box<load::Arguments>),
    /// Look into the ledger: what is used, what gateways hold on lease, what remains.
    Ledger(ledger::Arguments),
    /// Say why a gateway would answer a call as it would: service, rules, limits, upstream. Nothing is counted.
    Explain(explain::Arguments),
    /// Say why a gateway refused a call, by the id that it gave the answer.
    Why(explain::WhyArguments),
    /// List the policies that gateways carry out, or the keys of one, for people or as JSON Schema.
    Policies(policies::Arguments),
    /// Turn another gateway's configuration into a catalog, and say what became of each part of it.
    Import(import::Arguments),
    /// Print an nginx.conf for a service: nginx asks the listener, and no gateway of Weir is needed.
    NginxConfig(nginx_config::Arguments),
    /// Print a completion script for a shell.
    Completions(completions::Arguments),
}

const AFTER_HELP: &str = "\
Examples:
  weir demo
  weir check catalog.toml listener.toml gateway.toml
  weir listener --config listener.toml
  weir gateway --config gateway.toml

Keys in a role's file can be overridden by variables, two underscores between names:
  WEIR_GATEWAY__TOKEN=…  WEIR_LISTENER__STORE__REDIS__URL=…

Exit codes:
  0  done, or stopped by a signal
  1  failed while starting or running
  2  the command line, a file or a variable is wrong; nothing was started";

fn main() -> ExitCode {
    // Only fails when a provider is installed already, which then is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let outcome = match CommandLine::parse().command {
        Command::Gateway(arguments) => gateway::run(&arguments),
        Command::Listener(arguments) => listener::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Load(arguments) => load::run(&arguments),
        Command::Ledger(arguments) => ledger::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Why(arguments) => explain::why(&arguments),
        Command::Policies(arguments) => policies::run(&arguments),
        Command::Import(arguments) => import::run(&arguments),
        Command::NginxConfig(arguments) => nginx_config::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments),
    };
    outcome.map_or_else(Failure::report, |()| ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        CommandLine::command().debug_assert();
    }
}
