//! How a gRPC call ended, which its HTTP status does not tell: that is 200 whatever happened.
//!
//! Read from the headers or trailers of an answer, the upstream's or the gateway's own; `access.rs` logs and counts
//! by it. Which code a refusal gets is decided in `reply/grpc.rs`.

use http::StatusCode;

use crate::fields;

/// The header or trailer that tells it.
pub(crate) const GRPC_STATUS: &str = "grpc-status";

/// One of the protocol's codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GrpcStatus(u8);

/// UNKNOWN: how clients read a code that the protocol does not have.
const UNKNOWN: u8 = 2;

/// Each code as a label, and the HTTP status that says the same.
const CODES: [(&str, StatusCode); 17] = [
    ("0", StatusCode::OK),
    ("1", StatusCode::BAD_REQUEST),
    ("2", StatusCode::INTERNAL_SERVER_ERROR),
    ("3", StatusCode::BAD_REQUEST),
    ("4", StatusCode::GATEWAY_TIMEOUT),
    ("5", StatusCode::NOT_FOUND),
    ("6", StatusCode::CONFLICT),
    ("7", StatusCode::FORBIDDEN),
    ("8", StatusCode::TOO_MANY_REQUESTS),
    ("9", StatusCode::BAD_REQUEST),
    ("10", StatusCode::CONFLICT),
    ("11", StatusCode::BAD_REQUEST),
    ("12", StatusCode::NOT_IMPLEMENTED),
    ("13", StatusCode::INTERNAL_SERVER_ERROR),
    ("14", StatusCode::SERVICE_UNAVAILABLE),
    ("15", StatusCode::INTERNAL_SERVER_ERROR),
    ("16", StatusCode::UNAUTHORIZED),
];

impl GrpcStatus {
    /// What the value of the header or trailer tells.
    pub(crate) fn read(value: &[u8]) -> Self {
        let told = fields::text(value).and_then(|text| text.parse().ok());
        Self(told.filter(|code| usize::from(*code) < CODES.len()).unwrap_or(UNKNOWN))
    }

    /// The code.
    pub(crate) fn code(self) -> u8 {
        self.0
    }

    /// The code as a label.
    pub(crate) fn label(self) -> &'static str {
        CODES[usize::from(self.0)].0
    }

    /// The HTTP status that says the same.
    pub(crate) fn equivalent(self) -> StatusCode {
        CODES[usize::from(self.0)].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(told: &'static str, label: &str, equivalent: u16) {
        let status = GrpcStatus::read(told.as_bytes());
        assert_eq!((status.label(), status.equivalent().as_u16()), (label, equivalent));
        assert_eq!(status.code().to_string(), label);
    }

    #[test]
    fn codes_have_their_like_in_http() {
        check("0", "0", 200);
        check("5", "5", 404);
        check("14", "14", 503);
        check("16", "16", 401);
        check("17", "2", 500);
        check("x", "2", 500);
    }

    #[test]
    fn labels_are_the_codes() {
        assert!(CODES.iter().enumerate().all(|(code, (label, _))| *label == code.to_string()));
    }
}
