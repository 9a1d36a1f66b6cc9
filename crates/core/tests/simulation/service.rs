//! What listeners and the store do: listeners pass on, and ask for leases back; the store decides.

use crate::store::Verdict;
use crate::world::{Answer, Connection, Event, Question, World};

/// When a listener asks the store again after it has asked for leases back, in milliseconds from one time to the next.
const LOOKS_MS: [u64; 4] = [20, 50, 80, 100];
/// How often the store looks for leases that are over.
const LOOK_MS: u64 = 250;

impl World {
    pub(crate) fn at_listener(&mut self, by: Connection, application: usize, question: Question) {
        if self.lives(by) {
            self.send(Event::AtStore(by, application, question));
        }
    }

    pub(crate) fn at_store(&mut self, by: Connection, application: usize, question: Question) {
        if self.now < self.store_stops_until {
            if self.store_only_pauses {
                self.after(self.store_stops_until - self.now, Event::AtStore(by, application, question));
            }
            return;
        }
        let time = self.time();
        let answer = match question {
            Question::Lease(message) => self.lease(by, application, &message),
            Question::Decide { id, attempt, tries } => {
                let increments = self.truth.requests[&id].increments.clone();
                let attempt = attempt * 10 + tries;
                let verdict = self.store.decide(application, (id, attempt), &increments, time);
                if let Verdict::Refused { is_held_back: true, .. } = verdict
                    && (tries as usize) < LOOKS_MS.len()
                {
                    return self.ask_back(by, application, (id, attempt / 10, tries));
                }
                Answer::Decided { id, verdict }
            }
            Question::TakeBack { id } => {
                let increments = self.truth.requests[&id].increments.clone();
                self.store.take_back(application, id, &increments);
                Answer::TakenBack { id }
            }
        };
        self.truth.check_limits(application, &self.scenario.applications[application], &self.store, time);
        if !self.scenario.is_replicated {
            return self.send(Event::BackAtListener(by, application, answer));
        }
        self.unreplicated.push((by, application, answer));
        let lag = self.random.below(30);
        self.after(lag, Event::Replicate);
    }

    /// The replica catches up: what waited for that is answered.
    pub(crate) fn replicate(&mut self) {
        self.replica = self.store.replicate();
        for (by, application, answer) in std::mem::take(&mut self.unreplicated) {
            self.send(Event::BackAtListener(by, application, answer));
        }
    }

    fn lease(&mut self, by: Connection, at: usize, message: &weir_core::lease::Message) -> Answer {
        let holder = self.gateways[by.gateway].name.clone();
        let let_go = self.seen.let_go;
        let time = self.time();
        let application = &self.scenario.applications[at];
        let reply = self.store.lease(at, application, (&holder, message), time, &mut self.seen);
        if self.seen.let_go > let_go
            && let Some(spending) = self.truth.leases.get_mut(&message.id)
        {
            spending.is_let_go = true;
        }
        self.truth.check_lease(at, message.id, &self.store);
        Answer::Lease { id: message.id, round: message.round, reply, incarnation: self.store.incarnation }
    }

    /// A request is refused only for what leases hold: asks for them, and then the store once more.
    fn ask_back(&mut self, by: Connection, application: usize, (id, attempt, tries): (u64, u32, u32)) {
        for (gateway, name) in
            self.gateways.iter().map(|gateway| gateway.name.clone()).enumerate().collect::<Vec<_>>()
        {
            if tries > 0 || !self.store.holders(application).contains(&name) {
                continue;
            }
            let holder = &self.gateways[gateway];
            let epoch = self.listeners[holder.listener].epoch;
            let to = Connection { gateway, boot: holder.boot, listener: holder.listener, epoch };
            self.send(Event::AtGateway(to, application, Answer::Recall));
        }
        let question = Question::Decide { id, attempt, tries: tries + 1 };
        self.after(LOOKS_MS[tries as usize], Event::AtListener(by, application, question));
    }

    pub(crate) fn back_at_listener(&mut self, by: Connection, application: usize, answer: Answer) {
        let listener = &self.listeners[by.listener];
        if listener.is_up && listener.epoch == by.epoch {
            self.send(Event::AtGateway(by, application, answer));
        }
    }

    /// The store counts what is overdue, whether anybody asks or not.
    pub(crate) fn look(&mut self) {
        self.after(LOOK_MS, Event::Look);
        if self.now < self.store_stops_until {
            return;
        }
        let time = self.time();
        for at in 0..self.scenario.applications.len() {
            self.store.presume(at, time, &mut self.seen);
            self.truth.check_limits(at, &self.scenario.applications[at], &self.store, time);
        }
    }
}
