//! Calendar periods and their windows, all in UTC.
//!
//! The ledger counts per window: `2026-11-23T03:31` (a minute), `2026-11-23T03` (an hour), `2026-11-23`
//! (a day), `2026-W48` (a week from Monday), `2026-11` (a month), `2026` (a year) and `ever`. The name's form
//! tells the period, so a name alone is an unambiguous storage key that a person can read.
//!
//! It reads no clock: the time is always an argument.

use std::fmt;

use time::OffsetDateTime;

/// An instant: milliseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp {
    unix_ms: i64,
}

/// The last instant that has a calendar here, 9999-12-31T23:59:59.999.
const UNIX_MS_MAX: i64 = 253_402_300_799_999;

impl Timestamp {
    /// From milliseconds since the epoch; what lies outside 1970 to 9999 becomes the nearest end.
    pub fn from_unix_ms(unix_ms: i64) -> Self {
        Self { unix_ms: unix_ms.clamp(0, UNIX_MS_MAX) }
    }

    /// From whole seconds since the epoch.
    pub fn from_unix_s(unix_s: i64) -> Self {
        Self::from_unix_ms(unix_s.saturating_mul(1000))
    }

    /// Milliseconds since the epoch.
    pub fn unix_ms(self) -> i64 {
        self.unix_ms
    }

    /// Whole seconds since the epoch, rounded down.
    pub fn unix_s(self) -> i64 {
        self.unix_ms / 1000
    }

    /// This many milliseconds later (earlier when negative).
    pub fn plus_ms(self, ms: i64) -> Self {
        Self::from_unix_ms(self.unix_ms.saturating_add(ms))
    }

    fn calendar(self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(self.unix_s()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

/// A calendar period that usage is counted and limited in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Period {
    /// 60 seconds from a full minute.
    Minute,
    /// A clock hour.
    Hour,
    /// A day from midnight UTC.
    Day,
    /// A week from Monday, midnight UTC.
    Week,
    /// A calendar month.
    Month,
    /// A calendar year.
    Year,
    /// All of time: a limit that never opens again.
    Eternity,
}

/// One concrete span of a period: from `start` up to, not including, `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The period it is a span of.
    pub period: Period,
    /// First instant.
    pub start: Timestamp,
    /// First instant after it; `None` for eternity.
    pub end: Option<Timestamp>,
}

impl Period {
    /// All periods, short before long.
    pub const ALL: [Self; 7] =
        [Self::Minute, Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year, Self::Eternity];

    /// The field's name of it: `minute`, `hour`, …
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
            Self::Eternity => "eternity",
        }
    }

    /// Its place in [`Period::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// The window of this period that holds `now`.
    pub fn window(self, now: Timestamp) -> Window {
        let (start, end) = match self {
            Self::Minute => span_of(now, 60_000),
            Self::Hour => span_of(now, 3_600_000),
            Self::Day => span_of(now, DAY_MS),
            // 1970-01-01 was a Thursday: three days after a Monday.
            Self::Week => {
                let start = (now.unix_ms + 3 * DAY_MS) / WEEK_MS * WEEK_MS - 3 * DAY_MS;
                (start, Some(start + WEEK_MS))
            }
            Self::Month => {
                let (year, month) = year_and_month(now.unix_ms / DAY_MS);
                let next = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
                (month_start_ms(year, month), Some(month_start_ms(next.0, next.1)))
            }
            Self::Year => {
                let (year, _) = year_and_month(now.unix_ms / DAY_MS);
                (month_start_ms(year, 1), Some(month_start_ms(year + 1, 1)))
            }
            Self::Eternity => (0, None),
        };
        Window { period: self, start: Timestamp::from_unix_ms(start), end: end.map(Timestamp::from_unix_ms) }
    }
}

const DAY_MS: i64 = 86_400_000;
const WEEK_MS: i64 = 7 * DAY_MS;

fn span_of(now: Timestamp, span_ms: i64) -> (i64, Option<i64>) {
    let start = now.unix_ms / span_ms * span_ms;
    (start, Some(start + span_ms))
}

/// From 1 March of the year 0 to 1970-01-01. Counted from March, a leap day is the last day of its year.
const DAYS_BEFORE_1970: i64 = 719_468;
const DAYS_OF_400_YEARS: i64 = 146_097;

/// The year and month (1 to 12) of a day, counted from 1970-01-01: the Gregorian calendar, which repeats itself every
/// 400 years. Windows are computed several times a decision, and a library of dates takes ten times as long.
fn year_and_month(day: i64) -> (i64, i64) {
    let day = day + DAYS_BEFORE_1970;
    let (cycle, day) = (day / DAYS_OF_400_YEARS, day % DAYS_OF_400_YEARS);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let month = (5 * (day - (365 * year + year / 4 - year / 100)) + 2) / 153;
    let year = cycle * 400 + year;
    if month < 10 { (year, month + 3) } else { (year + 1, month - 9) }
}

fn month_start_ms(year: i64, month: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (cycle, year) = (year / 400, year % 400);
    let day = 365 * year + year / 4 - year / 100 + (153 * month + 2) / 5;
    (cycle * DAYS_OF_400_YEARS + day - DAYS_BEFORE_1970) * DAY_MS
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// No period has that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is not a period: use minute, hour, day, week, month, year or eternity")]
pub struct PeriodError;

impl std::str::FromStr for Period {
    type Err = PeriodError;
    fn from_str(text: &str) -> Result<Self, PeriodError> {
        Self::ALL.into_iter().find(|p| p.as_str() == text).ok_or(PeriodError)
    }
}

impl Window {
    /// Whole seconds from `now` until it ends, rounded up; `None` for eternity.
    pub fn seconds_left(&self, now: Timestamp) -> Option<u64> {
        let left_ms = self.end?.unix_ms.saturating_sub(now.unix_ms).max(0);
        Some(left_ms.unsigned_abs().div_ceil(1000))
    }
}

impl fmt::Display for Window {
    /// Its name: unique over all periods.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.start.calendar();
        let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
        match self.period {
            Period::Minute => {
                write!(f, "{year:04}-{month:02}-{day:02}T{:02}:{:02}", at.hour(), at.minute())
            }
            Period::Hour => write!(f, "{year:04}-{month:02}-{day:02}T{:02}", at.hour()),
            Period::Day => write!(f, "{year:04}-{month:02}-{day:02}"),
            Period::Week => {
                let (year, week, _) = at.date().to_iso_week_date();
                write!(f, "{year:04}-W{week:02}")
            }
            Period::Month => write!(f, "{year:04}-{month:02}"),
            Period::Year => write!(f, "{year:04}"),
            Period::Eternity => f.write_str("ever"),
        }
    }
}

/// The names of the seven windows that hold one instant, in the order of [`Period::ALL`].
pub fn window_names(now: Timestamp) -> [String; 7] {
    Period::ALL.map(|period| period.window(now).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use time::Date;

    fn at(text: &str) -> Timestamp {
        let numbers: Vec<i64> = text.split(['-', 'T', ':']).map(|n| n.parse().unwrap()).collect();
        let month = time::Month::try_from(u8::try_from(numbers[1]).unwrap()).unwrap();
        let date = Date::from_calendar_date(
            i32::try_from(numbers[0]).unwrap(),
            month,
            u8::try_from(numbers[2]).unwrap(),
        );
        let seconds = numbers[3] * 3600 + numbers[4] * 60 + numbers[5];
        Timestamp::from_unix_s(date.unwrap().midnight().assume_utc().unix_timestamp() + seconds)
    }

    #[track_caller]
    fn check(period: Period, now: &str, name: &str, start: &str, end: Option<&str>) {
        let window = period.window(at(now));
        assert_eq!(window.to_string(), name);
        assert_eq!(window.start, at(start), "start");
        assert_eq!(window.end, end.map(at), "end");
    }

    #[test]
    fn windows_are_calendar_spans() {
        let now = "2026-11-23T03:31:59"; // a Monday
        check(Period::Minute, now, "2026-11-23T03:31", "2026-11-23T03:31:0", Some("2026-11-23T03:32:0"));
        check(Period::Hour, now, "2026-11-23T03", "2026-11-23T03:0:0", Some("2026-11-23T04:0:0"));
        check(Period::Day, now, "2026-11-23", "2026-11-23T0:0:0", Some("2026-11-24T0:0:0"));
        check(Period::Week, now, "2026-W48", "2026-11-23T0:0:0", Some("2026-11-30T0:0:0"));
        check(Period::Month, now, "2026-11", "2026-11-01T0:0:0", Some("2026-12-01T0:0:0"));
        check(Period::Year, now, "2026", "2026-01-01T0:0:0", Some("2027-01-01T0:0:0"));
        check(Period::Eternity, now, "ever", "1970-01-01T0:0:0", None);
    }

    #[test]
    fn edges_of_the_calendar() {
        let last = "2028-02-29T23:59:59"; // leap day, a Tuesday
        check(Period::Month, last, "2028-02", "2028-02-01T0:0:0", Some("2028-03-01T0:0:0"));
        check(Period::Week, last, "2028-W09", "2028-02-28T0:0:0", Some("2028-03-06T0:0:0"));
        // 1 January 2027 is a Friday: its ISO week still belongs to 2026.
        check(Period::Week, "2027-01-01T00:00:00", "2026-W53", "2026-12-28T0:0:0", Some("2027-01-04T0:0:0"));
        check(Period::Month, "2026-12-31T23:59:59", "2026-12", "2026-12-01T0:0:0", Some("2027-01-01T0:0:0"));
    }

    #[test]
    fn seconds_left_round_up() {
        let window = Period::Minute.window(Timestamp::from_unix_s(120));
        assert_eq!(window.seconds_left(Timestamp::from_unix_ms(120_000)), Some(60));
        assert_eq!(window.seconds_left(Timestamp::from_unix_ms(179_001)), Some(1));
        assert_eq!(
            Period::Eternity.window(Timestamp::from_unix_s(1)).seconds_left(Timestamp::default()),
            None
        );
    }

    #[test]
    fn months_are_those_of_the_calendar() {
        for day in 0..=UNIX_MS_MAX / DAY_MS {
            let date = Timestamp::from_unix_ms(day * DAY_MS).calendar().date();
            let expected = (i64::from(date.year()), i64::from(u8::from(date.month())));
            assert_eq!(year_and_month(day), expected, "{date}");
            let first = Date::from_calendar_date(date.year(), date.month(), 1).unwrap();
            let start_ms = first.midnight().assume_utc().unix_timestamp() * 1_000;
            assert_eq!(month_start_ms(expected.0, expected.1), start_ms, "{date}");
        }
    }

    proptest! {
        #[test]
        fn windows_tile_the_time_line(unix_ms in 0..UNIX_MS_MAX - WEEK_MS * 60) {
            let now = Timestamp::from_unix_ms(unix_ms);
            for period in Period::ALL {
                let window = period.window(now);
                prop_assert!(window.start <= now);
                let Some(end) = window.end else { continue };
                prop_assert!(now < end);
                // The next window begins where this one ends, under another name; the last instant is still inside.
                let next = period.window(end);
                prop_assert_eq!(next.start, end);
                prop_assert_ne!(next.to_string(), window.to_string());
                prop_assert_eq!(period.window(end.plus_ms(-1)), window);
            }
        }
    }
}
