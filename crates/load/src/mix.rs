//! Who calls what: callers and calls in groups, each with its weight, and the request that comes of a choice.
//!
//! A group is what belongs together: the calls of one service (or of one of its plans) and the applications that make
//! them. Everything that does not differ from request to request is prepared when the mix is made.

use base64::Engine;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, TE, USER_AGENT as USER_AGENT_HEADER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use http_body_util::Full;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use weir_core::proxy::{CredentialLocation, CredentialNames};
use weir_core::{ApplicationId, Credentials, MetricName, Secret, ServiceId};
use weir_proto::v1;

use crate::answer::Expected;
use crate::connect::{Connector, USER_AGENT};
use crate::random::Random;
use crate::template::{PathTemplate, Template};

/// Characters that need no escape in a query argument.
const ARGUMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Callers and the calls they make.
#[derive(Debug, Clone)]
pub struct Group {
    /// How often it is chosen, compared with other groups; at least 1.
    pub weight: u32,
    /// Which service, where that is known: for decisions and for comparing counters.
    pub service: Option<ServiceId>,
    /// What opens 3scale's API for the service; needed for nothing else.
    pub proof: Option<Proof>,
    /// The host that requests name; without it the target's.
    pub host: Option<String>,
    /// Who calls; empty: requests go without credentials.
    pub callers: Vec<Caller>,
    /// What they call; at least one.
    pub calls: Vec<Call>,
}

/// What a caller of 3scale's API proves itself with.
#[derive(Debug, Clone)]
pub enum Proof {
    /// Good for all services of a provider.
    ProviderKey(Secret),
    /// Good for one service.
    ServiceToken(Secret),
}

/// A call as it is made again and again.
#[derive(Debug, Clone)]
pub struct Call {
    /// What reports call it.
    pub name: String,
    /// How often it is chosen, compared with others of the group; at least 1.
    pub weight: u32,
    /// HTTP or gRPC.
    pub kind: CallKind,
    /// Path, and query without credentials.
    pub path: PathTemplate,
    /// Beside those that every request has.
    pub headers: Vec<(HeaderName, Template)>,
    /// What a gateway asks for on its behalf: what it adds to which metric when it is admitted.
    pub usage: Vec<(MetricName, u64)>,
    /// The counters that rise by it, as far as they are known: its usage, perhaps that of parents as well.
    pub counted: Vec<(MetricName, u64)>,
    /// Answers that are no error.
    pub expected: Expected,
}

/// What a call is made of, beside its path.
#[derive(Debug, Clone)]
pub enum CallKind {
    /// Any HTTP request.
    Http {
        /// Its method.
        method: Method,
        /// Its body.
        body: Template,
    },
    /// A unary gRPC call; see [`CallKind::grpc`].
    Grpc(Bytes),
}

impl CallKind {
    /// A gRPC call with this message, as gRPC frames it: not compressed, its length, the message.
    ///
    /// # Panics
    /// When it is 4 GiB long.
    pub fn grpc(message: &[u8]) -> Self {
        let length = u32::try_from(message.len()).expect("messages are far smaller");
        Self::Grpc([&[0], length.to_be_bytes().as_slice(), message].concat().into())
    }
}

/// Someone who calls.
#[derive(Debug, Clone)]
pub struct Caller {
    weight: u32,
    application: Option<ApplicationId>,
    credentials: Credentials,
    arguments: String,
    headers: HeaderMap,
}

/// Why credentials cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallerError {
    /// A character that no header carries.
    #[error("has a character that no header can carry")]
    Character,
    /// A verified token would be needed.
    #[error("cannot be sent: a client id needs a token")]
    ClientId,
}

impl Caller {
    /// Someone with credentials, which are sent where a service's gateway looks for them.
    ///
    /// # Errors
    /// When they cannot be sent there.
    pub fn new(
        weight: u32,
        application: Option<ApplicationId>,
        credentials: Credentials,
        location: CredentialLocation,
        names: &CredentialNames,
    ) -> Result<Self, CallerError> {
        let named = match &credentials {
            Credentials::UserKey(key) => vec![(names.user_key.as_str(), key.expose())],
            Credentials::AppIdAndKey { app_id, app_key } => {
                let app_key = app_key.as_ref().map_or("", |key| key.expose());
                vec![(names.app_id.as_str(), app_id.as_str()), (names.app_key.as_str(), app_key)]
            }
            Credentials::ClientId(_) | Credentials::Anonymous(_) => return Err(CallerError::ClientId),
        };
        let mut arguments = String::new();
        let mut headers = HeaderMap::new();
        match location {
            CredentialLocation::Query => {
                let encoded = |(name, value): &(&str, &str)| {
                    format!(
                        "{}={}",
                        utf8_percent_encode(name, ARGUMENT),
                        utf8_percent_encode(value, ARGUMENT)
                    )
                };
                arguments = named.iter().map(encoded).collect::<Vec<_>>().join("&");
            }
            CredentialLocation::Headers => {
                for (name, value) in named {
                    let name: HeaderName = name.parse().map_err(|_| CallerError::Character)?;
                    headers.insert(name, sensitive(value)?);
                }
            }
            CredentialLocation::Authorization => {
                let value = match named.as_slice() {
                    [(_, key)] => format!("{key}:"),
                    pair => pair.iter().map(|(_, value)| *value).collect::<Vec<_>>().join(":"),
                };
                let encoded = base64::engine::general_purpose::STANDARD.encode(value);
                headers.insert(AUTHORIZATION, sensitive(&format!("Basic {encoded}"))?);
            }
        }
        Ok(Self { weight, application, credentials, arguments, headers })
    }

    /// Whose credentials these are, where that is known.
    pub fn application(&self) -> Option<&ApplicationId> {
        self.application.as_ref()
    }
}

fn sensitive(text: &str) -> Result<HeaderValue, CallerError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| CallerError::Character)?;
    value.set_sensitive(true);
    Ok(value)
}

/// All groups, ready to be chosen from.
#[derive(Debug)]
pub struct Mix {
    groups: Vec<Prepared>,
    weights: Weights,
}

#[derive(Debug)]
struct Prepared {
    group: Group,
    callers: Weights,
    calls: Weights,
    /// Number of its first call among the calls of all groups.
    first_call: usize,
}

/// What one request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Choice {
    group: u32,
    /// Counts within the group; none where the group has no callers.
    caller: Option<u32>,
    /// Counts through all groups.
    pub(crate) call: u32,
}

impl Mix {
    /// From groups, each with calls.
    pub fn new(groups: Vec<Group>) -> Self {
        let weights = Weights::new(groups.iter().map(|group| group.weight));
        let mut first_call = 0;
        let prepare = |group: Group| {
            let prepared = Prepared {
                callers: Weights::new(group.callers.iter().map(|caller| caller.weight)),
                calls: Weights::new(group.calls.iter().map(|call| call.weight)),
                first_call,
                group,
            };
            first_call += prepared.group.calls.len();
            prepared
        };
        Self { groups: groups.into_iter().map(prepare).collect(), weights }
    }

    /// The calls of all groups.
    pub fn calls(&self) -> impl Iterator<Item = &Call> {
        self.groups.iter().flat_map(|prepared| &prepared.group.calls)
    }

    /// The groups.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter().map(|prepared| &prepared.group)
    }

    /// Draws a request.
    pub(crate) fn choose(&self, random: &mut Random) -> Choice {
        let group = self.weights.draw(random);
        let prepared = &self.groups[group];
        let narrow = |at: usize| u32::try_from(at).expect("mixes are far smaller");
        let has_callers = !prepared.group.callers.is_empty();
        Choice {
            group: narrow(group),
            caller: has_callers.then(|| narrow(prepared.callers.draw(random))),
            call: narrow(prepared.first_call + prepared.calls.draw(random)),
        }
    }

    fn group_of(&self, choice: Choice) -> &Prepared {
        &self.groups[choice.group as usize]
    }

    /// The call that was chosen.
    pub(crate) fn call(&self, choice: Choice) -> &Call {
        let prepared = self.group_of(choice);
        &prepared.group.calls[choice.call as usize - prepared.first_call]
    }

    fn caller(&self, choice: Choice) -> Option<&Caller> {
        Some(&self.group_of(choice).group.callers[choice.caller? as usize])
    }

    /// Service and application of a request, where both are known.
    pub(crate) fn application(&self, choice: Choice) -> Option<(&ServiceId, &ApplicationId)> {
        self.group_of(choice).group.service.as_ref().zip(self.caller(choice)?.application.as_ref())
    }

    /// The request that was chosen, as it goes to a target.
    pub(crate) fn request(
        &self,
        choice: Choice,
        random: &mut Random,
        connector: &Connector,
        is_http2: bool,
    ) -> Request<Full<Bytes>> {
        let (call, caller) = (self.call(choice), self.caller(choice));
        let host = self.group_of(choice).group.host.as_deref().unwrap_or(connector.authority());
        let path = call.path.render(random, caller.map_or("", |caller| &caller.arguments));
        let mut request = Request::new(Full::default());
        let headers = request.headers_mut();
        headers.insert(USER_AGENT_HEADER, HeaderValue::from_static(USER_AGENT));
        let mut text = String::new();
        for (name, template) in &call.headers {
            text.clear();
            template.render(random, &mut text);
            headers.append(name, HeaderValue::from_str(&text).expect("checked when the mix was read"));
        }
        if let Some(caller) = caller {
            headers.extend(caller.headers.clone());
        }
        let uri = if is_http2 {
            format!("{}://{host}{path}", connector.scheme())
        } else {
            headers.insert(HOST, HeaderValue::from_str(host).expect("checked when the mix was read"));
            path
        };
        *request.uri_mut() = uri.try_into().expect("checked when the mix was read");
        match &call.kind {
            CallKind::Http { method, body } => {
                *request.method_mut() = method.clone();
                let mut text = String::new();
                body.render(random, &mut text);
                *request.body_mut() = Full::from(text);
            }
            CallKind::Grpc(message) => {
                *request.method_mut() = Method::POST;
                let headers = request.headers_mut();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                headers.insert(TE, HeaderValue::from_static("trailers"));
                *request.body_mut() = Full::new(message.clone());
            }
        }
        request
    }

    /// What a gateway would ask a listener about the request.
    pub(crate) fn question(&self, choice: Choice, request_id: Vec<u8>) -> v1::AuthRepRequest {
        let add = |(metric, by): &(MetricName, u64)| v1::UsageEntry {
            metric: metric.to_string(),
            value: Some(v1::usage_entry::Value::Add(*by)),
        };
        let service = self.group_of(choice).group.service.as_ref();
        v1::AuthRepRequest {
            request_id,
            attempt: 0,
            service_id: service.map(ToString::to_string).unwrap_or_default(),
            credentials: self.caller(choice).map(|caller| (&caller.credentials).into()),
            usage: self.call(choice).usage.iter().map(add).collect(),
            referrer: None,
            trace_context: None,
        }
    }
}

/// Draws places, each as often as its weight says.
#[derive(Debug)]
struct Weights(Vec<u64>);

impl Weights {
    fn new(weights: impl Iterator<Item = u32>) -> Self {
        let mut sum = 0;
        let add = |weight: u32| {
            sum += u64::from(weight);
            sum
        };
        Self(weights.map(add).collect())
    }

    fn draw(&self, random: &mut Random) -> usize {
        match self.0.as_slice() {
            [] | [_] => 0,
            sums => {
                let at = random.below(sums[sums.len() - 1]);
                sums.partition_point(|sum| *sum <= at)
            }
        }
    }
}

mod authrep;
#[cfg(test)]
mod tests;
