//! The clients of the story: plain HTTP for customers, gRPC for what a gateway may ask.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::metadata::MetadataValue;
use weir_proto::v1::authorization_client::AuthorizationClient;
use weir_proto::{Unsettled, v1};

use super::setup::{SERVICE, Setup};

/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 1 << 20;
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is looked whether leases are settled, which they are within two seconds.
const SETTLE_LOOKS_MAX: u32 = 250;
const SETTLE_PAUSE: Duration = Duration::from_millis(20);

/// An answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl Answer {
    /// A header as text; empty when absent.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Makes one call on a connection of its own.
///
/// # Errors
/// When nobody answers.
pub(super) async fn call(
    base: &str,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
) -> anyhow::Result<Answer> {
    let exchange = async {
        let address = base.strip_prefix("http://").unwrap_or(base);
        let stream = TcpStream::connect(address).await.with_context(|| format!("cannot reach {base}"))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            request = request.header("host", address);
        }
        let response = sender.send_request(request.body(Full::<Bytes>::default())?).await?;
        let (parts, body) = response.into_parts();
        let collected = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let bytes = collected.map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?.to_bytes();
        let body = String::from_utf8_lossy(&bytes).into_owned();
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    };
    tokio::time::timeout(CALL_TIMEOUT, exchange)
        .await
        .with_context(|| format!("{base} did not answer within {} s", CALL_TIMEOUT.as_secs()))?
}

/// Waits until a role's telemetry says that it is ready.
///
/// # Errors
/// With the role's reason when it does not in time.
pub(super) async fn until_ready(telemetry: &str, within: Duration) -> anyhow::Result<()> {
    let start = std::time::Instant::now();
    loop {
        let reason = match call(telemetry, "GET", "/readyz", &[]).await {
            Ok(answer) if answer.status.is_success() => return Ok(()),
            Ok(answer) => answer.body.trim().to_owned(),
            Err(error) => format!("{error:#}"),
        };
        anyhow::ensure!(start.elapsed() < within, "{telemetry} is not ready: {reason}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Asks the listener what a gateway may ask.
pub(super) struct ListenerClient {
    client: AuthorizationClient<tonic::transport::Channel>,
    token: MetadataValue<tonic::metadata::Ascii>,
}

impl ListenerClient {
    /// Connects.
    ///
    /// # Errors
    /// When the listener cannot be reached.
    pub(super) async fn connect(setup: &Setup) -> anyhow::Result<Self> {
        let client = AuthorizationClient::connect(setup.grpc()).await.context("cannot reach the listener")?;
        let token = format!("Bearer {}", setup.token).parse().context("the gateway token")?;
        Ok(Self { client, token })
    }

    fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert("authorization", self.token.clone());
        request
    }

    /// What an application has used of each metric in a period, and when the period's window began.
    ///
    /// # Errors
    /// When the listener cannot say.
    pub(super) async fn used(
        &mut self,
        app_id: &str,
        period: v1::Period,
    ) -> anyhow::Result<(HashMap<String, u64>, i64)> {
        let (service_id, app_id) = (SERVICE.to_owned(), app_id.to_owned());
        let question = v1::UsageRequest { service_id, app_id, metrics: vec![] };
        let counters = self.settled(question).await?;
        let of_period = counters.into_iter().filter(|counter| counter.period() == period);
        let mut window_start = 0;
        let used = of_period
            .map(|counter| {
                window_start = counter.window_start_unix_ms;
                (counter.metric, counter.used)
            })
            .collect();
        Ok((used, window_start))
    }

    /// Counters that hold all that gateways have spent from leases by now.
    async fn settled(&mut self, question: v1::UsageRequest) -> anyhow::Result<Vec<v1::Counter>> {
        let request = self.request(question.clone());
        let unsettled = Unsettled::of(self.client.usage(request).await?.into_inner());
        for _ in 0..SETTLE_LOOKS_MAX {
            let request = self.request(question.clone());
            if unsettled.is_settled_in(&self.client.usage(request).await?.into_inner()) {
                break;
            }
            tokio::time::sleep(SETTLE_PAUSE).await;
        }
        let request = self.request(question);
        Ok(self.client.usage(request).await?.into_inner().counters)
    }

    /// Sets a counter, as usage reported by the provider's own systems would.
    ///
    /// # Errors
    /// When it is not counted.
    pub(super) async fn set(&mut self, app_id: &str, metric: &str, value: u64) -> anyhow::Result<()> {
        let transaction = v1::Transaction {
            application: Some(v1::transaction::Application::AppId(app_id.to_owned())),
            usage: vec![v1::UsageEntry {
                metric: metric.to_owned(),
                value: Some(v1::usage_entry::Value::Set(value)),
            }],
            at_unix_s: None,
        };
        let request = self.request(v1::ReportRequest {
            gives_back: false,
            service_id: SERVICE.to_owned(),
            idempotency_id: vec![],
            transactions: vec![transaction],
        });
        self.client.report(request).await.context("the listener took no report")?;
        Ok(())
    }
}
