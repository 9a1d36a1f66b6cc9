//! Plain increments in Redis, 64 to a pipeline on one connection: the least that counting in it can cost.

use std::io::Write;
use std::net::SocketAddr;

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Random;

const PIPELINE: usize = 64;
const KEYS: usize = 1_000;

/// Increments in a Redis.
#[derive(Clone)]
pub(crate) struct RedisLoad {
    /// Where it is.
    pub(crate) address: SocketAddr,
}

impl RedisLoad {
    pub(super) async fn open(&self) -> anyhow::Result<RedisDriver> {
        let stream = TcpStream::connect(self.address).await.context("cannot connect to Redis")?;
        stream.set_nodelay(true)?;
        Ok(RedisDriver { stream, random: Random::new(3), commands: vec![], answers: vec![0; 16 << 10] })
    }
}

/// A connection to Redis.
pub(crate) struct RedisDriver {
    stream: TcpStream,
    random: Random,
    commands: Vec<u8>,
    answers: Vec<u8>,
}

impl RedisDriver {
    pub(super) async fn run(&mut self, operations: u64) -> anyhow::Result<()> {
        let mut left = usize::try_from(operations)?;
        while left > 0 {
            let batch = left.min(PIPELINE);
            self.commands.clear();
            for _ in 0..batch {
                let key = self.random.below(KEYS);
                write!(self.commands, "*3\r\n$6\r\nINCRBY\r\n$9\r\ncount:{key:03}\r\n$1\r\n1\r\n")?;
            }
            self.stream.write_all(&self.commands).await?;
            self.read(batch).await?;
            left -= batch;
        }
        Ok(())
    }

    /// Reads as many whole numbers.
    async fn read(&mut self, count: usize) -> anyhow::Result<()> {
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.answers[filled..]).await?;
            ensure!(read > 0, "Redis closed the connection");
            filled += read;
            let answers = &self.answers[..filled];
            let lines = answers.iter().filter(|byte| **byte == b'\n').count();
            if lines < count {
                continue;
            }
            let numbers = answers.split(|byte| *byte == b'\n').filter(|line| line.first() == Some(&b':'));
            ensure!(
                numbers.count() == count && lines == count,
                "Redis: {}",
                String::from_utf8_lossy(answers)
            );
            return Ok(());
        }
    }
}
