//! Names of things: services, applications, plans and metrics, each a type of its own.
//!
//! Every crate uses them, so that two strings cannot be swapped. A name is checked once, when it is made:
//! names end up in storage keys, where a stray `:` or blank would let one thing read another's counters.
//!
//! Secrets (`user_key`, `app_key`) are not ids; see [`crate::secret`].

use std::fmt;
use std::sync::Arc;

/// Longest id in bytes.
pub const ID_BYTES_MAX: usize = 255;

/// Why a text cannot be an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Nothing was given.
    #[error("is empty")]
    Empty,
    /// More than [`ID_BYTES_MAX`] bytes.
    #[error("is longer than {ID_BYTES_MAX} bytes")]
    TooLong,
    /// A character that this kind of id does not have.
    #[error("has the character {0:?}, which is not allowed here")]
    Character(char),
}

fn check_id(text: &str, allowed: fn(char) -> bool) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > ID_BYTES_MAX {
        return Err(IdError::TooLong);
    }
    match text.chars().find(|c| !allowed(*c)) {
        Some(c) => Err(IdError::Character(c)),
        None => Ok(()),
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
}

fn is_metric_name(c: char) -> bool {
    is_name(c) || c == '/'
}

fn is_visible(c: char) -> bool {
    !c.is_control() && !c.is_whitespace()
}

/// Declares one kind of id; a type each, the same behaviour.
macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $allowed:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and wraps a text.
            ///
            /// # Errors
            /// When it is empty, too long or has a character this kind of id does not have.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                check_id(text, $allowed)?;
                Ok(Self(text.into()))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }
    };
}

id_type!(
    /// A service ("Product" on pages): letters, digits, `_`, `-` and `.`.
    ServiceId,
    is_name
);
id_type!(
    /// An application, on the wire `app_id`: any visible characters.
    ApplicationId,
    is_visible
);
id_type!(
    /// An application plan: letters, digits, `_`, `-` and `.`.
    PlanId,
    is_name
);
id_type!(
    /// System name of a metric or method: letters, digits, `_`, `-`, `.` and `/`.
    MetricName,
    is_metric_name
);

/// An application within its service: what counters and credentials belong to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ApplicationRef {
    /// The service it is subscribed to.
    pub service: ServiceId,
    /// Its `app_id`.
    pub application: ApplicationId,
}

impl fmt::Display for ApplicationRef {
    /// `service/application`: unambiguous, since a service id has no slash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.application)
    }
}

impl std::str::FromStr for ApplicationRef {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let (service, application) = text.split_once('/').ok_or(IdError::Empty)?;
        Ok(Self { service: service.parse()?, application: application.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_refuse_what_would_break_a_storage_key() {
        assert_eq!(ServiceId::parse("mail_api").unwrap().as_str(), "mail_api");
        assert_eq!(ServiceId::parse("a/b"), Err(IdError::Character('/')));
        assert_eq!(ApplicationId::parse("a b"), Err(IdError::Character(' ')));
        assert_eq!(ApplicationId::parse("a\n"), Err(IdError::Character('\n')));
        assert_eq!(MetricName::parse(""), Err(IdError::Empty));
        assert_eq!(PlanId::parse(&"x".repeat(256)), Err(IdError::TooLong));
    }

    #[test]
    fn an_application_id_may_hold_slashes() {
        let reference: ApplicationRef = "mail_api/a/b".parse().unwrap();
        assert_eq!((reference.service.as_str(), reference.application.as_str()), ("mail_api", "a/b"));
        assert_eq!(reference.to_string(), "mail_api/a/b");
    }
}
