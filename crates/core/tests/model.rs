//! The lease protocol, small, and all of it: every order in which two gateways, one ledger and a network can act.
//!
//! The ledger is the real one, `ledger::answer`. Its holders are the rules that `lease` states, with every choice open: when
//! to ask, whether to want less, when to give back, when to die. Messages are never taken out of the network: each may
//! arrive at any time later, any number of times, or not at all. Time is four instants, and holders have no clock: a limit
//! holds even where a holder spends after its lease's end.
//!
//! The simulation has what this leaves out: several metrics and windows, several leases one after the other, real sizes.

use std::collections::BTreeSet;

use stateright::{Checker, Model, Property};
use weir_core::alert::AlertBins;
use weir_core::counter::{Ceiling, Increment};
use weir_core::id::MetricName;
use weir_core::lease::ledger::{self, Ask, Book, Lease, Line, Outcome, Wish};
use weir_core::lease::{Declared, LIFETIME_MS, LeaseId, Reply, When};
use weir_core::period::{Period, Timestamp, Window};
use weir_core::usage::UsageValue;

const GATEWAYS: usize = 2;
/// Longer than a lease and its grace.
const INSTANT_MS: i64 = 2_500;

#[derive(Debug, Clone)]
struct Protocol {
    gateways: usize,
    /// What they may spend together.
    max: u64,
    /// What each wants at a time.
    want: u64,
    /// Most messages about a lease before its last word.
    rounds: u32,
    instants: u8,
    crashes: u8,
    fail_overs: u8,
    /// How often somebody asks, without a lease, for all that is left.
    decisions: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Said {
    gateway: usize,
    boot: u8,
    round: u32,
    opens: bool,
    closes: bool,
    spent: u64,
    granted: u64,
    want: u64,
    /// The ledger's life.
    declared: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Heard {
    Granted(u64),
    Closed,
    Short,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Answer {
    gateway: usize,
    boot: u8,
    round: u32,
    life: u64,
    heard: Heard,
}

/// A lease as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Out {
    round: u32,
    since: i64,
    deadline: i64,
    granted: u64,
    settled: u64,
    is_presumed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Ledger {
    used: u64,
    out: [Option<Out>; GATEWAYS],
    is_closed: [bool; GATEWAYS],
    counted: [i64; GATEWAYS],
    decisions: u8,
    /// Admitted or granted since its replica was written.
    promised: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
enum Stage {
    #[default]
    Idle,
    /// Asked for, or granted.
    Open,
    Closing,
    /// The last word was heard.
    Over,
}

/// A gateway, with its journal: all but `granted` and `round` survives it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Holder {
    boot: u8,
    stage: Stage,
    round: u32,
    is_waiting: bool,
    granted: u64,
    spent: u64,
    /// Of the ledger, once granted.
    declared: Option<u64>,
    /// Of the ledger, as far as it is known.
    life: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    now: u8,
    life: u64,
    ledger: Ledger,
    replica: Ledger,
    forgotten: u64,
    holders: [Holder; GATEWAYS],
    said: BTreeSet<Said>,
    answers: BTreeSet<Answer>,
    forwarded: u64,
    /// Spent, and not forwarded: a gateway died in between.
    in_vain: u64,
    crashes: u8,
}

#[derive(Debug, Clone, PartialEq)]
enum Action {
    Open(usize),
    Renew(usize, u64),
    Close(usize),
    SayAgain(usize),
    Spend(usize),
    SpendAndDie(usize),
    Die(usize),
    AtLedger(Said),
    AtGateway(Answer),
    Presume(usize),
    Decide,
    Wait,
    Replicate,
    FailOver,
}

fn unit(max: u64) -> Vec<Increment> {
    vec![Increment {
        metric: MetricName::parse("hits").expect("a name"),
        value: UsageValue::Add(1),
        ceilings: vec![Ceiling { period: Period::Eternity, max }],
        alert_bins: AlertBins::NONE,
    }]
}

fn id(gateway: usize) -> LeaseId {
    LeaseId { boot: [u8::from(gateway == 1); 16], sequence: 1 }
}

fn instant(now: u8) -> Timestamp {
    // Away from the end of any window.
    Timestamp::from_unix_s(1_000_000).plus_ms(i64::from(now) * INSTANT_MS)
}

impl Out {
    fn of(lease: &Lease) -> Self {
        Self {
            round: lease.round,
            since: lease.moment.unix_ms(),
            deadline: lease.deadline.unix_ms(),
            granted: lease.lines[0].granted,
            settled: lease.lines[0].settled,
            is_presumed: lease.is_presumed,
        }
    }

    fn lease(&self, gateway: usize, max: u64) -> Lease {
        Lease {
            id: id(gateway),
            holder: if gateway == 0 { "berlin".into() } else { "tokyo".into() },
            round: self.round,
            moment: Timestamp::from_unix_ms(self.since),
            deadline: Timestamp::from_unix_ms(self.deadline),
            lines: vec![Line { unit: unit(max), granted: self.granted, settled: self.settled }],
            is_presumed: self.is_presumed,
        }
    }
}

impl Ledger {
    fn leases(&self, max: u64) -> Vec<Lease> {
        let out = self.out.iter().enumerate();
        out.filter_map(|(gateway, out)| out.as_ref().map(|out| out.lease(gateway, max))).collect()
    }

    fn held(&self) -> u64 {
        let out = self.out.iter().flatten().filter(|out| !out.is_presumed);
        out.map(|out| out.granted - out.settled).sum()
    }

    fn count(&mut self, gateway: usize, times: i64) {
        self.used = self.used.checked_add_signed(times).expect("no more is taken back than was counted");
        self.counted[gateway] += times;
    }

    fn committed(&self, gateway: usize) -> u64 {
        let counted = self.counted[gateway].cast_unsigned();
        self.out[gateway].as_ref().map_or(counted, |out| out.granted.max(counted))
    }

    fn answer(&mut self, said: &Said, max: u64, life: u64, now: Timestamp) -> Answer {
        let Said { gateway, boot, round, .. } = *said;
        let declared = said.declared.map(|incarnation| Declared { incarnation, moment: instant(0) });
        let ask = Ask {
            id: id(gateway),
            holder: if gateway == 0 { "berlin".into() } else { "tokyo".into() },
            round,
            opens: said.opens.then_some(When::Now),
            closes: said.closes,
            lasts_ms: LIFETIME_MS,
            declared,
            lines: vec![Wish {
                unit: unit(max),
                spent: said.spent,
                granted: said.granted,
                want: said.want,
                least: 1,
            }],
        };
        let used = self.used;
        let book = Book {
            leases: &self.leases(max),
            counters: &|_: &MetricName, _: &Window| used,
            is_closed: self.is_closed[gateway],
            closed_since: Timestamp::default(),
            incarnation: life,
            now,
        };
        let step = ledger::answer(&book, &ask);
        let before = self.committed(gateway);
        step.changes.iter().for_each(|change| self.count(gateway, change.times));
        match step.outcome {
            Outcome::Unchanged => {}
            Outcome::Put(lease) => self.out[gateway] = Some(Out::of(&lease)),
            Outcome::Closed => (self.out[gateway], self.is_closed[gateway]) = (None, true),
        }
        self.promised += self.committed(gateway).saturating_sub(before);
        let heard = match step.reply {
            Reply::Granted(grant) => Heard::Granted(grant.granted[0]),
            Reply::Closed => Heard::Closed,
            Reply::Short => Heard::Short,
        };
        Answer { gateway, boot, round, life, heard }
    }
}

impl Holder {
    /// The next message. Wanting less, it keeps below what it says from now on.
    fn say(&mut self, gateway: usize, want: u64) -> Said {
        self.round += 1;
        self.is_waiting = true;
        let closes = self.stage == Stage::Closing;
        self.granted = if closes { self.spent } else { self.granted.min(self.spent + want) };
        Said {
            gateway,
            boot: self.boot,
            round: self.round,
            opens: !closes && self.declared.is_none(),
            closes,
            spent: self.spent,
            granted: self.granted,
            want: if closes { 0 } else { want },
            declared: if closes { self.declared } else { self.declared.or(self.life) },
        }
    }

    fn hear(&mut self, answer: &Answer) {
        if self.boot != answer.boot {
            return;
        }
        if self.life.replace(answer.life) != Some(answer.life) {
            self.is_waiting = false;
            if self.stage == Stage::Over {
                self.stage = Stage::Closing;
            }
            return;
        }
        if self.round != answer.round || !std::mem::take(&mut self.is_waiting) {
            return;
        }
        match (self.stage, &answer.heard) {
            (Stage::Open, Heard::Granted(granted)) => {
                self.granted = (*granted).max(self.spent);
                self.declared = Some(answer.life);
            }
            (Stage::Open, Heard::Closed) => self.stage = Stage::Closing,
            (Stage::Open, Heard::Short) | (Stage::Closing, Heard::Closed) => self.stage = Stage::Over,
            _ => {}
        }
    }

    /// The next boot says its journal's last word.
    fn die(&mut self) {
        let is_asked_for = self.stage != Stage::Idle;
        *self = Self {
            boot: self.boot + 1,
            stage: if is_asked_for { Stage::Closing } else { Stage::Idle },
            spent: self.spent,
            granted: self.spent,
            declared: self.declared,
            ..Self::default()
        };
    }
}

impl State {
    /// So that states which differ in nothing else are one.
    fn drop_what_cannot_matter(&mut self) {
        let (holders, ledger) = (&self.holders, &self.ledger);
        self.answers.retain(|answer| {
            let holder = &holders[answer.gateway];
            let is_latest = (holder.boot, holder.round) == (answer.boot, answer.round);
            is_latest && holder.is_waiting || holder.boot == answer.boot && holder.life.is_none()
        });
        self.said.retain(|said| {
            let holder = &holders[said.gateway];
            let is_old = |out: &Out| said.round <= out.round && !said.closes;
            let is_settled = ledger.is_closed[said.gateway];
            let may_be_answered = holder.boot == said.boot && (holder.is_waiting || holder.life.is_none());
            may_be_answered || !is_settled && !ledger.out[said.gateway].as_ref().is_some_and(is_old)
        });
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            now: 0,
            life: 1,
            ledger: Ledger::default(),
            replica: Ledger::default(),
            forgotten: 0,
            holders: std::array::from_fn(|_| Holder { life: Some(1), ..Holder::default() }),
            said: BTreeSet::new(),
            answers: BTreeSet::new(),
            forwarded: 0,
            in_vain: 0,
            crashes: 0,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (at, holder) in state.holders.iter().enumerate().take(self.gateways) {
            let may_die = state.crashes < self.crashes;
            match holder.stage {
                Stage::Idle => actions.push(Action::Open(at)),
                Stage::Open => {
                    if holder.round < self.rounds {
                        actions.extend([Action::Renew(at, 0), Action::Renew(at, self.want)]);
                    }
                    if holder.spent < holder.granted {
                        actions.push(Action::Spend(at));
                        actions.extend(may_die.then_some(Action::SpendAndDie(at)));
                    }
                    actions.push(Action::Close(at));
                    actions.extend(may_die.then_some(Action::Die(at)));
                }
                // In truth again and again.
                Stage::Closing if !holder.is_waiting && holder.round < self.rounds + 2 => {
                    actions.push(Action::SayAgain(at));
                }
                Stage::Closing | Stage::Over => {}
            }
            let is_over = |lease: &Out| !lease.is_presumed && instant(state.now).unix_ms() >= lease.deadline;
            if state.ledger.out[at].as_ref().is_some_and(is_over) {
                actions.push(Action::Presume(at));
            }
        }
        actions.extend(state.said.iter().cloned().map(Action::AtLedger));
        let is_news = |answer: &&Answer| state.holders[answer.gateway].boot == answer.boot;
        actions.extend(state.answers.iter().filter(is_news).cloned().map(Action::AtGateway));
        if state.ledger.decisions < self.decisions {
            actions.push(Action::Decide);
        }
        if state.now < self.instants {
            actions.push(Action::Wait);
        }
        if state.life <= u64::from(self.fail_overs) {
            actions.extend([Action::Replicate, Action::FailOver]);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let now = instant(state.now);
        match action {
            Action::Open(at) => {
                state.holders[at].stage = Stage::Open;
                state.said.insert(state.holders[at].say(at, self.want));
            }
            Action::Renew(at, want) => {
                state.said.insert(state.holders[at].say(at, want));
            }
            Action::Close(at) => {
                state.holders[at].stage = Stage::Closing;
                state.said.insert(state.holders[at].say(at, 0));
            }
            Action::SayAgain(at) => {
                state.said.insert(state.holders[at].say(at, 0));
            }
            Action::Spend(at) => {
                state.holders[at].spent += 1;
                state.forwarded += 1;
            }
            Action::SpendAndDie(at) => {
                state.holders[at].spent += 1;
                state.in_vain += 1;
                state.crashes += 1;
                state.holders[at].die();
            }
            Action::Die(at) => {
                state.crashes += 1;
                state.holders[at].die();
            }
            Action::AtLedger(said) => {
                state.answers.insert(state.ledger.answer(&said, self.max, state.life, now));
            }
            Action::AtGateway(answer) => state.holders[answer.gateway].hear(&answer),
            Action::Presume(at) => {
                let lease = state.ledger.out[at].as_ref().map(|out| out.lease(at, self.max));
                let (lease, changes) = lease.and_then(|lease| lease.presumed(now))?;
                changes.iter().for_each(|change| state.ledger.count(at, change.times));
                state.ledger.out[at] = Some(Out::of(&lease));
            }
            Action::Decide => {
                let left =
                    self.max.checked_sub(state.ledger.used + state.ledger.held()).filter(|n| *n > 0)?;
                state.ledger.used += left;
                state.ledger.decisions += 1;
                state.ledger.promised += left;
                state.forwarded += left;
            }
            Action::Wait => state.now += 1,
            Action::Replicate => {
                state.ledger.promised = 0;
                state.replica = state.ledger.clone();
            }
            Action::FailOver => {
                state.life += 1;
                state.forgotten += state.ledger.promised;
                state.ledger = state.replica.clone();
            }
        }
        if self.fail_overs == 0 {
            state.drop_what_cannot_matter();
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("what is used and held is within the limit", |model, state: &State| {
                state.ledger.used + state.ledger.held() <= model.max + state.forgotten
            }),
            Property::always("what is forwarded is within the limit", |model, state: &State| {
                state.forwarded <= model.max + state.forgotten
            }),
            Property::always(
                "no more is counted of a lease than was spent, unless presumed",
                |_, state: &State| {
                    (0..GATEWAYS).all(|at| {
                        let is_presumed = state.ledger.out[at].as_ref().is_some_and(|out| out.is_presumed);
                        is_presumed || state.ledger.counted[at] <= state.holders[at].spent.cast_signed()
                    })
                },
            ),
            Property::always(
                "nothing is spent that is not held, counted or forgotten",
                |_, state: &State| {
                    (0..GATEWAYS)
                        .all(|at| state.holders[at].spent <= state.ledger.committed(at) + state.forgotten)
                },
            ),
            Property::always("what was heard is counted", |_, state: &State| {
                let is_known = |at: usize| state.holders[at].life == Some(state.life);
                (0..GATEWAYS).filter(|at| state.holders[*at].stage == Stage::Over && is_known(*at)).all(
                    |at| {
                        state.ledger.counted[at] == state.holders[at].spent.cast_signed()
                            && state.ledger.out[at].is_none()
                    },
                )
            }),
            Property::sometimes("all gateways spend, all there is", |model, state: &State| {
                let spends = |holder: &Holder| holder.spent > 0;
                state.holders.iter().take(model.gateways).all(spends) && state.forwarded == model.max
            }),
        ]
    }
}

#[track_caller]
fn check(model: Protocol) {
    let checker = model.checker().threads(2).spawn_bfs().join();
    eprintln!("{} states", checker.unique_state_count());
    checker.assert_properties();
}

const SMALL: Protocol = Protocol {
    gateways: 2,
    max: 5,
    want: 1,
    rounds: 2,
    instants: 1,
    crashes: 1,
    fail_overs: 0,
    decisions: 1,
};

#[test]
fn two_gateways_share_a_limit_though_one_dies() {
    check(SMALL);
}

#[test]
fn a_ledger_that_forgets_believes_its_holder() {
    check(Protocol { gateways: 1, max: 4, fail_overs: 1, instants: 0, crashes: 0, ..SMALL });
}

#[test]
fn a_ledger_that_forgets_believes_the_journal_of_a_holder_that_died() {
    check(Protocol { gateways: 1, max: 4, fail_overs: 1, rounds: 1, ..SMALL });
}
