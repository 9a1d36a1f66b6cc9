//! `usage[metric]=value` of a call: read as far as it can be, in the order in which it was sent.
//!
//! The first entry that cannot be decides how a call is refused, but only once the application is known and its keys
//! are good: so it travels on with the reason why nothing of it, and behind it, was read.

use weir_core::{Denial, MetricName, Usage, UsageValue};

use super::parameters::Value;
use crate::engine::CutShort;

/// What a call uses.
#[derive(Default)]
pub(super) struct ReadUsage {
    pub(super) usage: Usage,
    pub(super) cut_short: Option<CutShort>,
}

/// Reads the entries; values are judged before names.
pub(super) fn read<'m>(entries: impl Iterator<Item = (&'m str, &'m Value<'m>)> + Clone) -> ReadUsage {
    let mut read = vec![];
    for (place, (name, value)) in entries.clone().enumerate() {
        match entry(name, value) {
            Ok(entry) => read.push(entry),
            Err(denial) => {
                let unread = entries.skip(place).map(|(name, _)| shortened(name.trim()));
                let cut_short = CutShort { denial, metrics: unread.collect() };
                return ReadUsage { usage: Usage::new(read), cut_short: Some(cut_short) };
            }
        }
    }
    ReadUsage { usage: Usage::new(read), cut_short: None }
}

fn entry(name: &str, value: &Value<'_>) -> Result<(MetricName, UsageValue), Denial> {
    let Value::Text(value) = value else { return Err(Denial::UsageValueInvalid) };
    let value = value.parse().map_err(|_| Denial::UsageValueInvalid)?;
    let name = name.trim();
    Ok((MetricName::parse(name).map_err(|_| Denial::MetricInvalid(shortened(name)))?, value))
}

/// No more of a name than a metric's could have.
fn shortened(name: &str) -> String {
    name[..name.floor_char_boundary(weir_core::id::ID_BYTES_MAX)].to_owned()
}
