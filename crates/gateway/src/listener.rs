//! The address of a listener and the clients that talk to it.
//!
//! Streams of authorisations and of configuration share one connection, which is opened when it is needed and
//! found dead by pings when it does not answer.

use std::time::Duration;

use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use weir_core::Secret;
use weir_proto::v1::authorization_client::AuthorizationClient;
use weir_proto::v1::gateways_client::GatewaysClient;

use crate::StartError;
use crate::config::ListenerTls;

/// Longest wait for a connection to a listener.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest message: a service with many long mapping rules.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// One listener.
#[derive(Clone)]
pub(crate) struct Listener {
    /// As configured, for logs.
    pub(crate) address: String,
    channel: Channel,
    authorization: MetadataValue<Ascii>,
}

impl Listener {
    /// A listener at `http://host:port` or `https://host:port`; nothing is connected yet.
    ///
    /// # Errors
    /// When the address, the token or the certificates cannot be used.
    pub(crate) fn new(address: &str, token: &Secret, tls: Option<&ListenerTls>) -> Result<Self, StartError> {
        let invalid = || StartError::ListenerAddress(address.to_owned());
        let endpoint = Endpoint::from_shared(address.to_owned()).map_err(|_| invalid())?;
        let scheme = endpoint.uri().scheme_str().filter(|_| endpoint.uri().authority().is_some());
        let endpoint = match (scheme, tls) {
            (Some("http"), _) => endpoint,
            (Some("https"), Some(tls)) => {
                endpoint.tls_config(tls_config(tls)).map_err(StartError::ListenerTls)?
            }
            _ => return Err(invalid()),
        };
        let channel = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .connect_lazy();
        let mut authorization: MetadataValue<Ascii> =
            format!("Bearer {}", token.expose()).parse().map_err(|_| StartError::Token)?;
        authorization.set_sensitive(true);
        Ok(Self { address: address.to_owned(), channel, authorization })
    }

    /// For decisions.
    pub(crate) fn authorization(&self) -> AuthorizationClient<Channel> {
        AuthorizationClient::new(self.channel.clone())
    }

    /// For configuration.
    pub(crate) fn gateways(&self) -> GatewaysClient<Channel> {
        GatewaysClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// A message with this gateway's token.
    pub(crate) fn signed<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.authorization.clone());
        request
    }
}

fn tls_config(tls: &ListenerTls) -> ClientTlsConfig {
    let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&tls.ca_pem));
    if let Some((certificate, key)) = &tls.identity {
        config = config.identity(Identity::from_pem(certificate, key.expose()));
    }
    match &tls.server_name {
        Some(name) => config.domain_name(name),
        None => config,
    }
}

/// Waits between attempts, longer each time.
#[derive(Debug, Default)]
pub(crate) struct Backoff(u32);

impl Backoff {
    const FIRST_MS: u64 = 25;
    const MAX_MS: u64 = 1_000;

    /// How long to wait now.
    pub(crate) fn next(&mut self) -> Duration {
        let wait_ms = (Self::FIRST_MS << self.0.min(10)).min(Self::MAX_MS);
        self.0 += 1;
        Duration::from_millis(wait_ms)
    }

    /// It worked: the next wait is a short one.
    pub(crate) fn reset(&mut self) {
        self.0 = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_second() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..8).map(|_| backoff.next().as_millis()).collect();
        assert_eq!(waits, [25, 50, 100, 200, 400, 800, 1000, 1000]);
        backoff.reset();
        assert_eq!(backoff.next().as_millis(), 25);
    }
}
