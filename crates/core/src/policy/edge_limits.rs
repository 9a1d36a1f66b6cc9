//! `edge_limits`: how fast and how many at a time, judged by each gateway alone, in memory.
//!
//! A rate is a bucket: what was saved up may go at once, up to `burst`; then it goes at the rate. What an account has
//! paid for is limited by its plan, exactly and everywhere; this keeps backends from being run over.

use super::form::Form;
use super::headers::is_name;
use super::{Kind, Place, Policy, Repeats};

/// Most limits of one policy.
const LIMITS_MAX: usize = 16;
/// Most callers that one limit tells apart; further ones share what one has.
pub const KEYS_MAX: usize = 100_000;
const NS_PER_S: u64 = 1_000_000_000;

/// How much each may.
#[derive(Debug, Clone)]
pub struct EdgeLimits {
    /// All of them hold.
    pub limits: Vec<EdgeLimit>,
}

/// One limit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EdgeLimit {
    /// Who is counted as one.
    pub per: Per,
    /// How fast; `None`: as fast as they like.
    pub rate: Option<Rate>,
    /// How many at a time; `None`: as many as they like.
    pub concurrent_max: Option<u64>,
}

/// Who is counted as one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Per {
    /// The client's address; of IPv6 its first 64 bits.
    Address,
    /// The application, whichever of its keys it shows.
    Application,
    /// What a client shows: each key by itself; tokens of one application are one.
    Client,
    /// The value of a header, in small letters.
    Header(String),
    /// All calls of the service.
    Service,
}

impl Per {
    /// Whether it is known before a call is authorised.
    pub fn is_known_before(&self) -> bool {
        !matches!(self, Self::Application | Self::Client)
    }
}

/// How fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// How many in a period.
    pub requests: u64,
    /// The period, in seconds.
    pub period_s: u64,
    /// How many at once.
    pub burst: u64,
}

impl Rate {
    /// How much time one request takes of its bucket, in nanoseconds.
    pub fn each_ns(&self) -> u64 {
        (self.period_s * NS_PER_S / self.requests).max(1)
    }

    /// Lets a request go: the bucket's new state, or how long it has to wait, in nanoseconds. A state is the moment at
    /// which the bucket is full again; 0 for a new one.
    ///
    /// # Errors
    /// The wait.
    pub fn take(&self, state_ns: u64, now_ns: u64) -> Result<u64, u64> {
        let each_ns = self.each_ns();
        let after = state_ns.max(now_ns).saturating_add(each_ns);
        let latest = now_ns.saturating_add(each_ns.saturating_mul(self.burst));
        if after <= latest { Ok(after) } else { Err(after - latest) }
    }
}

impl EdgeLimits {
    pub(super) const KIND: Kind = Kind {
        name: "edge_limits",
        meaning: "Bounds how fast and how many at a time calls come, per address, client, application, header or service; in each gateway's memory.",
        place: Place::Either,
        repeats: Repeats::Freely,
        has_conditions: true,
        read: |form| Policy::EdgeLimits(Self::read(form)),
    };

    fn read(form: &Form<'_>) -> Self {
        let limits = form.tables("limits", "Limits, all of which hold.", LIMITS_MAX, EdgeLimit::read);
        form.require(&["limits"]);
        Self { limits }
    }
}

const PER: &[(&str, Who)] = &[
    ("address", Who::Address),
    ("application", Who::Application),
    ("client", Who::Client),
    ("header", Who::Header),
    ("service", Who::Service),
];

#[derive(Clone, Copy, PartialEq)]
enum Who {
    Address,
    Application,
    Client,
    Header,
    Service,
}

impl EdgeLimit {
    fn read(form: &Form<'_>) -> Self {
        let who = form.choice(
            "per",
            "Who is counted as one. `address`: the client's (of IPv6 its /64). `application`, whichever key it shows. \
             `client`: each key by itself; tokens of one application are one. `header`: each value of one. `service`: all together.",
            PER,
            None,
        );
        let header = form.text("header", "Which header, with `per = \"header\"`.", "header name");
        let requests = form.whole("requests", "How many in `period_s`.", 1..=1_000_000_000);
        let period_s = form.whole_or("period_s", "The period, in seconds.", 1..=86_400, 1);
        let burst =
            form.whole("burst", "How many at once; without, as many as `requests`.", 1..=1_000_000_000);
        let concurrent_max = form.whole(
            "concurrent_max",
            "How many at a time, from the call to the end of its answer.",
            1..=1_000_000,
        );
        form.require(&["per"]);
        if requests.is_none()
            && concurrent_max.is_none()
            && !form.gives("requests")
            && !form.gives("concurrent_max")
        {
            form.wrong("", "limits nothing: give requests, concurrent_max or both");
        }
        if form.gives("burst") && !form.gives("requests") {
            form.wrong("burst", "burst needs requests");
        }
        if (who == Some(Who::Header)) != form.gives("header") {
            form.wrong("", "header belongs to per = \"header\", and that needs it");
        }
        if header.is_some_and(|name| !is_name(name)) {
            form.wrong("header", format!("header {:?} is not a header name", header.unwrap_or_default()));
        }
        let per = match who {
            Some(Who::Address) | None => Per::Address,
            Some(Who::Application) => Per::Application,
            Some(Who::Client) => Per::Client,
            Some(Who::Service) => Per::Service,
            Some(Who::Header) => Per::Header(header.unwrap_or_default().to_ascii_lowercase()),
        };
        let rate = requests.map(|requests| Rate { requests, period_s, burst: burst.unwrap_or(requests) });
        Self { per, rate, concurrent_max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_lets_through_its_burst_and_then_its_rate() {
        let rate = Rate { requests: 10, period_s: 1, burst: 3 };
        let (mut state, now) = (0, 5 * NS_PER_S);
        for _ in 0..3 {
            state = rate.take(state, now).unwrap();
        }
        let wait = rate.take(state, now).unwrap_err();
        assert_eq!(wait, NS_PER_S / 10);
        assert!(rate.take(state, now + wait - 1).is_err());
        state = rate.take(state, now + wait).unwrap();
        assert!(rate.take(state, now + wait).is_err());
        let later = now + 60 * NS_PER_S;
        for _ in 0..3 {
            state = rate.take(state, later).unwrap();
        }
        assert!(rate.take(state, later).is_err(), "no more than the burst is saved up");
    }
}
