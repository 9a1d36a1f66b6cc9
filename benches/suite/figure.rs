//! Figures: what was measured, beside what it is compared with.
//!
//! The value is the median over the rounds, and so is the peer's; the ratio is that of the medians.

use serde_json::{Value, json};

use crate::turns::Case;

/// One named result.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    /// For machines: stable.
    pub(crate) name: String,
    /// For people.
    pub(crate) title: String,
    /// Of `value`, its samples and the target.
    pub(crate) unit: &'static str,
    /// One per round; what went wrong otherwise.
    pub(crate) samples: Result<Vec<f64>, String>,
    /// Operations in a second.
    pub(crate) per_second: Option<f64>,
    /// Most it shall be.
    pub(crate) target: Option<f64>,
    /// What was measured beside it in the same run.
    pub(crate) peer: Option<Peer>,
}

/// What a figure is compared with.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// The figure's name.
    pub(crate) name: String,
    /// Its value.
    pub(crate) value: f64,
}

impl Figure {
    /// From samples.
    pub(crate) fn new(
        name: impl Into<String>,
        title: impl Into<String>,
        unit: &'static str,
        samples: anyhow::Result<Vec<f64>>,
    ) -> Self {
        let samples = samples.map_err(|error| format!("{error:#}")).and_then(|samples| {
            if samples.is_empty() { Err("was not measured".to_owned()) } else { Ok(samples) }
        });
        let (name, title) = (name.into(), title.into());
        Self { name, title, unit, samples, per_second: None, target: None, peer: None }
    }

    /// CPU time per operation of a case: of these parts, or of all when none is named.
    pub(crate) fn cpu(
        name: impl Into<String>,
        title: impl Into<String>,
        case: &Case,
        parts: &[&str],
    ) -> Self {
        let per_second = case.per_second().ok().and_then(|rates| median(&rates));
        Self { per_second, ..Self::new(name, title, "µs CPU", case.cpu_us(parts)) }
    }

    /// How many times another figure it is, round by round.
    pub(crate) fn times(name: &str, title: &str, of: &Self, peer: &Self) -> Self {
        let samples = match (&of.samples, &peer.samples) {
            (Ok(of), Ok(peer)) => Ok(of.iter().zip(peer).map(|(of, peer)| of / peer).collect()),
            (Err(failure), _) | (_, Err(failure)) => Err(failure.clone()),
        };
        Self::new(name, title, "times", samples.map_err(anyhow::Error::msg)).beside(peer)
    }

    /// Most it shall be.
    pub(crate) fn at_most(self, target: f64) -> Self {
        Self { target: Some(target), ..self }
    }

    /// What one has more than another, round by round; beside that one.
    pub(crate) fn less(name: &str, title: &str, of: &Self, peer: &Self) -> Self {
        let samples = match (&of.samples, &peer.samples) {
            (Ok(of), Ok(peer)) => Ok(of.iter().zip(peer).map(|(of, peer)| of - peer).collect()),
            (Err(failure), _) | (_, Err(failure)) => Err(failure.clone()),
        };
        Self::new(name, title, of.unit, samples.map_err(anyhow::Error::msg)).beside(peer)
    }

    /// What it is compared with.
    pub(crate) fn beside(self, peer: &Self) -> Self {
        let value = peer.value();
        Self { peer: value.map(|value| Peer { name: peer.name.clone(), value }), ..self }
    }

    /// The median.
    pub(crate) fn value(&self) -> Option<f64> {
        self.samples.as_ref().ok().and_then(|samples| median(samples))
    }

    /// How many times its peer it is. A figure that is a ratio itself is its own.
    pub(crate) fn ratio(&self) -> Option<f64> {
        if self.unit == "times" {
            return self.value();
        }
        Some(self.value()? / self.peer.as_ref()?.value)
    }

    /// Whether it is what it shall be; `None`: there is no target, or no value.
    pub(crate) fn is_reached(&self) -> Option<bool> {
        Some(self.value()? <= self.target?)
    }

    /// For `results.json`.
    pub(crate) fn json(&self) -> Value {
        json!({
            "name": self.name,
            "title": self.title,
            "value": self.value().map(rounded),
            "unit": self.unit,
            "target": self.target,
            "reached": self.is_reached(),
            "peer": self.peer.as_ref().map(|peer| json!({ "name": peer.name, "value": rounded(peer.value) })),
            "ratio": self.ratio().map(rounded),
            "per_second": self.per_second.map(f64::round),
            "samples": self.samples.as_ref().map(|all| all.iter().copied().map(rounded).collect()).unwrap_or(vec![]),
            "failure": self.samples.as_ref().err(),
        })
    }
}

/// Four digits behind the point say more than any measurement here.
fn rounded(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

/// `41800` as `41,800`.
pub(crate) fn thousands(digits: &str) -> String {
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The middle one; of an even number the mean of the two in the middle.
fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = sorted[(sorted.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(name: &str, samples: &[f64]) -> Figure {
        Figure::new(name, name, "µs CPU", Ok(samples.to_vec()))
    }

    #[test]
    fn the_value_is_the_median() {
        assert_eq!(figure("a", &[9.0, 1.0, 2.0]).value(), Some(2.0));
        assert_eq!(figure("a", &[4.0, 1.0]).value(), Some(2.5));
        assert_eq!(figure("a", &[]).value(), None);
    }

    #[test]
    fn ratios_are_those_of_medians() {
        let (a, b) = (figure("a", &[3.0, 6.0, 9.0]), figure("b", &[4.0, 2.0, 3.0]));
        assert_eq!(a.clone().beside(&b).ratio(), Some(2.0));
        assert_eq!(Figure::times("c", "c", &a, &b).samples, Ok(vec![0.75, 3.0, 3.0]));
    }

    #[test]
    fn a_target_may_be_met_exactly() {
        assert_eq!(figure("a", &[2.0]).at_most(2.0).is_reached(), Some(true));
        assert_eq!(figure("a", &[2.1]).at_most(2.0).is_reached(), Some(false));
        assert_eq!(figure("a", &[2.1]).is_reached(), None);
        assert_eq!(figure("a", &[]).at_most(2.0).is_reached(), None);
    }

    #[test]
    fn what_failed_has_no_ratio() {
        let broken = Figure::new("a", "a", "µs CPU", Err(anyhow::anyhow!("gone")));
        let times = Figure::times("b", "b", &figure("c", &[1.0]), &broken);
        assert_eq!(times.samples, Err("gone".into()));
        assert_eq!(times.ratio(), None);
    }
}
