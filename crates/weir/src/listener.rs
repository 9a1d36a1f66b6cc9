//! `weir listener`: runs a listener until a signal stops it.
//!
//! With a catalog file it publishes that first and follows its changes afterwards.

use std::path::{Path, PathBuf};

use clap::Args;
use tokio_util::sync::CancellationToken;
use weir_listener::{CatalogHandle, PublishError};

use crate::catalog::{self, CatalogFile, KeyHashing};
use crate::catalog_watch::{self, CatalogWatch, Stamp};
use crate::config::listener::{self, ListenerSettings, VARIABLE_PREFIX};
use crate::failure::Failure;
use crate::problem::{Checked, Problem, Reading};
use crate::report::{Environment, Source};
use crate::roles::{self, ListenerRole};
use crate::spans::Export;
use crate::{logging, telemetry};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  weir listener --config listener.toml\n  \
    WEIR_LISTENER__STORE__REDIS__URL=redis://redis:6379 weir listener --config listener.toml\n\n\
    A catalog file is loaded again when it changes or on SIGHUP; a wrong one is logged and left alone.\n\
    SIGTERM or SIGINT: calls in flight are ended first; a second signal exits at once.\n\
    Metrics and health (/metrics, /livez, /readyz) are on telemetry_address, by default port 9090.")]
pub(crate) struct Arguments {
    /// The listener's file; every key is described in docs/configuration.md.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// A listener's file and the catalog it names.
#[derive(Debug)]
pub(crate) struct ListenerInput {
    /// The file.
    pub(crate) settings: ListenerSettings,
    /// `None`: the control plane publishes.
    pub(crate) catalog: Option<LoadedCatalog>,
}

/// A catalog and the file it was read from.
#[derive(Debug)]
pub(crate) struct LoadedCatalog {
    /// What it holds.
    pub(crate) file: CatalogFile,
    path: PathBuf,
    /// Taken before the file was read, so that a change in the meantime is seen later.
    stamp: Stamp,
}

/// Runs until a signal comes or the listener fails.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Checked { value: ListenerInput { settings, catalog }, warnings } =
        load(&arguments.config).map_err(Failure::BadInput)?;
    logging::install(&settings.log)?;
    logging::log_all(&warnings);
    let metrics = telemetry::Metrics::install()?;
    roles::run(async |stop| {
        let spans = Export::start(settings.tracing.as_ref(), "weir-listener")?;
        let role = bind(ListenerInput { settings, catalog }, metrics, &stop).await?;
        let ended = role.run(stop).await;
        spans.finish().await;
        Ok(ended?)
    })
}

/// Binds a listener, publishes its catalog and follows that from then on.
///
/// # Errors
/// When an address is taken, or the catalog cannot be published.
pub(crate) async fn bind(
    input: ListenerInput,
    metrics: telemetry::Metrics,
    stop: &CancellationToken,
) -> Result<ListenerRole, Failure> {
    let ListenerInput { settings, catalog } = input;
    let hashing = KeyHashing::under(settings.listener.key_hasher.clone());
    let role = ListenerRole::bind(settings, metrics).await?;
    if let Some(catalog) = catalog {
        let watch = publish(catalog, hashing, role.catalog()).await?;
        tokio::spawn(watch.run(stop.clone()));
    }
    Ok(role)
}

/// Publishes the catalog as it was read; from then on its file is to be watched.
async fn publish(
    catalog: LoadedCatalog,
    hashing: KeyHashing,
    handle: CatalogHandle,
) -> Result<CatalogWatch, Failure> {
    let LoadedCatalog { file, path, stamp } = catalog;
    if let Err(error) = handle.publish(&file.catalog).await {
        if matches!(error, PublishError::Store(_)) {
            return Err(anyhow::Error::new(error).context("cannot publish the catalog").into());
        }
        // Not starting would be an outage where the store has a good catalog: serve that.
        tracing::error!("{}: not published: {error}; serving what the store holds", path.display());
        return Ok(CatalogWatch::new(path, stamp, hashing, handle));
    }
    tracing::info!("{}: revision {} published: {file}", path.display(), file.catalog.revision);
    Ok(CatalogWatch::new(path, stamp, hashing, handle))
}

/// Reads and checks the file, the environment and the catalog.
///
/// # Errors
/// Everything that is wrong with any of them.
pub(crate) fn load(path: &Path) -> Reading<ListenerInput> {
    let source = Source::load(path).map_err(|problem| vec![problem])?;
    let source = Source { environment: Environment::of_process(VARIABLE_PREFIX), ..source };
    let parsed = listener::parse(&source).map_err(|mut problems| {
        problems.extend(catalog_problems(&source));
        problems
    });
    let Checked { value: settings, mut warnings } = parsed?;
    let Some(path) = settings.catalog.clone() else {
        return Ok(Checked { value: ListenerInput { settings, catalog: None }, warnings });
    };
    let hashing = KeyHashing::under(settings.listener.key_hasher.clone());
    let stamp = catalog_watch::stamp(&path);
    let read = Source::load(&path).map_err(|problem| vec![problem]);
    match read.and_then(|source| catalog::parse(&source, &hashing)) {
        Ok(Checked { value: file, warnings: more }) => {
            warnings.extend(more);
            let catalog = Some(LoadedCatalog { file, path, stamp });
            Ok(Checked { value: ListenerInput { settings, catalog }, warnings })
        }
        Err(problems) => {
            warnings.extend(problems);
            Err(warnings)
        }
    }
}

/// What is wrong with the catalog that a file names, where the file itself is no good: both are told at once.
fn catalog_problems(source: &Source) -> Vec<Problem> {
    let table: Option<toml::Table> = source.text.parse().ok();
    let named = table.as_ref().and_then(|table| table.get("catalog")?.as_str());
    let Some(path) = named.map(|name| source.folder.join(name)) else { return vec![] };
    let read = Source::load(&path).map_err(|problem| vec![problem]);
    read.and_then(|source| catalog::parse(&source, &KeyHashing::for_check())).err().unwrap_or_default()
}
