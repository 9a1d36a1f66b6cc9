//! Timestamps of reported transactions: seconds since 1970, or a date that people write.
//!
//! Reference: Service Management API, section 3.5. What has no year, month and day is no date, and what is no date is
//! now: a client that sends nonsense is not told, as its report is about something that has happened.

use time::{Date, Month};
use weir_core::Timestamp;

/// Longest text that is looked at.
const BYTES_MAX: usize = 64;

/// The instant that a text names; `None`: now.
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    if text.is_empty() || text.len() > BYTES_MAX {
        return None;
    }
    if let Some(seconds) = epoch(text) {
        return Some(Timestamp::from_unix_s(seconds));
    }
    let mut found = Parts::default();
    let mut words = Words(text);
    while let Some(word) = words.next() {
        found.take(word, &mut words)?;
    }
    found.instant()
}

/// Whole seconds, whatever their size: what is beyond all instants is as good as the last.
fn epoch(text: &str) -> Option<i64> {
    const BEYOND: i64 = i64::MAX / 10_000;
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let beyond = if text.starts_with('-') { -BEYOND } else { BEYOND };
    Some(text.parse().unwrap_or(beyond).clamp(-BEYOND, BEYOND))
}

/// A text's numbers, words and single characters in between.
struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    fn take(&mut self, is_part: fn(&u8) -> bool) -> &'a str {
        let length = self.0.bytes().take_while(is_part).count();
        let (word, rest) = self.0.split_at(length);
        self.0 = rest;
        word
    }

    fn number(&mut self) -> Option<(i64, usize)> {
        let digits = self.take(u8::is_ascii_digit);
        Some((digits.parse().ok()?, digits.len()))
    }

    fn skip(&mut self, c: char) -> Option<()> {
        self.0 = self.0.strip_prefix(c)?;
        Some(())
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let first = self.0.chars().next()?;
        Some(match first {
            '0'..='9' => self.take(u8::is_ascii_digit),
            _ if first.is_ascii_alphabetic() => self.take(u8::is_ascii_alphabetic),
            _ => {
                let (word, rest) = self.0.split_at(first.len_utf8());
                self.0 = rest;
                word
            }
        })
    }
}

/// What has been found of a date.
#[derive(Default)]
struct Parts {
    year: Option<i64>,
    month: Option<i64>,
    day: Option<i64>,
    /// Since midnight.
    seconds: Option<i64>,
    /// East of UTC.
    offset_s: i64,
}

impl Parts {
    /// Takes a word, and of those behind it what belongs to it. `None`: there is no such date.
    fn take(&mut self, word: &str, behind: &mut Words<'_>) -> Option<()> {
        match (word.as_bytes()[0], behind.0.chars().next()) {
            (b'0'..=b'9', Some(':')) => self.take_time(word, behind),
            (b'0'..=b'9', Some(separator @ ('-' | '/'))) if self.year.is_none() && word.len() == 4 => {
                self.year = Some(word.parse().ok()?);
                behind.skip(separator)?;
                self.month = Some(behind.number()?.0);
                behind.skip(separator)?;
                self.day = Some(behind.number()?.0);
                Some(())
            }
            (b'0'..=b'9', _) => self.take_number(word),
            (b'+' | b'-', Some('0'..='9')) if self.seconds.is_some() => self.take_offset(word, behind),
            (letter, _) if letter.is_ascii_alphabetic() => self.take_word(word),
            _ => Some(()),
        }
    }

    fn take_time(&mut self, hours: &str, behind: &mut Words<'_>) -> Option<()> {
        behind.skip(':')?;
        let (minutes, _) = behind.number()?;
        let seconds = match behind.skip(':') {
            Some(()) => behind.number()?.0,
            None => 0,
        };
        if behind.skip('.').is_some() {
            behind.number()?;
        }
        self.seconds = Some(clock(hours.parse().ok()?, minutes, seconds)?);
        Some(())
    }

    /// Numbers without a colon: `20261123`, or day, month and year in the order in which people write them.
    fn take_number(&mut self, digits: &str) -> Option<()> {
        let number: i64 = digits.parse().ok()?;
        match digits.len() {
            8 if self.year.is_none() => {
                (self.year, self.month, self.day) =
                    (Some(number / 10_000), Some(number / 100 % 100), Some(number % 100));
            }
            6 if self.day.is_some() && self.seconds.is_none() => {
                self.seconds = clock(number / 10_000, number / 100 % 100, number % 100);
            }
            1 | 2 if self.day.is_none() => self.day = Some(number),
            1 | 2 if self.month.is_none() => self.month = Some(number),
            // A year of two digits is of this century, or of the last.
            2 if self.year.is_none() => self.year = Some(number + if number < 69 { 2_000 } else { 1_900 }),
            4 if self.year.is_none() => self.year = Some(number),
            _ => return None,
        }
        Some(())
    }

    fn take_offset(&mut self, sign: &str, behind: &mut Words<'_>) -> Option<()> {
        let (number, length) = behind.number()?;
        let (hours, minutes) = match (length, behind.skip(':')) {
            (1 | 2, Some(())) => (number, behind.number()?.0),
            (1 | 2, None) => (number, 0),
            (4, None) => (number / 100, number % 100),
            _ => return None,
        };
        if hours > 24 || minutes > 59 {
            return None;
        }
        let offset_s = hours * 3_600 + minutes * 60;
        self.offset_s = if sign == "-" { -offset_s } else { offset_s };
        Some(())
    }

    /// A month, half of a day or a zone; names of days, and what is between date and time, say nothing.
    fn take_word(&mut self, word: &str) -> Option<()> {
        const MONTHS: [&str; 12] =
            ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
        let is =
            |month: &&str| word.len() >= 3 && word.as_bytes()[..3].eq_ignore_ascii_case(month.as_bytes());
        if let Some(place) = MONTHS.iter().position(is) {
            self.month = i64::try_from(place + 1).ok();
        } else if let Some(seconds) = self.seconds {
            match word.to_ascii_lowercase().as_str() {
                "am" if seconds >= HALF_DAY_S => self.seconds = Some(seconds - HALF_DAY_S),
                "pm" if seconds < HALF_DAY_S => self.seconds = Some(seconds + HALF_DAY_S),
                "am" | "pm" | "z" | "utc" | "gmt" => {}
                // Another zone, by a name that may mean several.
                _ => return None,
            }
        }
        Some(())
    }

    fn instant(self) -> Option<Timestamp> {
        let month = Month::try_from(u8::try_from(self.month?).ok()?).ok()?;
        let day = u8::try_from(self.day?).ok()?;
        let date = Date::from_calendar_date(i32::try_from(self.year?).ok()?, month, day).ok()?;
        let midnight = date.midnight().assume_utc().unix_timestamp();
        Some(Timestamp::from_unix_s(midnight + self.seconds.unwrap_or(0) - self.offset_s))
    }
}

const HALF_DAY_S: i64 = 12 * 3_600;

/// Seconds since midnight; `None`: there is no such time.
fn clock(hours: i64, minutes: i64, seconds: i64) -> Option<i64> {
    (hours <= 24 && minutes <= 59 && seconds <= 60).then(|| hours * 3_600 + minutes * 60 + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<i64>) {
        assert_eq!(parse(text).map(Timestamp::unix_s), expected, "{text:?}");
    }

    /// 2026-11-23 18:00:05 UTC.
    const THEN: i64 = 1_795_456_805;

    #[test]
    fn seconds_since_1970() {
        check("1795456805", Some(THEN));
        check(" 1795456805 ", Some(THEN));
        check("0", Some(0));
        check("-5", Some(0));
        check("2001", Some(2001));
    }

    #[test]
    fn dates() {
        let midnight = THEN - 18 * 3_600 - 5;
        check("2026-11-23", Some(midnight));
        check("2026-11-23 18:00:05", Some(THEN));
        check("2026-11-23T18:00:05Z", Some(THEN));
        check("2026-11-23T18:00:05.789Z", Some(THEN));
        check("2026-11-23 18:00:05 +00:00", Some(THEN));
        check("2026-11-23 18:00:05 UTC", Some(THEN));
        check("2026-11-24 03:00:05 +09:00", Some(THEN));
        check("2026-11-23T10:30:05-07:30", Some(THEN));
        check("2026-11-23 10:30:05 -0730", Some(THEN));
        check("2026/11/23 18:00", Some(THEN - 5));
        check("Mon, 23 Nov 2026 18:00:05 GMT", Some(THEN));
        check("Nov 23, 2026 18:00:05", Some(THEN));
        check("23 November 2026", Some(midnight));
        check("23/11/2026", Some(midnight));
        check("20261123", Some(20_261_123));
        check("20261123T180005Z", Some(THEN));
        check("Monday, 23-Nov-26 18:00:05 GMT", Some(THEN));
        check("2026-11-23 06:00:05 PM", Some(THEN));
        check("2026-11-23 12:00:00 AM", Some(midnight));
        check("Mon Nov 23 18:00:05 2026", Some(THEN));
    }

    #[test]
    fn what_is_no_date_is_now() {
        for text in [
            "",
            " ",
            "yesterday-ish",
            "12:30",
            "2026-11",
            "2026-13-01",
            "2026-02-30",
            "2026-11-23 99:00:00",
            "2026-11-23 111111111111111111:00",
            "2026-11-23 18:00 EST",
        ] {
            check(text, None);
        }
        check(&"1".repeat(65), None);
        check("é", None);
    }
}
