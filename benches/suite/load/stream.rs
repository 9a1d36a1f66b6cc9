//! Questions over one AuthRepStream: callers who each wait for their answer before they ask again.
//!
//! As in a gateway, whatever is ready to be asked travels in one message; so how many travel together follows from
//! how many answers come together. Other shapes keep every question apart, or have several of one application travel
//! together. One task plays all callers: tasks of their own would only cost the generator time.

use std::net::SocketAddr;

use anyhow::{Context, bail, ensure};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use weir_proto::v1::stream_answer::Answer;
use weir_proto::v1::stream_ask::Ask;
use weir_proto::v1::{AuthRepStreamRequest, AuthRepStreamResponse, StreamAsk};

use super::Random;
use crate::question::{self, Questions};

/// Who asks, and what travels together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Callers at a time.
    callers: usize,
    /// Questions of each, about one application, in one message.
    width: usize,
    /// Whether callers who are ready at the same time share a message.
    shares: bool,
}

impl Shape {
    /// 64 callers as behind a gateway.
    pub(crate) const CALLERS: Self = Self { callers: 64, width: 1, shares: true };
    /// 64 callers, each question in a message of its own.
    pub(crate) const ALONE: Self = Self { callers: 64, width: 1, shares: false };
    /// 64 questions at a time, of which 16 are about one application and travel together.
    pub(crate) const TOGETHER: Self = Self { callers: 4, width: 16, shares: false };
    /// As many as a slow store can answer in time: for filling caches.
    pub(crate) const WIDE: Self = Self { callers: 128, width: 1, shares: true };
}

/// Questions to a listener.
#[derive(Clone)]
pub(crate) struct StreamLoad {
    /// The listener's gRPC port.
    pub(crate) address: SocketAddr,
    /// What is asked.
    pub(crate) questions: Questions,
    /// Who asks.
    pub(crate) shape: Shape,
}

impl StreamLoad {
    pub(super) async fn open(&self) -> anyhow::Result<StreamDriver> {
        let mut client = question::client(self.address).await?;
        let (sender, messages) = mpsc::channel(self.shape.callers);
        let stream = client.auth_rep_stream(question::signed(ReceiverStream::new(messages))?).await;
        let receiver = stream.context("the stream does not open")?.into_inner();
        Ok(StreamDriver {
            sender,
            receiver,
            shape: self.shape,
            questions: self.questions.clone(),
            random: Random::new(question::request_number()),
            unanswered: vec![0; self.shape.callers],
        })
    }
}

/// An open stream.
pub(crate) struct StreamDriver {
    sender: mpsc::Sender<AuthRepStreamRequest>,
    receiver: Streaming<AuthRepStreamResponse>,
    shape: Shape,
    questions: Questions,
    random: Random,
    /// For each caller.
    unanswered: Vec<usize>,
}

impl StreamDriver {
    pub(super) async fn run(&mut self, operations: u64) -> anyhow::Result<()> {
        let (width, operations) = (self.shape.width, usize::try_from(operations)?);
        ensure!(operations.is_multiple_of(width), "{operations} are no messages of {width}");
        let mut left = operations / width;
        let mut ready: Vec<usize> = (0..self.shape.callers).collect();
        let mut waiting = 0;
        loop {
            ready.truncate(left);
            left -= ready.len();
            waiting += ready.len();
            self.ask(&mut ready).await?;
            if waiting == 0 {
                return Ok(());
            }
            let message = self.receiver.message().await?.context("the listener ended the stream")?;
            for answer in message.answers {
                if let Some(caller) = self.take(&answer)? {
                    ready.push(caller);
                    waiting -= 1;
                }
            }
        }
    }

    /// Lets callers ask.
    async fn ask(&mut self, ready: &mut Vec<usize>) -> anyhow::Result<()> {
        let mut asks = Vec::with_capacity(ready.len() * self.shape.width);
        for caller in ready.drain(..) {
            self.unanswered[caller] = self.shape.width;
            let application = self.questions.choose(&mut self.random);
            for place in 0..self.shape.width {
                let correlation_id = (caller * self.shape.width + place) as u64;
                let question = self.questions.about(application);
                asks.push(StreamAsk { correlation_id, ask: Some(Ask::AuthRep(question)) });
            }
            if !self.shape.shares {
                let asks = std::mem::take(&mut asks);
                self.sender.send(AuthRepStreamRequest { asks }).await.context("the stream is closed")?;
            }
        }
        if asks.is_empty() {
            return Ok(());
        }
        self.sender.send(AuthRepStreamRequest { asks }).await.context("the stream is closed")
    }

    /// Takes an answer; returns the caller if it was the last one that it waited for.
    fn take(&mut self, answer: &weir_proto::v1::StreamAnswer) -> anyhow::Result<Option<usize>> {
        match &answer.answer {
            Some(Answer::Decision(decision)) => self.questions.check(decision)?,
            Some(Answer::Failure(failure)) => bail!("failed with code {}: {}", failure.code, failure.message),
            other => bail!("answered {other:?}"),
        }
        let caller = usize::try_from(answer.correlation_id)? / self.shape.width;
        let unanswered = self.unanswered.get_mut(caller).filter(|unanswered| **unanswered > 0);
        let unanswered = unanswered.context("an answer that nobody asked for")?;
        *unanswered -= 1;
        Ok((*unanswered == 0).then_some(caller))
    }
}
