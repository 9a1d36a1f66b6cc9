//! What listeners are asked: an authrep of an application that uses one method and one API under three limits.
//!
//! The gateway, the gRPC drivers and the bulk loader all speak of the same applications: `app-N` with the key `key-N`
//! in the service `api`, under a plan that no run can exhaust.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use anyhow::{Context, ensure};
use tonic::Request;
use tonic::transport::{Channel, Endpoint};
use weir_proto::v1::authorization_client::AuthorizationClient;
use weir_proto::v1::{self, usage_entry::Value};

use crate::load::Random;

/// The service that is asked about.
pub(crate) const SERVICE: &str = "api";
/// The token of the gateway under test, and of the drivers.
pub(crate) const TOKEN: &str = "bench-gateway-token";
/// The metrics that one call uses: a method of `hits`, and an API.
pub(crate) const USED: [&str; 2] = ["method_0", "api_0"];
/// Limits that one call touches.
const LIMITS: usize = 3;

/// The key of an application.
pub(crate) fn user_key(application: usize) -> String {
    format!("key-{application}")
}

/// Which application the next question is about.
#[derive(Clone)]
enum Order {
    AtRandom,
    OneByOne(Arc<AtomicUsize>),
}

/// An endless supply of questions.
#[derive(Clone)]
pub(crate) struct Questions {
    applications: usize,
    order: Order,
}

impl Questions {
    /// About applications below a number, at random.
    pub(crate) fn at_random(applications: usize) -> Self {
        Self { applications, order: Order::AtRandom }
    }

    /// About each application below a number in turn, for touching all of them.
    pub(crate) fn one_by_one(applications: usize) -> Self {
        Self { applications, order: Order::OneByOne(Arc::default()) }
    }

    /// The next application.
    pub(crate) fn choose(&self, random: &mut Random) -> usize {
        match &self.order {
            Order::AtRandom => random.below(self.applications),
            Order::OneByOne(next) => next.fetch_add(1, Ordering::Relaxed) % self.applications,
        }
    }

    /// A question about an application, under a request id of its own as a gateway makes them: the same eight bytes for
    /// all of a run, and a number that counts up.
    pub(crate) fn about(&self, application: usize) -> v1::AuthRepRequest {
        let run = u64::from(std::process::id());
        let id = [run.to_be_bytes(), request_number().to_be_bytes()].concat();
        let usage = |metric: &str| v1::UsageEntry { metric: metric.into(), value: Some(Value::Add(1)) };
        v1::AuthRepRequest {
            request_id: id,
            attempt: 0,
            service_id: SERVICE.into(),
            credentials: Some(v1::Credentials {
                kind: Some(v1::credentials::Kind::UserKey(user_key(application))),
            }),
            usage: USED.map(usage).into(),
            referrer: None,
            trace_context: None,
        }
    }

    /// An answer has to be an admission under all limits.
    ///
    /// # Errors
    /// What it is instead.
    pub(crate) fn check(&self, decision: &v1::Decision) -> anyhow::Result<()> {
        if let Some(denial) = &decision.denial {
            anyhow::bail!("denied: {}: {}", denial.code, denial.message);
        }
        ensure!(decision.limits.len() == LIMITS, "{} limits instead of {LIMITS}", decision.limits.len());
        Ok(())
    }
}

/// Unique in this process.
pub(crate) fn request_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A client with a connection of its own.
///
/// # Errors
/// When nobody listens.
pub(crate) async fn client(address: SocketAddr) -> anyhow::Result<AuthorizationClient<Channel>> {
    Ok(AuthorizationClient::new(connect(address).await?))
}

/// A gRPC connection.
///
/// # Errors
/// When nobody listens.
pub(crate) async fn connect(address: SocketAddr) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true);
    endpoint.connect().await.with_context(|| format!("cannot connect to {address}"))
}

/// A message with the gateway's token.
///
/// # Errors
/// None in fact: the token is a constant.
pub(crate) fn signed<T>(message: T) -> anyhow::Result<Request<T>> {
    signed_with(TOKEN, message)
}

/// A message with a token.
///
/// # Errors
/// When the token cannot be sent.
pub(crate) fn signed_with<T>(token: &str, message: T) -> anyhow::Result<Request<T>> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
    Ok(request)
}
