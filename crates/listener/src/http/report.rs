//! `POST /transactions.xml`: usage that has happened, counted before it is answered.
//!
//! The order of checks is the contract (reference: Service Management API, section 1.6). A transaction that cannot be
//! voids its report; the caller has its 202 all the same and finds the reason in the service's error list. Sent again
//! with the same `Idempotency-Key`, a report is not counted again.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use hyper::body::Incoming;
use weir_core::Secret;
use weir_store::StoreError;

use super::authorize::response_code;
use super::caller::{Called, Caller};
use super::errors::keep_error;
use super::form::{self, BodyError, Kind};
use super::options::{Options, is_on_in_url};
use super::parameters::{Map, Parameters, Value, text_in};
use super::reply::{Answer, Refusal, answer, unavailable};
use super::{timestamp, usage};
use crate::engine::{Booking, Fault, ReportError, Reported, Transaction};
use crate::server::Shared;
use crate::status::Failure;

/// The header that names a report.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Its longest value.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// Answers a report.
pub(super) async fn report(shared: &Arc<Shared>, head: &Parts, body: Incoming) -> Answer {
    match receive(shared, head, body).await {
        Ok(Ok(())) => answer(StatusCode::ACCEPTED, ""),
        Ok(Err((refusal, true))) => refusal.answer(),
        Ok(Err((refusal, false))) => refusal.answer_without_body(),
        Err(failure) => unavailable(&failure),
    }
}

/// A refusal, and whether it has a body.
type Refused = (Refusal, bool);

async fn receive(shared: &Arc<Shared>, head: &Parts, body: Incoming) -> Result<Result<(), Refused>, Failure> {
    // What cannot even be read is always told.
    let told = |refusal| Ok(Err((refusal, true)));
    let kind = match Kind::of(&head.headers) {
        Ok(kind) => kind,
        Err(refusal) => return told(refusal),
    };
    let body = match form::collect(&shared.bodies, body).await {
        Ok(body) => body,
        Err(BodyError::Refused(refusal)) => return told(refusal),
        Err(BodyError::Busy) => return Err(StoreError::Busy.into()),
    };
    let sent = match read(head, &kind, &body.bytes).await {
        Ok(sent) => sent,
        Err(refusal) => return told(refusal),
    };
    let taken = take(shared, head, &sent).await?;
    Ok(taken.map_err(|refusal| {
        let has_body = sent.has_body || refusal.code == Refusal::not_valid_data().code;
        (refusal, has_body)
    }))
}

/// What was sent, as far as it can be read.
struct Sent<'a> {
    parameters: Parameters<'a>,
    options: Options,
    has_body: bool,
}

/// The transactions of a form, without who reports them.
#[cfg(fuzzing)]
pub(crate) async fn read_transactions(
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Vec<Transaction>, Refusal> {
    let parameters = Kind::of(headers)?.read(body).await?;
    idempotency_key(headers)?;
    transactions(&parameters, Options::read(headers)?)
}

/// Query and form, which wins.
async fn read<'a>(head: &'a Parts, kind: &Kind, body: &'a Bytes) -> Result<Sent<'a>, Refusal> {
    let mut parameters = Parameters::of_query(head.uri.query().unwrap_or_default())?;
    let no_body = is_on_in_url(parameters.text_of("no_body"));
    parameters.extend(kind.read(body).await?);
    let options = Options::read(&head.headers)?;
    Ok(Sent { parameters, options, has_body: !options.no_body.unwrap_or(no_body) })
}

async fn take(shared: &Arc<Shared>, head: &Parts, sent: &Sent<'_>) -> Result<Result<(), Refusal>, Failure> {
    let caller = match caller(shared, &sent.parameters) {
        Ok(caller) => caller,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let found = caller.find(shared).await?;
    if let (Err(refusal), true) = (&found, caller.shows_token()) {
        return Ok(Err(refusal.clone()));
    }
    let read = transactions(&sent.parameters, sent.options)
        .and_then(|transactions| Ok((transactions, idempotency_key(&head.headers)?)));
    match (read, found) {
        (Err(refusal), _) | (Ok(_), Err(refusal)) => Ok(Err(refusal)),
        (Ok((transactions, key)), Ok(called)) => count(shared, head, &called, key, &transactions).await,
    }
}

async fn count(
    shared: &Arc<Shared>,
    head: &Parts,
    called: &Called,
    idempotency_key: Vec<u8>,
    transactions: &[Transaction],
) -> Result<Result<(), Refusal>, Failure> {
    if transactions.is_empty() {
        return Ok(Ok(()));
    }
    let service = &called.service.value.id;
    let booking = Booking { idempotency_id: idempotency_key, gives_back: false };
    let report = shared.engine.report(service, &called.proof, booking, transactions);
    match report.await {
        Ok(_) => Ok(Ok(())),
        Err(ReportError::Transaction { place, fault }) => {
            keep_error(shared, service, head, fault.code(), &told(place, &fault)).await;
            Ok(Ok(()))
        }
        Err(ReportError::Denied(denial)) => {
            let refusal = Refusal::of(&denial);
            Ok(Err(refusal.unwrap_or_else(|| Refusal::forbidden(denial.code(), &denial.sentence()))))
        }
        Err(ReportError::Failure(failure)) => Err(failure),
    }
}

fn told(place: usize, fault: &Fault) -> String {
    format!("transaction {} of the report, nothing of which is counted: {}", place + 1, fault.sentence())
}

/// Nothing is trimmed here, and what is empty is not there.
fn caller<'a>(shared: &Shared, parameters: &'a Parameters<'_>) -> Result<Caller<'a>, Refusal> {
    let [key, token, id] = ["provider_key", "service_token", "service_id"]
        .map(|name| parameters.text_of(name).filter(|value| !value.is_empty()));
    Caller::read(&shared.engine.hasher, key, token, id)
}

fn idempotency_key(headers: &HeaderMap) -> Result<Vec<u8>, Refusal> {
    let key = headers.get(IDEMPOTENCY_KEY).map(|value| value.as_bytes().to_vec()).unwrap_or_default();
    if key.len() > IDEMPOTENCY_KEY_BYTES_MAX {
        let text = format!("the Idempotency-Key is longer than {IDEMPOTENCY_KEY_BYTES_MAX} bytes");
        return Err(Refusal::bad_request("bad_request", &text));
    }
    Ok(key)
}

/// Those that use something.
fn transactions(parameters: &Parameters<'_>, options: Options) -> Result<Vec<Transaction>, Refusal> {
    if !parameters.is_utf8() {
        return Err(Refusal::not_valid_data());
    }
    let members = members(parameters)?;
    if members.values().any(|member| *member == Value::Absent) {
        return Err(Refusal::bad_request(
            "transactions_has_nil_transaction",
            "one of the transactions is empty",
        ));
    }
    let mut read = Vec::with_capacity(members.len());
    for member in members.values() {
        let Value::Map(member) = member else { return Err(no_transaction()) };
        if member.get("user_id").is_some_and(|id| *id != Value::Absent) {
            let text = "there are no end users any more";
            return Err(Refusal::bad_request("end_users_no_longer_supported", text));
        }
        read.extend(transaction(member, options)?);
    }
    Ok(read)
}

fn no_transaction() -> Refusal {
    let text = "each of the transactions needs parameters of its own, and a usage by metric";
    Refusal::bad_request("transactions_format_invalid", text)
}

fn members<'m, 'a>(parameters: &'m Parameters<'a>) -> Result<&'m Map<'a>, Refusal> {
    let blank = || Refusal::bad_request("transactions_is_blank", "there are no transactions");
    match parameters.get("transactions").ok_or_else(blank)? {
        Value::Map(members) if members.is_empty() => Err(blank()),
        Value::Map(members) => Ok(members),
        Value::Text(text) if text.trim().is_empty() => Err(blank()),
        _ => Err(Refusal::bad_request("transactions_format_invalid", "the transactions have no labels")),
    }
}

/// `None`: nothing is used in it.
fn transaction(member: &Map<'_>, options: Options) -> Result<Option<Transaction>, Refusal> {
    let read = match member.get("usage") {
        None | Some(Value::Absent) => usage::ReadUsage::default(),
        Some(Value::Map(entries)) => {
            let is_used = |(_, value): &(&str, &Value<'_>)| **value != Value::Text("0".into());
            let used = entries.iter().map(|(name, value)| (&**name, value)).filter(is_used);
            if used.clone().next().is_none() {
                return Ok(None);
            }
            usage::read(used)
        }
        Some(_) => return Err(no_transaction()),
    };
    let code = match member.get("log") {
        Some(Value::Map(log)) => response_code(log),
        _ => None,
    };
    Ok(Some(Transaction {
        application: reported(member),
        usage: read.usage,
        flat: options.flat_usage,
        cut_short: read.cut_short.map(|cut_short| cut_short.denial),
        response_code: code,
        at: text_in(member, "timestamp").and_then(timestamp::parse),
    }))
}

fn reported(member: &Map<'_>) -> Reported {
    match (text_in(member, "app_id"), text_in(member, "user_key")) {
        (Some(_), Some(_)) => Reported::Both,
        (Some(id), None) => Reported::AppId(id.to_owned()),
        (None, Some(key)) => Reported::UserKey(Secret::new(key)),
        (None, None) => Reported::Nothing,
    }
}
