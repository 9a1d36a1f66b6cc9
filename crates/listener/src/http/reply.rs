//! The one place where an outcome becomes an answer of 3scale's API: codes, statuses and the headers of all answers.
//!
//! Reference: Service Management API, sections 1.1 and 1.8. Codes are contract, texts may change. Nothing here repeats
//! a key or token.

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName,
    RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use weir_core::Denial;

use super::parameters::ParameterError;
use super::xml;
use crate::status::Failure;

/// What an endpoint answers with.
pub(super) type Answer = Response<Full<Bytes>>;

const XML: HeaderValue = HeaderValue::from_static("application/vnd.3scale-v2.0+xml");
const EXPOSED: HeaderValue = HeaderValue::from_static("ETag, Link, 3scale-rejection-reason");
const ALLOWED_METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PATCH, PUT, DELETE");
const ALLOWED_HEADERS: HeaderValue = HeaderValue::from_static(
    "Authorization, Accept-Encoding, Content-Type, Cache-Control, Accept, If-Match, If-Modified-Since, \
     If-None-Match, If-Unmodified-Since, X-Requested-With, X-HTTP-Method-Override, 3scale-options",
);

/// An error of the API: a document with a code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    /// Empty: there is no document.
    pub(super) code: &'static str,
    pub(super) text: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &'static str, text: impl Into<String>) -> Self {
        Self { status, code, text: text.into() }
    }

    pub(super) fn forbidden(code: &'static str, text: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, text)
    }

    pub(super) fn bad_request(code: &'static str, text: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, text)
    }

    /// Bytes that are no text.
    pub(super) fn not_valid_data() -> Self {
        let text = "all names and values must be valid UTF-8";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "not_valid_data", text)
    }

    /// A refusal that is an error; `None`: it is an answer with a status of its own.
    pub(super) fn of(denial: &Denial) -> Option<Self> {
        let status = match denial {
            Denial::ApplicationNotFound | Denial::MetricInvalid(_) => StatusCode::NOT_FOUND,
            Denial::ProviderKeyInvalid
            | Denial::ServiceTokenInvalid
            | Denial::ServiceIdInvalid
            | Denial::UserKeyInvalid
            | Denial::UsageValueInvalid => StatusCode::FORBIDDEN,
            _ => return None,
        };
        Some(Self::new(status, denial.code(), denial.sentence()))
    }

    /// As it is sent.
    pub(super) fn answer(&self) -> Answer {
        self.answer_with(xml::error(self.code, &self.text))
    }

    /// As it is sent where no body is wanted.
    pub(super) fn answer_without_body(&self) -> Answer {
        self.answer_with(String::new())
    }

    fn answer_with(&self, body: String) -> Answer {
        let mut answer = answer(self.status, body);
        answer.headers_mut().remove(CONTENT_SECURITY_POLICY);
        answer
    }
}

impl From<ParameterError> for Refusal {
    fn from(error: ParameterError) -> Self {
        Self::bad_request("bad_request", &error.to_string())
    }
}

/// An answer with the headers that all have.
pub(super) fn answer(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::from(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.reserve(8);
    headers.insert(CONTENT_TYPE, XML);
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'self'"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// An answer of another kind.
pub(super) fn answer_of(content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = answer(StatusCode::OK, body);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// To a browser that asks whether a page may call.
pub(super) fn preflight() -> Answer {
    let mut answer = answer(StatusCode::NO_CONTENT, "");
    let headers = answer.headers_mut();
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS);
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS);
    answer
}

/// No decision could be made: the caller may ask again.
pub(super) fn unavailable(failure: &Failure) -> Answer {
    failure.log();
    let mut answer = answer(StatusCode::SERVICE_UNAVAILABLE, "the service is unavailable, try again");
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

/// Sets a header to a number; `None`: -1.
pub(super) fn set_number(answer: &mut Answer, name: &'static str, number: Option<u64>) {
    let value = number.map_or(HeaderValue::from_static("-1"), HeaderValue::from);
    answer.headers_mut().insert(HeaderName::from_static(name), value);
}
