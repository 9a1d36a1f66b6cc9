//! What benchmarks see of the inside of this crate. Normal builds do not have it.

use std::path::Path;
use std::sync::Arc;

use weir_core::lease::{Declared, Grant, Reply, Standing};
use weir_core::{
    COUNT_MAX, CredentialKind, Credentials, MetricName, Period, Proxy, RequestId, RequestIds, Secret,
    ServiceId, Timestamp, Usage, UsageValue,
};
use weir_journal::Journal;

use crate::backend::Question;
use crate::leases::Leases;
use crate::service::{Neighbours, Service};

/// A gateway that holds a lease which nobody ever uses up.
pub struct Deciding {
    leases: Arc<Leases>,
    service: Service,
    credentials: Credentials,
    usage: Usage,
    id: RequestId,
}

impl Deciding {
    /// With a journal in a folder: one application, which uses two metrics under three limits.
    ///
    /// # Errors
    /// When there can be no journal there.
    pub fn start(dir: &Path) -> Result<Self, Box<dyn std::error::Error>> {
        let journal = Journal::open(dir.join("journal"), 16)?.journal;
        let neighbours = Neighbours::idle()?;
        let service = ServiceId::parse("api")?;
        let metric = |name: &str| MetricName::parse(name);
        let deciding = Self {
            leases: Leases::for_measuring(journal)?,
            service: Service::new(service, CredentialKind::UserKey, Proxy::default(), &neighbours)?,
            credentials: Credentials::UserKey(Secret::new("a-user-key-of-usual-length-0123")),
            usage: Usage::new([
                (metric("method_0")?, UsageValue::Add(1)),
                (metric("api_0")?, UsageValue::Add(1)),
            ]),
            id: RequestIds::new([7; 8]).next(),
        };
        deciding.leases.hold(&deciding.question(), &deciding.grant());
        Ok(deciding)
    }

    fn question(&self) -> Question<'_> {
        let Self { service, credentials, usage, .. } = self;
        Question { id: self.id, service, credentials, usage, referrer: None, trace: None }
    }

    fn grant(&self) -> Reply {
        let now = Timestamp::from_unix_ms(1_795_404_719_123);
        let metrics: Vec<&MetricName> = self.usage.iter().map(|(metric, _)| metric).collect();
        let standing = |(place, period): (usize, Period)| Standing {
            metric: metrics[place].clone(),
            window: period.window(now),
            max: COUNT_MAX,
            taken: 5,
        };
        let limits = [(0, Period::Minute), (1, Period::Day), (1, Period::Month)];
        Reply::Granted(Grant {
            declared: Declared { incarnation: 1, moment: now },
            granted: vec![COUNT_MAX; 2],
            begins_in_ms: 0,
            ends_in_ms: u64::MAX / 4,
            window_ends_in_ms: u64::MAX / 4,
            standings: limits.map(standing).into(),
            weights: vec![vec![(0, 1)], vec![(1, 1), (2, 1)]],
        })
    }

    /// Decides on a call: whether it may go on, and what its limits are.
    pub fn decide(&self) -> bool {
        self.leases.decide(&self.question()).is_some_and(|decided| decided.is_ok())
    }
}
