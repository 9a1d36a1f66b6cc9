//! The keys of a policy's settings in words: what each means, what it may hold, what holds without it.
//!
//! Keys of tables inside stand behind the table's own, with its name in front: `probe.path`. Conditions are the
//! exception: they are the same wherever they stand, so theirs are told once.

use weir_core::policy::KINDS;
use weir_core::policy::form::{Kind, Property, Shape, Value};

/// What a condition is called as a form.
const CONDITION: &str = "condition";
/// The most that counters hold; in digits nobody would know it.
const COUNT_MAX: u64 = weir_core::COUNT_MAX;

/// A key in words.
pub(super) struct Key {
    /// With the names of the tables around it.
    pub(super) name: String,
    /// In a sentence or two.
    pub(super) meaning: &'static str,
    /// What it may hold.
    pub(super) form: String,
    /// What holds without it; empty of tables, whose keys say it.
    pub(super) default: String,
}

impl Key {
    /// Whether it holds a condition.
    pub(super) fn is_condition(&self) -> bool {
        self.form == CONDITION
    }
}

/// All keys, in the order in which they are asked for.
pub(super) fn keys_of(shape: &Shape) -> Vec<Key> {
    let mut keys = Vec::new();
    add(&mut keys, "", shape, &condition());
    keys
}

/// The keys of a condition.
pub(super) fn keys_of_conditions() -> Vec<Key> {
    keys_of(&condition())
}

fn condition() -> Shape {
    let asked = KINDS.iter().flat_map(|kind| kind.shape().0);
    let when = asked.into_iter().find_map(|property| match property {
        Property { name: "when", kind: Kind::Table(shape), .. } => Some(shape),
        _ => None,
    });
    when.unwrap_or_default()
}

fn add(keys: &mut Vec<Key>, within: &str, shape: &Shape, condition: &Shape) {
    for property in &shape.0 {
        let name = format!("{within}{}", property.name);
        let is_condition = matches!(&property.kind, Kind::Table(inner) if inner == condition);
        let form = if is_condition { CONDITION.to_owned() } else { form(&property.kind) };
        let inside = format!("{name}.");
        keys.push(Key { name, meaning: property.meaning, form, default: default(property, is_condition) });
        if let (false, Kind::Table(inner) | Kind::Tables(inner, _)) = (is_condition, &property.kind) {
            add(keys, &inside, inner, condition);
        }
    }
}

fn form(kind: &Kind) -> String {
    match kind {
        Kind::Text(form) => (*form).to_owned(),
        Kind::Whole(bounds) => format!("{} to {}", number(*bounds.start()), number(*bounds.end())),
        Kind::Flag => "`true` or `false`".to_owned(),
        Kind::Choice(words) => {
            let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
            match words.as_slice() {
                [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
                words => words.concat(),
            }
        }
        Kind::Texts(form, max) => format!("{form}, or a list of up to {}", number(*max as u64)),
        Kind::Table(_) => "table".to_owned(),
        Kind::Tables(_, max) => format!("list of up to {} tables", number(*max as u64)),
    }
}

fn default(property: &Property, is_condition: bool) -> String {
    match (&property.default, &property.kind) {
        _ if property.is_required => "required".to_owned(),
        (Some(Value::Text(text)), _) => format!("`{text}`"),
        (Some(Value::Flag(flag)), _) => format!("`{flag}`"),
        (Some(Value::Whole(whole)), _) => u64::try_from(*whole).map_or_else(|_| whole.to_string(), number),
        (None, Kind::Table(_)) if !is_condition => String::new(),
        _ => "none".to_owned(),
    }
}

/// `86,400`.
fn number(number: u64) -> String {
    if number == COUNT_MAX {
        return "2^53 - 1".to_owned();
    }
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        let told = [0, 999, 1_000, 86_400, 1_000_000_000, COUNT_MAX].map(number);
        assert_eq!(told, ["0", "999", "1,000", "86,400", "1,000,000,000", "2^53 - 1"]);
    }
}
