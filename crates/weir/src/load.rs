//! `weir load`: load at a rate of one's choice against a deployment of one's own, and what came of it.
//!
//! `prepare` reads and checks all input; nothing is sent before all of it is right. The crate `weir-load` sends and
//! measures. Here is the order of things, and what is printed and written at the end.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, ValueEnum};
use tokio_util::sync::CancellationToken;
use weir_load::report::{self, Report};
use weir_load::{
    Arrivals, Listener, Outcome, RunError, Span, Threshold, UsageCheck, UsageReading, Verdict, judge,
};

use crate::failure::Failure;
use crate::roles;
use prepare::{Prepared, Variables};
use progress::Progress;
use rates::{Rate, Steps};

mod authrep;
mod from_catalog;
mod mix_file;
mod prepare;
mod progress;
mod rates;
mod target;

/// What shells use for a program that Ctrl-C ended.
const EXIT_INTERRUPTED: u8 = 130;
const EXIT_FAILED: u8 = 1;

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// Gateways (http://… or https://…) or listeners (grpc://… or grpcs://…, asked for decisions; http://… or https://… with
    /// --api). Connections are spread over them. Without --mix and --from-catalog the path is what is called.
    #[arg(value_name = "URL")]
    targets: Vec<String>,
    #[command(flatten)]
    what: What,
    #[command(flatten)]
    when: When,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    result: ResultArguments,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "What is called")]
struct What {
    /// Who calls what, in TOML: services, applications, requests and their weights. See docs/load-testing.md.
    #[arg(long, value_name = "FILE", conflicts_with = "from_catalog")]
    mix: Option<PathBuf>,
    /// Make the mix from a catalog: each mapping rule is a call, each application a caller with its key in the clear.
    #[arg(long, value_name = "FILE")]
    from_catalog: Option<PathBuf>,
    /// Only this service of the catalog; may be given several times.
    #[arg(long = "service", value_name = "ID", requires = "from_catalog")]
    services: Vec<String>,
    /// Only this application of the catalog; may be given several times.
    #[arg(long = "application", value_name = "ID", requires = "from_catalog")]
    applications: Vec<String>,
    /// A header of the request, as "Name: value", where the URL is what is called; may be given several times.
    #[arg(long = "header", short = 'H', value_name = "HEADER", conflicts_with_all = ["mix", "from_catalog"])]
    headers: Vec<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "When")]
struct When {
    /// Requests per second: 1000, or 100..1000 for a ramp. Replaces the stages of the mix.
    #[arg(long, value_name = "RATE", conflicts_with = "steps")]
    rate: Option<Rate>,
    /// One rate after the other: 1000..10000+1000, or 1000..64000x2. Replaces the stages of the mix.
    #[arg(long, value_name = "FROM..TO+BY")]
    steps: Option<Steps>,
    /// How long the rate, the ramp or each step takes.
    #[arg(long = "for", value_name = "TIME", default_value = "10s")]
    each: Span,
    /// Send at the first rate for so long before; reported, but held to no threshold.
    #[arg(long, value_name = "TIME")]
    warm_up: Option<Span>,
    /// How requests are spread over time: evenly, or at random as those of many customers are.
    #[arg(long, value_name = "KIND", default_value = "uniform")]
    arrivals: ArrivalsArgument,
    /// Decides all that is random; the same seed gives the same requests at the same times. Without it a new one, which is
    /// printed.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ArrivalsArgument {
    Uniform,
    Poisson,
}

impl From<ArrivalsArgument> for Arrivals {
    fn from(argument: ArrivalsArgument) -> Self {
        match argument {
            ArrivalsArgument::Uniform => Self::Uniform,
            ArrivalsArgument::Poisson => Self::Poisson,
        }
    }
}

#[derive(Debug, Args)]
#[command(next_help_heading = "How it is sent")]
struct How {
    /// Connections, all opened before the first request [default: 64 for HTTP/1.1 and --api, 8 for HTTP/2, 2 for decisions].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: Option<u32>,
    /// Most requests that are due and not yet answered; further ones are not sent, and reported so.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    in_flight_max: u32,
    /// Longest wait for an answer, from the time the request was due; at most 10 minutes.
    #[arg(long, value_name = "TIME", default_value = "10s")]
    timeout: Span,
    /// Threads that send; on a core of its own one manages some ten thousands of requests per second.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: u16,
    /// Speak HTTP/2 (by prior knowledge where there is no TLS); gRPC requests always do.
    #[arg(long)]
    http2: bool,
    /// Trust only certificates under the authorities of this PEM file.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The name that certificates must have, instead of the URL's host.
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// A certificate chain to show, for listeners that want one (PEM), with --key.
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// What to prove oneself to listeners with: a gateway's token. The variable WEIR_LOAD_TOKEN may hold it instead.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Ask listeners about calls by this API, on their HTTP port: 3scale is an authrep about each, as 3scale's gateways and
    /// client libraries ask.
    #[arg(long, value_name = "API", conflicts_with = "http2")]
    api: Option<Api>,
    /// What opens the API for all services: a provider's key. The variable WEIR_LOAD_PROVIDER_KEY may hold it instead.
    /// Without either, each service needs a token in the mix, or a token or provider's key in the clear in the catalog.
    #[arg(long, value_name = "FILE", requires = "api")]
    provider_key_file: Option<PathBuf>,
    /// Ask for the API's XML documents as well; without, answers are status and headers alone (no_body).
    #[arg(long, requires = "api")]
    with_body: bool,
    /// Send load to addresses that are not loopback. Only ever say so of hosts that are yours.
    #[arg(long)]
    i_own_this_host: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Api {
    #[value(name = "3scale")]
    Threescale,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "What comes of it")]
struct ResultArguments {
    /// Compare what was admitted with the counters of this listener (http://… or https://…, its gRPC port).
    #[arg(long, value_name = "URL")]
    check_usage: Option<String>,
    /// The name that this listener's certificate must have, instead of the URL's host.
    #[arg(long, value_name = "NAME", requires = "check_usage")]
    listener_name: Option<String>,
    /// Fail when this is true of a stage: p99>50ms, max>1s, errors>0.1%, not_sent>0, rate<95%. May be given several times.
    #[arg(long, value_name = "CONDITION")]
    fail_if: Vec<Threshold>,
    /// Write everything as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with plots: one file, to be opened in a browser.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

const AFTER_HELP: &str = "\
Requests are sent when they are due, whatever becomes of those before, and latency counts from
when they were due: a slow answer is not hidden by the requests that it holds up.

Examples:
  weir load 'http://127.0.0.1:8080/?user_key=key' -H 'Host: api.example' --rate 500 --for 30s
  weir load http://127.0.0.1:8080 --from-catalog catalog.toml --steps 1000..10000+1000 \\
      --for 10s --fail-if 'p99>50ms' --fail-if 'rate<95%' --html knee.html
  weir load http://127.0.0.1:8080 --mix mix.toml --rate 100..5000 --for 1m --arrivals poisson
  weir load http://127.0.0.1:8080 --mix mix.toml --rate 200 \\
      --check-usage http://127.0.0.1:8090 --token-file token.txt
  weir load grpc://127.0.0.1:8090 --from-catalog catalog.toml --token-file token.txt --rate 20000
  weir load http://127.0.0.1:8091 --api 3scale --from-catalog catalog.toml --rate 5000

Exit codes:
  0    done, and nothing failed
  1    a threshold failed, counters differ from what was admitted, or nobody could be reached
  2    the command line or a file is wrong; nothing was sent
  130  interrupted; what there was until then is printed and written";

/// Sends load and reports.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let checked = prepare::prepare(arguments, Variables::read()).map_err(Failure::BadInput)?;
    checked.warnings.iter().for_each(|warning| eprintln!("{warning}"));
    let prepared = checked.value;
    roles::run(async |stop| {
        let progress = Progress::start();
        let done = send(&prepared, &stop, &progress).await;
        progress.end();
        let (outcome, usage) = done.map_err(|error| match error.downcast_ref::<RunError>() {
            Some(RunError::Interrupted) => {
                eprintln!("weir: {error}");
                Failure::Said(EXIT_INTERRUPTED)
            }
            _ => Failure::Failed(error),
        })?;
        let judgements = judge(&arguments.result.fail_if, &outcome);
        let report = Report {
            plan: &prepared.plan,
            outcome: &outcome,
            judgements: &judgements,
            usage: usage.as_deref(),
        };
        print!("{}", report::table(&report));
        write(&report, &arguments.result)?;
        if outcome.is_interrupted {
            return Err(Failure::Said(EXIT_INTERRUPTED));
        }
        if report.is_passed() { Ok(()) } else { Err(Failure::Said(EXIT_FAILED)) }
    })
}

/// Reads counters, sends, reads counters again.
async fn send(
    prepared: &Prepared,
    stop: &CancellationToken,
    progress: &Progress,
) -> anyhow::Result<(Outcome, Option<Vec<Verdict>>)> {
    let before = match &prepared.usage {
        Some((check, listener)) => Some((check, listener, check.read(listener).await?)),
        None => None,
    };
    let outcome = weir_load::run(prepared.plan.clone(), stop.clone(), |live| progress.slice(live)).await?;
    let Some((check, listener, before)) = before else { return Ok((outcome, None)) };
    progress.show("comparing counters");
    let verdicts = compare(check, listener, &before, prepared, &outcome).await?;
    Ok((outcome, Some(verdicts)))
}

async fn compare(
    check: &UsageCheck,
    listener: &Listener,
    before: &UsageReading,
    prepared: &Prepared,
    outcome: &Outcome,
) -> anyhow::Result<Vec<Verdict>> {
    Ok(check.compare(listener, before, &prepared.plan.mix, outcome).await?)
}

fn write(report: &Report<'_>, arguments: &ResultArguments) -> anyhow::Result<()> {
    let put = |path: &Path, text: String| {
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    if let Some(path) = &arguments.json {
        put(path, format!("{:#}\n", report::json(report)))?;
    }
    if let Some(path) = &arguments.html {
        put(path, report::html(report))?;
    }
    Ok(())
}
