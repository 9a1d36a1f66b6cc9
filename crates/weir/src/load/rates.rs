//! Rates on the command line: `1000`, `100..1000` for a ramp, `1000..10000+1000` or `1000..64000x2` for steps.

use std::time::Duration;

use weir_load::{Span, Stage};

use super::mix_file::{RATE_MAX, STAGES_MAX};

/// One rate, or a ramp from one to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    from: u32,
    to: u32,
}

/// One rate after the other, rising.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Steps(Vec<u32>);

/// Not a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum RateError {
    #[error("is not a rate such as 1000, or 100..1000 for a ramp; at most {RATE_MAX} per second")]
    Rate,
    #[error("are not steps such as 1000..10000+1000 or 1000..64000x2; at most {RATE_MAX} per second")]
    Steps,
    #[error("are more than {STAGES_MAX} steps")]
    TooMany,
}

impl std::str::FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let read = |text: &str, least| rate(text, least).ok_or(RateError::Rate);
        match text.split_once("..") {
            Some((from, to)) => Ok(Self { from: read(from, 0)?, to: read(to, 1)? }),
            None => read(text, 1).map(|rate| Self { from: rate, to: rate }),
        }
    }
}

impl std::str::FromStr for Steps {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let (from, rest) = text.split_once("..").ok_or(RateError::Steps)?;
        let at = rest.find(['+', 'x']).ok_or(RateError::Steps)?;
        let is_sum = rest.as_bytes()[at] == b'+';
        let read = |text: &str, least| rate(text, least).ok_or(RateError::Steps);
        let (from, to) = (read(from, 1)?, read(&rest[..at], 1)?);
        let by = read(&rest[at + 1..], if is_sum { 1 } else { 2 })?;
        let mut steps = vec![from];
        loop {
            let last = steps[steps.len() - 1];
            let next = if is_sum { last.saturating_add(by) } else { last.saturating_mul(by) };
            if next > to {
                break;
            }
            if steps.len() == STAGES_MAX {
                return Err(RateError::TooMany);
            }
            steps.push(next);
        }
        if from > to { Err(RateError::Steps) } else { Ok(Self(steps)) }
    }
}

fn rate(text: &str, least: u32) -> Option<u32> {
    text.parse().ok().filter(|rate| (least..=RATE_MAX).contains(rate))
}

/// The stages that the command line asks for; none when it does not.
pub(super) fn stages(
    rate: Option<Rate>,
    steps: Option<&Steps>,
    each: Span,
    warm_up: Option<Span>,
) -> Vec<Stage> {
    let stage = |from, to, length: Duration| Stage { from, to, length, is_warm_up: false };
    let mut stages: Vec<Stage> = match (rate, steps) {
        (Some(Rate { from, to }), _) => vec![stage(from, to, each.0)],
        (None, Some(Steps(rates))) => rates.iter().map(|rate| stage(*rate, *rate, each.0)).collect(),
        (None, None) => vec![],
    };
    if let (Some(Span(length)), Some(first)) = (warm_up, stages.first()) {
        let rate = first.from.max(1);
        stages.insert(0, Stage { is_warm_up: true, ..stage(rate, rate, length) });
    }
    stages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_ramps() {
        let rate = |text: &str| text.parse::<Rate>().map(|rate| (rate.from, rate.to));
        assert_eq!(rate("1000"), Ok((1_000, 1_000)));
        assert_eq!(rate("0..500"), Ok((0, 500)));
        assert_eq!(rate("500..10"), Ok((500, 10)));
        for bad in ["", "0", "1.5", "1..", "..1", "1..0", "1000001", "-1", "1..2..3"] {
            assert_eq!(rate(bad), Err(RateError::Rate), "{bad}");
        }
    }

    #[test]
    fn steps_rise_by_sum_or_factor() {
        let steps = |text: &str| text.parse::<Steps>().map(|steps| steps.0);
        assert_eq!(steps("100..300+100"), Ok(vec![100, 200, 300]));
        assert_eq!(steps("100..350+100"), Ok(vec![100, 200, 300]));
        assert_eq!(steps("100..800x2"), Ok(vec![100, 200, 400, 800]));
        assert_eq!(steps("5..5+1"), Ok(vec![5]));
        assert_eq!(steps("1..201+1"), Err(RateError::TooMany));
        for bad in ["", "100", "100..200", "200..100+10", "1..2+0", "1..2x1", "0..2+1", "1..2y3"] {
            assert_eq!(steps(bad), Err(RateError::Steps), "{bad}");
        }
    }

    #[test]
    fn warm_ups_come_first_at_the_first_rate() {
        let second = Span(Duration::from_secs(1));
        let made = stages(None, Some(&"10..20+10".parse().unwrap()), second, Some(second));
        let made: Vec<_> = made.iter().map(|stage| (stage.from, stage.to, stage.is_warm_up)).collect();
        assert_eq!(made, [(10, 10, true), (10, 10, false), (20, 20, false)]);
        assert_eq!(stages(None, None, second, Some(second)), []);
    }
}
