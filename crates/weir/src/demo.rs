//! `weir demo`: the whole data plane in one process, set up as the example e-mail provider "Postbote".
//!
//! It writes the same files that a real installation has and starts the roles from them, over their real protocols, so
//! what it shows is what production runs. `--check` walks through the example's story by the public interfaces.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::config::LogConfig;
use crate::failure::Failure;
use crate::roles::GatewayRole;
use crate::{gateway, listener, logging, roles, telemetry};
use progress::Progress;
use setup::Setup;

mod client;
mod guide;
mod postbote;
mod progress;
mod setup;
mod story;

/// Longest wait for a role to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  weir demo\n  weir demo --check\n  \
    weir demo --data-dir ./demo --port-offset 1000\n  \
    weir demo --store redis://127.0.0.1:6379\n\n\
    With --data-dir the configuration stays there to be read and changed: edit catalog.toml, raise its revision, and \
    the change is in force within a second. demo.json there tells scripts where everything is.")]
pub(crate) struct Arguments {
    /// Folder for configuration, counters and demo.json; without it a temporary one, removed at the end.
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// Count in this Redis (redis://… or rediss://…) instead of the embedded store.
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Add this to every port.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=50_000))]
    port_offset: u16,
    /// Walk through the example's story, print each step with its result, and exit: 0 when all is well, else 1.
    #[arg(long)]
    check: bool,
    /// What is logged, as a level or directives such as info,weir_gateway=debug.
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    log: String,
}

/// Runs until a signal comes, or until the story is told.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    logging::install(&LogConfig { level: arguments.log.clone(), ..LogConfig::default() })?;
    let metrics = telemetry::install_recorder()?;
    let temporary = tempfile::Builder::new().prefix("weir-demo-").tempdir().context("a temporary folder")?;
    let dir = arguments.data_dir.clone().unwrap_or_else(|| temporary.path().to_owned());
    let progress = Progress::start();
    roles::run(async |stop| {
        progress.show("writing the configuration");
        let setup = Setup::write(&dir, arguments.port_offset, arguments.store.as_deref())?;
        let running = start(&setup, metrics, &stop, &progress).await?;
        let outcome = if arguments.check {
            story::tell(&setup, &progress).await
        } else {
            progress.end();
            print!("{}", guide::text(&setup, arguments.data_dir.is_some()));
            stop.cancelled().await;
            Ok(())
        };
        stop.cancel();
        for role in running {
            role.await.context("a role panicked")??;
        }
        outcome
    })
}

/// Starts everything; returns once all of it is ready.
async fn start(
    setup: &Setup,
    metrics: metrics_exporter_prometheus::PrometheusHandle,
    stop: &CancellationToken,
    progress: &Progress,
) -> Result<Vec<tokio::task::JoinHandle<anyhow::Result<()>>>, Failure> {
    progress.show("starting the sample e-mail API");
    let upstream = postbote::Postbote::bind(setup.ports.upstream).await?;
    progress.show("starting the listener");
    let input = listener::load(&setup.file("listener.toml")).map_err(Failure::BadInput)?;
    let listener = listener::bind(input.value, metrics.clone(), stop).await?;
    progress.show("starting the gateways");
    let mut running =
        vec![tokio::spawn(upstream.run(stop.clone())), tokio::spawn(listener.run(stop.clone()))];
    for environment in ["production", "staging"] {
        let path = setup.file(&format!("gateway-{environment}.toml"));
        let settings = gateway::load(&path).map_err(Failure::BadInput)?;
        let role = GatewayRole::bind(settings.value, metrics.clone()).await?;
        running.push(tokio::spawn(role.run(stop.clone())));
    }
    progress.show("waiting until all is ready");
    for url in setup.telemetry() {
        client::until_ready(&url, READY_TIMEOUT).await?;
    }
    story::seed(setup).await?;
    guide::write_json(setup)?;
    Ok(running)
}
