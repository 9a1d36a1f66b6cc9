//! Roles as they run, whether alone in a process or several in one: bound first, so that nothing that can be
//! known to fail fails later, then run until told to stop.
//!
//! The subcommands use it, the demo too. A role's telemetry is bound last, so that whoever reaches it reaches the role,
//! and outlives the role by a moment, to say that it stops.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use tokio_util::sync::CancellationToken;
use weir_core::Secret;
use weir_gateway::Gateway;
use weir_listener::{CatalogHandle, Listener};
use weir_store::Store;

use crate::config::gateway::GatewaySettings;
use crate::config::listener::ListenerSettings;
use crate::explain_route::ExplainRoute;
use crate::failure::Failure;
use crate::shutdown;
use crate::telemetry::{Metrics, Ready, TelemetryServer};

/// A gateway whose addresses are bound.
pub(crate) struct GatewayRole {
    gateway: Gateway,
    operator_token: Option<Secret>,
    telemetry: TelemetryServer,
}

impl GatewayRole {
    /// Binds its addresses.
    ///
    /// # Errors
    /// When that fails.
    pub(crate) async fn bind(settings: GatewaySettings, metrics: Metrics) -> anyhow::Result<Self> {
        let gateway = Gateway::bind(settings.gateway).await.context("cannot start the gateway")?;
        let telemetry = TelemetryServer::bind(settings.telemetry_address, metrics).await?;
        Ok(Self { gateway, operator_token: settings.operator_token, telemetry })
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.gateway.address()
    }

    /// Runs until told to stop, ending requests in flight.
    ///
    /// # Errors
    /// When the gateway fails.
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        tracing::info!("gateway on {}, telemetry on {}", self.address(), self.telemetry.address()?);
        let status = self.gateway.status();
        let ready = ready(move || status.ready(), &stop);
        let explain = ExplainRoute { explainer: self.gateway.explainer(), token: self.operator_token };
        let running = self.gateway.run(stop);
        with_telemetry(self.telemetry, ready, Some(explain), running).await.context("the gateway failed")
    }
}

/// A listener whose store is open and whose addresses are bound.
pub(crate) struct ListenerRole {
    listener: Listener,
    telemetry: TelemetryServer,
}

impl ListenerRole {
    /// Opens its store and binds its addresses.
    ///
    /// # Errors
    /// When one of them fails.
    pub(crate) async fn bind(settings: ListenerSettings, metrics: Metrics) -> anyhow::Result<Self> {
        let store = Store::open(settings.store).await.context("cannot open the store")?;
        let listener = Listener::bind(settings.listener, store).await.context("cannot start the listener")?;
        let telemetry = TelemetryServer::bind(settings.telemetry_address, metrics).await?;
        Ok(Self { listener, telemetry })
    }

    /// Where a catalog is published.
    pub(crate) fn catalog(&self) -> CatalogHandle {
        self.listener.catalog()
    }

    /// Where gateways connect.
    pub(crate) fn grpc_address(&self) -> SocketAddr {
        self.listener.grpc_address()
    }

    /// Where HTTP clients connect.
    pub(crate) fn http_address(&self) -> SocketAddr {
        self.listener.http_address()
    }

    /// Runs until told to stop, ending calls in flight.
    ///
    /// # Errors
    /// When the listener fails.
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let (grpc, http) = (self.grpc_address(), self.http_address());
        tracing::info!(
            "listener on {grpc} (gRPC) and {http} (HTTP), telemetry on {}",
            self.telemetry.address()?
        );
        let status = self.listener.status();
        let ready = ready(move || status.ready(), &stop);
        let running = self.listener.run(stop);
        with_telemetry(self.telemetry, ready, None, running).await.context("the listener failed")
    }
}

/// Runs what `start` makes on a runtime of its own; its token is cancelled by the first signal.
pub(crate) fn run<F>(start: impl FnOnce(CancellationToken) -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the threads that do the work")?;
    runtime.block_on(async {
        let stop = shutdown::on_signal()?;
        start(stop).await
    })
}

/// A role that was told to stop is not ready, whatever it says itself.
fn ready(status: impl Fn() -> Result<(), String> + Send + Sync + 'static, stop: &CancellationToken) -> Ready {
    let stop = stop.clone();
    Arc::new(move || if stop.is_cancelled() { Err("stopping".into()) } else { status() })
}

async fn with_telemetry<T>(
    telemetry: TelemetryServer,
    ready: Ready,
    explain: Option<ExplainRoute>,
    role: impl Future<Output = T>,
) -> T {
    let stop = CancellationToken::new();
    let serving = tokio::spawn(telemetry.run(ready, explain, stop.clone()));
    let outcome = role.await;
    stop.cancel();
    let _ = serving.await;
    outcome
}
