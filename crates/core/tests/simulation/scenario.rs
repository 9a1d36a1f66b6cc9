//! What a seed draws: applications and their plans, how many gateways and listeners, and what goes wrong how often.

use std::collections::BTreeMap;

use weir_core::alert::AlertBins;
use weir_core::counter::{Increment, increments};
use weir_core::id::MetricName;
use weir_core::lease::holding::Terms;
use weir_core::limit::UsageLimit;
use weir_core::metric::MetricTree;
use weir_core::period::{Period, Timestamp};
use weir_core::plan::Plan;
use weir_core::usage::{Usage, UsageValue};

use crate::random::Random;

/// `read`, `write` and `find` are methods of `hits`.
const METRICS: [(&str, Option<&str>); 5] =
    [("hits", None), ("read", Some("hits")), ("write", Some("hits")), ("find", Some("hits")), ("mail", None)];

const PERIODS: [Period; 4] = [Period::Minute, Period::Hour, Period::Day, Period::Eternity];

/// Just before a year ends: every window but eternity does.
const NEW_YEAR_UNIX_S: i64 = 1_798_761_600;

#[derive(Debug)]
pub(crate) struct Application {
    metrics: MetricTree,
    pub(crate) plan: Plan,
    units: BTreeMap<MetricName, Vec<Increment>>,
    names: Vec<MetricName>,
    pub(crate) terms: Terms,
}

impl Application {
    fn draw(random: &mut Random) -> Self {
        let name = |text: &str| MetricName::parse(text).expect("a metric's name");
        let tree: Vec<_> = METRICS.iter().map(|(child, parent)| (name(child), parent.map(name))).collect();
        let metrics = MetricTree::new(&tree).expect("a tree");
        let mut limits: Vec<UsageLimit> = vec![];
        for _ in 0..random.between(1, 3) {
            let metric = metrics.find(random.pick(&METRICS).0).expect("a metric of the tree");
            let period = *random.pick(&PERIODS);
            let max = match random.below(10) {
                0..3 => random.below(20),
                3..8 => random.between(20, 600),
                _ => 1_000_000,
            };
            if !limits.iter().any(|limit| (limit.metric, limit.period) == (metric, period)) {
                limits.push(UsageLimit { metric, period, max });
            }
        }
        let plan = Plan::new("plan".parse().expect("an id"), String::new(), limits, &metrics);
        let mut application = Self {
            metrics,
            plan: plan.expect("one limit for each metric and period"),
            units: BTreeMap::new(),
            names: METRICS.iter().map(|(text, _)| name(text)).collect(),
            terms: if random.happens(100) { Terms::Outage } else { Terms::Ordinary },
        };
        for name in application.names.clone() {
            let unit = application.increments(&Usage::new([(name.clone(), UsageValue::Add(1))]));
            application.units.insert(name, unit);
        }
        application
    }

    pub(crate) fn increments(&self, usage: &Usage) -> Vec<Increment> {
        increments(usage, &self.metrics, &self.plan, AlertBins::ALL).expect("metrics of the service")
    }

    pub(crate) fn unit(&self, metric: &MetricName) -> &Vec<Increment> {
        &self.units[metric]
    }

    /// Each limit's metric, period and maximum.
    pub(crate) fn limits(&self) -> impl Iterator<Item = (&MetricName, Period, u64)> {
        self.plan.limits().iter().map(|l| (&self.metrics.metric(l.metric).name, l.period, l.max))
    }

    pub(crate) fn draw_usage(&self, random: &mut Random) -> Usage {
        let more = if random.happens(300) { random.below(3) } else { 0 };
        let by = |random: &mut Random| if random.happens(200) { random.below(6) } else { 1 };
        Usage::new((0..=more).map(|_| (random.pick(&self.names).clone(), UsageValue::Add(by(random)))))
    }
}

/// How often something goes wrong. Times are mean pauses between two of a kind in milliseconds; 0: it never happens.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    pub(crate) loss_per_mille: u64,
    pub(crate) duplicate_per_mille: u64,
    pub(crate) slow_per_mille: u64,
    pub(crate) delay_ms: u64,
    pub(crate) cut: u64,
    pub(crate) gateway_crash: u64,
    pub(crate) listener_crash: u64,
    pub(crate) store_pause: u64,
    pub(crate) store_restart: u64,
    pub(crate) fail_over: u64,
    pub(crate) clock_jump: u64,
    pub(crate) drifts: bool,
    pub(crate) take_back_per_mille: u64,
}

/// What makes a message slow, at most, between two hops; what comes twice comes as much later.
pub(crate) const SLOW_MS: u64 = 1_500;

impl Faults {
    fn draw(random: &mut Random) -> Self {
        let mut sometimes = |of: &[u64]| if random.happens(400) { *random.pick(of) } else { 0 };
        let mut faults = Self {
            loss_per_mille: sometimes(&[5, 50, 200]),
            duplicate_per_mille: sometimes(&[5, 50, 200]),
            slow_per_mille: sometimes(&[5, 50]),
            delay_ms: 0,
            cut: sometimes(&[3_000, 6_000]),
            gateway_crash: sometimes(&[1_500, 5_000]),
            listener_crash: sometimes(&[2_000, 6_000]),
            store_pause: sometimes(&[2_000, 5_000]),
            store_restart: sometimes(&[3_000, 8_000]),
            fail_over: sometimes(&[3_000, 8_000]),
            clock_jump: sometimes(&[1_000, 4_000]),
            drifts: sometimes(&[1]) == 1,
            take_back_per_mille: sometimes(&[10, 100]),
        };
        faults.delay_ms = *random.pick(&[1, 5, 20, 100]);
        faults
    }
}

#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) start: Timestamp,
    /// Requests come so many times slower, and what is cut or dead stays so for longer.
    pub(crate) pace: u64,
    /// Requests come and things go wrong until then; all is well from then on.
    pub(crate) quiet_ms: u64,
    pub(crate) gateways: usize,
    pub(crate) listeners: usize,
    /// Most leases in a gateway's journal.
    pub(crate) slots: usize,
    pub(crate) applications: Vec<Application>,
    /// Nothing is answered that the replica does not have.
    pub(crate) is_replicated: bool,
    pub(crate) faults: Faults,
}

impl Scenario {
    pub(crate) fn draw(random: &mut Random) -> Self {
        // Some last so long that what was closed is not remembered any more.
        let pace = if random.happens(50) { 6 } else { 1 };
        let quiet_ms = random.between(4_000, 9_000) * pace;
        let before = random.between(0, quiet_ms + 3_000).cast_signed();
        Self {
            start: Timestamp::from_unix_s(NEW_YEAR_UNIX_S).plus_ms(-before),
            pace,
            quiet_ms,
            gateways: random.index(4) + 1,
            listeners: random.index(3) + 1,
            slots: *random.pick(&[6, 60, 600]),
            applications: (0..random.between(1, 3)).map(|_| Application::draw(random)).collect(),
            is_replicated: random.happens(300),
            faults: Faults::draw(random),
        }
    }

    /// Some hold leases for an outage, and so for minutes.
    pub(crate) fn has_outage_terms(&self) -> bool {
        self.applications.iter().any(|application| application.terms == Terms::Outage)
    }
}
