//! Messages to one application's ledger, as text, and what comes of them.

use std::collections::BTreeMap;

use super::*;
use crate::counter::increments;
use crate::limit::UsageLimit;
use crate::metric::tests::tree;
use crate::plan::Plan;
use crate::usage::Usage;

/// Ten seconds before midnight.
const START_UNIX_MS: i64 = 1_795_478_390_000;

struct Desk {
    limits: String,
    now: Timestamp,
    incarnation: u64,
    leases: Vec<Lease>,
    closed: Vec<LeaseId>,
    closed_since: Timestamp,
    counts: BTreeMap<(String, String), u64>,
}

impl Desk {
    fn unit(&self, metric: &str) -> Vec<Increment> {
        let metrics = tree("hits read<hits write<hits mail").unwrap();
        let limit = |word: &str| {
            let (metric, rest) = word.split_once('/').unwrap();
            let (period, max) = rest.split_once("<=").unwrap();
            let metric = metrics.find(metric).unwrap();
            UsageLimit { metric, period: period.parse().unwrap(), max: max.parse().unwrap() }
        };
        let limits = self.limits.split_whitespace().map(limit).collect();
        let plan = Plan::new("p".parse().unwrap(), String::new(), limits, &metrics).unwrap();
        let usage = Usage::new([(metric.parse().unwrap(), UsageValue::Add(1))]);
        increments(&usage, &metrics, &plan, crate::AlertBins::ALL).unwrap()
    }

    /// `a2` is the second lease of gateway a.
    fn id(name: &str) -> LeaseId {
        LeaseId { boot: [name.as_bytes()[0]; 16], sequence: name[1..].parse().unwrap_or(1) }
    }

    /// `a.3 opens|next|closes read=spent/granted+want~least … @life`.
    fn ask(&self, text: &str) -> Ask {
        let mut words = text.split_whitespace();
        let (name, round) = words.next().unwrap().split_once('.').unwrap();
        let mut ask = Ask {
            id: Self::id(name),
            holder: name[..1].into(),
            round: round.parse().unwrap(),
            opens: None,
            closes: false,
            lasts_ms: LIFETIME_MS,
            declared: Some(Declared { incarnation: self.incarnation, moment: self.now }),
            lines: vec![],
        };
        for word in words {
            match word {
                "opens" => ask.opens = Some(When::Now),
                "next" => ask.opens = Some(When::Next),
                "closes" => ask.closes = true,
                "@none" => ask.declared = None,
                _ if word.starts_with('@') => {
                    let (life, seconds) = word[1..].split_once('-').unwrap_or((&word[1..], "0"));
                    let moment = self.now.plus_ms(-1_000 * seconds.parse::<i64>().unwrap());
                    ask.declared = Some(Declared { incarnation: life.parse().unwrap(), moment });
                }
                _ => ask.lines.push(self.wish(word)),
            }
        }
        ask
    }

    fn wish(&self, word: &str) -> Wish {
        let (metric, numbers) = word.split_once('=').unwrap();
        let numbers: Vec<u64> = numbers.split(['/', '+', '~']).map(|n| n.parse().unwrap()).collect();
        let number = |at: usize, or| numbers.get(at).copied().unwrap_or(or);
        Wish {
            unit: self.unit(metric),
            spent: number(0, 0),
            granted: number(1, number(0, 0)),
            want: number(2, 0),
            least: number(3, 1),
        }
    }

    fn say(&mut self, text: &str) -> String {
        let ask = self.ask(text);
        let counters = |metric: &MetricName, window: &Window| {
            self.counts.get(&(metric.to_string(), window.to_string())).copied().unwrap_or(0)
        };
        let book = Book {
            leases: &self.leases,
            counters: &counters,
            is_closed: self.closed.contains(&ask.id),
            closed_since: self.closed_since,
            incarnation: self.incarnation,
            now: self.now,
        };
        let step = answer(&book, &ask);
        self.count(&step.changes);
        match step.outcome {
            Outcome::Unchanged => {}
            Outcome::Put(lease) => {
                self.leases.retain(|known| known.id != lease.id);
                self.leases.push(lease);
            }
            Outcome::Closed => {
                self.leases.retain(|known| known.id != ask.id);
                self.closed.push(ask.id);
            }
        }
        match step.reply {
            Reply::Granted(grant) => {
                let granted =
                    grant.granted.iter().map(|n| if *n >= COUNT_MAX { "all".into() } else { n.to_string() });
                let granted = granted.collect::<Vec<_>>().join(" ");
                format!("{granted}, {}..{} ms", grant.begins_in_ms, grant.ends_in_ms)
            }
            Reply::Closed => "closed".into(),
            Reply::Short => "short".into(),
        }
    }

    fn count(&mut self, changes: &[Change]) {
        for change in changes {
            for increment in &change.unit {
                for period in increment.periods() {
                    let window = period.window(change.moment).to_string();
                    let count = self.counts.entry((increment.metric.to_string(), window)).or_default();
                    *count = count.checked_add_signed(change.times * by(increment).cast_signed()).unwrap();
                }
            }
        }
    }

    fn presume(&mut self) -> String {
        let over: Vec<_> = self.leases.iter().filter_map(|lease| lease.presumed(self.now)).collect();
        for (lease, changes) in &over {
            self.count(changes);
            self.leases.retain(|known| known.id != lease.id);
            self.leases.push(lease.clone());
        }
        format!("{} presumed", over.len())
    }

    /// `hits/day`: what is used and held now.
    fn show(&self, counter: &str) -> String {
        let (metric, period) = counter.split_once('/').unwrap();
        let window = period.parse::<Period>().unwrap().window(self.now);
        let used = self.counts.get(&(metric.to_owned(), window.to_string())).unwrap_or(&0);
        format!("{used}+{}", held(&self.leases, &metric.parse().unwrap(), &window))
    }

    fn step(&mut self, text: &str) -> String {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        match word {
            "wait" => self.now = self.now.plus_ms(rest.parse().unwrap()),
            "use" => {
                let (metric, times) = rest.split_once('=').unwrap();
                let times = times.parse().unwrap();
                self.count(&[Change { unit: self.unit(metric), moment: self.now, times }]);
            }
            "plan" => rest.clone_into(&mut self.limits),
            // Everything is forgotten.
            "fail-over" => {
                let (limits, closed_since) = (self.limits.clone(), self.closed_since);
                *self = Self { incarnation: self.incarnation + 1, now: self.now, ..Self::new(&limits) };
                self.closed_since = closed_since;
            }
            "remembers" => self.closed_since = self.now.plus_ms(-1_000 * rest.parse::<i64>().unwrap()),
            "presume" => return self.presume(),
            "show" => return self.show(rest),
            _ => return self.say(text),
        }
        String::new()
    }

    fn new(limits: &str) -> Self {
        Self {
            limits: limits.to_owned(),
            now: Timestamp::from_unix_ms(START_UNIX_MS),
            incarnation: 1,
            leases: vec![],
            closed: vec![],
            closed_since: Timestamp::default(),
            counts: BTreeMap::new(),
        }
    }
}

/// Each step, and what it says: `"show hits/day"` says `"used+held"`, a message its answer.
#[track_caller]
fn check(limits: &str, steps: &[(&str, &str)]) {
    let mut desk = Desk::new(limits);
    for (at, (step, expected)) in steps.iter().enumerate() {
        assert_eq!(desk.step(step), *expected, "step {at}: {step}");
    }
}

#[test]
fn a_lease_is_what_is_wanted_and_at_most_half_of_what_is_free() {
    check("hits/day<=100", &[("a.1 opens hits=0/0+8", "8, 0..1000 ms"), ("show hits/day", "0+8")]);
    check("hits/day<=10", &[("a.1 opens hits=0/0+8", "5, 0..1000 ms"), ("show hits/day", "0+5")]);
    check("hits/day<=1", &[("a.1 opens hits=0/0+8", "short"), ("show hits/day", "0+0")]);
    check("hits/day<=10", &[("a.1 opens hits=0/0+8~6", "short")]);
    check("hits/day<=12", &[("a.1 opens hits=0/0+8~6", "6, 0..1000 ms")]);
    check("hits/day<=10", &[("use hits=10", ""), ("a.1 opens hits=0/0+1", "short")]);
    // A limit that was lowered below what is used.
    check(
        "hits/day<=10",
        &[("use hits=12", ""), ("a.1 opens hits=0/0+1", "short"), ("show hits/day", "12+0")],
    );
}

#[test]
fn gateways_share_what_is_free() {
    let steps = [
        ("a.1 opens hits=0/0+100", "50, 0..1000 ms"),
        ("b.1 opens hits=0/0+100", "12, 0..1000 ms"),
        ("c.1 opens hits=0/0+100", "6, 0..1000 ms"),
        // Its own two leases count as one gateway's.
        ("a2.1 opens hits=0/0+100", "5, 0..1000 ms"),
        ("show hits/day", "0+73"),
    ];
    check("hits/day<=100", &steps);
}

#[test]
fn every_limit_of_every_ancestor_holds() {
    check(
        "hits/day<=100 read/hour<=6",
        &[("a.1 opens read=0/0+50", "3, 0..1000 ms"), ("show hits/day", "0+3")],
    );
    check("hits/day<=6 read/hour<=100", &[("a.1 opens read=0/0+50", "3, 0..1000 ms")]);
    check("hits/eternity<=6", &[("use hits=2", ""), ("a.1 opens read=0/0+50", "2, 0..1000 ms")]);
}

#[test]
fn lines_share_their_parents_limit() {
    let steps = [
        ("a.1 opens read=0/0+50 write=0/0+50 mail=0/0+1", "50 25 all, 0..1000 ms"),
        ("show hits/day", "0+75"),
        ("a.2 read=10/50+50 write=0/25+50 mail=7/7+7", "50 25 all, 0..1000 ms"),
        ("show hits/day", "10+65"),
        ("show mail/day", "7+0"),
    ];
    check("hits/day<=100", &steps);
}

#[test]
fn what_has_no_limit_is_granted_and_holds_nothing() {
    let steps = [
        ("a.1 opens mail=0/0+0", "all, 0..1000 ms"),
        ("a.2 mail=5000/9000+3", "all, 0..1000 ms"),
        ("show mail/hour", "5000+0"),
        ("wait 2000", ""),
        ("presume", "1 presumed"),
        ("show mail/hour", "5000+0"),
        ("a.3 closes mail=5003", "closed"),
        ("show mail/hour", "5003+0"),
    ];
    check("hits/day<=100", &steps);
}

#[test]
fn a_renewal_settles_and_gives_more() {
    let steps = [
        ("a.1 opens hits=0/0+10", "10, 0..1000 ms"),
        ("wait 500", ""),
        ("a.2 hits=4/10+10", "14, 0..1000 ms"),
        ("show hits/day", "4+10"),
        // Wanting less, it has said so.
        ("a.3 hits=6/8+2", "8, 0..1000 ms"),
        ("show hits/day", "6+2"),
        // A request was taken back.
        ("a.4 hits=5/8+2", "8, 0..1000 ms"),
        ("show hits/day", "5+3"),
        ("a.5 closes hits=7", "closed"),
        ("show hits/day", "7+0"),
    ];
    check("hits/day<=100", &steps);
}

#[test]
fn what_comes_twice_or_late_changes_nothing() {
    let steps = [
        ("a.1 opens hits=0/0+10", "10, 0..1000 ms"),
        ("wait 100", ""),
        ("a.1 opens hits=0/0+10", "10, 0..900 ms"),
        ("a.3 hits=6/10+10", "16, 0..1000 ms"),
        ("a.2 hits=2/10+10", "16, 0..1000 ms"),
        ("a.3 hits=6/10+10", "16, 0..1000 ms"),
        ("show hits/day", "6+10"),
        ("a.4 closes hits=7", "closed"),
        ("a.4 closes hits=7", "closed"),
        ("a.1 opens hits=0/0+10", "closed"),
        ("a.3 hits=6/10+10", "closed"),
        ("show hits/day", "7+0"),
    ];
    check("hits/day<=100", &steps);
}

#[test]
fn a_last_word_before_its_opening_leaves_nothing_to_open() {
    check("hits/day<=9", &[("a.2 closes hits=0 @none", "closed"), ("a.1 opens hits=0/0+4", "closed")]);
    // Nothing was spent, and nobody knows the metrics any more.
    let steps =
        [("a.1 opens hits=0/0+4", "4, 0..1000 ms"), ("a.2 closes", "closed"), ("show hits/day", "0+0")];
    check("hits/day<=9", &steps);
}

#[test]
fn a_silent_lease_counts_as_used_until_its_last_word() {
    let steps = [
        ("a.1 opens hits=0/0+10", "10, 0..1000 ms"),
        ("a.2 hits=3/10+10", "13, 0..1000 ms"),
        ("wait 1999", ""),
        ("presume", "0 presumed"),
        ("wait 1", ""),
        ("presume", "1 presumed"),
        ("presume", "0 presumed"),
        ("show hits/day", "13+0"),
        ("a.3 hits=5/13+10", "closed"),
        ("show hits/day", "13+0"),
        ("a.4 closes hits=5", "closed"),
        ("show hits/day", "5+0"),
    ];
    check("hits/day<=100", &steps);
}

#[test]
fn a_late_renewal_is_as_good_until_the_lease_is_presumed() {
    let steps = [
        ("a.1 opens hits=0/0+10", "10, 0..1000 ms"),
        ("wait 5000", ""),
        ("a.2 hits=3/10+10", "13, 0..1000 ms"),
        ("presume", "0 presumed"),
    ];
    check("hits/day<=100", &steps);
}

#[test]
fn a_lease_ends_with_its_shortest_window() {
    let steps = [
        ("wait 9400", ""),
        ("a.1 opens hits=0/0+10", "10, 0..600 ms"),
        ("wait 700", ""),
        // What is spent belongs to the day that has ended.
        ("a.2 hits=3/10+10", "10, 0..0 ms"),
        ("show hits/day", "0+0"),
        ("wait -700", ""),
        ("show hits/day", "3+7"),
    ];
    check("hits/day<=100", &steps);
    check("hits/minute<=100 hits/year<=100", &[("wait 9999", ""), ("a.1 opens hits=0/0+9", "9, 0..1 ms")]);
}

#[test]
fn the_next_window_can_be_had_shortly_before_it_begins() {
    let steps = [
        ("use hits=90", ""),
        ("wait 9400", ""),
        ("a.1 opens hits=0/0+10", "5, 0..600 ms"),
        ("a2.1 next hits=0/0+10", "10, 600..1600 ms"),
        ("show hits/day", "90+5"),
        ("wait 600", ""),
        ("show hits/day", "0+10"),
        ("a2.2 hits=2/10+10", "12, 0..1000 ms"),
        ("show hits/day", "2+10"),
    ];
    check("hits/day<=100", &steps);
    check(
        "hits/year<=10",
        &[("wait 9400", ""), ("a.1 next hits=0/0+9", "5, 600..1600 ms"), ("show hits/year", "0+5")],
    );
    // Come too late, it would be for the window after.
    check(
        "hits/day<=100",
        &[("wait 10001", ""), ("a.1 next hits=0/0+10", "short"), ("a.1 next hits=0/0+9", "closed")],
    );
}

#[test]
fn another_plan_holds_from_the_next_renewal_on() {
    let steps = [
        ("a.1 opens hits=0/0+10", "10, 0..1000 ms"),
        ("plan hits/day<=20", ""),
        ("a.2 hits=8/10+10", "14, 0..1000 ms"),
        ("show hits/day", "8+6"),
        ("plan hits/day<=5", ""),
        ("a.3 hits=9/14+10", "14, 0..1000 ms"),
        ("a.4 hits=9/9+10", "9, 0..1000 ms"),
        ("show hits/day", "9+0"),
    ];
    check("hits/day<=100", &steps);
}

#[test]
fn a_forgotten_lease_is_taken_over() {
    let steps = [
        ("a.1 opens hits=0/0+10", "10, 0..1000 ms"),
        ("a.2 hits=3/10+10", "13, 0..1000 ms"),
        ("fail-over", ""),
        ("show hits/day", "0+0"),
        ("a.3 hits=5/13+10 @1", "15, 0..1000 ms"),
        ("show hits/day", "5+10"),
        ("fail-over", ""),
        ("a.4 closes hits=7 @2", "closed"),
        ("a.5 closes hits=7 @2", "closed"),
        ("show hits/day", "7+0"),
    ];
    check("hits/day<=100", &steps);
}

#[test]
fn what_may_have_been_counted_is_not_taken_over() {
    let (spent, nothing) = (("show hits/day", "7+0"), ("show hits/day", "0+0"));
    let late = ("a.4 closes hits=7 @1-9", "closed");
    check("hits/day<=99", &[("fail-over", ""), ("remembers 20", ""), late, spent]);
    check("hits/day<=99", &[("fail-over", ""), ("remembers 10", ""), late, nothing]);
    // Without a fail-over, what is not there was closed.
    check("hits/day<=99", &[("a.4 closes hits=7 @1", "closed"), nothing]);
    check("hits/day<=99", &[("a.4 hits=7/9+1 @1", "closed"), nothing]);
}

#[test]
fn an_opening_is_for_one_life_of_the_ledger() {
    let short = ("a.1 opens hits=0/0+10 @1", "short");
    let steps = [("fail-over", ""), short, short, ("a.2 opens hits=0/0+10 @2", "10, 0..1000 ms")];
    check("hits/day<=100", &steps);
    check("hits/day<=100", &[("a.1 opens hits=0/0+10 @none", "short"), ("show hits/day", "0+0")]);
}

#[test]
fn what_was_granted_in_a_forgotten_life_is_believed() {
    let steps = [
        ("a.1 opens hits=0/0+10", "10, 0..1000 ms"),
        // The lease is known, but the ledger forgot that it granted 30.
        ("a.7 hits=12/30+18 @7", "30, 0..1000 ms"),
        ("show hits/day", "12+18"),
        // That it can do without may have been said before it was granted again.
        ("a.8 hits=12/12+0 @7", "30, 0..1000 ms"),
        ("a.9 hits=12/12+0", "12, 0..1000 ms"),
        ("show hits/day", "12+0"),
    ];
    check("hits/day<=100", &steps);
}

#[test]
fn a_grant_says_where_limits_stand() {
    let mut desk = Desk::new("hits/day<=100 hits/minute<=60 read/day<=50");
    desk.step("use read=5");
    desk.step("b.1 opens hits=0/0+7");
    let ask = desk.ask("a.1 opens read=0/0+4 write=0/0+4");
    let counters = |metric: &MetricName, window: &Window| {
        desk.counts.get(&(metric.to_string(), window.to_string())).copied().unwrap_or(0)
    };
    let (leases, now) = (&desk.leases, desk.now);
    let book = Book { leases, counters: &counters, is_closed: false, closed_since: now, incarnation: 1, now };
    let Reply::Granted(grant) = answer(&book, &ask).reply else { panic!("granted") };
    let standing = |s: &Standing| format!("{}/{} {} of {}", s.metric, s.window.period, s.taken, s.max);
    let standings: Vec<_> = grant.standings.iter().map(standing).collect();
    assert_eq!(standings, ["hits/minute 12 of 60", "hits/day 12 of 100", "read/day 5 of 50"]);
    assert_eq!(grant.weights, [vec![(0, 1), (1, 1), (2, 1)], vec![(0, 1), (1, 1)]]);
    assert_eq!((grant.ends_in_ms, grant.window_ends_in_ms), (1_000, 10_000));
}
