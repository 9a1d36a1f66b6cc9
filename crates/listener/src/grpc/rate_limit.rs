//! Envoy's rate limit service: descriptors that name an application and what it uses.
//!
//! All descriptors count, or none: they are decided in order, each in one step of the store, and what was admitted is
//! taken back when a later one is refused. OVER_LIMIT is said of limits and of nothing else. Any other refusal ends the
//! call with PERMISSION_DENIED, because Envoy lets everything pass that is neither OVER_LIMIT nor an error.
//!
//! `rate_limit/descriptor.rs` reads descriptors, `rate_limit/answer.rs` writes what became of them.

mod answer;
mod descriptor;

use std::sync::Arc;

use tokio::runtime::Handle;
use tonic::{Request, Response, Status};
use weir_core::{Decision, Denial, LimitStatus, Presented, Proof, ServiceId, Timestamp, Usage};
use weir_proto::FieldError;
use weir_proto::envoy::service::ratelimit::v3::rate_limit_service_server::RateLimitService;
use weir_proto::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use weir_store::Mode;

use crate::caller;
use crate::config::GatewayToken;
use crate::edge::EdgeService;
use crate::engine::{Question, Wishes};
use crate::server::Shared;
use crate::status::Failure;
use crate::trace::Parent;

use answer::answer;
use descriptor::{Asked, read};

/// Most descriptors in one request: each is a decision of its own.
const DESCRIPTORS_MAX: usize = 64;

pub(crate) struct Service(pub(crate) Arc<Shared>);

#[tonic::async_trait]
impl RateLimitService for Service {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        let shared = &self.0;
        let gateway = caller::gateway(&shared.config.gateways, request.metadata())?;
        let message = request.into_inner();
        let service = find(shared, gateway, &message.domain)?;
        let asked = read_all(&service, &message)?;
        let decided = decide_all(shared, &service, asked).await?;
        Ok(Response::new(answer(&decided, &service.proxy.refusals)))
    }
}

/// What became of one descriptor.
struct Decided {
    is_over: bool,
    limits: Vec<LimitStatus>,
    at: Timestamp,
}

/// A service that the token is not for is as if it were not there.
fn find(shared: &Shared, gateway: &GatewayToken, domain: &str) -> Result<Arc<EdgeService>, Status> {
    let id: ServiceId = domain.parse().map_err(|error| Failure::Field(FieldError::new("domain", error)))?;
    let found = shared.directory.service(&shared.catalog, gateway, &id)?;
    found.ok_or_else(|| Status::not_found("the domain is no service of this gateway token"))
}

fn read_all(service: &EdgeService, message: &RateLimitRequest) -> Result<Vec<Asked>, Status> {
    let count = message.descriptors.len();
    if !(1..=DESCRIPTORS_MAX).contains(&count) {
        let problem = format!("has {count} entries, not 1 to {DESCRIPTORS_MAX}");
        return Err(Failure::Field(FieldError::new("descriptors", problem)).into());
    }
    let times = u64::from(message.hits_addend.max(1));
    let mut all = Vec::with_capacity(count);
    for (place, descriptor) in message.descriptors.iter().enumerate() {
        let asked = read(service, descriptor, times);
        let asked = asked.map_err(|error| Failure::Field(error.within(&format!("descriptors[{place}]"))))?;
        all.push(asked.map_err(|denial| refused(&denial))?);
    }
    Ok(all)
}

/// Descriptors that were asked about so far. Whoever is dropped before all are, the caller having gone, is taken back too.
struct Counted {
    shared: Arc<Shared>,
    questions: Vec<Question>,
}

impl Counted {
    fn hold(&mut self, question: Question) -> &Question {
        self.questions.push(question);
        &self.questions[self.questions.len() - 1]
    }

    /// What cannot be taken back while the store is away stays counted.
    async fn take_back(&mut self) {
        while let Some(Question { service, credentials, request, .. }) = self.questions.last() {
            if let Err(failure) = self.shared.engine.cancel(service, credentials, *request, None).await {
                failure.log();
            }
            // Not before: whoever is dropped in the middle has it taken back again, which changes nothing.
            self.questions.pop();
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let questions = std::mem::take(&mut self.questions);
        if let (false, Ok(runtime)) = (questions.is_empty(), Handle::try_current()) {
            let mut rest = Self { shared: Arc::clone(&self.shared), questions };
            runtime.spawn(async move { rest.take_back().await });
        }
    }
}

async fn decide_all(
    shared: &Arc<Shared>,
    service: &EdgeService,
    asked: Vec<Asked>,
) -> Result<Vec<Decided>, Status> {
    let mut counted = Counted { shared: Arc::clone(shared), questions: Vec::with_capacity(asked.len()) };
    let mut all = Vec::with_capacity(asked.len());
    let mut asked = asked.into_iter();
    for asked in asked.by_ref() {
        // Held before it is decided: whoever leaves meanwhile may have been counted.
        let question = counted.hold(question(shared, service, asked, Mode::Count));
        let decided = decide(shared, question).await;
        if let Ok(Decided { is_over: false, .. }) = decided {
            all.push(decided?);
            continue;
        }
        // The refused one as well: of an error nobody knows whether it counted.
        let again: Vec<_> = counted.questions.iter().map(|one| look(shared, one)).collect();
        counted.take_back().await;
        let refused = decided?;
        for (question, before) in again.iter().zip(&mut all) {
            look_again(shared, question, before).await;
        }
        all.push(refused);
        break;
    }
    // Nothing counts any more once one is refused; those behind it only say where they stand.
    for asked in asked {
        all.push(decide(shared, &question(shared, service, asked, Mode::Check)).await?);
    }
    counted.questions.clear();
    Ok(all)
}

async fn decide(shared: &Shared, question: &Question) -> Result<Decided, Status> {
    let verdict = shared.engine.decide(question).await?;
    judge(verdict.decision, verdict.at)
}

/// Where the limits of a descriptor stand that was counted and is no longer. What cannot be found out stays as it was.
async fn look_again(shared: &Shared, question: &Question, decided: &mut Decided) {
    match shared.engine.decide(question).await {
        Ok(verdict) => {
            if let Decision::Allow(limits) = verdict.decision {
                *decided = Decided { is_over: false, limits, at: verdict.at };
            }
        }
        Err(failure) => failure.log(),
    }
}

/// The same question, which counts nothing.
fn look(shared: &Shared, counted: &Question) -> Question {
    let (credentials, usage) = (counted.credentials.clone(), counted.usage.clone());
    ask(shared, counted.service.clone(), (credentials, usage), Mode::Check)
}

fn question(shared: &Shared, service: &EdgeService, asked: Asked, mode: Mode) -> Question {
    ask(shared, service.id.clone(), (asked.credentials.into(), asked.usage), mode)
}

fn ask(
    shared: &Shared,
    service: ServiceId,
    (credentials, usage): (Presented, Usage),
    mode: Mode,
) -> Question {
    Question {
        request: shared.request_ids.next(),
        attempt: 0,
        service,
        proof: Proof::Gateway,
        wishes: Wishes::default(),
        credentials,
        usage,
        referrer: None,
        mode,
        trace: Parent::read(None),
    }
}

fn judge(decision: Decision, at: Timestamp) -> Result<Decided, Status> {
    match decision {
        Decision::Allow(limits) => Ok(Decided { is_over: false, limits, at }),
        Decision::Deny(Denial::LimitsExceeded(limit)) => {
            Ok(Decided { is_over: true, limits: vec![limit], at })
        }
        Decision::Deny(denial) => Err(refused(&denial)),
    }
}

/// What Envoy is told of a refusal that has nothing to do with limits.
fn refused(denial: &Denial) -> Status {
    Status::permission_denied(format!("{}: {}", denial.code(), denial.sentence()))
}
