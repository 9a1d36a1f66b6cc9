//! `weir gateway`: runs a gateway until a signal stops it.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::config::gateway::{self, GatewaySettings, VARIABLE_PREFIX};
use crate::failure::Failure;
use crate::problem::{Checked, Reading};
use crate::report::{Environment, Source};
use crate::roles::{self, GatewayRole};
use crate::spans::Export;
use crate::{logging, telemetry};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  weir gateway --config gateway.toml\n  \
    WEIR_GATEWAY__TOKEN_FILE=/run/secrets/gateway weir gateway --config gateway.toml\n\n\
    SIGTERM or SIGINT: requests in flight are ended first; a second signal exits at once.\n\
    Metrics and health (/metrics, /livez, /readyz) are on telemetry_address, by default port 9080.")]
pub(crate) struct Arguments {
    /// The gateway's file; every key is described in docs/configuration.md.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Runs until a signal comes or the gateway fails.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Checked { value: settings, warnings } = load(&arguments.config).map_err(Failure::BadInput)?;
    logging::install(&settings.log)?;
    logging::log_all(&warnings);
    let metrics = telemetry::Metrics::install()?;
    roles::run(async |stop| {
        let spans = Export::start(settings.tracing.as_ref(), "weir-gateway")?;
        let role = GatewayRole::bind(settings, metrics).await?;
        let ended = role.run(stop).await;
        spans.finish().await;
        Ok(ended?)
    })
}

/// Reads and checks the file and the environment.
///
/// # Errors
/// Everything that is wrong with either.
pub(crate) fn load(path: &Path) -> Reading<GatewaySettings> {
    let source = Source::load(path).map_err(|problem| vec![problem])?;
    gateway::parse(&Source { environment: Environment::of_process(VARIABLE_PREFIX), ..source })
}
