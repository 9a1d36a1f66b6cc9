//! What gateways do: requests, what there is to say of leases, and answers.

use weir_core::lease::holding::{Heard, Receipt};
use weir_core::lease::{LeaseId, Message};
use weir_core::usage::{Usage, UsageValue};

use crate::store::Verdict;
use crate::truth::{Fate, Request, Spending};
use crate::world::{Answer, Connection, Entry, Event, Pending, Question, World};

const TICK_MS: u64 = 20;
/// How long a request waits for its verdict before it is asked for again.
const VERDICT_MS: u64 = 800;
const ATTEMPTS: u32 = 3;

impl World {
    /// A request comes in, and the next one is on its way.
    pub(crate) fn request(&mut self, gateway: usize, application: usize) {
        if self.is_quiet {
            return;
        }
        let pause = match self.random.below(1_000) {
            0..985 => self.random.below(30 * self.scenario.pace),
            985..995 => self.random.below(1_000),
            _ => self.random.below(4_000),
        };
        self.after(pause, Event::Request { gateway, application });
        let is_burst = self.random.happens(10);
        for _ in 0..if is_burst { self.random.between(10, 60) } else { 1 } {
            if self.gateways[gateway].is_up {
                self.seen.requests += 1;
                let usage = self.scenario.applications[application].draw_usage(&mut self.random);
                if !self.spend(gateway, application, &usage) {
                    self.ask_for_verdict(gateway, application, usage);
                }
            }
        }
    }

    /// Takes a request from a lease: written to the journal first, then forwarded.
    fn spend(&mut self, at: usize, application: usize, usage: &Usage) -> bool {
        let gateway = &mut self.gateways[at];
        let clock = gateway.clock(self.now);
        let (journal, truth) = (&mut gateway.journal, &mut self.truth);
        let mut from = None;
        let spent = gateway.holdings[application].spend(usage, clock, |id, line, by| {
            journal.get_mut(id).expect("a journaled lease").spent[line] += by;
            let spending = truth.leases.get_mut(id).expect("a known lease");
            spending.spent[line] += by;
            spending.peak[line] = spending.peak[line].max(spending.spent[line]);
            from = Some(*id);
        });
        let Some(spent) = spent else { return false };
        let (is_low, receipt) = (spent.is_low, spent.receipt());
        let Some(id) = from else { return true };
        self.seen.spent_from_leases += 1;
        if std::mem::take(&mut self.gateways[at].dies_next) {
            self.seen.crashes_between_journal_and_upstream += 1;
            self.in_vain(id, usage);
            self.crash(at);
            return true;
        }
        let boot = self.gateways[at].boot;
        if self.random.happens(self.scenario.faults.take_back_per_mille) {
            self.in_vain(id, usage);
            let pause = self.random.below(600);
            let receipt = Box::new(receipt);
            self.after(pause, Event::Leave { gateway: at, boot, application, receipt });
        } else {
            self.forward_spent(id, usage);
        }
        if is_low {
            self.after(0, Event::Tick { gateway: at, boot: u64::MAX });
        }
        true
    }

    fn forward_spent(&mut self, id: LeaseId, usage: &Usage) {
        let spending = self.truth.leases.get_mut(&id).expect("a known lease");
        let declared = spending.declared.expect("journaled before anything is spent");
        let application = spending.application;
        for (metric, by) in amounts(usage) {
            let line = spending.metrics.iter().position(|known| known == metric).expect("a line of it");
            spending.forwarded[line] += by;
        }
        for (metric, by) in amounts(usage) {
            let unit = self.scenario.applications[application].unit(metric);
            self.truth.forward(application, unit, declared.moment, by);
        }
    }

    fn in_vain(&mut self, id: LeaseId, usage: &Usage) {
        let spending = self.truth.leases.get_mut(&id).expect("a known lease");
        spending.in_vain += amounts(usage).map(|(_, by)| by).sum::<u64>();
    }

    /// The client of a request has left before it was forwarded.
    pub(crate) fn leave(&mut self, at: usize, boot: u64, application: usize, receipt: &Receipt) {
        let gateway = &mut self.gateways[at];
        if !gateway.is_up || gateway.boot != boot {
            return;
        }
        let (journal, truth) = (&mut gateway.journal, &mut self.truth);
        let is_back = gateway.holdings[application].take_back(receipt, |id, line, by| {
            journal.get_mut(id).expect("a journaled lease").spent[line] -= by;
            let spending = truth.leases.get_mut(id).expect("a known lease");
            spending.spent[line] -= by;
            spending.in_vain -= by;
        });
        let seen = if is_back { &mut self.seen.taken_back } else { &mut self.seen.taken_back_too_late };
        *seen += 1;
    }

    /// Asks the listener about one request.
    fn ask_for_verdict(&mut self, at: usize, application: usize, usage: Usage) {
        self.next_request += 1;
        let increments = self.scenario.applications[application].increments(&usage);
        let request = Request { application, increments, fate: Fate::Waiting, is_lost: false };
        self.truth.requests.insert(self.next_request, request);
        let pending = Pending { application, usage, attempt: 0, asked_at: self.now, is_given_up: false };
        self.gateways[at].pending.insert(self.next_request, pending);
        self.ask(at, application, Question::Decide { id: self.next_request, attempt: 0, tries: 0 });
    }

    fn ask(&mut self, at: usize, application: usize, question: Question) {
        let gateway = &self.gateways[at];
        let epoch = self.listeners[gateway.listener].epoch;
        let by = Connection { gateway: at, boot: gateway.boot, listener: gateway.listener, epoch };
        if self.lives(by) {
            self.send(Event::AtListener(by, application, question));
        }
    }

    /// Sees to what is due. A tick of no boot is one more than the regular ones.
    pub(crate) fn tick(&mut self, at: usize, boot: u64) {
        let gateway = &self.gateways[at];
        if !gateway.is_up || (gateway.boot != boot && boot != u64::MAX) {
            return;
        }
        if boot != u64::MAX {
            let pause = if self.is_quiet { 5 * TICK_MS } else { TICK_MS };
            self.after(pause, Event::Tick { gateway: at, boot });
        }
        for application in 0..self.scenario.applications.len() {
            for message in self.due(at, application) {
                self.ask(at, application, Question::Lease(message));
            }
            while let Some(id) = self.gateways[at].holdings[application].retire() {
                self.gateways[at].journal.remove(&id);
                self.truth.check_settled(id, &self.store);
            }
        }
        self.ask_again(at);
    }

    fn due(&mut self, at: usize, application: usize) -> Vec<Message> {
        let slots = self.scenario.slots;
        let gateway = &mut self.gateways[at];
        let clock = gateway.clock(self.now);
        let boot = boot_id(at, gateway.boot);
        let (journal, sequence, truth) = (&mut gateway.journal, &mut gateway.sequence, &mut self.truth);
        gateway.holdings[application].due(clock, |metrics| {
            if journal.len() >= slots {
                return None;
            }
            *sequence += 1;
            let id = LeaseId { boot, sequence: *sequence };
            let metrics: Vec<_> = metrics.cloned().collect();
            let spent = vec![0; metrics.len()];
            let spending = Spending {
                application,
                metrics: metrics.clone(),
                spent: spent.clone(),
                peak: spent.clone(),
                forwarded: spent.clone(),
                in_vain: 0,
                declared: None,
                is_let_go: false,
            };
            truth.leases.insert(id, spending);
            journal.insert(id, Entry { application, metrics, spent, declared: None });
            Some((id, id))
        })
    }

    /// Requests that got no verdict, or have to be taken back.
    fn ask_again(&mut self, at: usize) {
        let now = self.now;
        let mut questions = vec![];
        for (id, pending) in &mut self.gateways[at].pending {
            if now < pending.asked_at + VERDICT_MS {
                continue;
            }
            pending.asked_at = now;
            if !pending.is_given_up && pending.attempt + 1 < ATTEMPTS {
                pending.attempt += 1;
                let attempt = pending.attempt;
                questions.push((pending.application, Question::Decide { id: *id, attempt, tries: 0 }));
            } else {
                if !std::mem::replace(&mut pending.is_given_up, true) {
                    self.seen.given_up += 1;
                    self.truth.requests.get_mut(id).expect("a known request").fate = Fate::Dropped;
                }
                questions.push((pending.application, Question::TakeBack { id: *id }));
            }
        }
        for (application, question) in questions {
            self.ask(at, application, question);
        }
    }

    /// An answer arrives.
    pub(crate) fn at_gateway(&mut self, by: Connection, application: usize, answer: Answer) {
        if !self.lives(by) {
            return;
        }
        let gateway = &mut self.gateways[by.gateway];
        let clock = gateway.clock(self.now);
        let holding = &mut gateway.holdings[application];
        match answer {
            Answer::Lease { id, round, reply, incarnation } => {
                match holding.answered(id, round, reply, incarnation, clock) {
                    Heard::Nothing => {}
                    Heard::Granted(id, declared) => {
                        gateway.journal.get_mut(id).expect("a journaled lease").declared = Some(declared);
                        self.truth.leases.get_mut(id).expect("a known lease").declared = Some(declared);
                    }
                    Heard::Refused(id) => {
                        gateway.journal.remove(&id);
                    }
                }
            }
            Answer::Recall => {
                self.seen.recalls += 1;
                holding.recalled(clock);
                self.after(0, Event::Tick { gateway: by.gateway, boot: u64::MAX });
            }
            Answer::TakenBack { id } => {
                gateway.pending.remove(&id);
            }
            Answer::Decided { id, verdict } => self.decided(by.gateway, id, verdict),
        }
    }

    fn decided(&mut self, at: usize, id: u64, verdict: Verdict) {
        let gateway = &mut self.gateways[at];
        let clock = gateway.clock(self.now);
        let Some(pending) = gateway.pending.get_mut(&id).filter(|pending| !pending.is_given_up) else {
            return;
        };
        let request = self.truth.requests.get_mut(&id).expect("a known request");
        match verdict {
            Verdict::Counted(moment) => {
                request.fate = Fate::Forwarded;
                gateway.holdings[pending.application].note(&pending.usage, clock);
                gateway.pending.remove(&id);
                let (application, increments) = (request.application, request.increments.clone());
                self.seen.admitted_one_by_one += 1;
                self.truth.forward(application, &increments, moment, 1);
            }
            Verdict::Refused { .. } => {
                request.fate = Fate::Refused;
                self.seen.refused += 1;
                if pending.attempt == 0 {
                    gateway.pending.remove(&id);
                } else {
                    // Another attempt may yet be counted.
                    pending.is_given_up = true;
                    pending.asked_at = 0;
                }
            }
            Verdict::TakenBack => {}
        }
    }
}

fn amounts(usage: &Usage) -> impl Iterator<Item = (&weir_core::id::MetricName, u64)> {
    usage.iter().map(|(metric, value)| match value {
        UsageValue::Add(by) | UsageValue::Set(by) => (metric, by),
    })
}

/// Names one run of one gateway.
pub(crate) fn boot_id(gateway: usize, boot: u64) -> [u8; 16] {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&(gateway as u64).to_be_bytes());
    id[8..].copy_from_slice(&boot.to_be_bytes());
    id
}
