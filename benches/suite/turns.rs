//! Cases measured in turns: each a few seconds per round, so that what disturbs the machine disturbs all alike.
//!
//! A turn opens its connections, warms up, and then makes a fixed number of operations between two readings of the
//! servers' CPU time. A case that fails once is out: its figures are then missing, not wrong.

use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use tokio::task::JoinHandle;

use crate::cpu::Reading;
use crate::lab::Lab;
use crate::load::Load;
use crate::machine::Cores;

/// Lets servers end what the last answers have left them.
const SETTLE: Duration = Duration::from_millis(50);
/// Lets them close their side of up to ten thousand connections, so that the next turn does not pay for it.
const CLOSING: Duration = Duration::from_millis(200);
/// Longest time of one turn.
const TURN_MAX: Duration = Duration::from_secs(120);

/// Something to measure, again in each round.
pub(crate) struct Case {
    name: String,
    parts: Vec<Part>,
    load: Option<Load>,
    /// A turn.
    operations: u64,
    samples: Vec<Sample>,
    failure: Option<String>,
}

/// Processes whose time is told as one.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// How the case files call it.
    pub(crate) name: &'static str,
    /// All of them.
    pub(crate) processes: Vec<u32>,
}

/// What one turn came to.
struct Sample {
    /// For each part, per operation.
    cpu_us: Vec<f64>,
    per_second: f64,
}

/// Keeps the suite's thread from sleeping, by never having nothing to do.
///
/// A server that writes to a sleeping peer on the same machine pays for waking it, several microseconds where the
/// cores are virtual. Which peers sleep depends on who is the faster side, so without this a slow server would pay for
/// each answer what a fast one never does. Over a network neither would.
struct Awake(JoinHandle<()>);

impl Awake {
    fn keep() -> Self {
        Self(tokio::spawn(async {
            loop {
                tokio::task::yield_now().await;
            }
        }))
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Sample {
    /// For people who wait.
    fn text(&self, parts: &[Part]) -> String {
        let total: f64 = self.cpu_us.iter().sum();
        let part = |(part, us): (&Part, &f64)| format!("{} {us:.2}", part.name);
        let parts: Vec<String> = parts.iter().zip(&self.cpu_us).map(part).collect();
        format!("{total:>7.2} µs CPU {:>8.0}/s  {}", self.per_second, parts.join(", "))
    }
}

impl Case {
    /// These parts under this load, as many operations a turn.
    pub(crate) fn new(name: &str, parts: Vec<Part>, load: Load, operations: u64) -> Self {
        Self { name: name.to_owned(), parts, load: Some(load), operations, samples: vec![], failure: None }
    }

    /// The same where its servers may not have started: then it fails with their reason.
    pub(crate) fn of<S>(
        name: &str,
        servers: &anyhow::Result<S>,
        work: impl Fn(&S) -> (Vec<Part>, Load),
        operations: u64,
    ) -> Self {
        match servers {
            Ok(servers) => {
                let (parts, load) = work(servers);
                Self::new(name, parts, load, operations)
            }
            Err(error) => Self {
                failure: Some(format!("{error:#}")),
                load: None,
                parts: vec![],
                samples: vec![],
                name: name.to_owned(),
                operations,
            },
        }
    }

    /// CPU time per operation in microseconds, one value a round; summed over these parts, or all when none is named.
    ///
    /// # Errors
    /// Why it could not be measured.
    pub(crate) fn cpu_us(&self, parts: &[&str]) -> anyhow::Result<Vec<f64>> {
        self.measured()?;
        let counts = |at: usize| parts.is_empty() || parts.contains(&self.parts[at].name);
        let sum = |sample: &Sample| {
            sample.cpu_us.iter().enumerate().filter(|(at, _)| counts(*at)).map(|(_, us)| us).sum()
        };
        Ok(self.samples.iter().map(sum).collect())
    }

    /// Operations in a second, one value a round.
    ///
    /// # Errors
    /// Why it could not be measured.
    pub(crate) fn per_second(&self) -> anyhow::Result<Vec<f64>> {
        self.measured()?;
        Ok(self.samples.iter().map(|sample| sample.per_second).collect())
    }

    fn measured(&self) -> anyhow::Result<()> {
        match &self.failure {
            Some(failure) => Err(anyhow!("{failure}")),
            None => Ok(()),
        }
    }

    async fn turn(&self, awake: bool) -> anyhow::Result<Sample> {
        let _awake = awake.then(Awake::keep);
        let load = self.load.as_ref().context("there is nothing to do")?;
        let mut driver = load.open().await?;
        driver.run(self.operations / 8).await.context("while warming up")?;
        let before = self.readings()?;
        let started = Instant::now();
        driver.run(self.operations).await?;
        let took = started.elapsed();
        tokio::time::sleep(SETTLE).await;
        let after = self.readings()?;
        drop(driver);
        tokio::time::sleep(CLOSING).await;
        let operations = count(self.operations);
        let microseconds = |(before, after): (&Reading, &Reading)| {
            count(after.nanoseconds_since(before)) / 1_000.0 / operations
        };
        let cpu_us = before.iter().zip(&after).map(microseconds).collect();
        Ok(Sample { cpu_us, per_second: operations / took.as_secs_f64() })
    }

    fn readings(&self) -> anyhow::Result<Vec<Reading>> {
        self.parts.iter().map(|part| Reading::of(&part.processes)).collect()
    }
}

/// A count as a number to calculate with; none here comes near what a float cannot hold.
#[allow(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
pub(crate) fn count(number: u64) -> f64 {
    number as f64
}

/// Measures all cases once a round, one after the other.
pub(crate) async fn in_turns(cases: &mut [Case], lab: &Lab) {
    let rounds = lab.scale.rounds;
    let awake = lab.cores != Cores::Shared;
    for round in 1..=rounds {
        for case in cases.iter_mut().filter(|case| case.failure.is_none()) {
            let turn = tokio::time::timeout(TURN_MAX, case.turn(awake)).await;
            match turn.unwrap_or_else(|_| Err(anyhow!("took longer than {TURN_MAX:?}"))) {
                Ok(sample) => {
                    eprintln!("  {round}/{rounds} {:<42} {}", case.name, sample.text(&case.parts));
                    case.samples.push(sample);
                }
                Err(error) => {
                    eprintln!("  {round}/{rounds} {:<42} failed: {error:#}", case.name);
                    case.failure = Some(format!("{error:#}"));
                }
            }
        }
    }
}
