//! Leases: what gateways say of them, and what they are answered.

use weir_core::lease::ledger;
use weir_core::lease::{
    Declared, Grant, LIFETIME_MAX_MS, LIFETIME_MS, LINES_MAX, LeaseId, Line, Message, Reply, Standing, When,
};
use weir_core::usage::USAGE_MAX;
use weir_core::{ApplicationRef, Denial, LimitStatus, MetricName, Timestamp};

use crate::{FieldError, v1};

/// What a gateway is answered about a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseAnswer {
    /// The ledger's answer. With a grant: the version of the records that it was granted by.
    Reply(Reply, u64),
    /// The application may not be used.
    Denied(Denial),
}

impl v1::LeaseRequest {
    /// What is said of a lease of an application.
    pub fn new(application: &ApplicationRef, message: &Message) -> Self {
        let opens = match message.opens {
            None => v1::LeaseWindow::Unspecified,
            Some(When::Now) => v1::LeaseWindow::Now,
            Some(When::Next) => v1::LeaseWindow::Next,
        };
        Self {
            service_id: application.service.to_string(),
            app_id: application.application.to_string(),
            boot: message.id.boot.to_vec(),
            sequence: message.id.sequence,
            round: message.round,
            opens: opens.into(),
            closes: message.closes,
            lasts_ms: (message.lasts_ms != LIFETIME_MS).then_some(message.lasts_ms),
            declared: message.declared.map(Into::into),
            lines: message.lines.iter().map(Into::into).collect(),
        }
    }

    /// The application, and what is said of its lease.
    ///
    /// # Errors
    /// For a name that can be none, too many lines, or numbers that contradict each other.
    pub fn read(&self) -> Result<(ApplicationRef, Message), FieldError> {
        let service = self.service_id.parse().map_err(|error| FieldError::new("service_id", error))?;
        let application = self.app_id.parse().map_err(|error| FieldError::new("app_id", error))?;
        let boot = self.boot[..].try_into();
        let boot = boot.map_err(|_| FieldError::new("boot", "has not 16 bytes"))?;
        if self.lines.len() > LINES_MAX {
            return Err(FieldError::new("lines", format!("has more than {LINES_MAX} entries")));
        }
        let line = |(at, line): (usize, &v1::LeaseLine)| {
            line.read().map_err(|error| error.within(&format!("lines[{at}]")))
        };
        let lines: Result<_, _> = self.lines.iter().enumerate().map(line).collect();
        let message = Message {
            id: LeaseId { boot, sequence: self.sequence },
            round: self.round,
            opens: match self.opens() {
                v1::LeaseWindow::Unspecified => None,
                v1::LeaseWindow::Now => Some(When::Now),
                v1::LeaseWindow::Next => Some(When::Next),
            },
            closes: self.closes,
            lasts_ms: self.lasts_ms.unwrap_or(LIFETIME_MS).clamp(LIFETIME_MS, LIFETIME_MAX_MS),
            declared: self.declared.map(Into::into),
            lines: lines?,
        };
        Ok((ApplicationRef { service, application }, message))
    }
}

impl From<Declared> for v1::LeaseDeclaration {
    fn from(declared: Declared) -> Self {
        Self { incarnation: declared.incarnation, moment_unix_ms: declared.moment.unix_ms() }
    }
}

impl From<v1::LeaseDeclaration> for Declared {
    fn from(message: v1::LeaseDeclaration) -> Self {
        let moment = Timestamp::from_unix_ms(message.moment_unix_ms);
        Self { incarnation: message.incarnation, moment }
    }
}

impl From<&Line> for v1::LeaseLine {
    fn from(line: &Line) -> Self {
        Self {
            metric: line.metric.to_string(),
            spent: line.spent,
            granted: line.granted,
            want: line.want,
            least: line.least,
        }
    }
}

impl v1::LeaseLine {
    fn read(&self) -> Result<Line, FieldError> {
        let metric = MetricName::parse(&self.metric).map_err(|error| FieldError::new("metric", error))?;
        if self.granted < self.spent {
            return Err(FieldError::new("granted", "is less than what is spent"));
        }
        if self.spent > USAGE_MAX || self.want > USAGE_MAX {
            return Err(FieldError::new("spent", format!("or want is above {USAGE_MAX}")));
        }
        let Self { spent, granted, want, least, .. } = *self;
        Ok(Line { metric, spent, granted, want, least: least.max(1) })
    }
}

impl From<&ledger::Lease> for v1::LeaseOut {
    fn from(lease: &ledger::Lease) -> Self {
        let line = |line: &ledger::Line| v1::LineOut {
            // Parents come before children.
            metric: line.unit.last().map(|unit| unit.metric.to_string()).unwrap_or_default(),
            granted: line.granted,
            settled: line.settled,
        };
        Self {
            gateway: lease.holder.to_string(),
            boot: lease.id.boot.to_vec(),
            sequence: lease.id.sequence,
            moment_unix_ms: lease.moment.unix_ms(),
            deadline_unix_ms: lease.deadline.unix_ms(),
            is_presumed: lease.is_presumed,
            lines: lease.lines.iter().map(line).collect(),
            round: lease.round,
        }
    }
}

/// The leases of an application at one moment, to find out when all that was spent by then is counted.
#[derive(Debug)]
pub struct Unsettled(Vec<v1::LeaseOut>);

impl Unsettled {
    /// Those of an answer.
    pub fn of(answer: v1::UsageResponse) -> Self {
        Self(answer.leases)
    }

    /// Whether a later answer's counters hold all that was spent before the first one. Of a lease that is still out, a
    /// message may have been under way then, so only the one after it surely tells.
    pub fn is_settled_in(&self, later: &v1::UsageResponse) -> bool {
        self.0.iter().filter(|lease| !lease.is_presumed).all(|lease| {
            let same = |other: &&v1::LeaseOut| other.boot == lease.boot && other.sequence == lease.sequence;
            later.leases.iter().find(same).is_none_or(|now| now.is_presumed || now.round >= lease.round + 2)
        })
    }
}

impl v1::LeaseReply {
    /// The message for an answer by one life of the store.
    pub fn new(answer: &LeaseAnswer, incarnation: u64) -> Self {
        use v1::lease_reply::Reply as Is;
        let reply = match answer {
            LeaseAnswer::Reply(Reply::Granted(grant), version) => Is::Grant(grant_message(grant, *version)),
            LeaseAnswer::Reply(Reply::Closed, _) => Is::Closed(v1::LeaseClosed {}),
            LeaseAnswer::Reply(Reply::Short, _) => Is::Short(v1::LeaseShort {}),
            LeaseAnswer::Denied(denial) => Is::Denial(denial.into()),
        };
        Self { incarnation, reply: Some(reply) }
    }

    /// The answer.
    ///
    /// # Errors
    /// For a grant that contradicts itself, or an answer of an unknown kind.
    pub fn read(&self) -> Result<LeaseAnswer, FieldError> {
        use v1::lease_reply::Reply as Is;
        Ok(match self.reply.as_ref().ok_or_else(|| FieldError::new("reply", "is missing or unknown"))? {
            Is::Grant(grant) => LeaseAnswer::Reply(Reply::Granted(grant.read()?), grant.records_version),
            Is::Closed(_) => LeaseAnswer::Reply(Reply::Closed, 0),
            Is::Short(_) => LeaseAnswer::Reply(Reply::Short, 0),
            Is::Denial(denial) => LeaseAnswer::Denied(denial.try_into()?),
        })
    }
}

fn grant_message(grant: &Grant, records_version: u64) -> v1::LeaseGrant {
    let standing = |standing: &Standing| {
        v1::LimitStatus::from(&LimitStatus {
            metric: standing.metric.clone(),
            window: standing.window,
            max: standing.max,
            used: standing.taken,
            held: 0,
        })
    };
    let weights = |weights: &Vec<(usize, u64)>| v1::LeaseWeights {
        weights: weights
            .iter()
            .map(|(standing, adds)| v1::LeaseWeight {
                standing: u32::try_from(*standing).unwrap_or(u32::MAX),
                adds: *adds,
            })
            .collect(),
    };
    v1::LeaseGrant {
        declared: Some(grant.declared.into()),
        granted: grant.granted.clone(),
        begins_in_ms: grant.begins_in_ms,
        ends_in_ms: grant.ends_in_ms,
        window_ends_in_ms: grant.window_ends_in_ms,
        standings: grant.standings.iter().map(standing).collect(),
        weights: grant.weights.iter().map(weights).collect(),
        records_version,
    }
}

impl v1::LeaseGrant {
    fn read(&self) -> Result<Grant, FieldError> {
        let declared = self.declared.ok_or_else(|| FieldError::new("declared", "is missing"))?;
        let standing = |message: &v1::LimitStatus| {
            let LimitStatus { metric, window, max, used, .. } = message.try_into()?;
            Ok(Standing { metric, window, max, taken: used })
        };
        let standings: Result<Vec<Standing>, FieldError> = self.standings.iter().map(standing).collect();
        let standings = standings?;
        let weight = |message: &v1::LeaseWeight| {
            let at = usize::try_from(message.standing).ok().filter(|at| *at < standings.len());
            Ok((at.ok_or_else(|| FieldError::new("weights", "names no standing"))?, message.adds))
        };
        let weights = |message: &v1::LeaseWeights| message.weights.iter().map(weight).collect();
        let weights: Result<_, FieldError> = self.weights.iter().map(weights).collect();
        Ok(Grant {
            declared: declared.into(),
            granted: self.granted.clone(),
            begins_in_ms: self.begins_in_ms,
            ends_in_ms: self.ends_in_ms,
            window_ends_in_ms: self.window_ends_in_ms,
            weights: weights?,
            standings,
        })
    }
}
