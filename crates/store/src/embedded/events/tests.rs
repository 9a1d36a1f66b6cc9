//! What is told, and when again; by a ledger whose time is an argument.

use super::*;
use crate::{Ask, Mode, Publication, Record, RequestId, Subject, Version};
use std::sync::Arc;
use weir_core::counter::Ceiling;
use weir_core::{AlertBins, ApplicationRef};

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

/// A Monday, twelve o'clock.
fn at(later_ms: i64) -> Timestamp {
    Timestamp::from_unix_ms(1_795_435_200_000 + later_ms)
}

fn application() -> ApplicationRef {
    "api/a".parse().unwrap()
}

fn increments(by: u64) -> Vec<Increment> {
    let ceilings = vec![Ceiling { period: Period::Minute, max: 10 }];
    let (metric, value) = ("hits".parse().unwrap(), UsageValue::Add(by));
    vec![Increment { metric, value, ceilings, alert_bins: AlertBins::ALL }]
}

/// A ledger with one application of one service, whose records are empty.
struct Desk {
    ledger: Ledger,
    tail: Tail,
    requests: u8,
}

impl Desk {
    fn new() -> Self {
        let mut desk = Self { ledger: Ledger::default(), tail: Tail::new(1), requests: 0 };
        let Self { ledger, tail, .. } = &mut desk;
        let account = ledger.open(&application(), tail);
        ledger.step(&Entry::Application { account, record: Some(b""), user_key: None }, tail);
        let services = vec![("api".parse().unwrap(), Record::new(&b""[..]))];
        ledger.put_services(&Publication { services, ..Publication::default() }, tail);
        desk
    }

    /// Counts some of 10 that a minute allows.
    fn count(&mut self, by: u64, now: Timestamp) {
        let version: Version = Record::new(&b""[..]).version;
        self.requests += 1;
        let ask = Ask {
            request: RequestId([self.requests; 16]),
            attempt: 0,
            application: Arc::new(Subject::new(application())),
            application_version: version,
            service_version: version,
            increments: increments(by),
            mode: Mode::Count,
        };
        let outcome = self.ledger.decide(&ask, &mut self.tail, now).unwrap();
        assert!(matches!(outcome, crate::Outcome::Admitted { .. }), "{outcome:?}");
    }

    /// Books one to another moment.
    fn report(&mut self, moment: Timestamp, now: Timestamp) {
        let entry = crate::Entry { application: application(), increments: increments(1), at: Some(moment) };
        let report = crate::Report { idempotency_id: vec![], gives_back: false, entries: vec![entry] };
        assert!(self.ledger.report(&report, &mut self.tail, now));
    }

    /// What was told, and of which moment after the first.
    fn told(&self) -> Vec<String> {
        let told = self.ledger.events.kept.iter().map(|(number, told)| {
            let event = self.ledger.event(*number, told).unwrap();
            let what = match &event.kind {
                EventKind::Alert(alert) => alert.bin.to_string(),
                kind => kind.as_str().to_owned(),
            };
            format!("{what} {}", (event.at.unix_ms() - at(0).unix_ms()) / HOUR)
        });
        told.collect()
    }
}

#[test]
fn a_step_is_told_again_after_a_day() {
    let mut desk = Desk::new();
    desk.count(5, at(0));
    let first = ["first_traffic 0", "first_daily_traffic 0", "50 0"];
    assert_eq!(desk.told(), first);
    desk.count(9, at(HOUR));
    let day = [&first[..], &["80 1", "90 1"]].concat();
    assert_eq!(desk.told(), day);
    desk.count(9, at(DAY - 60_000));
    let next = [&day[..], &["first_daily_traffic 23"]].concat();
    assert_eq!(desk.told(), next, "another day of the calendar, but no 24 hours");
    desk.count(9, at(DAY));
    assert_eq!(desk.told(), [&next[..], &["50 24"]].concat(), "to the millisecond");
    desk.count(9, at(DAY + HOUR));
    assert_eq!(desk.told(), [&next[..], &["50 24", "80 25", "90 25"]].concat());
}

#[test]
fn a_report_from_ahead_takes_no_day_from_calls() {
    const MINUTE: i64 = HOUR / 60;
    let mut desk = Desk::new();
    let midnight = 12 * HOUR;
    desk.report(at(midnight + 10 * MINUTE), at(midnight - 30 * MINUTE));
    assert_eq!(desk.told(), ["first_traffic 11"]);
    for minutes in [-20, -19, 20, 21] {
        desk.count(1, at(midnight + minutes * MINUTE));
    }
    let days = ["first_traffic 11", "first_daily_traffic 11", "first_daily_traffic 12"];
    assert_eq!(desk.told(), days);
    desk.report(at(midnight - MINUTE), at(midnight + 30 * MINUTE));
    assert_eq!(desk.told(), days, "nor is a day told that is over");
}

#[test]
fn replay_finds_nothing_again() {
    let mut desk = Desk::new();
    desk.count(5, at(0));
    desk.count(4, at(60_000));
    let frame = desk.tail.take(vec![]);
    let mut again = Desk { ledger: Ledger::default(), tail: Tail::new(1), requests: 0 };
    let body = &frame[super::super::tail::FRAME_HEAD_BYTES..];
    for _ in 0..2 {
        for (number, entry) in (1..).zip(super::super::tail::entries(body)) {
            again.ledger.apply(number, entry.unwrap()).unwrap();
        }
        assert_eq!(again.told(), desk.told(), "nor does what is in the checkpoint and in the log");
    }
    again.count(5, at(120_000));
    assert_eq!(again.told(), desk.told(), "what was told before is not repeated");
}

#[test]
fn events_are_read_as_written() {
    let alert = What::Alert { bin: 80, metric: 3, period: Period::Week, current: 9, max: 10 };
    let mut events = Events::default();
    for (number, what) in [(4, What::FirstTraffic), (5, What::FirstDailyTraffic), (9, alert)] {
        events.tell(number, Told { account: 70_000, at: at(0), what });
    }
    events.acknowledge(10, &[5]);
    let mut out = vec![];
    events.put(&mut out, at(DAY - 1));
    let read = Events::read(&mut Reader(&out)).unwrap();
    assert_eq!((read.number, &read.kept), (10, &events.kept));
    assert_eq!(read.kept.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [4, 9]);
    assert!(read.is_quiet(70_000, 80, at(DAY - 1)) && !read.is_quiet(70_000, 80, at(DAY)));
    for end in 0..out.len() {
        assert!(Events::read(&mut Reader(&out[..end])).is_none(), "cut after {end}");
    }
    let mut out = vec![];
    events.put(&mut out, at(DAY));
    let read = Events::read(&mut Reader(&out)).unwrap();
    assert!(read.alerted.is_empty(), "what may be repeated need not be known");
}

#[test]
fn alerts_that_may_be_repeated_take_no_memory_for_ever() {
    let mut events = Events::default();
    for hour in 0..24 * 90 {
        let account = u32::try_from(hour).unwrap();
        let what = What::Alert { bin: 50, metric: 0, period: Period::Day, current: 5, max: 10 };
        events.tell(u64::from(account) + 1, Told { account, at: at(hour * HOUR), what });
    }
    assert!(events.alerted.len() < 100, "{}", events.alerted.len());
}
