//! What goes wrong, and how all ends well.

use weir_core::counter::Increment;
use weir_core::lease::Message;
use weir_core::lease::holding::{Holding, Terms};
use weir_core::usage::{Usage, UsageValue};

use crate::store::{Verdict, limited};
use crate::truth::Fate;
use crate::world::{Event, Fault, World, new_holding};

/// When nothing is held any more, counted from the last request.
const HELD_MS: u64 = 2_000;
/// When everything is settled and every journal empty: the slowest answer may be from before a fail-over.
const SETTLED_MS: u64 = 16_000;
/// For how much longer leases for an outage are kept, however slow a clock is.
const KEPT_MS: u64 = 123_000;
/// How far a replica is behind, at most.
const LAG_MS: u64 = 1_500;

impl World {
    pub(crate) fn begin_faults(&mut self) {
        let faults = &self.scenario.faults;
        let all = [
            (faults.cut, Fault::Cut),
            (faults.gateway_crash, Fault::Crash),
            (faults.listener_crash, Fault::ListenerCrash),
            (faults.store_pause, Fault::StorePause),
            (faults.store_restart, Fault::StoreRestart),
            (faults.fail_over, Fault::FailOver),
            (faults.clock_jump, Fault::Jump),
        ];
        for (pause_ms, fault) in all {
            let mut at = 0;
            while pause_ms > 0 && at < self.scenario.quiet_ms {
                at += self.random.below(2 * pause_ms);
                self.after(at, Event::Fault(fault));
                if matches!(fault, Fault::FailOver) {
                    let behind = self.random.below(LAG_MS);
                    self.after(at.saturating_sub(behind), Event::Replicate);
                }
            }
        }
    }

    pub(crate) fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::Start(gateway) => return self.start(gateway),
            Fault::ListenerStart(listener) => {
                self.listeners[listener].is_up = true;
                return;
            }
            _ if self.is_quiet => return,
            _ => {}
        }
        let (gateway, listener) =
            (self.random.index(self.gateways.len()), self.random.index(self.listeners.len()));
        match fault {
            Fault::Cut => {
                self.seen.link_cuts += 1;
                let lasts = self.random.below(6_000 * self.scenario.pace);
                self.gateways[gateway].cut_until = self.now + lasts;
            }
            Fault::Crash if self.gateways[gateway].is_up => {
                if self.random.happens(500) {
                    self.gateways[gateway].dies_next = true;
                } else {
                    self.crash(gateway);
                }
            }
            Fault::ListenerCrash if self.listeners[listener].is_up => self.crash_listener(listener),
            Fault::StorePause => {
                self.seen.store_pauses += 1;
                self.stop_store(2_000, true);
            }
            Fault::StoreRestart => {
                self.seen.store_restarts += 1;
                self.unreplicated.clear();
                self.stop_store(4_000, false);
            }
            Fault::FailOver => {
                self.unreplicated.clear();
                if self.scenario.is_replicated {
                    self.seen.fail_overs_with_all_replicated += 1;
                } else {
                    self.seen.fail_overs += 1;
                    self.truth.forget(&self.store);
                }
                let incarnation = self.store.incarnation + 1;
                self.store = self.replica.clone();
                self.store.incarnation = incarnation;
                self.stop_store(6_000, false);
            }
            Fault::Jump => {
                // Not so far in a short time that a gateway takes what it heard just now for old.
                let by = self.random.below(3_000);
                if self.now >= self.gateways[gateway].jumped_at + 6_000 {
                    self.seen.clock_jumps += 1;
                    self.gateways[gateway].jumped_ms += by;
                    self.gateways[gateway].jumped_at = self.now;
                }
            }
            _ => {}
        }
    }

    fn stop_store(&mut self, most_ms: u64, only_pauses: bool) {
        let until = self.now + self.random.below(most_ms);
        if until > self.store_stops_until {
            self.store_stops_until = until;
            self.store_only_pauses = only_pauses;
        }
    }

    /// `kill -9`: the journal is left.
    pub(crate) fn crash(&mut self, at: usize) {
        self.seen.gateway_crashes += 1;
        let clock = self.gateways[at].clock(self.now);
        let gateway = &mut self.gateways[at];
        gateway.is_up = false;
        gateway.dies_next = false;
        for (at, holding) in gateway.holdings.iter_mut().enumerate() {
            *holding = new_holding(&self.scenario, at, 0, clock);
        }
        for id in std::mem::take(&mut gateway.pending).into_keys() {
            let request = self.truth.requests.get_mut(&id).expect("a known request");
            request.is_lost = true;
            if request.fate == Fate::Waiting {
                request.fate = Fate::Dropped;
            }
        }
        let pause = self.random.below(5_000 * self.scenario.pace);
        self.after(pause, Event::Fault(Fault::Start(at)));
    }

    fn start(&mut self, at: usize) {
        let gateway = &mut self.gateways[at];
        if gateway.is_up {
            return;
        }
        gateway.is_up = true;
        gateway.boot += 1;
        for (id, entry) in &gateway.journal {
            let spent = entry.metrics.iter().cloned().zip(entry.spent.iter().copied());
            let last_word = Message::last_word(*id, entry.declared, spent);
            gateway.holdings[entry.application].restore(*id, last_word);
            self.seen.restored += 1;
        }
        let boot = gateway.boot;
        self.after(0, Event::Tick { gateway: at, boot });
    }

    fn crash_listener(&mut self, at: usize) {
        self.seen.listener_crashes += 1;
        let listener = &mut self.listeners[at];
        listener.epoch += 1;
        listener.is_up = false;
        let pause = self.random.below(2_000);
        self.after(pause, Event::Fault(Fault::ListenerStart(at)));
        for gateway in 0..self.gateways.len() {
            if self.gateways[gateway].listener == at {
                let other = self.random.index(self.listeners.len());
                self.gateways[gateway].listener = other;
                self.gateways[gateway].holdings.iter_mut().for_each(Holding::unheard);
            }
        }
    }

    /// No more requests, and nothing goes wrong any more.
    pub(crate) fn quiet(&mut self) {
        self.is_quiet = true;
        self.store_stops_until = 0;
        for listener in &mut self.listeners {
            listener.is_up = true;
        }
        for gateway in 0..self.gateways.len() {
            self.gateways[gateway].cut_until = 0;
            self.start(gateway);
        }
        self.after(HELD_MS, Event::NothingHeld);
        let kept_ms = if self.scenario.has_outage_terms() { KEPT_MS } else { 0 };
        self.after(SETTLED_MS + kept_ms, Event::End);
    }

    /// Except what is kept for an outage.
    pub(crate) fn check_nothing_is_held(&mut self) {
        for (account, application) in self.store.accounts.iter().zip(&self.scenario.applications) {
            let out = account.leases.iter().find(|lease| !lease.is_presumed);
            if application.terms == Terms::Outage {
                self.seen.kept_for_an_outage += u64::from(out.is_some());
            } else {
                assert!(out.is_none(), "still out: {out:?}");
            }
        }
    }

    pub(crate) fn end(&mut self) {
        for gateway in &self.gateways {
            assert!(gateway.journal.is_empty(), "not settled: {:?}", gateway.journal);
            assert!(gateway.pending.is_empty(), "no verdict: {:?}", gateway.pending);
            assert!(gateway.holdings.iter().all(Holding::is_empty), "not over: {:?}", gateway.holdings);
        }
        self.truth.check_end(&self.scenario.applications, &self.store);
        for at in 0..self.scenario.applications.len() {
            self.check_nothing_is_stranded(at);
        }
        self.is_over = true;
    }

    /// What a limit has left is there for whoever asks, and no more.
    fn check_nothing_is_stranded(&mut self, at: usize) {
        let time = self.time();
        let application = &self.scenario.applications[at];
        let metrics: Vec<_> = application.limits().map(|(metric, ..)| metric.clone()).collect();
        for metric in metrics {
            let of = |by: u64| Usage::new([(metric.clone(), UsageValue::Add(by))]);
            let left = |(counter, _, max): ((_, _, _), u64, u64)| -> u64 {
                max.saturating_sub(self.store.accounts[at].counts.get(&counter).copied().unwrap_or(0))
            };
            let unit = application.increments(&of(1));
            let left = limited(&unit, time).map(left).min().expect("a limit of it");
            let cases: [(Vec<Increment>, bool); 2] =
                [(application.increments(&of(left + 1)), false), (application.increments(&of(left)), true)];
            for (increments, is_admitted) in cases.into_iter().filter(|_| left > 0) {
                self.next_request += 1;
                let verdict = self.store.decide(at, (self.next_request, 0), &increments, time);
                assert_eq!(matches!(verdict, Verdict::Counted(_)), is_admitted, "{left} left of {metric}");
            }
        }
    }
}
