//! A client of the listener's gRPC port, as a gateway would be one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use weir_proto::v1::authorization_client::AuthorizationClient;
use weir_proto::{Unsettled, v1};

/// How often it is looked whether leases have come back: a dead gateway's take two seconds.
const SETTLE_LOOKS_MAX: u32 = 250;
const SETTLE_PAUSE: Duration = Duration::from_millis(20);

/// The service of the tests' catalogs.
pub const SERVICE: &str = "api";

/// Asks one listener under a gateway's token.
#[derive(Clone)]
pub struct ListenerClient {
    /// The generated client; sign messages with [`ListenerClient::signed`].
    pub client: AuthorizationClient<Channel>,
    token: String,
}

impl ListenerClient {
    /// Connects at the first call.
    ///
    /// # Panics
    /// When the address is none.
    pub fn new(address: SocketAddr, token: &str) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
        Self { client: AuthorizationClient::new(endpoint.connect_lazy()), token: token.to_owned() }
    }

    /// A message with the token.
    ///
    /// # Panics
    /// When the token cannot be sent.
    pub fn signed<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        let value = format!("Bearer {}", self.token).parse().expect("a token of visible characters");
        request.metadata_mut().insert("authorization", value);
        request
    }

    /// What a metric's counter holds.
    ///
    /// # Errors
    /// The listener's.
    pub async fn used(&self, app_id: &str, metric: &str, period: v1::Period) -> Result<u64, Status> {
        self.used_of(SERVICE, app_id, metric, period).await
    }

    /// The same in another service.
    ///
    /// # Errors
    /// The listener's.
    pub async fn used_of(
        &self,
        service_id: &str,
        app_id: &str,
        metric: &str,
        period: v1::Period,
    ) -> Result<u64, Status> {
        let message = v1::UsageRequest {
            service_id: service_id.into(),
            app_id: app_id.into(),
            metrics: vec![metric.into()],
        };
        let counters = self.settled(message).await?;
        let found = counters.iter().find(|counter| counter.period() == period);
        Ok(found.map_or(0, |counter| counter.used))
    }

    /// Counters that hold all that was spent from leases before.
    async fn settled(&self, message: v1::UsageRequest) -> Result<Vec<v1::Counter>, Status> {
        let ask = async || {
            let answer = self.client.clone().usage(self.signed(message.clone())).await?;
            Ok::<_, Status>(answer.into_inner())
        };
        let unsettled = Unsettled::of(ask().await?);
        for _ in 0..SETTLE_LOOKS_MAX {
            if unsettled.is_settled_in(&ask().await?) {
                // What was settled between counters and leases of that answer is in neither.
                return Ok(ask().await?.counters);
            }
            tokio::time::sleep(SETTLE_PAUSE).await;
        }
        Err(Status::deadline_exceeded(format!("not settled: {unsettled:?}")))
    }

    /// What all metrics of an application have counted so far; metrics that counted nothing are left out.
    ///
    /// # Errors
    /// The listener's.
    pub async fn totals(&self, service_id: &str, app_id: &str) -> Result<BTreeMap<String, u64>, Status> {
        let message =
            v1::UsageRequest { service_id: service_id.into(), app_id: app_id.into(), metrics: vec![] };
        let counters = self.settled(message).await?;
        let all_time = counters.into_iter().filter(|counter| counter.period() == v1::Period::Eternity);
        Ok(all_time.filter(|counter| counter.used > 0).map(|c| (c.metric, c.used)).collect())
    }

    /// What is out on lease of an application, or counts as used until its holder says better.
    ///
    /// # Errors
    /// The listener's.
    pub async fn leases(&self, app_id: &str) -> Result<Vec<v1::LeaseOut>, Status> {
        let message = v1::UsageRequest { service_id: SERVICE.into(), app_id: app_id.into(), metrics: vec![] };
        Ok(self.client.clone().usage(self.signed(message)).await?.into_inner().leases)
    }

    /// Counts what has happened already.
    ///
    /// # Errors
    /// The listener's.
    pub async fn report(&self, service_id: &str, transactions: Vec<v1::Transaction>) -> Result<u32, Status> {
        let message =
            v1::ReportRequest { service_id: service_id.into(), transactions, ..v1::ReportRequest::default() };
        Ok(self.client.clone().report(self.signed(message)).await?.into_inner().counted)
    }

    /// An authrep by `user_key`.
    ///
    /// # Errors
    /// The listener's.
    pub async fn auth_rep(&self, user_key: &str, usage: &[(&str, u64)]) -> Result<v1::Decision, Status> {
        let message = auth_rep_request(user_key, usage);
        Ok(self.client.clone().auth_rep(self.signed(message)).await?.into_inner())
    }
}

/// An authrep with a fresh request id.
pub fn auth_rep_request(user_key: &str, usage: &[(&str, u64)]) -> v1::AuthRepRequest {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let mut request_id = vec![9; 16];
    request_id[..8].copy_from_slice(&number.to_be_bytes());
    v1::AuthRepRequest {
        request_id,
        attempt: 0,
        service_id: SERVICE.into(),
        credentials: Some(user_key_credentials(user_key)),
        usage: usage.iter().map(|(metric, by)| usage_entry(metric, *by)).collect(),
        referrer: None,
        trace_context: None,
    }
}

/// Credentials that are a `user_key`.
pub fn user_key_credentials(user_key: &str) -> v1::Credentials {
    v1::Credentials { kind: Some(v1::credentials::Kind::UserKey(user_key.into())) }
}

/// An increment.
pub fn usage_entry(metric: &str, by: u64) -> v1::UsageEntry {
    v1::UsageEntry { metric: metric.into(), value: Some(v1::usage_entry::Value::Add(by)) }
}
