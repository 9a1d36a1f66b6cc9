//! Conditions under which a run has failed: `p99>50ms`, `errors>0.1%`, `rate<95%`.
//!
//! Each stage but a warm-up is held to each of them. In a run of rising rates the first stage that fails one is just
//! beyond the knee.

use std::fmt;
use std::time::Duration;

use crate::outcome::{Outcome, StageOutcome};
use crate::report::format;
use crate::span::Span;

/// A condition.
#[derive(Debug, Clone, PartialEq)]
pub struct Threshold {
    quantity: Quantity,
    is_above: bool,
    bound: Bound,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Quantity {
    Percentile(f64),
    Mean,
    Max,
    Errors,
    NotSent,
    Rate,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Bound {
    Time(Duration),
    /// In per cent.
    Share(f64),
    Number(f64),
}

/// Not a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ThresholdError {
    /// No `<` and no `>`.
    #[error("has neither < nor >: write p99>50ms, errors>0.1% or rate<95%")]
    Comparison,
    /// Not a quantity.
    #[error("is about none of p50, p99, p99.9 and the like, mean, max, errors, not_sent, rate")]
    Quantity,
    /// A latency compared with what is no length of time.
    #[error("needs a length of time such as 50ms behind its comparison")]
    Time,
    /// Something else compared with what is no number.
    #[error("needs a share such as 0.1% or a number behind its comparison")]
    Number,
}

impl std::str::FromStr for Threshold {
    type Err = ThresholdError;

    fn from_str(text: &str) -> Result<Self, ThresholdError> {
        let at = text.find(['<', '>']).ok_or(ThresholdError::Comparison)?;
        let quantity = Quantity::parse(text[..at].trim()).ok_or(ThresholdError::Quantity)?;
        let bound = text[at + 1..].trim();
        let bound = match quantity {
            Quantity::Percentile(_) | Quantity::Mean | Quantity::Max => {
                let span: Span = bound.parse().map_err(|_| ThresholdError::Time)?;
                Bound::Time(span.0)
            }
            Quantity::Errors | Quantity::NotSent | Quantity::Rate => {
                let number = |text: &str| {
                    let number: Option<f64> = text.parse().ok();
                    number.filter(|n| n.is_finite() && *n >= 0.0).ok_or(ThresholdError::Number)
                };
                match bound.strip_suffix('%') {
                    Some(share) => Bound::Share(number(share)?),
                    None => Bound::Number(number(bound)?),
                }
            }
        };
        Ok(Self { quantity, is_above: text.as_bytes()[at] == b'>', bound, text: text.to_owned() })
    }
}

impl Quantity {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "mean" => Self::Mean,
            "max" => Self::Max,
            "errors" => Self::Errors,
            "not_sent" => Self::NotSent,
            "rate" => Self::Rate,
            _ => {
                let percent: f64 = text.strip_prefix('p')?.parse().ok()?;
                Self::Percentile(Some(percent).filter(|percent| (0.0..=100.0).contains(percent))?)
            }
        })
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// How a run stands to a threshold.
#[derive(Debug, Clone)]
pub struct Judgement {
    /// The condition as it was written.
    pub threshold: String,
    /// The first stage under which it came true, as a place in [`Outcome::stages`], and what was found there.
    pub failed: Option<(usize, String)>,
}

/// Holds a run to thresholds.
pub fn judge(thresholds: &[Threshold], outcome: &Outcome) -> Vec<Judgement> {
    let judged = |threshold: &Threshold| {
        let stages = outcome.stages.iter().enumerate().filter(|(_, stage)| !stage.stage.is_warm_up);
        let mut found = stages.filter_map(|(at, stage)| Some((at, threshold.found(stage)?)));
        Judgement { threshold: threshold.to_string(), failed: found.next() }
    };
    thresholds.iter().map(judged).collect()
}

impl Threshold {
    /// What makes the condition true of a stage, if it is.
    fn found(&self, stage: &StageOutcome) -> Option<String> {
        let latency = &stage.latency;
        let is_timed = matches!(self.bound, Bound::Time(_));
        if is_timed && latency.count() == 0 {
            // Nothing is as bad as no answer at all.
            return (stage.due > 0).then(|| "no answers".to_owned());
        }
        match self.quantity {
            Quantity::Percentile(percent) => self.time(latency.percentile(percent)),
            Quantity::Mean => self.time(latency.mean()),
            Quantity::Max => self.time(latency.max()),
            Quantity::Errors => self.number(stage.counts.errors() as f64, stage.due as f64),
            Quantity::NotSent => self.number(stage.not_sent as f64, stage.due as f64),
            Quantity::Rate => self.number(stage.achieved_rate, stage.intended_rate()),
        }
    }

    fn time(&self, found: Duration) -> Option<String> {
        let Bound::Time(bound) = self.bound else { return None };
        let is_true = if self.is_above { found > bound } else { found < bound };
        is_true.then(|| format!("{} ms", format::ms(found)))
    }

    fn number(&self, found: f64, whole: f64) -> Option<String> {
        let (found, bound, unit) = match self.bound {
            Bound::Share(bound) => (if whole > 0.0 { found / whole * 100.0 } else { 0.0 }, bound, " %"),
            Bound::Number(bound) => (found, bound, ""),
            Bound::Time(_) => return None,
        };
        let is_true = if self.is_above { found > bound } else { found < bound };
        is_true.then(|| format!("{}{unit}", format::number(found)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::{Answer, Fault};
    use crate::counts::Counts;
    use crate::latency::Latencies;
    use crate::plan::Stage;

    /// 1,000 due at 100 per second: 900 answers of 10 ms, 89 of 100 ms, 1 time-out, 10 not sent; 99 answers per second.
    fn stage() -> StageOutcome {
        let mut latency = Latencies::default();
        (0..900).for_each(|_| latency.record(Duration::from_millis(10)));
        (0..89).for_each(|_| latency.record(Duration::from_millis(100)));
        let mut counts = Counts::default();
        (0..989).for_each(|_| counts.record(Ok(Answer::Http(200)), false));
        counts.record(Err(Fault::Timeout), false);
        StageOutcome {
            stage: Stage { from: 100, to: 100, length: Duration::from_secs(10), is_warm_up: false },
            length: Duration::from_secs(10),
            due: 1_000,
            not_sent: 10,
            cut_off: 0,
            achieved_rate: 99.0,
            latency_ok: latency.clone(),
            latency,
            counts,
            late: Latencies::default(),
            waited: 0,
            busiest_thread: 0.1,
        }
    }

    #[track_caller]
    fn check(threshold: &str, expected: Option<&str>) {
        let found = threshold.parse::<Threshold>().unwrap().found(&stage());
        assert_eq!(found.as_deref(), expected, "{threshold}");
    }

    #[test]
    fn stages_are_held_to_conditions() {
        check("p50>10.1ms", None);
        check("p50>9ms", Some("10.0 ms"));
        check("p92 > 50ms", Some("100 ms"));
        check("p99.9<1s", Some("100 ms"));
        check("max>1s", None);
        check("mean>18ms", Some("18.1 ms"));
        check("errors>0.1%", None);
        check("errors>0.09%", Some("0.10 %"));
        check("errors>0", Some("1"));
        check("not_sent>1%", None);
        check("not_sent>0.5%", Some("1 %"));
        check("rate<95%", None);
        check("rate<100", Some("99"));
    }

    #[test]
    fn no_answer_at_all_fails_every_latency() {
        let silent = StageOutcome { latency: Latencies::default(), ..stage() };
        assert!("p99>1h".parse::<Threshold>().unwrap().found(&silent).is_some());
    }

    #[test]
    fn slips_are_named() {
        let error = |text: &str| text.parse::<Threshold>().unwrap_err();
        assert_eq!(error("p99=5ms"), ThresholdError::Comparison);
        assert_eq!(error("p101>5ms"), ThresholdError::Quantity);
        assert_eq!(error("latency>5ms"), ThresholdError::Quantity);
        assert_eq!(error("p99>5"), ThresholdError::Time);
        assert_eq!(error("p99>5%"), ThresholdError::Time);
        assert_eq!(error("errors>1ms"), ThresholdError::Number);
        assert_eq!(error("errors>-1"), ThresholdError::Number);
    }
}
