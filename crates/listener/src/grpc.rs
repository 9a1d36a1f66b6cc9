//! The gRPC port: authorisation, catalog, gateways, errors, events, what Envoy asks, health and reflection.

mod authorization;
mod catalog;
mod errors;
mod events;
mod ext_authz;
mod gateways;
mod rate_limit;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use tonic::transport::server::Router;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use weir_proto::envoy::service::auth::v3::authorization_server::AuthorizationServer as ExtAuthzServer;
use weir_proto::envoy::service::ratelimit::v3::rate_limit_service_server::RateLimitServiceServer;
use weir_proto::v1::authorization_server::AuthorizationServer;
use weir_proto::v1::catalog_server::CatalogServer;
use weir_proto::v1::errors_server::ErrorsServer;
use weir_proto::v1::events_server::EventsServer;
use weir_proto::v1::gateways_server::GatewaysServer;

use crate::config::ServerTls;
use crate::server::{Shared, StartError, Status};

/// Longest message a caller may send; a catalog change fits.
const MESSAGE_BYTES_MAX: usize = 8 << 20;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Most calls in work on one connection.
const CONCURRENT_CALLS_MAX: u32 = 4_096;

/// Those that health is told of; "" is all of them.
const SERVICES: [&str; 5] = [
    "",
    "weir.v1.Authorization",
    "weir.v1.Gateways",
    "envoy.service.auth.v3.Authorization",
    "envoy.service.ratelimit.v3.RateLimitService",
];

/// All services of the port.
pub(crate) fn router(shared: &Arc<Shared>, status: Status) -> Result<Router, StartError> {
    let (reporter, health) = tonic_health::server::health_reporter();
    tokio::spawn(report_health(reporter, status, shared.stop.clone()));
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(weir_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(weir_proto::ENVOY_DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let authorization = AuthorizationServer::new(authorization::Service(Arc::clone(shared)));
    let catalog = CatalogServer::new(catalog::Service(Arc::clone(shared)));
    let gateways = GatewaysServer::new(gateways::Service(Arc::clone(shared)));
    let errors = ErrorsServer::new(errors::Service(Arc::clone(shared)));
    let events = EventsServer::new(events::Service(Arc::clone(shared)));
    let ext_authz = ExtAuthzServer::new(ext_authz::Service(Arc::clone(shared)));
    let rate_limit = RateLimitServiceServer::new(rate_limit::Service(Arc::clone(shared)));
    let mut server = Server::builder();
    if let Some(tls) = &shared.config.grpc_tls {
        server = server.tls_config(tls_config(tls)).map_err(StartError::GrpcTls)?;
    }
    Ok(server
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(Some(CONCURRENT_CALLS_MAX))
        .add_service(health)
        .add_service(reflection().build_v1().map_err(StartError::Reflection)?)
        .add_service(reflection().build_v1alpha().map_err(StartError::Reflection)?)
        .add_service(authorization.max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(catalog.max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(gateways)
        .add_service(errors)
        .add_service(events)
        .add_service(ext_authz)
        .add_service(rate_limit))
}

fn tls_config(tls: &ServerTls) -> ServerTlsConfig {
    let identity = Identity::from_pem(&tls.certificate_pem, tls.key_pem.expose());
    let config = ServerTlsConfig::new().identity(identity);
    match &tls.client_ca_pem {
        Some(pem) => config.client_ca_root(Certificate::from_pem(pem)),
        None => config,
    }
}

/// Health follows readiness, once a quarter of a second.
async fn report_health(
    reporter: tonic_health::server::HealthReporter,
    status: Status,
    stop: tokio_util::sync::CancellationToken,
) {
    let serving = |ready: bool| {
        if ready { tonic_health::ServingStatus::Serving } else { tonic_health::ServingStatus::NotServing }
    };
    loop {
        let state = serving(status.ready().is_ok());
        for service in SERVICES {
            reporter.set_service_status(service, state).await;
        }
        if stop.is_cancelled() {
            return;
        }
        // Also wakes at the stop, to say so at once.
        let _ = tokio::time::timeout(Duration::from_millis(250), stop.cancelled()).await;
    }
}
