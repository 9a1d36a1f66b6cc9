//! One application's holding, step by step in text.

use std::collections::BTreeMap;

use super::*;
use crate::lease::{Grant, Line, Standing};
use crate::period::{Period, Timestamp};
use crate::usage::tests::usage;

struct Desk {
    holding: Holding<u64>,
    now: u64,
    incarnation: u64,
    sequence: u64,
    /// No room for more leases than this.
    slots: usize,
    /// Spent of each lease, by line, as its owner has written it down.
    journal: BTreeMap<u64, Vec<u64>>,
    receipt: Option<Receipt>,
    /// The latest message about each lease.
    said: BTreeMap<u64, Message>,
}

impl Desk {
    fn new() -> Self {
        Self {
            holding: Holding::new(0, 10_000),
            now: 10_000,
            incarnation: 1,
            sequence: 0,
            slots: 100,
            journal: BTreeMap::new(),
            receipt: None,
            said: BTreeMap::new(),
        }
    }

    fn spend(&mut self, text: &str) -> String {
        let journal = &mut self.journal;
        let record = |tag: &u64, line: usize, by: u64| journal.get_mut(tag).unwrap()[line] += by;
        match self.holding.spend(&usage(text), self.now, record) {
            Some(spent) => {
                self.receipt = Some(spent.receipt());
                let low = if spent.is_low { ", low" } else { "" };
                let stands = |(standing, taken): (&Standing, u64)| format!(", {taken} of {}", standing.max);
                let stands: String = spent.standings().map(stands).collect();
                format!("spent{stands}{low}")
            }
            None => "ask".into(),
        }
    }

    /// `1.2 opens hits=0/0+5`: what is said of lease 1 in round 2.
    fn due(&mut self) -> String {
        let (sequence, slots, journal) = (&mut self.sequence, self.slots, &mut self.journal);
        let messages = self.holding.due(self.now, |metrics| {
            if journal.len() == slots {
                return None;
            }
            *sequence += 1;
            journal.insert(*sequence, vec![0; metrics.count()]);
            Some((LeaseId { boot: [0; 16], sequence: *sequence }, *sequence))
        });
        let mut told = vec![];
        for message in messages {
            let opens = match message.opens {
                Some(When::Now) => " opens",
                Some(When::Next) => " next",
                None => "",
            };
            let closes = if message.closes { " closes" } else { "" };
            let line = |l: &Line| format!(" {}={}/{}+{}", l.metric, l.spent, l.granted, l.want);
            let lines: String = message.lines.iter().map(line).collect();
            told.push(format!("{}.{}{opens}{closes}{lines}", message.id.sequence, message.round));
            self.said.insert(message.id.sequence, message);
        }
        told.join(", ")
    }

    /// Answers the latest message about a lease: `1 granted 5`, for the whole second and up to the window's end in ten;
    /// `1 granted 5 from 600 to 800 window 900` otherwise; `1.2` for an earlier round.
    fn answer(&mut self, text: &str) -> String {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (name, round) = words[0].split_once('.').unwrap_or((words[0], ""));
        let said = &self.said[&name.parse().unwrap()];
        let after = |word: &str, or: u64| {
            let at = words.iter().position(|w| *w == word);
            at.map_or(or, |at| words[at + 1].parse().unwrap())
        };
        let reply = match words[1] {
            "granted" => {
                let numbers = words[2..].iter().map_while(|word| word.parse().ok());
                let day = Period::Day.window(Timestamp::default());
                let metric = said.lines[0].metric.clone();
                Reply::Granted(Grant {
                    declared: Declared { incarnation: self.incarnation, moment: Timestamp::from_unix_s(1) },
                    granted: numbers.collect(),
                    begins_in_ms: after("from", 0),
                    ends_in_ms: after("to", 1_000),
                    window_ends_in_ms: after("window", 10_000),
                    standings: vec![Standing { metric, window: day, max: 100, taken: 20 }],
                    weights: said.lines.iter().map(|_| vec![(0, 1)]).collect(),
                })
            }
            "closed" => Reply::Closed,
            _ => Reply::Short,
        };
        let round = round.parse().unwrap_or(said.round);
        match self.holding.answered(said.id, round, reply, self.incarnation, self.now) {
            Heard::Nothing => String::new(),
            Heard::Granted(tag, _) => format!("{tag} granted"),
            Heard::Refused(tag) => format!("{tag} refused"),
        }
    }

    fn take_back(&mut self) -> String {
        let (receipt, journal) = (self.receipt.take().unwrap(), &mut self.journal);
        let is_back =
            self.holding.take_back(&receipt, |tag, line, by| journal.get_mut(tag).unwrap()[line] -= by);
        format!("{is_back} {:?}", self.journal[&receipt.id.sequence])
    }

    fn step(&mut self, text: &str) -> String {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        match word {
            "wait" => self.now += rest.parse::<u64>().unwrap(),
            "note" => self.holding.note(&usage(rest), self.now),
            "recall" => self.holding.recalled(self.now),
            "outdated" => self.holding.outdated(),
            "unheard" => self.holding.unheard(),
            "fail-over" => self.incarnation += 1,
            "slots" => self.slots = rest.parse().unwrap(),
            "spend" => return self.spend(rest),
            "due" => return self.due(),
            "back" => return self.take_back(),
            "retire" => return format!("{:?}", self.holding.retire()),
            "tags" => return format!("{:?}", self.holding.tags().collect::<Vec<_>>()),
            _ => return self.answer(text),
        }
        String::new()
    }
}

/// Two requests one after the other, a lease for them, and its first answer, which tells the ledger's life.
const OPEN: &[(&str, &str)] = &[
    ("note hits=1", ""),
    ("note hits=1", ""),
    ("due", "1.1 opens hits=0/0+16"),
    ("1 granted 16", ""),
    ("due", "1.2 opens hits=0/0+16"),
    ("1 granted 16", "1 granted"),
    ("due", ""),
];

#[track_caller]
fn check(steps: &[(&str, &str)]) {
    let mut desk = Desk::new();
    for (at, (step, expected)) in steps.iter().enumerate() {
        assert_eq!(desk.step(step), *expected, "step {at}: {step}");
    }
}

/// The same, with a lease of 16 to begin with.
#[track_caller]
fn check_open(steps: &[(&str, &str)]) {
    check(&[OPEN, steps].concat());
}

#[test]
fn a_lease_is_asked_for_where_requests_come_often() {
    check(&[("due", ""), ("note hits=1", ""), ("due", "")]);
    check(&[("note hits=1", ""), ("wait 400", ""), ("note hits=1", ""), ("due", "")]);
    check_open(&[]);
    // The next one is asked for what was used before.
    check(&[("note hits=1", ""), ("wait 200", ""), ("note hits=3", ""), ("due", "1.1 opens hits=0/0+33")]);
}

#[test]
fn a_lease_that_is_not_answered_is_asked_for_again() {
    let begin = [OPEN[0], OPEN[1], OPEN[2]];
    check(&[&begin[..], &[("wait 250", ""), ("due", "")]].concat());
    let busy = [("wait 900", ""), ("note hits=1", ""), ("wait 100", ""), ("note hits=1", "")];
    check(&[&begin[..], &busy, &[("due", "1.2 opens hits=0/0+7")]].concat());
    check(&[&begin[..], &[("unheard", ""), ("due", "1.2 opens hits=0/0+16")]].concat());
}

#[test]
fn a_request_takes_from_the_lease_what_is_granted() {
    check_open(&[
        ("spend hits=4", "spent, 24 of 100"),
        ("spend hits=6", "spent, 30 of 100, low"),
        ("spend hits=1", "spent, 31 of 100"),
        ("spend hits=6", "ask"),
        ("spend hits=5", "spent, 36 of 100"),
        ("spend hits=1", "ask"),
        ("spend hits=0", "spent, 36 of 100"),
    ]);
}

#[test]
fn what_a_lease_cannot_express_is_asked() {
    check_open(&[("spend hits=#4", "ask"), ("spend mail=1", "ask"), ("spend hits=1 mail=1", "ask")]);
    let many: String = (0..=LINES_MAX).map(|n| format!("m{n}=1 ")).collect();
    let mut desk = Desk::new();
    desk.holding.note(&usage(&many), desk.now);
    desk.holding.note(&usage(&many), desk.now);
    assert_eq!(desk.due().matches('=').count(), LINES_MAX);
    assert_eq!(desk.spend(&many), "ask");
}

#[test]
fn all_metrics_of_a_request_are_taken_or_none() {
    check(&[
        ("note hits=1 mail=1", ""),
        ("note hits=1 mail=1", ""),
        ("due", "1.1 opens hits=0/0+16 mail=0/0+16"),
        ("1 short", ""),
        ("due", "1.2 opens hits=0/0+16 mail=0/0+16"),
        ("1 granted 16 1", "1 granted"),
        ("spend hits=1 mail=1", "spent, 22 of 100, low"),
        ("spend hits=1 mail=1", "ask"),
        ("spend hits=1", "spent, 23 of 100"),
    ]);
}

#[test]
fn a_low_lease_is_renewed_and_keeps_below_what_it_says() {
    check_open(&[
        ("spend hits=9", "spent, 29 of 100, low"),
        ("due", ""),
        ("wait 20", ""),
        ("due", "1.3 hits=9/16+271"),
        ("due", ""),
        ("1 granted 280", "1 granted"),
        ("wait 400", ""),
        // Much less is used now: it says so, and does without from now on.
        ("wait 401", ""),
        ("spend hits=1", "spent, 21 of 100"),
        ("due", "1.4 hits=10/32+22"),
        ("spend hits=22", "spent, 42 of 100"),
        ("spend hits=1", "ask"),
    ]);
}

#[test]
fn a_lease_is_renewed_before_it_ends_and_not_spent_from_after() {
    check_open(&[
        ("wait 799", ""),
        ("spend hits=1", "spent, 21 of 100"),
        ("due", ""),
        ("wait 1", ""),
        ("due", "1.3 hits=1/6+5"),
        ("wait 199", ""),
        ("spend hits=1", "spent, 21 of 100"),
        ("wait 1", ""),
        ("spend hits=1", "ask"),
        ("1 granted 10", "1 granted"),
        ("spend hits=1", "spent, 22 of 100"),
    ]);
}

#[test]
fn only_the_first_answer_to_the_latest_message_counts() {
    check_open(&[
        ("wait 500", ""),
        // Again: the lease does not end later for it.
        ("1 granted 16", ""),
        ("spend hits=9", "spent, 29 of 100, low"),
        ("due", "1.3 hits=9/16+34"),
        ("1.2 granted 99", ""),
        ("spend hits=8", "ask"),
        ("unheard", ""),
        ("1.3 granted 99", ""),
        ("wait 499", ""),
        ("spend hits=1", "spent, 21 of 100, low"),
        ("wait 1", ""),
        ("spend hits=1", "ask"),
    ]);
}

#[test]
fn an_idle_lease_is_given_back_and_its_last_word_repeated_until_heard() {
    check_open(&[
        ("spend hits=2", "spent, 22 of 100"),
        ("wait 299", ""),
        ("due", ""),
        ("wait 1", ""),
        ("due", "1.3 closes hits=2/2+0"),
        ("spend hits=1", "ask"),
        ("wait 999", ""),
        ("due", ""),
        ("wait 1", ""),
        ("due", "1.4 closes hits=2/2+0"),
        ("1.3 closed", ""),
        ("wait 1000", ""),
        ("due", "1.5 closes hits=2/2+0"),
        ("1 closed", ""),
        ("wait 2000", ""),
        ("due", ""),
        ("tags", "[1]"),
    ]);
}

#[test]
fn a_last_word_is_kept_until_the_ledger_has_lived_on() {
    let closed = [("wait 300", ""), ("due", "1.3 closes hits=0/0+0"), ("1 closed", ""), ("retire", "None")];
    let asks_once_more = [("wait 5000", ""), ("retire", "None"), ("due", "1.4 closes hits=0/0+0")];
    check_open(
        &[&closed[..], &asks_once_more, &[("1 closed", ""), ("retire", "Some(1)"), ("tags", "[]")]].concat(),
    );
    // It has failed over: whatever it heard is said until it is heard again.
    let forgotten =
        [("fail-over", ""), ("1 closed", ""), ("retire", "None"), ("due", "1.5 closes hits=0/0+0")];
    let heard = [("1 closed", ""), ("retire", "None"), ("wait 5000", ""), ("due", "1.6 closes hits=0/0+0")];
    check_open(
        &[&closed[..], &asks_once_more, &forgotten, &heard, &[("1 closed", ""), ("retire", "Some(1)")]]
            .concat(),
    );
}

#[test]
fn a_fail_over_has_leases_declared_at_once() {
    check_open(&[
        ("spend hits=9", "spent, 29 of 100, low"),
        ("wait 20", ""),
        ("due", "1.3 hits=9/16+271"),
        ("fail-over", ""),
        ("1 granted 280", ""),
        ("spend hits=8", "ask"),
        ("due", "1.4 hits=9/16+83"),
        ("1 granted 77", "1 granted"),
        ("spend hits=8", "spent, 28 of 100"),
        ("due", ""),
    ]);
}

#[test]
fn the_next_window_is_asked_for_ahead() {
    let low = [("note hits=1", ""), ("note hits=1", ""), ("due", "1.1 opens hits=0/0+16"), ("1 short", "")];
    let open = [("due", "1.2 opens hits=0/0+16"), ("1 granted 16 to 300 window 300", "1 granted")];
    let next = [
        ("wait 99", ""),
        ("spend hits=1", "spent, 21 of 100"),
        ("due", ""),
        ("wait 1", ""),
        ("due", "2.1 next hits=0/0+23"),
    ];
    let early = [&low[..], &open, &next].concat();
    let turn = [
        ("2 granted 31 from 220 to 1200", "2 granted"),
        ("spend hits=1", "spent, 22 of 100"),
        ("wait 200", ""),
        // One has ended, the other not begun: nothing else is asked for.
        ("spend hits=1", "ask"),
        ("due", "1.3 closes hits=2/2+0"),
        ("wait 20", ""),
        ("spend hits=1", "spent, 21 of 100"),
        ("due", ""),
    ];
    check(&[&early[..], &turn].concat());
    // Its answer was lost: asked for again, it might be for the window after.
    let lost = [
        ("unheard", ""),
        ("spend hits=1", "spent, 22 of 100"),
        ("due", "2.2 closes hits=0/0+0, 3.1 next hits=0/0+31"),
    ];
    check(&[&early[..], &lost].concat());
}

#[test]
fn a_metric_that_comes_up_later_needs_another_lease() {
    check_open(&[
        ("spend hits=1", "spent, 21 of 100"),
        ("note mail=1", ""),
        ("due", "1.3 closes hits=1/1+0, 2.1 opens hits=0/0+23 mail=0/0+8"),
    ]);
}

#[test]
fn a_short_ledger_is_left_alone_for_a_moment() {
    check(&[
        ("note hits=1", ""),
        ("note hits=1", ""),
        ("due", "1.1 opens hits=0/0+16"),
        ("1 short", ""),
        ("due", "1.2 opens hits=0/0+16"),
        ("1 short", "1 refused"),
        ("due", ""),
        ("wait 99", ""),
        ("due", ""),
        ("wait 1", ""),
        ("due", "2.1 opens hits=0/0+16"),
        ("tags", "[2]"),
    ]);
}

#[test]
fn what_is_recalled_is_given_back() {
    check_open(&[
        ("spend hits=3", "spent, 23 of 100"),
        ("recall", ""),
        ("spend hits=1", "ask"),
        ("due", "1.3 closes hits=3/3+0"),
        ("note hits=1", ""),
        ("due", ""),
        ("wait 100", ""),
        ("due", "2.1 opens hits=0/0+46"),
    ]);
}

#[test]
fn a_lease_by_old_records_is_renewed_at_once() {
    check_open(&[
        ("spend hits=3", "spent, 23 of 100"),
        ("due", ""),
        ("outdated", ""),
        ("due", "1.3 hits=3/16+91"),
        ("due", ""),
        // What was asked before the change may be answered by the old records.
        ("outdated", ""),
        ("due", ""),
        ("1 granted 20", "1 granted"),
        ("due", "1.4 hits=3/20+38"),
        ("1 granted 20", "1 granted"),
        ("due", ""),
    ]);
}

#[test]
fn a_closed_lease_is_not_spent_from() {
    check_open(&[
        ("spend hits=9", "spent, 29 of 100, low"),
        ("wait 20", ""),
        ("due", "1.3 hits=9/16+271"),
        ("1 closed", ""),
        ("spend hits=1", "ask"),
        ("note hits=1", ""),
        ("due", "1.4 closes hits=9/9+0, 2.1 opens hits=0/0+91"),
    ]);
}

#[test]
fn without_room_nothing_is_asked_for() {
    check(&[("slots 0", ""), ("note hits=1", ""), ("note hits=1", ""), ("due", ""), ("tags", "[]")]);
}

#[test]
fn what_a_request_took_can_be_taken_back_until_the_last_word() {
    check_open(&[
        ("spend hits=16", "spent, 36 of 100, low"),
        ("spend hits=1", "ask"),
        ("back", "true [0]"),
        ("spend hits=2", "spent, 22 of 100"),
        ("recall", ""),
        ("back", "true [0]"),
        ("due", "1.3 closes hits=0/0+0"),
    ]);
    check_open(&[
        ("spend hits=2", "spent, 22 of 100"),
        ("recall", ""),
        ("due", "1.3 closes hits=2/2+0"),
        ("back", "false [2]"),
    ]);
}

#[test]
fn a_journal_says_its_last_words() {
    let mut desk = Desk::new();
    let id = LeaseId { boot: [9; 16], sequence: 4 };
    let declared = Some(Declared { incarnation: 1, moment: Timestamp::from_unix_s(1) });
    desk.holding.restore(4, Message::last_word(id, declared, [("hits".parse().unwrap(), 7)]));
    assert_eq!(desk.due(), "4.1 closes hits=7/7+0");
    assert_eq!(desk.said[&4].declared, declared);
    // The first answer tells the ledger's life, the next that it has heard, the last that it lived on.
    for (wait, round) in [(0, 2), (0, 3)] {
        assert_eq!(desk.step("4 closed"), "");
        desk.now += wait + if round == 3 { 5_000 } else { 0 };
        assert_eq!(desk.holding.retire(), None);
        assert_eq!(desk.due(), format!("4.{round} closes hits=7/7+0"));
    }
    desk.step("4 closed");
    assert_eq!(desk.holding.retire(), Some(4));
    assert!(desk.holding.is_empty());
}
