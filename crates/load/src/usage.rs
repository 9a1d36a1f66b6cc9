//! Whether the counters of a listener grew by what was admitted.
//!
//! The binary reads them before a run and after it. What is compared are the counters of all time: every metric has one,
//! and it has no window that could end meanwhile. Other traffic of the same applications shows as a difference.
//!
//! An admitted request is one with a status below 400, see `Answer::admission`. Where the answer leaves open whether the
//! gateway or the upstream gave it, or there was none, the request may have been counted: that much more is explained.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use weir_core::{ApplicationId, ApplicationRef, MetricName, Secret, ServiceId};
use weir_proto::v1;
use weir_proto::v1::authorization_client::AuthorizationClient;

use crate::connect::{Connector, TlsSettings};
use crate::mix::Mix;
use crate::outcome::Outcome;
use crate::plan::Target;
use crate::tally::Admitted;

/// Longest wait for a listener's answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long counters may take to settle: gateways take back late what nobody waited for.
const SETTLING: Duration = Duration::from_secs(3);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// Most metrics in one question: the contract's.
const METRICS_PER_QUESTION: usize = 256;
/// Most applications that are compared: each costs a question, before and after.
const APPLICATIONS_MAX: usize = 1_000;

/// A listener that can be asked for counters.
#[derive(Clone)]
pub struct Listener {
    endpoint: Endpoint,
    connector: Connector,
    authorization: MetadataValue<Ascii>,
}

/// Why counters cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum ListenerError {
    /// The token cannot travel in a header.
    #[error("the token must be visible ASCII")]
    Token,
    /// The address is none.
    #[error("the listener's address cannot be used")]
    Address,
    /// The listener said no, or nothing.
    #[error("the listener does not tell the counters of {application}: {message}")]
    Answer {
        /// Which application was asked about.
        application: ApplicationId,
        /// The listener's words.
        message: String,
    },
}

/// A token as it travels.
pub(crate) fn bearer(token: &Secret) -> Option<MetadataValue<Ascii>> {
    let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.expose()).parse().ok()?;
    value.set_sensitive(true);
    Some(value)
}

impl Listener {
    /// A listener; nothing is connected yet.
    ///
    /// # Errors
    /// When address or token cannot be used.
    pub fn new(target: &Target, tls: Option<&TlsSettings>, token: &Secret) -> Result<Self, ListenerError> {
        let connector = Connector::over(tls, target, true).map_err(|_| ListenerError::Address)?;
        // Whatever the connector does: tonic would insist on TLS of its own.
        let address = format!("http://{}", connector.authority());
        let endpoint = Endpoint::from_shared(address).map_err(|_| ListenerError::Address)?;
        let authorization = bearer(token).ok_or(ListenerError::Token)?;
        Ok(Self { endpoint: endpoint.timeout(ANSWER_TIMEOUT), connector, authorization })
    }

    fn client(&self) -> AuthorizationClient<Channel> {
        AuthorizationClient::new(self.endpoint.connect_with_connector_lazy(self.connector.clone()))
    }

    /// A question with the token.
    fn signed(&self, question: v1::UsageRequest) -> Request<v1::UsageRequest> {
        let mut request = Request::new(question);
        request.metadata_mut().insert("authorization", self.authorization.clone());
        request
    }
}

/// One metric of one application.
type Counter = (ApplicationRef, MetricName);

/// What is to be compared: the metrics of each application of a mix.
#[derive(Debug)]
pub struct UsageCheck(BTreeMap<ApplicationRef, Vec<MetricName>>);

/// What counters held at one moment.
#[derive(Debug)]
pub struct UsageReading(BTreeMap<Counter, u64>);

/// How one counter came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The application's service.
    pub service: ServiceId,
    /// Whose counter it is.
    pub application: ApplicationId,
    /// What it counts.
    pub metric: MetricName,
    /// By how much it must have grown.
    pub admitted: u64,
    /// By how much more it may have grown.
    pub unclear: u64,
    /// By how much it grew.
    pub counted: i128,
}

impl Verdict {
    /// Whether it grew by just what was admitted.
    pub fn is_exact(&self) -> bool {
        self.counted == i128::from(self.admitted)
    }

    /// Whether it grew by what was admitted and perhaps by requests whose outcome is unclear.
    pub fn is_explained(&self) -> bool {
        let most = i128::from(self.admitted) + i128::from(self.unclear);
        (i128::from(self.admitted)..=most).contains(&self.counted)
    }
}

impl UsageCheck {
    /// For all applications of a mix.
    ///
    /// # Errors
    /// Why the mix does not say what must be counted.
    pub fn new(mix: &Mix) -> Result<Self, &'static str> {
        let mut applications: BTreeMap<ApplicationRef, Vec<MetricName>> = BTreeMap::new();
        for group in mix.groups() {
            let service = group.service.as_ref().ok_or("it does not name the service of all requests")?;
            let counted = group.calls.iter().flat_map(|call| &call.counted);
            let metrics: Vec<MetricName> = counted.map(|(metric, _)| metric.clone()).collect();
            if group.calls.iter().any(|call| call.counted.is_empty()) {
                return Err("it does not say of all requests what they count (usage)");
            }
            if group.callers.is_empty() {
                return Err("it has requests of no application");
            }
            for caller in &group.callers {
                let application =
                    caller.application().ok_or("it does not name the application of all keys")?;
                let known = applications.entry(reference(service, application)).or_default();
                known.extend(metrics.iter().cloned());
                known.sort();
                known.dedup();
            }
        }
        if applications.len() > APPLICATIONS_MAX {
            return Err("it has more than 1,000 applications: leave some out");
        }
        Ok(Self(applications))
    }

    /// Reads all counters now.
    ///
    /// # Errors
    /// When the listener does not tell one of them.
    pub async fn read(&self, listener: &Listener) -> Result<UsageReading, ListenerError> {
        let mut reading = BTreeMap::new();
        let mut client = listener.client();
        for (key, metrics) in &self.0 {
            for some in metrics.chunks(METRICS_PER_QUESTION) {
                let question = v1::UsageRequest {
                    service_id: key.service.to_string(),
                    app_id: key.application.to_string(),
                    metrics: some.iter().map(ToString::to_string).collect(),
                };
                let answer = client.usage(listener.signed(question)).await;
                let counters = answer.map_err(|status| not_told(key, &status))?.into_inner().counters;
                for counter in counters.into_iter().filter(|c| c.period() == v1::Period::Eternity) {
                    if let Ok(metric) = MetricName::parse(&counter.metric) {
                        reading.insert((key.clone(), metric), counter.used);
                    }
                }
            }
        }
        Ok(UsageReading(reading))
    }

    /// Compares, once counters have settled: all are exact, or some time has passed.
    ///
    /// # Errors
    /// When the listener does not tell one of them.
    pub async fn compare(
        &self,
        listener: &Listener,
        before: &UsageReading,
        mix: &Mix,
        outcome: &Outcome,
    ) -> Result<Vec<Verdict>, ListenerError> {
        let begun = Instant::now();
        let expected = expected(mix, outcome);
        loop {
            let verdicts = verdicts(&expected, before, &self.read(listener).await?);
            if verdicts.iter().all(Verdict::is_exact) || begun.elapsed() > SETTLING {
                return Ok(verdicts);
            }
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        }
    }
}

fn not_told(application: &ApplicationRef, status: &Status) -> ListenerError {
    ListenerError::Answer {
        application: application.application.clone(),
        message: format!("{:?}: {}", status.code(), status.message()),
    }
}

/// By how much each counter must and may have grown.
fn expected(mix: &Mix, outcome: &Outcome) -> BTreeMap<Counter, Admitted> {
    let mut expected: BTreeMap<Counter, Admitted> = BTreeMap::new();
    // Nobody knows whose the requests were that an interruption cut off.
    let cut_off: u64 = outcome.stages.iter().map(|stage| stage.cut_off).sum();
    for group in mix.groups() {
        let applications = group.callers.iter().filter_map(|caller| caller.application());
        for (service, application) in applications.filter_map(|id| Some((group.service.as_ref()?, id))) {
            for (metric, by) in group.calls.iter().flat_map(|call| &call.counted) {
                let key = (reference(service, application), metric.clone());
                let counter = expected.entry(key).or_default();
                counter.unclear = counter.unclear.max(cut_off * by);
            }
        }
    }
    for (choice, admitted) in &outcome.admitted {
        let Some((service, application)) = mix.application(*choice) else { continue };
        for (metric, by) in &mix.call(*choice).counted {
            let key = (reference(service, application), metric.clone());
            let counter = expected.entry(key).or_default();
            counter.certain += admitted.certain * by;
            counter.unclear += admitted.unclear * by;
        }
    }
    expected
}

fn reference(service: &ServiceId, application: &ApplicationId) -> ApplicationRef {
    ApplicationRef { service: service.clone(), application: application.clone() }
}

fn verdicts(
    expected: &BTreeMap<Counter, Admitted>,
    before: &UsageReading,
    after: &UsageReading,
) -> Vec<Verdict> {
    let held = |reading: &UsageReading, key: &Counter| reading.0.get(key).copied().unwrap_or_default();
    let verdict = |(key, admitted): (&Counter, &Admitted)| Verdict {
        service: key.0.service.clone(),
        application: key.0.application.clone(),
        metric: key.1.clone(),
        admitted: admitted.certain,
        unclear: admitted.unclear,
        counted: i128::from(held(after, key)) - i128::from(held(before, key)),
    };
    expected.iter().map(verdict).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(admitted: u64, unclear: u64, counted: i128, is_exact: bool, is_explained: bool) {
        let verdict = Verdict {
            service: ServiceId::parse("api").unwrap(),
            application: ApplicationId::parse("app").unwrap(),
            metric: MetricName::parse("hits").unwrap(),
            admitted,
            unclear,
            counted,
        };
        assert_eq!((verdict.is_exact(), verdict.is_explained()), (is_exact, is_explained), "{verdict:?}");
    }

    #[test]
    fn growth_must_be_what_was_admitted() {
        check(10, 0, 10, true, true);
        check(10, 0, 11, false, false);
        check(10, 0, 9, false, false);
        check(10, 2, 12, false, true);
        check(10, 2, 13, false, false);
        check(10, 2, 9, false, false);
        check(0, 0, -5, false, false);
    }
}
