//! What went wrong with requests about a service, as its provider may read it.
//!
//! The listener keeps here what it refused with an error (reference: Service Management API, section 1.9); people read
//! it by gRPC. A list per service, bounded, in either store. It is no log: what is older than the list is gone, and what
//! is said of a request holds neither its query nor its body, where credentials are.

use weir_core::Timestamp;

/// Most errors that are kept of a service: the newest.
pub const ERRORS_KEPT_MAX: usize = 1_000;
/// Longest code that is kept, in bytes.
pub const ERROR_CODE_BYTES_MAX: usize = 64;
/// Longest message that is kept, in bytes.
pub const ERROR_MESSAGE_BYTES_MAX: usize = 1_024;
/// Longest request that is kept, in bytes.
pub const ERROR_REQUEST_BYTES_MAX: usize = 1_024;

/// A list is forgotten when so much time has passed without another error: 30 days.
pub(crate) const ERRORS_KEPT_MS: i64 = 30 * 86_400_000;

/// An error that a request about a service ended with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceError {
    /// Stable, in snake case: `application_not_found`.
    pub code: String,
    /// For people.
    pub message: String,
    /// When.
    pub at: Timestamp,
    /// Method and path, without the query: `GET /transactions/authrep.xml`.
    pub request: String,
}

/// A part of a service's errors.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ErrorPage {
    /// Newest first.
    pub errors: Vec<ServiceError>,
    /// How many there are on all pages.
    pub total: u64,
}

impl ServiceError {
    /// As it is kept: no text is longer than its maximum.
    pub(crate) fn clipped(&self) -> Self {
        Self {
            code: clipped(&self.code, ERROR_CODE_BYTES_MAX),
            message: clipped(&self.message, ERROR_MESSAGE_BYTES_MAX),
            at: self.at,
            request: clipped(&self.request, ERROR_REQUEST_BYTES_MAX),
        }
    }
}

/// The places of a page in the list, the newest being 0: the first, and the one behind the last. Pages count from 1.
pub(crate) fn places(page: usize, per_page: usize) -> (usize, usize) {
    let first = page.saturating_sub(1).saturating_mul(per_page).min(ERRORS_KEPT_MAX);
    (first, first.saturating_add(per_page).min(ERRORS_KEPT_MAX))
}

/// Whole characters, so many bytes at most.
fn clipped(text: &str, bytes_max: usize) -> String {
    text[..text.floor_char_boundary(bytes_max)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_clipped_between_characters() {
        assert_eq!(clipped("abc", 3), "abc");
        assert_eq!(clipped("abc", 2), "ab");
        assert_eq!(clipped("aß", 2), "a");
        assert_eq!(clipped("", 2), "");
    }

    #[test]
    fn pages_tile_the_list() {
        assert_eq!([places(0, 10), places(1, 10), places(2, 10)], [(0, 10), (0, 10), (10, 20)]);
        assert_eq!(places(2, 700), (700, ERRORS_KEPT_MAX));
        assert_eq!(places(usize::MAX, usize::MAX), (ERRORS_KEPT_MAX, ERRORS_KEPT_MAX));
        assert_eq!(places(1, 0), (0, 0));
    }
}
