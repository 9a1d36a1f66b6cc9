//! Signals: the first asks the process to finish what it does, the second ends it.

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit code after a second signal: not a clean stop.
const EXIT_IMPATIENT: i32 = 1;

/// A token that the first SIGTERM or SIGINT cancels; the second one exits at once.
///
/// # Errors
/// When signals cannot be received.
pub(crate) fn on_signal() -> anyhow::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot receive SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot receive SIGINT")?;
    let stop = CancellationToken::new();
    let cancel = stop.clone();
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if cancel.is_cancelled() {
                tracing::warn!("{name} again: exiting at once");
                std::process::exit(EXIT_IMPATIENT);
            }
            tracing::info!("{name}: stopping");
            cancel.cancel();
        }
    });
    Ok(stop)
}
