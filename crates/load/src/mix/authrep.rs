//! Authreps of 3scale's API: what a client of that API would ask about a call.
//!
//! Where a service's gateway looks for credentials does not matter here: the API has names of its own for them.

use std::fmt::Write;

use bytes::Bytes;
use http::header::{HOST, USER_AGENT as USER_AGENT_HEADER};
use http::{HeaderName, HeaderValue, Request, Uri};
use http_body_util::Full;
use percent_encoding::utf8_percent_encode;
use weir_core::Credentials;

use super::{ARGUMENT, Call, Choice, Group, Mix, Proof};
use crate::connect::{Connector, USER_AGENT};

const PATH: &str = "/transactions/authrep.xml?";
/// Longest target of a request; neither a URI nor the listener's line holds more than 64 KiB.
const TARGET_BYTES_MAX: usize = 60 << 10;
const OPTIONS: HeaderName = HeaderName::from_static("3scale-options");
/// Reasons tell limits from other refusals.
const WITH_BODY: HeaderValue = HeaderValue::from_static("rejection_reason_header=1");
const WITHOUT_BODY: HeaderValue = HeaderValue::from_static("rejection_reason_header=1&no_body=1");

impl Mix {
    /// The authrep about the request that was chosen.
    pub(crate) fn authrep(
        &self,
        choice: Choice,
        connector: &Connector,
        has_body: bool,
    ) -> Request<Full<Bytes>> {
        let uri: Uri = self
            .authrep_target(choice)
            .try_into()
            .expect("all in it is escaped, and `authreps_fit` was asked");
        let mut request = Request::new(Full::default());
        *request.uri_mut() = uri;
        let host = HeaderValue::from_str(connector.authority()).expect("it was part of a URL");
        let headers = request.headers_mut();
        headers.insert(HOST, host);
        headers.insert(USER_AGENT_HEADER, HeaderValue::from_static(USER_AGENT));
        headers.insert(OPTIONS, if has_body { WITH_BODY } else { WITHOUT_BODY });
        request
    }

    /// Whether each authrep that may be chosen fits into the line of a request.
    pub fn authreps_fit(&self) -> bool {
        self.groups().all(|group| {
            let length = |write: &dyn Fn(&mut String)| {
                let mut text = String::new();
                write(&mut text);
                text.len()
            };
            let service = length(&|target| put_service(target, group));
            let callers =
                group.callers.iter().map(|c| length(&|target| put_credentials(target, &c.credentials)));
            let calls = group.calls.iter().map(|call| length(&|target| put_usage(target, call)));
            let longest = service + callers.max().unwrap_or_default() + calls.max().unwrap_or_default();
            PATH.len() + longest <= TARGET_BYTES_MAX
        })
    }

    fn authrep_target(&self, choice: Choice) -> String {
        let mut target = PATH.to_owned();
        put_service(&mut target, &self.group_of(choice).group);
        if let Some(caller) = self.caller(choice) {
            put_credentials(&mut target, &caller.credentials);
        }
        put_usage(&mut target, self.call(choice));
        target
    }
}

fn put_service(target: &mut String, group: &Group) {
    match &group.proof {
        Some(Proof::ProviderKey(key)) => put(target, "provider_key", key.expose()),
        Some(Proof::ServiceToken(token)) => put(target, "service_token", token.expose()),
        None => {}
    }
    if let Some(service) = &group.service {
        put(target, "service_id", service.as_str());
    }
}

fn put_credentials(target: &mut String, credentials: &Credentials) {
    match credentials {
        Credentials::UserKey(key) => put(target, "user_key", key.expose()),
        Credentials::AppIdAndKey { app_id, app_key } => {
            put(target, "app_id", app_id);
            if let Some(key) = app_key {
                put(target, "app_key", key.expose());
            }
        }
        Credentials::ClientId(id) | Credentials::Anonymous(id) => put(target, "app_id", id),
    }
}

fn put_usage(target: &mut String, call: &Call) {
    for (metric, by) in &call.usage {
        let name = utf8_percent_encode(metric.as_str(), ARGUMENT);
        // Writing to a string cannot fail.
        let _ = write!(target, "usage%5B{name}%5D={by}&");
    }
}

/// Each argument ends in a separator, which the last may do, too.
fn put(target: &mut String, name: &str, value: &str) {
    let value = utf8_percent_encode(value, ARGUMENT);
    // Writing to a string cannot fail.
    let _ = write!(target, "{name}={value}&");
}
