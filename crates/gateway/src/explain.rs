//! Why a call is answered as it is: before it is made ([`Explainer::explain`]) and after it was refused
//! ([`Explainer::why`]).
//!
//! An explanation goes through the phases of a request ([`crate::proxy`]) with the same functions, asks the listener
//! whether the call may pass without counting it, and sends nothing upstream. Refusals are kept in a ring of fixed length,
//! as what they were made of; they become text when somebody asks. Neither holds a credential.

mod kept;
mod shown;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::StatusCode;
use http::header::REFERER;
use http_body_util::BodyExt;
use tokio::time::timeout;
use weir_core::arguments::{Arguments, FORM_BYTES_MAX};
use weir_core::network::Network;
use weir_core::{
    ApplicationId, ApplicationRef, Credentials, Decision, RequestIds, Timestamp, Usage, referrer,
};
use weir_proto::v1;

use crate::backend::{Question, is_hopeless};
use crate::fields;
use crate::form::{self, Ahead};
use crate::http1::{BodyReader, Found, HeadReader};
use crate::leases::Leases;
use crate::listener::Listener;
use crate::message::RequestHead;
use crate::policy::{self, Caller, Entered};
use crate::proxy::{self, Trail};
use crate::reply::{Denied, Refusal};
use crate::service::Service;
use crate::snapshot::Snapshot;
use crate::status::Status;
use crate::target::Target;

pub use self::kept::RefusalLog;
pub(crate) use self::kept::{Kept, Ring};
pub(crate) use self::shown::CredentialsShown;
pub use self::shown::Explanation;
use self::shown::{Decided, Shown};

/// Longest wait for a listener.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Explains calls of a gateway that runs.
#[derive(Clone, Default)]
pub struct Explainer(Arc<OnceLock<Running>>);

/// What an explanation is made of.
pub(crate) struct Running {
    pub(crate) snapshot: Snapshot,
    pub(crate) status: Status,
    pub(crate) leases: Arc<Leases>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) head_bytes_max: usize,
    pub(crate) refusals: Arc<Ring>,
}

/// Why there is no explanation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// The gateway does not run yet.
    #[error("the gateway has not started yet")]
    NotStarted,
    /// What was asked about has no end: it is no whole request.
    #[error("this is not a whole HTTP/1 request")]
    NotWhole,
    /// The application's name is none.
    #[error("this is not the id of an application")]
    Application,
}

impl Explainer {
    pub(crate) fn begin(&self, running: Running) {
        // Only one gateway is made of it.
        let _ = self.0.set(running);
    }

    /// What would become of a request, given as it is sent over HTTP/1; nothing is counted and nothing goes upstream.
    /// `application`: as if it were this one's, whatever credentials it shows.
    ///
    /// # Errors
    /// When there is nothing to explain.
    pub async fn explain(
        &self,
        request: Bytes,
        application: Option<&str>,
    ) -> Result<Explanation, ExplainError> {
        let running = self.0.get().ok_or(ExplainError::NotStarted)?;
        let parsed = application.map(str::parse::<ApplicationId>).transpose();
        let application = parsed.map_err(|_| ExplainError::Application)?;
        let mut reader = HeadReader::new(BytesMut::from(&request[..]), running.head_bytes_max);
        let mut shown = Shown::default();
        let (head, body) = match reader.take_head().ok_or(ExplainError::NotWhole)? {
            Found::Malformed(malformed, head) => {
                shown.method = head.method.to_string();
                return Ok(shown.refused(&Refusal::Malformed(malformed), Trail::default()));
            }
            Found::Request(head, framing) => (head, whole_body(framing.framing, &mut reader.held)),
        };
        shown.method = head.method.to_string();
        let mut trail = Trail::default();
        let judged = running.judge(&head, &body, application, &mut trail, &mut shown).await;
        Ok(match judged {
            Ok(Judged::Passes(upstream)) => shown.passes(upstream, trail),
            Ok(Judged::Answered(status)) => shown.answered(status, trail),
            Err(refusal) => shown.refused(&refusal, trail),
        })
    }

    /// Why a request was refused, by the id that its answer and the log show; `None`: it was not, or is forgotten.
    pub fn why(&self, id: &str) -> Option<Explanation> {
        self.0.get()?.refusals.find(id)
    }
}

/// As much of a body as came with its head.
fn whole_body(framing: crate::framing::Framing, held: &mut BytesMut) -> Vec<u8> {
    let Some((mut reader, mut body)) = BodyReader::begin(framing) else { return vec![] };
    let mut read = Vec::new();
    while !reader.is_broken() && read.len() <= FORM_BYTES_MAX {
        let has_fed = reader.feed(held);
        match body.frame().now_or_never() {
            Some(Some(Ok(frame))) => read.extend(frame.into_data().unwrap_or_default()),
            Some(_) => break,
            None if !has_fed => break,
            None => {}
        }
    }
    read
}

impl Running {
    /// What becomes of a request that nothing refuses.
    async fn judge(
        &self,
        head: &RequestHead,
        body: &[u8],
        application: Option<ApplicationId>,
        trail: &mut Trail,
        shown: &mut Shown,
    ) -> Result<Judged, Refusal> {
        let target = Target::read(head).map_err(Refusal::Target)?;
        shown.path = target.path.to_owned();
        trail.host = target.host();
        let routes = self.snapshot.load();
        let (service, path) = proxy::route(&routes, &self.status, head, &target, trail.host.as_deref())?;
        trail.service = Some(Arc::clone(&service));
        let caller =
            Caller { head, path: &path.decoded, query: target.query, host: target.authority, request_id: "" };
        let address = asked_address(head);
        let rewritten = match proxy::enter(trail, &service, caller, &path.target, (address, true))? {
            Entered::Goes(rewritten) => rewritten,
            Entered::Answered(reply) => return Ok(Judged::Answered(reply.status)),
        };
        let read = rewritten.as_ref().map(|url| url.read()).transpose()?;
        let (path, query) = read.as_ref().map_or((&path, target.query), |(path, query)| (path, *query));
        let ahead = ahead(head, body);
        let arguments = Arguments { query: query.unwrap_or_default(), form: ahead.form() };
        let found = match application {
            Some(_) => None,
            None => Some(proxy::credentials(&service, head, arguments, trail)?.check(&service).await?),
        };
        let (credentials, claims) = found.map_or((None, None), |(shown, claims)| (Some(shown), claims));
        trail.backend = service.rules.backend_of(&path.decoded);
        trail.matched = proxy::matched(&service, trail.backend, head, path, arguments)?;
        let caller = Caller { path: &path.decoded, query, ..caller };
        let upstream = proxy::choose_upstream(trail, &service, (credentials.as_ref(), claims), caller)?;
        proxy::check_length(trail, &service, head, &ahead)?;
        let below = service.path_for(trail.backend, path);
        let onward = proxy::upstream_target(trail, &service, upstream, below, caller)?;
        let url = format!("{}{onward}", upstream.url.origin);
        let by = match (application, credentials) {
            (Some(id), _) => By::Application(id),
            (None, Some(credentials)) => By::Credentials(credentials),
            (None, None) => return Err(Refusal::Broken),
        };
        let asked = Asked { service: &service, caller: &by, usage: &trail.matched.usage, head };
        let decided = self.decide(&asked, shown).await;
        decided.map(|()| Judged::Passes(url))
    }

    /// Whether a call may pass, and where its limits stand.
    async fn decide(&self, asked: &Asked<'_>, shown: &mut Shown) -> Result<(), Refusal> {
        let Asked { service, caller, usage, head } = asked;
        let referrer = head.fields.get(REFERER).and_then(fields::text).and_then(referrer::of_client);
        let denied = |denial, at| {
            Refusal::Denied(Denied { service: Arc::clone(service), denial, at, application: None })
        };
        // As for a call itself, the lease comes first: asking a listener might recall it.
        if let By::Credentials(credentials) = caller {
            let id = RequestIds::new([0; 8]).next();
            let question = Question { id, service, credentials, usage, referrer, trace: None };
            if let Some((application, foreseen)) = self.leases.foresee(&question) {
                shown.decided = Some(Decided::Lease);
                shown.limits = self.limits(&application, usage).await;
                shown.application = Some(application);
                return foreseen.map_err(|denial| denied(denial, proxy::now()));
            }
        }
        let Some(decision) = self.ask(asked, referrer).await? else {
            shown.decided = Some(Decided::Nobody);
            let passes = service.proxy.when_away == weir_core::proxy::WhenAway::Allow;
            return if passes { Ok(()) } else { Err(Refusal::Unavailable) };
        };
        shown.decided = Some(Decided::Listener);
        if let Ok(application) = decision.application_id.parse() {
            let application = ApplicationRef { service: service.id.clone(), application };
            // An admission names the limits that the call touches; of a refusal any may be the reason.
            let touched = &decision.limits;
            let is_touched = |counter: &v1::Counter| {
                touched.iter().any(|l| (&l.metric, l.period) == (&counter.metric, counter.period))
            };
            shown.limits = self.limits(&application, usage).await;
            shown.limits.retain(|counter| touched.is_empty() || is_touched(counter));
            shown.application = Some(application);
        }
        let at = Timestamp::from_unix_ms(decision.decided_at_unix_ms);
        match Decision::try_from(&decision) {
            Ok(Decision::Allow(_)) => Ok(()),
            Ok(Decision::Deny(denial)) => Err(denied(denial, at)),
            Err(_) => Err(Refusal::Undecided(Arc::clone(service))),
        }
    }

    /// What the first listener says that decides; `None`: none answers.
    async fn ask(&self, asked: &Asked<'_>, referrer: Option<&str>) -> Result<Option<v1::Decision>, Refusal> {
        let (credentials, app_id) = match asked.caller {
            By::Credentials(credentials) => (Some(credentials.into()), String::new()),
            By::Application(id) => (None, id.to_string()),
        };
        let request = v1::AuthorizeRequest {
            service_id: asked.service.id.to_string(),
            credentials,
            usage: v1::UsageEntry::list(asked.usage),
            referrer: referrer.map(str::to_owned),
            app_id,
        };
        for listener in &self.listeners {
            let mut client = listener.authorization();
            let asking = client.authorize(listener.signed(request.clone()));
            match timeout(TIMEOUT, asking).await {
                Ok(Ok(answer)) => return Ok(Some(answer.into_inner())),
                // As for a call itself: no other would take the question either.
                Ok(Err(status)) if is_hopeless(status.code()) => return Err(Refusal::Unavailable),
                Ok(Err(_)) | Err(_) => {}
            }
        }
        Ok(None)
    }

    /// All limits of the application's plan, where the call uses anything.
    async fn limits(&self, application: &ApplicationRef, usage: &Usage) -> Vec<v1::Counter> {
        if usage.is_empty() {
            return vec![];
        }
        let request = v1::UsageRequest {
            service_id: application.service.to_string(),
            app_id: application.application.to_string(),
            metrics: vec![],
        };
        for listener in &self.listeners {
            let mut client = listener.authorization();
            let asking = client.usage(listener.signed(request.clone()));
            if let Ok(Ok(answer)) = timeout(TIMEOUT, asking).await {
                let mut counters = answer.into_inner().counters;
                counters.retain(|counter| counter.max.is_some());
                return counters;
            }
        }
        vec![]
    }
}

/// What becomes of a request that nothing refuses.
enum Judged {
    /// It goes to this URL.
    Passes(String),
    /// A policy answers it.
    Answered(StatusCode),
}

/// The address that a request would come from: whoever asks may say it, as a proxy would.
fn asked_address(head: &RequestHead) -> IpAddr {
    let everybody = ["0.0.0.0/0", "::/0"].map(str::parse::<Network>).into_iter().flatten();
    policy::client_address(IpAddr::V4(Ipv4Addr::LOCALHOST), &everybody.collect::<Vec<_>>(), &head.fields)
}

/// Who calls.
enum By {
    Credentials(Credentials),
    Application(ApplicationId),
}

/// What is to be decided.
struct Asked<'a> {
    service: &'a Arc<Service>,
    caller: &'a By,
    usage: &'a Usage,
    head: &'a RequestHead,
}

fn ahead(head: &RequestHead, body: &[u8]) -> Ahead {
    let is_form = !body.is_empty() && form::may_be_searched(head) && body.len() <= FORM_BYTES_MAX;
    Ahead { bytes: Bytes::copy_from_slice(body), is_form }
}
