//! Authorize, Report, AuthRep and Cancel as unary calls; AuthRepStream is next door.

use std::sync::Arc;

use tonic::{Request, Response, Status, Streaming};
use weir_core::{MetricName, Presented, Proof, Secret, ServiceId, Timestamp, UsageValue};
use weir_proto::v1::authorization_server::Authorization;
use weir_proto::{FieldError, REQUEST_ID_BYTES, USAGE_ENTRIES_MAX, v1};
use weir_store::{Mode, RequestId};

use super::stream;
use crate::caller;
use crate::config::GatewayToken;
use crate::engine::{
    Booking, Fault, Question, ReportError, Reported, Standing, Transaction, Verdict, Wishes,
};
use crate::server::Shared;
use crate::status::Failure;
use crate::trace::Parent;

/// Most transactions in a report.
const TRANSACTIONS_MAX: usize = 4_096;

/// Longest idempotency id of a report.
const IDEMPOTENCY_ID_BYTES_MAX: usize = 64;

/// Longest referrer.
const REFERRER_BYTES_MAX: usize = 4_096;

pub(crate) struct Service(pub(crate) Arc<Shared>);

#[tonic::async_trait]
impl Authorization for Service {
    async fn authorize(
        &self,
        request: Request<v1::AuthorizeRequest>,
    ) -> Result<Response<v1::Decision>, Status> {
        let gateway = caller::gateway(&self.0.config.gateways, request.metadata())?;
        let question = read_authorize(gateway, &request.into_inner())?;
        let verdict = self.0.engine.decide(&question).await?;
        Ok(Response::new(decision(&verdict)))
    }

    async fn report(
        &self,
        request: Request<v1::ReportRequest>,
    ) -> Result<Response<v1::ReportResponse>, Status> {
        let gateway = caller::gateway(&self.0.config.gateways, request.metadata())?;
        let message = request.into_inner();
        let service = read_service(gateway, &message.service_id)?;
        let transactions = read_transactions(&message)?;
        let booking = Booking { idempotency_id: message.idempotency_id, gives_back: message.gives_back };
        let report = self.0.engine.report(&service, &Proof::Gateway, booking, &transactions);
        let counted = report.await.map_err(report_failure)?;
        Ok(Response::new(v1::ReportResponse { counted }))
    }

    async fn usage(&self, request: Request<v1::UsageRequest>) -> Result<Response<v1::UsageResponse>, Status> {
        let gateway = caller::gateway(&self.0.config.gateways, request.metadata())?;
        let message = request.into_inner();
        let service = read_service(gateway, &message.service_id)?;
        let metrics = read_metrics(&message.metrics)?;
        let Standing { counters, leases } = self.0.engine.usage(&service, &message.app_id, &metrics).await?;
        Ok(Response::new(v1::UsageResponse {
            counters: counters.iter().map(Into::into).collect(),
            leases: leases.iter().map(Into::into).collect(),
        }))
    }

    async fn auth_rep(&self, request: Request<v1::AuthRepRequest>) -> Result<Response<v1::Decision>, Status> {
        let gateway = caller::gateway(&self.0.config.gateways, request.metadata())?;
        let question = read_auth_rep(gateway, &request.into_inner())?;
        let verdict = self.0.engine.decide(&question).await?;
        Ok(Response::new(decision(&verdict)))
    }

    type AuthRepStreamStream = stream::Answers;

    async fn auth_rep_stream(
        &self,
        request: Request<Streaming<v1::AuthRepStreamRequest>>,
    ) -> Result<Response<Self::AuthRepStreamStream>, Status> {
        let gateway = caller::gateway(&self.0.config.gateways, request.metadata())?.clone();
        let gateway = Arc::new(gateway);
        Ok(Response::new(stream::answer(Arc::clone(&self.0), gateway, request.into_inner())))
    }

    async fn cancel(
        &self,
        request: Request<v1::CancelRequest>,
    ) -> Result<Response<v1::CancelResponse>, Status> {
        let gateway = caller::gateway(&self.0.config.gateways, request.metadata())?;
        Ok(Response::new(cancel(&self.0, gateway, &request.into_inner()).await?))
    }
}

/// Takes a request back.
pub(super) async fn cancel(
    shared: &Shared,
    gateway: &GatewayToken,
    message: &v1::CancelRequest,
) -> Result<v1::CancelResponse, Failure> {
    let service = read_service(gateway, &message.service_id)?;
    let credentials = v1::Credentials::read(message.credentials.as_ref())?.into();
    let request = read_request_id(&message.request_id)?;
    let taken_back = shared.engine.cancel(&service, &credentials, request, message.attempt).await?;
    Ok(v1::CancelResponse { taken_back })
}

/// The message for a verdict.
pub(super) fn decision(verdict: &Verdict) -> v1::Decision {
    v1::Decision::new(&verdict.decision, verdict.accepted(), verdict.at)
}

/// The question that an AuthRep asks.
pub(super) fn read_auth_rep(
    gateway: &GatewayToken,
    message: &v1::AuthRepRequest,
) -> Result<Question, Failure> {
    Ok(Question {
        request: read_request_id(&message.request_id)?,
        attempt: message.attempt,
        service: read_service(gateway, &message.service_id)?,
        proof: Proof::Gateway,
        credentials: v1::Credentials::read(message.credentials.as_ref())?.into(),
        wishes: Wishes::default(),
        usage: v1::UsageEntry::read(&message.usage)?,
        referrer: read_referrer(message.referrer.as_deref())?,
        mode: Mode::Count,
        trace: Parent::read(message.trace_context.as_ref()),
    })
}

fn read_authorize(gateway: &GatewayToken, message: &v1::AuthorizeRequest) -> Result<Question, Failure> {
    let credentials = match (&message.credentials, message.app_id.as_str()) {
        (None, app_id) if !app_id.is_empty() => Presented::Nothing(app_id.to_owned()),
        (credentials, "") => v1::Credentials::read(credentials.as_ref())?.into(),
        (Some(_), _) => return Err(FieldError::new("app_id", "is there besides credentials").into()),
        (None, _) => return Err(FieldError::new("credentials", "are missing").into()),
    };
    Ok(Question {
        request: RequestId([0; REQUEST_ID_BYTES]),
        attempt: 0,
        service: read_service(gateway, &message.service_id)?,
        proof: Proof::Gateway,
        credentials,
        wishes: Wishes::default(),
        usage: v1::UsageEntry::read(&message.usage)?,
        referrer: read_referrer(message.referrer.as_deref())?,
        mode: Mode::Check,
        trace: Parent::read(None),
    })
}

fn read_service(gateway: &GatewayToken, text: &str) -> Result<ServiceId, Failure> {
    let service = text.parse().map_err(|error| FieldError::new("service_id", error))?;
    gateway.check(&service)?;
    Ok(service)
}

fn read_request_id(bytes: &[u8]) -> Result<RequestId, Failure> {
    let id = bytes.try_into().map_err(|_| {
        FieldError::new("request_id", format!("has {} bytes, not {REQUEST_ID_BYTES}", bytes.len()))
    })?;
    Ok(RequestId(id))
}

fn read_referrer(referrer: Option<&str>) -> Result<Option<String>, Failure> {
    if referrer.is_some_and(|text| text.len() > REFERRER_BYTES_MAX) {
        let problem = format!("is longer than {REFERRER_BYTES_MAX} bytes");
        return Err(FieldError::new("referrer", problem).into());
    }
    Ok(referrer.map(str::to_owned))
}

fn read_metrics(names: &[String]) -> Result<Vec<MetricName>, Failure> {
    if names.len() > USAGE_ENTRIES_MAX {
        let error = FieldError::new("metrics", format!("has more than {USAGE_ENTRIES_MAX} entries"));
        return Err(error.into());
    }
    let read = |name: &String| name.parse().map_err(|error| FieldError::new("metrics", error).into());
    names.iter().map(read).collect()
}

fn read_transactions(message: &v1::ReportRequest) -> Result<Vec<Transaction>, Failure> {
    if message.idempotency_id.len() > IDEMPOTENCY_ID_BYTES_MAX {
        let problem = format!("is longer than {IDEMPOTENCY_ID_BYTES_MAX} bytes");
        return Err(FieldError::new("idempotency_id", problem).into());
    }
    if message.transactions.len() > TRANSACTIONS_MAX {
        let problem = format!("has more than {TRANSACTIONS_MAX} entries");
        return Err(FieldError::new("transactions", problem).into());
    }
    let read = |(place, transaction): (usize, &v1::Transaction)| {
        read_transaction(transaction).map_err(|error| error.within(&format!("transactions[{place}]")).into())
    };
    let transactions: Vec<Transaction> =
        message.transactions.iter().enumerate().map(read).collect::<Result<_, Failure>>()?;
    let sets = |t: &Transaction| t.usage.iter().any(|(_, value)| matches!(value, UsageValue::Set(_)));
    if message.gives_back && transactions.iter().any(sets) {
        return Err(FieldError::new("gives_back", "goes with usage that is added, none that is set").into());
    }
    Ok(transactions)
}

fn report_failure(error: ReportError) -> Failure {
    match error {
        ReportError::Failure(failure) => failure,
        ReportError::Denied(denial) => FieldError::new("service_id", denial.sentence()).into(),
        ReportError::Transaction { place, fault } => {
            let field = match fault {
                Fault::TooOld | Fault::TooNew => "at_unix_s",
                Fault::NamedTwice | Fault::Application(_) => "application",
                Fault::Usage(_) => "usage",
            };
            FieldError::new(field, fault.sentence()).within(&format!("transactions[{place}]")).into()
        }
    }
}

fn read_transaction(transaction: &v1::Transaction) -> Result<Transaction, FieldError> {
    use v1::transaction::Application;
    let application = match &transaction.application {
        Some(Application::AppId(id)) => Reported::AppId(id.clone()),
        Some(Application::UserKey(key)) => Reported::UserKey(Secret::new(key)),
        None => return Err(FieldError::new("application", "is missing")),
    };
    Ok(Transaction {
        application,
        usage: v1::UsageEntry::read(&transaction.usage)?,
        at: transaction.at_unix_s.map(Timestamp::from_unix_s),
        ..Transaction::default()
    })
}
