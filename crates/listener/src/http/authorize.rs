//! `authorize`, `authrep` and their OAuth twins: may an application go on, and if so, count it.
//!
//! The order of checks is the contract (reference: Service Management API, section 1.3): those of the call itself are
//! here, those of the application in the engine. What is refused with an error is kept in the service's error list.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderValue, StatusCode};
use weir_core::credentials::{OauthCall, Redirect};
use weir_core::{Decision, Denial, ResponseCode, Secret};
use weir_store::Mode;

use super::caller::{Called, Caller};
use super::errors::keep_error;
use super::limit_headers::{LimitHeaders, Use};
use super::options::{Options, is_on_in_url};
use super::parameters::{Map, Parameters, Value, text_in};
use super::reply::{Answer, Refusal, answer, set_number, unavailable};
use super::usage::{self, ReadUsage};
use super::xml::Status;
use crate::engine::{Question, Shows, Verdict, Wishes};
use crate::server::Shared;
use crate::status::Failure;
use crate::trace::Parent;

/// Which of the four endpoints.
#[derive(Clone, Copy)]
pub(super) struct Endpoint {
    pub(super) mode: Mode,
    pub(super) is_oauth: bool,
}

/// What an endpoint was asked, as far as it is read.
struct Call<'a> {
    endpoint: Endpoint,
    parameters: Parameters<'a>,
    options: Options,
    has_body: bool,
}

/// Answers a call.
pub(super) async fn authorize(shared: &Arc<Shared>, head: &Parts, endpoint: Endpoint) -> Answer {
    let call = match Call::read(head, endpoint) {
        Ok(call) => call,
        // What cannot even be read is always told.
        Err(refusal) => return refusal.answer(),
    };
    match call.decide(shared, head).await {
        Ok(Ok(answer)) => answer,
        // There never was a code for this one, nor a document.
        Ok(Err(refusal)) if refusal.code.is_empty() => answer(refusal.status, ""),
        Ok(Err(refusal)) if call.has_body => refusal.answer(),
        Ok(Err(refusal)) => refusal.answer_without_body(),
        Err(failure) => unavailable(&failure),
    }
}

impl<'a> Call<'a> {
    fn read(head: &'a Parts, endpoint: Endpoint) -> Result<Self, Refusal> {
        let parameters = Parameters::of_query(head.uri.query().unwrap_or_default())?;
        let options = Options::read(&head.headers)?;
        if !parameters.is_utf8() {
            return Err(Refusal::not_valid_data());
        }
        let no_body = options.no_body.unwrap_or_else(|| is_on_in_url(parameters.text_of("no_body")));
        Ok(Self { endpoint, parameters, options, has_body: !no_body })
    }

    async fn decide(&self, shared: &Arc<Shared>, head: &Parts) -> Result<Result<Answer, Refusal>, Failure> {
        let caller = match self.caller(shared) {
            Ok(caller) => caller,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let found = caller.find(shared).await?;
        let shape = self.check_shape();
        let called = match (found, shape) {
            (Ok(called), Ok(())) => called,
            (Ok(called), Err(refusal)) => {
                keep_error(shared, &called.service.value.id, head, refusal.code, &refusal.text).await;
                return Ok(Err(refusal));
            }
            (Err(refusal), Ok(())) => return Ok(Err(refusal)),
            (Err(unknown), Err(refusal)) => {
                return Ok(Err(if caller.shows_token() { unknown } else { refusal }));
            }
        };
        let mut service = called.service.value.id.clone();
        let mut decided = self.ask(shared, called).await?;
        if matches!(&decided, Err(refusal) if refusal.code == Denial::ProviderKeyInvalid.code()) {
            // The record that decided is newer than the one that was found.
            let called = match caller.find_anew(shared).await? {
                Ok(called) => called,
                Err(refusal) => return Ok(Err(refusal)),
            };
            service = called.service.value.id.clone();
            decided = self.ask(shared, called).await?;
        }
        if let Err(refusal) = &decided {
            keep_error(shared, &service, head, refusal.code, &refusal.text).await;
        }
        Ok(decided)
    }

    fn caller(&self, shared: &Shared) -> Result<Caller<'_>, Refusal> {
        let [key, token, id] = ["provider_key", "service_token", "service_id"].map(|name| self.named(name));
        Caller::read(&shared.engine.hasher, key, token, id)
    }

    /// A parameter that nothing but blanks makes absent.
    fn named(&self, name: &str) -> Option<&str> {
        self.parameters.text_of(name).filter(|value| !value.trim().is_empty())
    }

    fn check_shape(&self) -> Result<(), Refusal> {
        if self.parameters.get("user_id").is_some() {
            return Err(Refusal::bad_request(
                "end_users_no_longer_supported",
                "there are no end users any more",
            ));
        }
        match self.parameters.get("usage") {
            None | Some(Value::Map(_)) => Ok(()),
            Some(_) => Err(Refusal::forbidden("", "")),
        }
    }

    async fn ask(&self, shared: &Arc<Shared>, called: Called) -> Result<Result<Answer, Refusal>, Failure> {
        let presented = match self.presented() {
            Ok(presented) => presented,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let oauth = presented.oauth.clone();
        let ReadUsage { usage, cut_short } = match self.parameters.get("usage") {
            Some(Value::Map(entries)) => usage::read(entries.iter().map(|(name, value)| (&**name, value))),
            _ => ReadUsage::default(),
        };
        let question = Question {
            request: shared.request_ids.next(),
            attempt: 0,
            service: called.service.value.id.clone(),
            proof: called.proof,
            credentials: weir_core::Presented::Parameters(presented),
            usage,
            wishes: Wishes {
                flat: self.options.flat_usage,
                metrics_first: !self.has_body,
                cut_short,
                shows: self.shows(),
                response_code: self.response_code(),
            },
            referrer: self.parameters.text_of("referrer").map(str::to_owned),
            mode: self.endpoint.mode,
            trace: Parent::read(None),
        };
        let verdict = shared.engine.decide(&question).await?;
        Ok(self.render(&question, &verdict, oauth.as_ref()))
    }

    fn presented(&self) -> Result<weir_core::Parameters, Refusal> {
        let (app_id, user_key) = (self.named("app_id"), self.named("user_key"));
        let is_oauth = self.endpoint.is_oauth;
        if is_oauth && app_id.is_none() {
            let text = "an app_id is needed";
            return Err(Refusal::new(StatusCode::NOT_FOUND, "application_not_found", text));
        }
        if app_id.is_some() && user_key.is_some() {
            let text = "app_id and user_key are both given";
            return Err(Refusal::forbidden("authentication_error", text));
        }
        let text = |name: &str| self.parameters.text_of(name).map(str::to_owned);
        let redirect =
            || text("redirect_url").map(Redirect::Url).or_else(|| text("redirect_uri").map(Redirect::Uri));
        Ok(weir_core::Parameters {
            user_key: user_key.filter(|_| !is_oauth).map(Secret::new),
            app_id: app_id.map(str::to_owned),
            app_key: self.parameters.text_of("app_key").map(|key| Secret::new(key.trim_matches(is_blank))),
            oauth: is_oauth.then(|| OauthCall { redirect: redirect() }),
        })
    }

    fn shows(&self) -> Shows {
        match (self.has_body, self.options.limit_headers) {
            (true, _) => Shows::All,
            (false, true) => Shows::Touched,
            (false, false) => Shows::Nothing,
        }
    }

    fn response_code(&self) -> Option<ResponseCode> {
        match self.parameters.get("log")? {
            Value::Map(log) => response_code(log),
            _ => None,
        }
    }

    fn render(
        &self,
        question: &Question,
        verdict: &Verdict,
        oauth: Option<&OauthCall>,
    ) -> Result<Answer, Refusal> {
        let denial = match &verdict.decision {
            Decision::Allow(_) => None,
            Decision::Deny(denial) => Some(denial),
        };
        if let Some(refusal) = denial.and_then(Refusal::of) {
            return Err(refusal);
        }
        let status = if denial.is_some() { StatusCode::CONFLICT } else { StatusCode::OK };
        let body = self.document(verdict, denial, oauth).unwrap_or_default();
        let mut answer = answer(status, body);
        if let (Some(denial), true) = (denial, self.options.rejection_reason_header) {
            answer.headers_mut().insert("3scale-rejection-reason", HeaderValue::from_static(denial.code()));
        }
        let tells_limits = matches!(denial, None | Some(Denial::LimitsExceeded(_)));
        if tells_limits && self.options.limit_headers {
            set_limit_headers(&mut answer, question, verdict);
        }
        Ok(answer)
    }

    fn document(
        &self,
        verdict: &Verdict,
        denial: Option<&Denial>,
        oauth: Option<&OauthCall>,
    ) -> Option<String> {
        if !self.has_body {
            return None;
        }
        let service = &verdict.service.as_ref()?.value;
        let application = &verdict.application.as_ref()?.value;
        let status = Status {
            denial,
            application,
            oauth,
            plan: service.plan(&application.plan).map_or("", |plan| plan.name.as_str()),
            limits: verdict.limits(),
            metrics: &service.metrics,
            lists_app_keys: self.options.list_app_keys,
            tells_hierarchy: self.options.hierarchy,
        };
        Some(status.document())
    }
}

/// What is taken off around an `app_key`: no other blank than those of ASCII.
fn is_blank(c: char) -> bool {
    c.is_ascii_whitespace() || c == '\u{b}'
}

/// How the upstream answered, as `log` says: nothing else of it is kept.
pub(super) fn response_code(log: &Map<'_>) -> Option<ResponseCode> {
    ResponseCode::parse(text_in(log, "code")?)
}

fn set_limit_headers(answer: &mut Answer, question: &Question, verdict: &Verdict) {
    let Some(service) = &verdict.service else { return };
    let metrics = &service.value.metrics;
    let gains = question.usage.expand(metrics).unwrap_or_default();
    let uses =
        gains.iter().map(|(metric, value)| Use { metric: &metrics.metric(*metric).name, value: *value });
    let uses: Vec<Use<'_>> = uses.collect();
    let headers = LimitHeaders::new(verdict.limits(), &uses, verdict.at);
    set_number(answer, "3scale-limit-remaining", headers.remaining);
    set_number(answer, "3scale-limit-reset", headers.reset_s);
    if headers.max.is_some() {
        set_number(answer, "3scale-limit-max-value", headers.max);
    }
}
