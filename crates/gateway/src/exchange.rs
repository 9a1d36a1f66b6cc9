//! One exchange with the upstream: what is sent, and what of the answer goes to the client.
//!
//! The pipeline ([`crate::proxy`]) hands over a request that is counted. Where a policy says so, it is sent again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Version;
use http::header::{HOST, TRAILER};
use http::uri::PathAndQuery;
use http_body::Body;
use tracing::error;
use weir_core::proxy::UpstreamTimeouts;
use weir_core::ratelimit::Tightest;
use weir_core::{Timestamp, extract};

use crate::access::Call;
use crate::body::{ClientBody, Progress, ReplyBody, RequestBody};
use crate::form::Ahead;
use crate::headers::{self, Forwarding};
use crate::message::{Reply, RequestHead};
use crate::policy::{Attempts, Passing};
use crate::reply::{self, Refusal};
use crate::service::Service;
use crate::upgrade;
use crate::upstream::{self, Onward, Over, Turn, Upstream, UpstreamError};

/// Where an admitted call's limits stand, and when.
pub(crate) struct Limits {
    pub(crate) limits: Tightest,
    pub(crate) at: Timestamp,
}

/// What goes upstream.
pub(crate) struct Outgoing {
    pub(crate) head: RequestHead,
    pub(crate) target: PathAndQuery,
    pub(crate) ahead: Ahead,
    pub(crate) body: ClientBody,
}

impl Outgoing {
    /// The same to be sent again; its body has been read.
    fn again(&self) -> Self {
        let Self { head, target, ahead, body: _ } = self;
        Self { head: head.clone(), target: target.clone(), ahead: ahead.clone(), body: ClientBody::Empty }
    }
}

/// Whether nothing more comes of a body than was read of it.
pub(crate) fn is_spent(ahead: &Ahead, body: &ClientBody) -> bool {
    ahead.is_form || body.is_end_stream()
}

/// What an exchange goes by.
pub(crate) struct Exchange<'a> {
    pub(crate) call: &'a Call,
    pub(crate) service: &'a Service,
    pub(crate) upstream: &'a Upstream,
    pub(crate) forwarding: &'a Forwarding<'a>,
    pub(crate) limits: &'a Limits,
}

impl Exchange<'_> {
    /// Sends the request, and turns the head of the answer into the client's.
    pub(crate) async fn once(&self, outgoing: Outgoing) -> Result<Reply<ReplyBody>, Refusal> {
        let Self { call, service, upstream, forwarding, limits } = *self;
        let timeouts = timeouts(service, forwarding);
        let idle = Duration::from_millis(timeouts.idle_ms.into());
        let begun = Instant::now();
        let progress = Progress::new(begun.into());
        let (mut request, over) = upstream_request(service, upstream, outgoing, forwarding, &progress)?;
        let step = call.trace.exchange(&request.method, &mut request.fields, &upstream.url.origin);
        let turn = upstream.turn()?;
        let pool = turn.as_ref().map_or(&upstream.pool, Turn::pool);
        let answer = upstream::send(pool, request, over, &progress, timeouts).await;
        let waited = call.waits.since(begun);
        step.answered(&answer);
        if let Some(turn) = turn {
            turn.ended(answer.as_ref().map(|answer| answer.status.as_u16()));
        }
        let answer = answer?;
        service.meters.upstream_answered(waited);
        if answer.status.is_informational() {
            let wish = forwarding.upgrade.as_ref().ok_or(Refusal::Upstream(UpstreamError::BadAnswer))?;
            return upgrade::grant(wish, answer, idle);
        }
        let length_max =
            forwarding.passing.and_then(|passing| passing.response_bytes_max).unwrap_or(u64::MAX);
        if answer.body.size_hint().lower() > length_max {
            return Err(Refusal::AnswerTooLong(answer.status));
        }
        let mut reply = answer.map(|body| ReplyBody::stream(body, idle, length_max));
        headers::to_client(&mut reply.fields);
        reply::write_limits(&mut reply.fields, &limits.limits, limits.at);
        Ok(reply)
    }

    /// The same until the answer is good enough, or may not be asked for again.
    pub(crate) async fn again(
        &self,
        outgoing: Outgoing,
        mut attempts: Box<Attempts>,
    ) -> Result<Reply<ReplyBody>, Refusal> {
        while attempts.are_left() {
            let exchanged = self.once_more(outgoing.again(), &attempts).await;
            let Some(pause) = attempts.again(&exchanged) else { return exchanged };
            // What it answered is not waited for.
            drop(exchanged);
            let begun = Instant::now();
            tokio::time::sleep(pause).await;
            self.call.waits.since(begun);
        }
        self.once_more(outgoing, &attempts).await
    }

    async fn once_more(&self, outgoing: Outgoing, attempts: &Attempts) -> Result<Reply<ReplyBody>, Refusal> {
        self.once(outgoing).await.map_err(|refusal| match refusal {
            // It has been there before: no place now does not mean that nothing was done.
            Refusal::Upstream(UpstreamError::Busy | UpstreamError::Unhealthy) if attempts.has_begun() => {
                Refusal::Upstream(UpstreamError::NoConnection)
            }
            other => other,
        })
    }
}

fn upstream_request(
    service: &Service,
    upstream: &Upstream,
    outgoing: Outgoing,
    forwarding: &Forwarding<'_>,
    progress: &Arc<Progress>,
) -> Result<(Onward, Over), Refusal> {
    let Outgoing { mut head, target, ahead, body, .. } = outgoing;
    // A form that was read has nothing behind it.
    let rest = (!ahead.is_form).then_some(body);
    let ahead = match ahead.is_form.then(|| extract::stripped(&service.proxy, &ahead.bytes)).flatten() {
        Some(form) => form.into(),
        None => ahead.bytes,
    };
    let timeouts = timeouts(service, forwarding);
    let idle = Duration::from_millis(timeouts.idle_ms.into());
    let max = body_bytes_max(service, forwarding.passing);
    let body = RequestBody::new(ahead, rest, max, idle, Arc::clone(progress));
    let body = body.without_trailer(&service.secret.0);
    if service.proxy.strip_credentials {
        headers::strip_credentials(&mut head.fields, &service.proxy);
    }
    headers::to_upstream(&mut head.fields, forwarding);
    if let Some(passing) = forwarding.passing {
        passing.change_headers(&mut head.fields);
    }
    let over = if forwarding.is_http2 {
        // `:authority` says the same.
        head.fields.remove(HOST);
        let url = upstream.url.absolute(target.clone());
        Over::Http2(url.map_err(|problem| no_target(service, &problem))?)
    } else {
        if head.version == Version::HTTP_2 {
            headers::join_cookies(&mut head.fields);
        }
        let length = body.size_hint().exact();
        // What HTTP/2 sends behind a body of known length, HTTP/1 can only send behind chunks.
        let length = length.filter(|_| head.version < Version::HTTP_2 || !head.fields.has(TRAILER));
        let framing = headers::frame_body(&mut head.fields, length, body.is_end_stream());
        Over::Http1(framing)
    };
    Ok((Onward { method: head.method, target, fields: head.fields, body }, over))
}

fn timeouts(service: &Service, forwarding: &Forwarding<'_>) -> UpstreamTimeouts {
    forwarding.passing.map_or(service.proxy.timeouts, |passing| passing.timeouts)
}

/// Longest body of a request.
pub(crate) fn body_bytes_max(service: &Service, passing: Option<&Passing>) -> u64 {
    passing.map_or(service.proxy.request_body_bytes_max, |passing| passing.request_bytes_max)
}

/// An upstream whose URL came to nothing.
pub(crate) fn no_target(service: &Service, problem: &dyn std::fmt::Display) -> Refusal {
    error!(service.id = service.id.as_str(), %problem, "the upstream's URL cannot be put together");
    Refusal::Upstream(UpstreamError::BadAnswer)
}
