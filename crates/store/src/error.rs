//! What can go wrong with a store. No text of Redis or the file system reaches a caller of the listener.

use std::path::PathBuf;

/// The store could not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Redis is away or did not answer in time.
    #[error("redis did not answer")]
    Away(#[source] Option<redis::RedisError>),
    /// Redis answered something this version does not understand.
    #[error("redis answered something unexpected: {0}")]
    Answer(String),
    /// The clocks of listener and Redis differ too much to agree on windows.
    #[error("the clock of redis differs from this machine's by {0} ms")]
    Clock(i64),
    /// The request was taken back before this attempt of it came.
    #[error("the request was taken back")]
    TakenBack,
    /// More requests wait than are held.
    #[error("too many requests wait for the store")]
    Busy,
    /// The log cannot be written.
    #[error("the embedded store cannot write its log")]
    Log(#[source] std::io::Error),
}

impl StoreError {
    /// The same for one more who asked.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Away(error) => Self::Away(error.clone()),
            Self::Answer(problem) => Self::Answer(problem.clone()),
            Self::Clock(skew_ms) => Self::Clock(*skew_ms),
            Self::TakenBack => Self::TakenBack,
            Self::Busy => Self::Busy,
            Self::Log(error) => Self::Log(std::io::Error::new(error.kind(), error.to_string())),
        }
    }
}

impl From<redis::RedisError> for StoreError {
    fn from(error: redis::RedisError) -> Self {
        Self::Away(Some(error))
    }
}

/// The store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses the folder.
    #[error("{0} is in use by another process")]
    Locked(PathBuf),
    /// The folder cannot be read or written.
    #[error("cannot use the folder {dir}")]
    Folder {
        /// Which.
        dir: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The checkpoint cannot be read or written.
    #[error("cannot read the checkpoint in {dir}: {problem}")]
    Checkpoint {
        /// Which folder.
        dir: PathBuf,
        /// Why.
        problem: String,
    },
    /// Redis is away, or refused this client.
    #[error("cannot use redis")]
    Redis(#[source] redis::RedisError),
    /// No connection pool.
    #[error("cannot use redis: {0}")]
    Pool(String),
    /// Redis is older than version 7.
    #[error("redis is version {0}; version 7 or later is needed, for functions")]
    Version(String),
    /// Redis may lose or evict counters. Holds the lines to set.
    #[error(
        "this redis may lose counters. Set in redis.conf:\n{0}\nor accept that with allow_volatile = true"
    )]
    Volatile(String),
}

/// A catalog could not be put in place.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The store has a newer one.
    #[error(
        "the store holds revision {held}, which is newer than {offered}; raise the revision to replace it"
    )]
    Older {
        /// The store's.
        held: u64,
        /// The publication's.
        offered: u64,
    },
    /// The store has another catalog under the same number.
    #[error("the store holds revision {revision} with other content; raise the revision to replace it")]
    OtherContent {
        /// Both revisions.
        revision: u64,
    },
    /// The store is away.
    #[error(transparent)]
    Store(#[from] StoreError),
}
