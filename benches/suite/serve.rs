//! The suite's own servers, each a process of the same binary: floors to compare with.

use std::net::SocketAddr;

use clap::ValueEnum;

mod answer;
mod echo;
mod proxy;

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// The least that a proxy of hyper's parts does.
    Proxy,
    /// Answers listeners' questions by gRPC without deciding anything.
    Echo,
    /// Answers HTTP requests with nothing.
    Answer,
}

impl Kind {
    /// As on the command line.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Echo => "echo",
            Self::Answer => "answer",
        }
    }
}

/// Serves until the process ends; on threads like Weir's roles.
///
/// # Errors
/// When the address is taken.
pub(crate) fn run(kind: Kind, address: SocketAddr, origin: Option<SocketAddr>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match kind {
            Kind::Proxy => proxy::serve(address, origin).await,
            Kind::Echo => echo::serve(address).await,
            Kind::Answer => answer::serve(address).await,
        }
    })
}
