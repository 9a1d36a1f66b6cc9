//! Connections that leave HTTP: WebSocket and whatever else client and upstream agree on.
//!
//! A request with a [`wish`] is authorised and counted like any other. If the upstream answers 101, its connection is
//! [`Granted`] with the answer; behind the head the client's connection is [`join`]ed to it until either end is done,
//! both have been quiet for the service's idle time, or draining is over. The tunnel keeps both places, among
//! connections and among the upstream's.
//!
//! Protocols that carry further HTTP requests are never asked for: nobody would authorise those.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use http::Version;
use http::header::{CONNECTION, UPGRADE};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use crate::body::ReplyBody;
use crate::connection::ClientStream;
use crate::fields::{self, Fields};
use crate::headers;
use crate::message::{Reply, RequestHead};
use crate::policy::Held;
use crate::reply::Refusal;
use crate::upstream::{AnswerBody, Tunnel, UpstreamError};

/// What a tunnel holds of each direction at a time.
const BUFFER_BYTES: usize = 16 << 10;

/// The other protocols that a client would like to speak, as in its `Upgrade`, if the wish may be passed on.
pub(crate) fn wish(head: &RequestHead) -> Option<String> {
    wished(head.version, &head.fields).map(str::to_owned)
}

/// An upstream's connection that has left HTTP.
pub(crate) struct Granted {
    upstream: Box<Tunnel>,
    idle: Duration,
    /// Its places among those under way.
    held: Vec<Held>,
}

impl Granted {
    /// What the call held it holds on to.
    pub(crate) fn holding(self, held: Vec<Held>) -> Self {
        Self { held, ..self }
    }
}

/// Turns the upstream's 101 into the client's.
///
/// # Errors
/// When the upstream chose what the client did not wish.
pub(crate) fn grant(
    wish: &str,
    answer: Reply<AnswerBody>,
    idle: Duration,
) -> Result<Reply<ReplyBody>, Refusal> {
    let bad = || Refusal::Upstream(UpstreamError::BadAnswer);
    let Reply { status, mut fields, body } = answer;
    let chosen = fields.get(UPGRADE).and_then(fields::text).filter(|chosen| is_among(chosen, wish));
    let chosen = chosen.ok_or_else(bad)?.to_owned();
    let upstream = body.into_tunnel().ok_or_else(bad)?;
    headers::to_client(&mut fields);
    fields.push(CONNECTION, "upgrade");
    fields.push(UPGRADE, chosen);
    Ok(Reply {
        status,
        fields,
        body: ReplyBody::tunnel(Granted { upstream: Box::new(upstream), idle, held: vec![] }),
    })
}

fn wished(version: Version, headers: &Fields) -> Option<&str> {
    if version != Version::HTTP_11 || !headers::names_option(headers, "upgrade") {
        return None;
    }
    let protocols = fields::text(headers.only(UPGRADE)?)?;
    let mut names = protocols.split(',').map(str::trim);
    names.all(|name| !name.is_empty() && !carries_http(name)).then_some(protocols)
}

/// HTTP in another version, or below TLS.
fn carries_http(protocol: &str) -> bool {
    let name = protocol.split('/').next().unwrap_or_default();
    ["h2c", "h2", "http", "tls"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

fn is_among(chosen: &str, wished: &str) -> bool {
    wished.split(',').any(|name| name.trim().eq_ignore_ascii_case(chosen.trim()))
}

/// Passes on what client and upstream say; `ahead` was read of the client already.
///
/// # Errors
/// When either connection breaks.
pub(crate) async fn join(client: &mut ClientStream, ahead: BytesMut, granted: Granted) -> io::Result<()> {
    let activity = Activity::new();
    let (from_client, to_client) = split(client);
    let Granted { upstream, idle, held: _held } = granted;
    let Tunnel { stream, ahead: said, _place } = *upstream;
    let (from_upstream, to_upstream) = split(stream);
    let (from_client, from_upstream) =
        (ahead.as_ref().chain(from_client), said.as_ref().chain(from_upstream));
    let joined = async {
        tokio::try_join!(copy(from_client, to_upstream, &activity), copy(from_upstream, to_client, &activity))
    };
    tokio::select! {
        joined = joined => joined.map(drop),
        () = activity.quiet_for(idle) => {
            debug!("a tunnel was quiet for too long");
            Ok(())
        }
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    activity: &Activity,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..count]).await?;
        to.flush().await?;
        activity.note();
    }
}

/// When something last went through.
struct Activity(Mutex<Instant>);

impl Activity {
    fn new() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    fn note(&self) {
        *self.0.lock() = Instant::now();
    }

    async fn quiet_for(&self, max: Duration) {
        loop {
            let due = *self.0.lock() + max;
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(version: Version, connection: &str, upgrade: &[&str], expected: bool) {
        let mut headers = Fields::new();
        headers.push(CONNECTION, connection);
        for value in upgrade {
            headers.push(UPGRADE, value);
        }
        assert_eq!(wished(version, &headers).is_some(), expected, "{connection} {upgrade:?}");
    }

    #[test]
    fn wishes_that_are_passed_on() {
        check(Version::HTTP_11, "Upgrade", &["websocket"], true);
        check(Version::HTTP_11, "keep-alive, upgrade", &["foo/1, bar"], true);
        check(Version::HTTP_11, "keep-alive", &["websocket"], false);
        check(Version::HTTP_11, "upgrade", &[], false);
        check(Version::HTTP_11, "upgrade", &["websocket", "foo"], false);
        check(Version::HTTP_10, "upgrade", &["websocket"], false);
        check(Version::HTTP_2, "upgrade", &["websocket"], false);
    }

    #[test]
    fn further_requests_do_not_hide_in_a_tunnel() {
        for protocol in ["h2c", "H2C", "websocket, h2c", "HTTP/2.0", "TLS/1.2", "h2"] {
            check(Version::HTTP_11, "upgrade", &[protocol], false);
        }
    }

    #[test]
    fn upstreams_choose_among_what_was_asked_for() {
        assert!(is_among("WebSocket", "websocket"));
        assert!(is_among("bar/2", "foo, bar/2"));
        assert!(!is_among("bar", "foo, bar/2"));
    }
}
