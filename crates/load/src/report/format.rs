//! Numbers as people read them: `41,230`, `4.12` ms, `1,000..5,000`.

use std::time::Duration;

use crate::plan::Stage;

/// A whole number with its thousands apart.
pub(crate) fn count(number: impl Into<i128>) -> String {
    let number: i128 = number.into();
    let digits = number.unsigned_abs().to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3 + 1);
    if number < 0 {
        text.push('-');
    }
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with as many digits as say something: whole from 100 on, else one or two after the point.
pub(crate) fn number(number: f64) -> String {
    let rounded = number.round();
    if number.abs() >= 100.0 || (number - rounded).abs() < 1e-9 {
        return whole(rounded);
    }
    if number.abs() >= 10.0 { format!("{number:.1}") } else { format!("{number:.2}") }
}

fn whole(rounded: f64) -> String {
    // Formatting is exact where a cast would have to be defended.
    format!("{rounded:.0}").parse::<i128>().map_or_else(|_| rounded.to_string(), count)
}

/// Milliseconds in three digits.
pub(crate) fn ms(length: Duration) -> String {
    let ms = length.as_secs_f64() * 1e3;
    match ms {
        100.0.. => whole(ms.round()),
        10.0.. => format!("{ms:.1}"),
        1.0.. => format!("{ms:.2}"),
        _ => format!("{ms:.3}"),
    }
}

/// Requests per second of a stage: one number, or both ends of a ramp.
pub(crate) fn rate(stage: &Stage) -> String {
    if stage.from == stage.to {
        return count(stage.to);
    }
    format!("{}..{}", count(stage.from), count(stage.to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (n, expected) in
            [(0, "0"), (999, "999"), (1_000, "1,000"), (-41_230, "-41,230"), (1_234_567, "1,234,567")]
        {
            assert_eq!(count(n), expected);
        }
        for (n, expected) in [(0.0, "0"), (5.0, "5"), (0.094, "0.09"), (12.34, "12.3"), (1_234.5, "1,235")] {
            assert_eq!(number(n), expected);
        }
        for (us, expected) in
            [(0, "0.000"), (412, "0.412"), (4_123, "4.12"), (41_234, "41.2"), (1_234_567, "1,235")]
        {
            assert_eq!(ms(Duration::from_micros(us)), expected);
        }
    }
}
