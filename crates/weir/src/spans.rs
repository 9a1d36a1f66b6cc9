//! Where the spans of a role go: to an OTLP collector by gRPC, when its file says so and the binary can.
//!
//! Traces are a help and never a burden: spans wait in a bounded queue beside the requests, and what a collector does
//! not take in time is counted and lost.

#[cfg(feature = "otel")]
mod queue;

use crate::config::TracingConfig;
#[cfg(feature = "otel")]
use queue::Running;

/// The export of a role's spans.
pub(crate) struct Export {
    /// `None`: there is none.
    #[cfg(feature = "otel")]
    running: Option<Running>,
}

#[cfg(feature = "otel")]
impl Export {
    /// Makes the process export spans under this name, if it is configured to.
    ///
    /// # Errors
    /// When the exporter cannot be set up.
    pub(crate) fn start(config: Option<&TracingConfig>, name: &'static str) -> anyhow::Result<Self> {
        Ok(Self { running: config.map(|config| queue::start(config, name)).transpose()? })
    }

    /// Exports what still waits.
    pub(crate) async fn finish(self) {
        if let Some(running) = self.running {
            running.finish().await;
        }
    }
}

#[cfg(not(feature = "otel"))]
impl Export {
    /// This build makes no spans.
    ///
    /// # Errors
    /// None.
    pub(crate) fn start(_: Option<&TracingConfig>, _name: &'static str) -> anyhow::Result<Self> {
        Ok(Self {})
    }

    /// Nothing waits.
    pub(crate) async fn finish(self) {}
}
