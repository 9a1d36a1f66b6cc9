//! Time, the network, and everybody in it.

use std::collections::BTreeMap;

use weir_core::id::MetricName;
use weir_core::lease::holding::{Holding, Receipt};
use weir_core::lease::{Declared, LeaseId, Message, Reply};
use weir_core::period::Timestamp;
use weir_core::usage::Usage;

use crate::random::Random;
use crate::scenario::{SLOW_MS, Scenario};
use crate::seen::Seen;
use crate::store::{Store, Verdict};
use crate::truth::Truth;

/// From a gateway.
#[derive(Debug, Clone)]
pub(crate) enum Question {
    Lease(Message),
    /// May this request pass? `tries` counts what the listener itself did to have leases back.
    Decide {
        id: u64,
        attempt: u32,
        tries: u32,
    },
    TakeBack {
        id: u64,
    },
}

/// To a gateway.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Lease { id: LeaseId, round: u32, reply: Reply, incarnation: u64 },
    Decided { id: u64, verdict: Verdict },
    TakenBack { id: u64 },
    Recall,
}

/// Whose connection it came by. Everything on a connection is lost when one of its ends dies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Connection {
    pub(crate) gateway: usize,
    pub(crate) boot: u64,
    pub(crate) listener: usize,
    pub(crate) epoch: u64,
}

#[derive(Debug, Clone)]
pub(crate) enum Event {
    Request { gateway: usize, application: usize },
    Tick { gateway: usize, boot: u64 },
    Leave { gateway: usize, boot: u64, application: usize, receipt: Box<Receipt> },
    AtListener(Connection, usize, Question),
    AtStore(Connection, usize, Question),
    BackAtListener(Connection, usize, Answer),
    AtGateway(Connection, usize, Answer),
    Look,
    Fault(Fault),
    Replicate,
    Quiet,
    NothingHeld,
    End,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    Cut,
    Crash,
    Start(usize),
    ListenerCrash,
    ListenerStart(usize),
    StorePause,
    StoreRestart,
    FailOver,
    Jump,
}

/// What survives a crash of the gateway.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) application: usize,
    pub(crate) metrics: Vec<MetricName>,
    pub(crate) spent: Vec<u64>,
    pub(crate) declared: Option<Declared>,
}

/// A request whose outcome is not known, or has to be taken back.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) application: usize,
    pub(crate) usage: Usage,
    pub(crate) attempt: u32,
    pub(crate) asked_at: u64,
    pub(crate) is_given_up: bool,
}

#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) name: String,
    pub(crate) is_up: bool,
    pub(crate) boot: u64,
    pub(crate) sequence: u64,
    pub(crate) listener: usize,
    pub(crate) cut_until: u64,
    /// By application.
    pub(crate) holdings: Vec<Holding<LeaseId>>,
    pub(crate) journal: BTreeMap<LeaseId, Entry>,
    pub(crate) pending: BTreeMap<u64, Pending>,
    /// It dies the next time that it has written to its journal.
    pub(crate) dies_next: bool,
    /// How fast its clock is, in thousandths, and by how much it has jumped.
    rate: u64,
    pub(crate) jumped_ms: u64,
    pub(crate) jumped_at: u64,
}

impl Gateway {
    pub(crate) fn clock(&self, now: u64) -> u64 {
        now * self.rate / 1_000 + self.jumped_ms
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Listener {
    pub(crate) is_up: bool,
    pub(crate) epoch: u64,
}

pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) scenario: Scenario,
    pub(crate) now: u64,
    /// By time, and in the order in which they were sent.
    queue: BTreeMap<(u64, u64), Event>,
    next_event: u64,
    pub(crate) gateways: Vec<Gateway>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) store: Store,
    pub(crate) replica: Store,
    /// Answers that wait for the replica.
    pub(crate) unreplicated: Vec<(Connection, usize, Answer)>,
    pub(crate) store_stops_until: u64,
    /// What comes meanwhile waits; else it is lost.
    pub(crate) store_only_pauses: bool,
    pub(crate) truth: Truth,
    pub(crate) seen: Seen,
    pub(crate) is_quiet: bool,
    pub(crate) next_request: u64,
    pub(crate) is_over: bool,
    traces: bool,
}

impl World {
    pub(crate) fn new(seed: u64, traces: bool) -> Self {
        let mut random = Random::new(seed);
        let scenario = Scenario::draw(&mut random);
        let applications = scenario.applications.len();
        let holding = |at: usize| new_holding(&scenario, at, at as u64 * 77, 0);
        let gateway = |at: usize, random: &mut Random| Gateway {
            name: format!("gateway-{at}"),
            is_up: true,
            boot: 0,
            sequence: 0,
            listener: random.index(scenario.listeners),
            cut_until: 0,
            holdings: (0..applications).map(holding).collect(),
            journal: BTreeMap::new(),
            pending: BTreeMap::new(),
            dies_next: false,
            rate: if scenario.faults.drifts { random.between(990, 1_010) } else { 1_000 },
            jumped_ms: 10_000 + random.below(1_000_000),
            jumped_at: 0,
        };
        let gateways = (0..scenario.gateways).map(|at| gateway(at, &mut random)).collect();
        let turned = scenario.start.plus_ms(-random.between(0, 10_000).cast_signed());
        let store = Store::new(applications, [turned, turned.plus_ms(-10_000)]);
        Self {
            now: 0,
            queue: BTreeMap::new(),
            next_event: 0,
            gateways,
            listeners: vec![Listener { is_up: true, epoch: 0 }; scenario.listeners],
            replica: store.clone(),
            unreplicated: vec![],
            store,
            store_stops_until: 0,
            store_only_pauses: true,
            truth: Truth::default(),
            seen: Seen::default(),
            is_quiet: false,
            next_request: 0,
            is_over: false,
            traces,
            random,
            scenario,
        }
    }

    /// Runs to the end and tells what was seen. Panics where something is not as it must be.
    pub(crate) fn run(mut self) -> Seen {
        if self.traces {
            eprintln!("{:#?}", self.scenario);
        }
        self.begin();
        while !self.is_over {
            let ((at, _), event) = self.queue.pop_first().expect("there is an end");
            self.now = at;
            if self.traces && !matches!(event, Event::Tick { .. } | Event::Look) {
                eprintln!("{at:6} {event:?}");
            }
            self.seen.events += 1;
            self.handle(event);
        }
        self.seen
    }

    fn begin(&mut self) {
        for gateway in 0..self.gateways.len() {
            self.after(gateway as u64, Event::Tick { gateway, boot: 0 });
            for application in 0..self.scenario.applications.len() {
                let pause = self.random.below(1_000);
                self.after(pause, Event::Request { gateway, application });
            }
        }
        self.after(100, Event::Look);
        self.begin_faults();
        self.after(self.scenario.quiet_ms, Event::Quiet);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Request { gateway, application } => self.request(gateway, application),
            Event::Tick { gateway, boot } => self.tick(gateway, boot),
            Event::Leave { gateway, boot, application, receipt } => {
                self.leave(gateway, boot, application, &receipt);
            }
            Event::AtListener(by, application, question) => self.at_listener(by, application, question),
            Event::AtStore(by, application, question) => self.at_store(by, application, question),
            Event::BackAtListener(by, application, answer) => self.back_at_listener(by, application, answer),
            Event::AtGateway(by, application, answer) => self.at_gateway(by, application, answer),
            Event::Look => self.look(),
            Event::Fault(fault) => self.fault(fault),
            Event::Replicate => self.replicate(),
            Event::Quiet => self.quiet(),
            Event::NothingHeld => self.check_nothing_is_held(),
            Event::End => self.end(),
        }
    }

    pub(crate) fn after(&mut self, pause_ms: u64, event: Event) {
        self.next_event += 1;
        self.queue.insert((self.now + pause_ms, self.next_event), event);
    }

    /// The time as the store has it.
    pub(crate) fn time(&self) -> Timestamp {
        self.scenario.start.plus_ms(self.now.cast_signed())
    }

    /// Over the network: late, twice or not at all, and not in order.
    pub(crate) fn send(&mut self, event: Event) {
        let faults = &self.scenario.faults;
        if self.is_quiet {
            let pause = self.random.between(0, 20);
            return self.after(pause, event);
        }
        if self.random.happens(faults.loss_per_mille) {
            self.seen.lost += 1;
            return;
        }
        let delay = self.random.between(faults.delay_ms / 2, faults.delay_ms);
        let is_slow = self.random.happens(faults.slow_per_mille);
        let slow = if is_slow { self.random.below(SLOW_MS) } else { 0 };
        self.seen.slow += u64::from(is_slow);
        if self.random.happens(faults.duplicate_per_mille) {
            self.seen.duplicated += 1;
            let later = self.random.below(SLOW_MS);
            self.after(delay + later, event.clone());
        }
        self.after(delay + slow, event);
    }

    /// Whether a message still has a connection to travel on.
    pub(crate) fn lives(&self, by: Connection) -> bool {
        let (gateway, listener) = (&self.gateways[by.gateway], &self.listeners[by.listener]);
        gateway.is_up
            && gateway.boot == by.boot
            && self.now >= gateway.cut_until
            && listener.is_up
            && listener.epoch == by.epoch
    }
}

/// What a gateway that has just begun holds of an application.
pub(crate) fn new_holding(
    scenario: &Scenario,
    application: usize,
    spread: u64,
    clock: u64,
) -> Holding<LeaseId> {
    let mut holding = Holding::new(spread, clock);
    holding.set_terms(scenario.applications[application].terms);
    holding
}
