//! The way to an upstream: a connection from its pool, the request, the wait for the head of its answer.
//!
//! A service's base URL is read once, when the service is compiled. Nothing is sent twice here: a request that fails
//! is answered; only a policy repeats it ([`crate::exchange`]).
//!
//! gRPC goes over HTTP/2, known beforehand to `http://` upstreams and agreed on with `https://` ones; all else over
//! HTTP/1, from which upgrades leave.

mod balance;
mod connect;
mod http1;
mod http2;
mod pool;
mod url;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Method, Uri};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;
use weir_core::proxy::UpstreamTimeouts;

use crate::body::{BodyError, Progress, RequestBody};
use crate::fields::Fields;
use crate::http1::transfer::Framing;
use crate::message::Reply;
use crate::reply::Refusal;

pub(crate) use self::balance::{Balance, Turn};
pub use self::connect::TlsError;
pub(crate) use self::connect::{Connector, Protocol};
pub(crate) use self::http1::Tunnel;
#[cfg(fuzzing)]
pub use self::http1::answers;
pub(crate) use self::pool::{Pool, PoolLimits, Pools};
pub(crate) use self::url::{BaseUrl, Origin, UrlError};

/// Why the exchange with an upstream failed before its answer's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UpstreamError {
    /// As many requests as are allowed are in flight or wait already.
    Busy,
    /// Its name has no address.
    NoAddress,
    /// It does not take connections.
    NoConnection,
    /// It closed the connection or answered something that is no HTTP.
    BadAnswer,
    /// It did not answer in time.
    Timeout,
    /// All its addresses are ill.
    Unhealthy,
}

/// Why a request got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SendError {
    /// Its body failed.
    Body(BodyError),
    Upstream(UpstreamError),
}

impl From<UpstreamError> for SendError {
    fn from(error: UpstreamError) -> Self {
        Self::Upstream(error)
    }
}

impl From<SendError> for Refusal {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Body(error) => error.into(),
            SendError::Upstream(error) => Self::Upstream(error),
        }
    }
}

/// Where a service's requests go, and the connections there.
pub(crate) struct Upstream {
    pub(crate) url: BaseUrl,
    pub(crate) pool: Arc<Pool>,
    /// Where else it is; then its own address is not used.
    pub(crate) balance: Option<Arc<Balance>>,
}

impl Upstream {
    /// Which of its addresses is next, where it has several.
    ///
    /// # Errors
    /// When all are ill.
    pub(crate) fn turn(&self) -> Result<Option<Turn>, Refusal> {
        let Some(balance) = &self.balance else { return Ok(None) };
        balance.next().map(Some).ok_or(Refusal::Upstream(UpstreamError::Unhealthy))
    }
}

/// A request as it is sent.
pub(crate) struct Onward {
    pub(crate) method: Method,
    pub(crate) target: PathAndQuery,
    pub(crate) fields: Fields,
    pub(crate) body: RequestBody,
}

/// Which HTTP a request is sent over.
pub(crate) enum Over {
    Http1(Framing),
    /// To this URL, which has the same target.
    Http2(Uri),
}

/// Sends a request and waits for the head of its answer.
///
/// # Errors
/// The upstream's failure, or what ended the request's body.
pub(crate) async fn send(
    pool: &Arc<Pool>,
    request: Onward,
    over: Over,
    progress: &Progress,
    timeouts: UpstreamTimeouts,
) -> Result<Reply<AnswerBody>, Refusal> {
    let connect_within = Duration::from_millis(timeouts.connect_ms.into());
    let place = pool.place(connect_within).await.map_err(Refusal::Upstream)?;
    let exchanged = match over {
        Over::Http1(framing) => match pool.lease(place, connect_within).await {
            Ok(lease) => {
                let mut exchange = http1::Exchange::new(lease, request, framing);
                let head = exchange.head(|| due(progress, timeouts)).await;
                head.and_then(|head| exchange.into_answer(head))
            }
            Err(error) => Err(error.into()),
        },
        // Kept apart since it is large, and most requests go the other way.
        Over::Http2(url) => Box::pin(async {
            tokio::select! {
                exchanged = http2::exchange(pool, place, request, url, connect_within) => {
                    exchanged.map(|(answer, stream)| answer.map(|body| AnswerBody::Http2 { body, _stream: stream }))
                }
                () = stalled(progress, timeouts) => Err(UpstreamError::Timeout.into()),
            }
        })
        .await,
    };
    // Over HTTP/2 the body's failure shows only as one of the exchange.
    exchanged.map_err(|error| progress.failure().map_or_else(|| error.into(), Refusal::from))
}

/// When the upstream has taken too long: to answer, once it has the whole request; before, to connect or to take a
/// piece of the body.
fn due(progress: &Progress, timeouts: UpstreamTimeouts) -> Instant {
    let max_ms =
        if progress.is_sent() { timeouts.response_ms } else { timeouts.idle_ms.max(timeouts.connect_ms) };
    progress.last() + Duration::from_millis(max_ms.into())
}

/// Ends when the upstream has taken too long.
async fn stalled(progress: &Progress, timeouts: UpstreamTimeouts) {
    let response = Duration::from_millis(timeouts.response_ms.into());
    loop {
        let (due, now) = (due(progress, timeouts), Instant::now());
        if due <= now {
            return;
        }
        // The end of the body may come meanwhile, and with it another time.
        tokio::time::sleep_until(due.min(now + response)).await;
    }
}

/// The body of an upstream's answer.
pub(crate) enum AnswerBody {
    Http1(Box<http1::Answer>),
    Http2 { body: Incoming, _stream: http2::Stream },
}

impl AnswerBody {
    /// The connection, if this is the answer with which it left HTTP.
    pub(crate) fn into_tunnel(self) -> Option<Tunnel> {
        match self {
            Self::Http1(answer) => answer.into_tunnel(),
            Self::Http2 { .. } => None,
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Http1(answer) => answer.poll_frame(context),
            Self::Http2 { body, .. } => crate::http2::poll_frame(body, context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(answer) => answer.is_end_stream(),
            Self::Http2 { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(answer) => answer.size_hint(),
            Self::Http2 { body, .. } => body.size_hint(),
        }
    }
}
