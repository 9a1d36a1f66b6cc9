//! Questions by unary gRPC: 64 callers over four connections, one call each at a time.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use tokio::task::JoinSet;
use tonic::transport::Channel;
use weir_proto::v1::authorization_client::AuthorizationClient;

use super::{Budget, Random};
use crate::question::{self, Questions};

const CALLERS: usize = 64;
const CONNECTIONS: usize = 4;

/// Questions to a listener.
#[derive(Clone)]
pub(crate) struct UnaryLoad {
    /// The listener's gRPC port.
    pub(crate) address: SocketAddr,
    /// What is asked.
    pub(crate) questions: Questions,
}

impl UnaryLoad {
    pub(super) async fn open(&self) -> anyhow::Result<UnaryDriver> {
        let mut clients = vec![];
        for _ in 0..CONNECTIONS {
            clients.push(question::client(self.address).await?);
        }
        let caller = |client: &AuthorizationClient<Channel>| Caller {
            client: client.clone(),
            questions: self.questions.clone(),
            random: Random::new(question::request_number()),
        };
        let callers = clients.iter().cycle().take(CALLERS).map(caller).collect();
        Ok(UnaryDriver { callers, budget: Arc::default() })
    }
}

/// Callers with their connections.
pub(crate) struct UnaryDriver {
    callers: Vec<Caller>,
    budget: Arc<Budget>,
}

impl UnaryDriver {
    pub(super) async fn run(&mut self, operations: u64) -> anyhow::Result<()> {
        self.budget.put(operations);
        let mut tasks = JoinSet::new();
        for caller in self.callers.drain(..) {
            tasks.spawn(caller.run(Arc::clone(&self.budget)));
        }
        while let Some(caller) = tasks.join_next().await {
            self.callers.push(caller??);
        }
        Ok(())
    }
}

struct Caller {
    client: AuthorizationClient<Channel>,
    questions: Questions,
    random: Random,
}

impl Caller {
    async fn run(mut self, budget: Arc<Budget>) -> anyhow::Result<Self> {
        while budget.take() {
            let application = self.questions.choose(&mut self.random);
            let question = question::signed(self.questions.about(application))?;
            let decision = self.client.auth_rep(question).await.context("a call failed")?.into_inner();
            self.questions.check(&decision)?;
        }
        Ok(self)
    }
}
