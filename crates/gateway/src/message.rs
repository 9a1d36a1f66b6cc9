//! Heads of requests and answers, the same for both versions of HTTP.

use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, Uri, Version};

use crate::fields::Fields;

/// What a request says before its body.
#[derive(Clone)]
pub(crate) struct RequestHead {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) version: Version,
    pub(crate) fields: Fields,
}

impl From<&Parts> for RequestHead {
    /// A request over HTTP/2.
    fn from(parts: &Parts) -> Self {
        Self {
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            version: parts.version,
            fields: Fields::from(&parts.headers),
        }
    }
}

/// An answer: the upstream's, or the one to the client.
pub(crate) struct Reply<B> {
    pub(crate) status: StatusCode,
    pub(crate) fields: Fields,
    pub(crate) body: B,
}

impl<B> Reply<B> {
    /// 200 without fields.
    pub(crate) fn new(body: B) -> Self {
        Self { status: StatusCode::OK, fields: Fields::new(), body }
    }

    /// The same with another body.
    pub(crate) fn map<C>(self, change: impl FnOnce(B) -> C) -> Reply<C> {
        Reply { status: self.status, fields: self.fields, body: change(self.body) }
    }
}

impl<B> From<http::Response<B>> for Reply<B> {
    /// An answer over HTTP/2.
    fn from(response: http::Response<B>) -> Self {
        let fields = Fields::from(response.headers());
        Self { status: response.status(), fields, body: response.into_body() }
    }
}

impl<B> From<Reply<B>> for http::Response<B> {
    fn from(reply: Reply<B>) -> Self {
        let headers: HeaderMap = reply.fields.to_map();
        let mut response = Self::new(reply.body);
        *response.status_mut() = reply.status;
        *response.headers_mut() = headers;
        response
    }
}
