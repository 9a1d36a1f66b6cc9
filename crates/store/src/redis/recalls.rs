//! Recalls between listeners: published on a channel of Redis, heard over a connection of its own.
//!
//! What is published while nobody is connected is lost: leases end by themselves.

use std::time::Duration;

use futures_util::StreamExt;
use redis::aio::PubSub;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Redis;
use super::connect::CONNECT_TIMEOUT;
use crate::recalls::{Recall, WAITING_MAX};

const CHANNEL: &str = "weir:recalls";

/// Pause before connecting again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(200);

/// A connection that has been silent for so long is made anew: it may be broken, and nothing would ever tell.
const SILENCE_MAX: Duration = Duration::from_secs(30);

impl Redis {
    pub(crate) async fn recall(&self, recalls: &[Recall]) {
        if recalls.is_empty() {
            return;
        }
        let mut pipe = redis::pipe();
        for recall in recalls {
            pipe.cmd("PUBLISH").arg(CHANNEL).arg(recall.to_string()).ignore();
        }
        if let Err(error) = pipe.query_async::<()>(&mut self.shared.reader.clone()).await {
            tracing::debug!(error = %error, "a recall was not published");
        }
    }

    /// Until the receiver is dropped.
    pub(crate) fn recalls(&self) -> mpsc::Receiver<Recall> {
        let (hearer, receiver) = mpsc::channel(WAITING_MAX);
        let client = self.shared.client.clone();
        tokio::spawn(async move {
            while !hearer.is_closed() {
                if let Err(error) = hear(&client, &hearer).await {
                    tracing::debug!(error = %error, "recalls are not heard now");
                }
                // Its end is seen in the next round at the latest.
                let _ = timeout(RECONNECT_PAUSE, hearer.closed()).await;
            }
        });
        receiver
    }
}

/// Passes recalls on until the connection breaks or is silent, or nobody wants them any more.
async fn hear(client: &redis::Client, hearer: &mpsc::Sender<Recall>) -> redis::RedisResult<()> {
    let mut subscription = timeout(CONNECT_TIMEOUT, subscribe(client))
        .await
        .unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))?;
    let mut messages = subscription.on_message();
    loop {
        tokio::select! {
            message = timeout(SILENCE_MAX, messages.next()) => {
                let Ok(Some(message)) = message else { return Ok(()) };
                let Ok(text) = message.get_payload::<String>() else { continue };
                if let Ok(recall) = text.parse() {
                    // What is lost is made good by the end of the lease.
                    let _ = hearer.try_send(recall);
                }
            }
            () = hearer.closed() => return Ok(()),
        }
    }
}

async fn subscribe(client: &redis::Client) -> redis::RedisResult<PubSub> {
    let mut subscription = client.get_async_pubsub().await?;
    subscription.subscribe(CHANNEL).await?;
    Ok(subscription)
}
