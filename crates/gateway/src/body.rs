//! Bodies on their way through: streamed, bounded in length and in how long they may pause.
//!
//! [`RequestBody`] goes upstream: what was read ahead first, then the client's stream, ended with an error when
//! it grows past the service's maximum or pauses too long. It tells [`Progress`], so that whoever waits for the
//! upstream's answer knows what ended the upload. [`ReplyBody`] goes to the client.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::HeaderName;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use crate::access::Call;
use crate::headers;
use crate::http1;
use crate::http2;
use crate::upgrade::Granted;
use crate::upstream::AnswerBody;

/// Why a body ended before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    /// It grew past the service's maximum.
    #[error("the body is longer than the service takes")]
    TooLong,
    /// It paused longer than the service allows.
    #[error("the body paused for too long")]
    Stalled,
    /// The connection it came over broke.
    #[error("the body's connection broke")]
    Broken,
}

/// How far an upload has come; shared between the body and whoever waits for the answer.
#[derive(Debug)]
pub(crate) struct Progress {
    started: Instant,
    last_ms: AtomicU64,
    is_sent: AtomicBool,
    failure: AtomicU8,
}

impl Progress {
    pub(crate) fn new(started: Instant) -> Arc<Self> {
        Arc::new(Self {
            started,
            last_ms: AtomicU64::new(0),
            is_sent: AtomicBool::new(false),
            failure: AtomicU8::new(0),
        })
    }

    /// When the last piece went upstream.
    pub(crate) fn last(&self) -> Instant {
        self.started + Duration::from_millis(self.last_ms.load(Ordering::Relaxed))
    }

    /// Whether all of it went upstream.
    pub(crate) fn is_sent(&self) -> bool {
        self.is_sent.load(Ordering::Relaxed)
    }

    /// What ended the upload early.
    pub(crate) fn failure(&self) -> Option<BodyError> {
        match self.failure.load(Ordering::Relaxed) {
            1 => Some(BodyError::TooLong),
            2 => Some(BodyError::Stalled),
            3 => Some(BodyError::Broken),
            _ => None,
        }
    }

    fn advance(&self) {
        let elapsed_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(elapsed_ms, Ordering::Relaxed);
    }

    fn finish(&self) {
        if !self.is_sent() {
            self.advance();
            self.is_sent.store(true, Ordering::Relaxed);
        }
    }

    fn fail(&self, error: BodyError) -> BodyError {
        let code = match error {
            BodyError::TooLong => 1,
            BodyError::Stalled => 2,
            BodyError::Broken => 3,
        };
        self.failure.store(code, Ordering::Relaxed);
        error
    }
}

/// Measures pauses: started when somebody has to wait, stopped when something came.
struct PauseTimer {
    max: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    is_running: bool,
}

impl PauseTimer {
    fn new(max: Duration) -> Self {
        Self { max, sleep: None, is_running: false }
    }

    fn stop(&mut self) {
        self.is_running = false;
    }

    /// Ready once the pause has lasted too long.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let max = self.max;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(max)));
        if !self.is_running {
            sleep.as_mut().reset(Instant::now() + max);
            self.is_running = true;
        }
        sleep.as_mut().poll(context)
    }
}

/// A request's body as its client sends it.
pub(crate) enum ClientBody {
    /// There is none.
    Empty,
    Http1(http1::Body),
    Http2(Incoming),
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Http1(body) => Pin::new(body).poll_frame(context),
            Self::Http2(body) => http2::poll_frame(body, context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}

/// A request's body on its way upstream.
pub(crate) struct RequestBody<B = ClientBody> {
    ahead: Bytes,
    rest: Option<B>,
    /// How much more may come.
    left: u64,
    pause: PauseTimer,
    progress: Arc<Progress>,
    /// What a client may not say behind the body either.
    secret_name: Option<HeaderName>,
}

impl<B: Body<Data = Bytes> + Unpin> RequestBody<B> {
    /// What was read `ahead`, then the `rest`, at most `max` bytes together.
    pub(crate) fn new(
        ahead: Bytes,
        rest: Option<B>,
        max: u64,
        idle: Duration,
        progress: Arc<Progress>,
    ) -> Self {
        let pause = PauseTimer::new(idle);
        let body = Self { ahead, rest, left: max, pause, progress, secret_name: None };
        if body.is_end_stream() {
            // There is nothing to send.
            body.progress.is_sent.store(true, Ordering::Relaxed);
        }
        body
    }

    /// Trailers of this name are dropped, with the others that a client cannot vouch for.
    pub(crate) fn without_trailer(mut self, secret_name: &HeaderName) -> Self {
        self.secret_name = Some(secret_name.clone());
        self
    }

    fn take_ahead(&mut self) -> Option<Bytes> {
        (!self.ahead.is_empty()).then(|| std::mem::take(&mut self.ahead))
    }

    fn pass(&mut self, mut frame: Frame<Bytes>) -> Result<Frame<Bytes>, BodyError> {
        let length = frame.data_ref().map_or(0, |data| data.remaining() as u64);
        self.left = self.left.checked_sub(length).ok_or_else(|| self.progress.fail(BodyError::TooLong))?;
        if let Some(trailers) = frame.trailers_mut() {
            headers::trailers_to_upstream(trailers, self.secret_name.as_ref());
        }
        self.progress.advance();
        Ok(frame)
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for RequestBody<B> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Some(ahead) = this.take_ahead() {
            return Poll::Ready(Some(this.pass(Frame::data(ahead))));
        }
        let polled = match &mut this.rest {
            Some(rest) => Pin::new(rest).poll_frame(context),
            None => Poll::Ready(None),
        };
        match polled {
            Poll::Pending => {
                ready!(this.pause.poll(context));
                Poll::Ready(Some(Err(this.progress.fail(BodyError::Stalled))))
            }
            Poll::Ready(frame) => {
                this.pause.stop();
                Poll::Ready(match frame {
                    Some(Ok(frame)) => Some(this.pass(frame)),
                    Some(Err(_)) => Some(Err(this.progress.fail(BodyError::Broken))),
                    None => {
                        this.progress.finish();
                        None
                    }
                })
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_empty() && self.rest.as_ref().is_none_or(B::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.rest.as_ref().map_or_else(|| SizeHint::with_exact(0), B::size_hint);
        let ahead = self.ahead.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(ahead));
        }
        hint.set_lower(hint.lower().saturating_add(ahead));
        hint
    }
}

impl<B> Drop for RequestBody<B> {
    /// The client library drops a body that it has sent, sometimes without asking for its end.
    fn drop(&mut self) {
        if self.ahead.is_empty() {
            self.progress.finish();
        }
    }
}

/// An answer's body on its way to the client.
pub(crate) struct ReplyBody {
    source: Source,
    /// Ends, and is logged, with the body.
    call: Option<Call>,
}

enum Source {
    /// The gateway's own text.
    Text(Bytes),
    /// The upstream's stream.
    Stream { body: AnswerBody, pause: PauseTimer, left: u64 },
    /// Nothing; behind the head the connection leaves HTTP.
    Tunnel(Granted),
}

impl ReplyBody {
    pub(crate) fn text(text: impl Into<Bytes>) -> Self {
        Self { source: Source::Text(text.into()), call: None }
    }

    /// The upstream's, cut off where it grows longer than `max` bytes.
    pub(crate) fn stream(body: AnswerBody, idle: Duration, max: u64) -> Self {
        Self { source: Source::Stream { body, pause: PauseTimer::new(idle), left: max }, call: None }
    }

    pub(crate) fn tunnel(granted: Granted) -> Self {
        Self { source: Source::Tunnel(granted), call: None }
    }

    /// What the connection leaves HTTP for.
    pub(crate) fn into_tunnel(mut self) -> Option<Granted> {
        let held = self.call.as_mut().map(Call::take_held).unwrap_or_default();
        match self.source {
            Source::Tunnel(granted) => Some(granted.holding(held)),
            _ => None,
        }
    }

    /// The body whose end is the call's end.
    pub(crate) fn of(mut self, call: Call) -> Self {
        self.call = Some(call);
        self
    }
}

/// A piece of an answer, if there is still room for it.
fn within(frame: Frame<Bytes>, left: &mut u64) -> Result<Frame<Bytes>, BodyError> {
    let length = frame.data_ref().map_or(0, |data| data.len() as u64);
    *left = left.checked_sub(length).ok_or(BodyError::TooLong)?;
    Ok(frame)
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        http2::wanted();
        let polled = match &mut self.source {
            Source::Tunnel(_) => Poll::Ready(None),
            Source::Text(text) if text.is_empty() => Poll::Ready(None),
            Source::Text(text) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(text))))),
            Source::Stream { body, pause, left } => match Pin::new(body).poll_frame(context) {
                Poll::Pending => {
                    ready!(pause.poll(context));
                    Poll::Ready(Some(Err(BodyError::Stalled)))
                }
                Poll::Ready(frame) => {
                    pause.stop();
                    Poll::Ready(frame.map(|frame| within(frame?, left)))
                }
            },
        };
        if polled.is_ready() {
            http2::offered();
        }
        if let (Poll::Ready(Some(Ok(frame))), Some(call)) = (&polled, &mut self.call)
            && let Some(trailers) = frame.trailers_ref()
        {
            call.told_behind(trailers);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Text(text) => text.is_empty(),
            Source::Stream { body, .. } => body.is_end_stream(),
            Source::Tunnel(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Text(text) => SizeHint::with_exact(text.len() as u64),
            Source::Stream { body, .. } => body.size_hint(),
            Source::Tunnel(_) => SizeHint::with_exact(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, Full};

    #[track_caller]
    fn check(ahead: &'static str, rest: &'static str, max: u64, expected: Result<&str, BodyError>) {
        let progress = Progress::new(Instant::now());
        let body = RequestBody::new(
            Bytes::from_static(ahead.as_bytes()),
            Some(Full::new(Bytes::from_static(rest.as_bytes()))),
            max,
            Duration::from_secs(1),
            Arc::clone(&progress),
        );
        assert_eq!(body.size_hint().exact(), Some((ahead.len() + rest.len()) as u64));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let found = runtime.block_on(body.collect()).map(|all| all.to_bytes());
        assert_eq!(found, expected.map(|text| Bytes::from(text.to_owned())), "{ahead} {rest}");
        assert_eq!(progress.failure(), expected.err());
    }

    #[test]
    fn what_was_read_ahead_comes_first() {
        check("ab", "cd", 4, Ok("abcd"));
        check("", "cd", 2, Ok("cd"));
        check("", "", 0, Ok(""));
    }

    #[test]
    fn a_byte_too_much_ends_it() {
        check("ab", "cd", 3, Err(BodyError::TooLong));
        check("ab", "", 1, Err(BodyError::TooLong));
    }

    #[test]
    fn a_pause_ends_it() {
        struct Silent;
        impl Body for Silent {
            type Data = Bytes;
            type Error = std::convert::Infallible;
            fn poll_frame(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
                Poll::Pending
            }
        }
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let progress = Progress::new(Instant::now());
        let idle = Duration::from_secs(60);
        let body = RequestBody::new(Bytes::new(), Some(Silent), 9, idle, Arc::clone(&progress));
        let found = runtime.block_on(body.collect());
        assert_eq!(found.err(), Some(BodyError::Stalled));
    }
}
