//! Sets of HTTP statuses, as rules and plans name those that cost nothing: `5xx`, `404`.

use std::fmt;

/// Most names in one set.
pub const STATUS_NAMES_MAX: usize = 32;

/// Some statuses. Without any it takes no memory of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatusSet(Vec<Statuses>);

/// What one name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statuses {
    /// `5xx`: by its first digit.
    Class(u16),
    /// `404`.
    One(u16),
}

/// Neither a status nor a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is neither a status from 200 to 599 nor one of 2xx, 3xx, 4xx and 5xx")]
pub struct StatusesError;

impl std::str::FromStr for Statuses {
    type Err = StatusesError;

    fn from_str(text: &str) -> Result<Self, StatusesError> {
        let number = |text: &str, range: std::ops::RangeInclusive<u16>| {
            let is_plain = text.bytes().all(|b| b.is_ascii_digit());
            text.parse().ok().filter(|number| is_plain && range.contains(number)).ok_or(StatusesError)
        };
        match text.strip_suffix("xx") {
            Some(class) => number(class, 2..=5).map(Self::Class),
            None => number(text, 200..=599).map(Self::One),
        }
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Class(class) => write!(f, "{class}xx"),
            Self::One(status) => write!(f, "{status}"),
        }
    }
}

impl StatusSet {
    /// Those that these names stand for; of more than [`STATUS_NAMES_MAX`] the first.
    pub fn new(names: impl IntoIterator<Item = Statuses>) -> Self {
        Self(names.into_iter().take(STATUS_NAMES_MAX).collect())
    }

    /// What gateways answer whose upstream failed: 502, 503 and 504.
    pub fn gateway_failures() -> Self {
        Self([502, 503, 504].map(Statuses::One).into())
    }

    /// Reads names.
    ///
    /// # Errors
    /// When one is none.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, StatusesError> {
        names.into_iter().map(str::parse).collect::<Result<Vec<_>, _>>().map(Self::new)
    }

    /// What was named.
    pub fn names(&self) -> &[Statuses] {
        &self.0
    }

    /// Whether no status is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a status is in it.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|name| match *name {
            Statuses::Class(class) => status / 100 == class,
            Statuses::One(one) => status == one,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_and_statuses() {
        let set = StatusSet::parse(["5xx", "404"]).unwrap();
        for (status, expected) in [(200, false), (404, true), (403, false), (500, true), (599, true)] {
            assert_eq!(set.contains(status), expected, "{status}");
        }
        assert!(StatusSet::default().is_empty() && !set.is_empty());
        for wrong in ["6xx", "1xx", "5XX", "xx", "199", "600", "+404", "", "4 4"] {
            assert!(StatusSet::parse([wrong]).is_err(), "{wrong}");
        }
        let names: Vec<String> = set.names().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["5xx", "404"]);
    }
}
