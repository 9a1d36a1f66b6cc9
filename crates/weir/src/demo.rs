//! `weir demo`: the whole data plane in one process, set up as the example e-mail provider "Postbote".
//!
//! It writes the same files that a real installation has and starts the roles from them, over their real protocols, so
//! what it shows is what production runs. `--check` walks through the example's story by the public interfaces.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio::task::JoinSet;
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

/// Said in front of an address that cannot be listened on.
const PORT_HINT: &str = "cannot start (where another program uses a port, --port-offset 1000 helps)";

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  weir demo\n  weir demo --check\n  \
    weir demo --data-dir ./demo --port-offset 1000\n  \
    weir demo --store redis://127.0.0.1:6379\n\n\
    With --data-dir the configuration stays there to be read and changed: edit catalog.toml, raise its revision, and \
    the change is in force within a second; each start begins with the example again. demo.json there tells scripts where everything is.")]
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
    let metrics = telemetry::Metrics::install()?;
    let temporary = tempfile::Builder::new().prefix("weir-demo-").tempdir().context("a temporary folder")?;
    let dir = arguments.data_dir.clone().unwrap_or_else(|| temporary.path().to_owned());
    let progress = Progress::start();
    roles::run(async |stop| {
        progress.show("writing the configuration");
        let setup = Setup::write(&dir, arguments.port_offset, arguments.store.as_deref())?;
        let mut running = Running::default();
        let outcome = async {
            running.start(&setup, metrics, &progress).await?;
            if arguments.check {
                return story::tell(&setup, &progress).await;
            }
            progress.end();
            print!("{}", guide::text(&setup, arguments.data_dir.is_some()));
            tokio::select! {
                () = stop.cancelled() => Ok(()),
                ended = running.one_ends() => ended,
            }
        };
        let outcome = tokio::select! {
            outcome = outcome => outcome,
            () = stop.cancelled() => Ok(()),
        };
        progress.end();
        running.stop().await?;
        outcome
    })
}

/// The demo replaces the whole catalog of its store: not one that is somebody's.
async fn check_store(config: &weir_store::Config) -> anyhow::Result<()> {
    if let weir_store::Config::Embedded(_) = config {
        return Ok(());
    }
    let store = weir_store::Store::open(config.clone()).await.context("cannot open the store")?;
    let services = store.services().await.context("cannot read the store")?;
    if let Some((foreign, _)) = services.iter().find(|(id, _)| id.as_str() != setup::SERVICE) {
        anyhow::bail!("this Redis has a catalog with the service {foreign}: the demo would replace it");
    }
    Ok(())
}

/// What runs. Gateways stop before what they talk to.
#[derive(Default)]
struct Running {
    gateways: JoinSet<anyhow::Result<()>>,
    others: JoinSet<anyhow::Result<()>>,
    stop_gateways: CancellationToken,
    stop_others: CancellationToken,
}

impl Running {
    /// Starts everything; returns once all of it is ready.
    async fn start(
        &mut self,
        setup: &Setup,
        metrics: telemetry::Metrics,
        progress: &Progress,
    ) -> Result<(), Failure> {
        progress.show("starting the sample e-mail API");
        let upstream = postbote::Postbote::bind(setup.ports.upstream).await.context(PORT_HINT)?;
        self.others.spawn(upstream.run(self.stop_others.clone()));
        progress.show("starting the listener");
        let input = listener::load(&setup.file("listener.toml")).map_err(Failure::BadInput)?;
        check_store(&input.value.settings.store).await?;
        let listener = listener::bind(input.value, metrics.clone(), &self.stop_others).await?;
        self.others.spawn(listener.run(self.stop_others.clone()));
        progress.show("starting the gateways");
        for environment in ["production", "staging"] {
            let path = setup.file(&format!("gateway-{environment}.toml"));
            let settings = gateway::load(&path).map_err(Failure::BadInput)?;
            let role = GatewayRole::bind(settings.value, metrics.clone()).await.context(PORT_HINT)?;
            self.gateways.spawn(role.run(self.stop_gateways.clone()));
        }
        progress.show("waiting until all is ready");
        for url in setup.telemetry() {
            client::until_ready(&url, READY_TIMEOUT).await?;
        }
        story::seed(setup).await?;
        guide::write_json(setup)?;
        Ok(())
    }

    /// Waits until a role ends by itself, which none should.
    async fn one_ends(&mut self) -> Result<(), Failure> {
        let ended = tokio::select! {
            Some(ended) = self.gateways.join_next() => ended,
            Some(ended) = self.others.join_next() => ended,
        };
        ended.context("a role panicked")??;
        Err(anyhow::anyhow!("a role ended by itself").into())
    }

    async fn stop(mut self) -> Result<(), Failure> {
        for (stop, roles) in [(self.stop_gateways, &mut self.gateways), (self.stop_others, &mut self.others)]
        {
            stop.cancel();
            while let Some(ended) = roles.join_next().await {
                ended.context("a role panicked")??;
            }
        }
        Ok(())
    }
}
