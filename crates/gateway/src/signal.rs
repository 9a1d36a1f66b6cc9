//! What all connections are told once: to end what is in flight, to end at once.
//!
//! A connection is polled several times per request, and nearly always nothing was told: that costs it one look.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Something that is told once, to all who wait.
#[derive(Default)]
pub(crate) struct Signal {
    is_given: AtomicBool,
    token: CancellationToken,
}

impl Signal {
    /// Tells it.
    pub(crate) fn give(&self) {
        self.is_given.store(true, Ordering::Release);
        self.token.cancel();
    }

    /// Whether it was told.
    pub(crate) fn is_given(&self) -> bool {
        self.is_given.load(Ordering::Acquire)
    }

    /// Ends when it is told.
    pub(crate) async fn given(&self) {
        self.token.cancelled().await;
    }
}

/// One task that waits for it. It has to be polled by this task alone.
pub(crate) struct Waiter<'a> {
    signal: &'a Signal,
    told: Pin<Box<WaitForCancellationFutureOwned>>,
    is_waiting: bool,
}

impl<'a> Waiter<'a> {
    pub(crate) fn new(signal: &'a Signal) -> Self {
        Self { signal, told: Box::pin(signal.token.clone().cancelled_owned()), is_waiting: false }
    }

    /// Ready when the signal was given; until then the task is woken by it.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.is_waiting && !self.signal.is_given() {
            return Poll::Pending;
        }
        self.is_waiting = true;
        ready!(self.told.as_mut().poll(context));
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn whoever_waits_is_woken() {
        let signal = Arc::new(Signal::default());
        let task = tokio::spawn({
            let signal = Arc::clone(&signal);
            async move {
                let mut waiter = Waiter::new(&signal);
                poll_fn(|context| waiter.poll(context)).await;
            }
        });
        tokio::task::yield_now().await;
        assert!(!signal.is_given());
        signal.give();
        task.await.unwrap();
        assert!(signal.is_given());
        poll_fn(|context| Waiter::new(&signal).poll(context)).await;
    }
}
