//! Refills of credits: their amount, and the times at which they are due.
//!
//! All times are UTC. In a month without the stated day, the last day counts.

use std::fmt;

use serde::{Deserialize, Serialize};
use time::{Date, Duration, OffsetDateTime};

use super::FieldError;
use crate::clock::Timestamp;

/// Most credits that a key can have. As a JSON number, it is exact everywhere.
pub const MAX_CREDITS: u64 = 1_000_000_000_000_000;

/// Day 0 of the count of days since 1970, as a Julian day.
const EPOCH_JULIAN_DAY: i32 = 2_440_588;
/// Seconds of a day.
const DAY_SECS: i64 = 86_400;
/// Days in which each kind of refill is due at least once.
const MAX_DAYS: i64 = 62;
/// A time that never comes: that of a refill after the end of the calendar.
const NEVER: Timestamp = Timestamp::from_micros(i64::MAX);

const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Interval of refills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefillInterval {
    /// Every day.
    Day,
    /// Every week.
    Week,
    /// Every month.
    Month,
}

impl RefillInterval {
    /// All intervals.
    pub const ALL: [Self; 3] = [Self::Day, Self::Week, Self::Month];

    /// Returns the name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    /// Parses the name in the API.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|interval| interval.name() == name)
    }
}

/// Days on which refills are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Days {
    Every,
    /// Days since Monday.
    OfWeek(u8),
    /// 1 to 31.
    OfMonth(u8),
}

/// Times at which a refill is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefillSchedule {
    days: Days,
    /// Second of the day.
    second: u32,
}

impl RefillSchedule {
    /// Parses `at` for an interval: a time of day (`03:00`, `03:00:15`), before it the day of the
    /// week (`mon`) or of the month (`15`). The time is midnight and the day the first one unless
    /// given. An RFC 3339 time stands for its time of day, its weekday or its day of the month.
    ///
    /// # Errors
    /// Fails if the text has another form.
    pub fn parse(every: RefillInterval, at: &str) -> Result<Self, FieldError> {
        let problem = || {
            FieldError::new(match every {
                RefillInterval::Day => "must be a time of day in UTC, such as 03:00",
                RefillInterval::Week => "must be a weekday and a time of day in UTC, such as mon 03:00",
                RefillInterval::Month => {
                    "must be a day of the month and a time of day in UTC, such as 1 03:00"
                }
            })
        };
        if let Some(time) = Timestamp::from_rfc3339(at) {
            return Self::at_time(every, time).ok_or_else(problem);
        }
        let words: Vec<&str> = at.split_ascii_whitespace().collect();
        let (day, time) = match words[..] {
            [] => (None, None),
            [word] if word.contains(':') => (None, Some(word)),
            [day] => (Some(day), None),
            [day, time] => (Some(day), Some(time)),
            _ => return Err(problem()),
        };
        let days = match (every, day) {
            (RefillInterval::Day, None) => Some(Days::Every),
            (RefillInterval::Day, Some(_)) => None,
            (RefillInterval::Week, day) => weekday(day.unwrap_or("mon")).map(Days::OfWeek),
            (RefillInterval::Month, day) => {
                let day = day.unwrap_or("1").parse().ok();
                day.filter(|day| (1..=31).contains(day)).map(Days::OfMonth)
            }
        };
        let second = second_of_day(time.unwrap_or("00:00"));
        let (days, second) = days.zip(second).ok_or_else(problem)?;
        Ok(Self { days, second })
    }

    /// Returns the schedule by which a refill is due at `time`.
    fn at_time(every: RefillInterval, time: Timestamp) -> Option<Self> {
        let date = date_of(time)?;
        let days = match every {
            RefillInterval::Day => Days::Every,
            RefillInterval::Week => Days::OfWeek(date.weekday().number_days_from_monday()),
            RefillInterval::Month => Days::OfMonth(date.day()),
        };
        let second = u32::try_from(time.as_secs().rem_euclid(DAY_SECS)).ok()?;
        Some(Self { days, second })
    }

    /// Returns the interval.
    pub const fn every(&self) -> RefillInterval {
        match self.days {
            Days::Every => RefillInterval::Day,
            Days::OfWeek(_) => RefillInterval::Week,
            Days::OfMonth(_) => RefillInterval::Month,
        }
    }

    /// Returns the first time after `now` at which a refill is due.
    pub fn next_after(&self, now: Timestamp) -> Timestamp {
        let Some(today) = date_of(now) else { return NEVER };
        let dates = (0..=MAX_DAYS).map_while(|days| today.checked_add(Duration::days(days)));
        let mut times = dates.filter(|date| self.is_on(*date)).map(|date| self.time_on(date));
        times.find(|time| *time > now).unwrap_or(NEVER)
    }

    fn is_on(&self, date: Date) -> bool {
        match self.days {
            Days::Every => true,
            Days::OfWeek(day) => date.weekday().number_days_from_monday() == day,
            Days::OfMonth(day) => {
                let is_last = date.next_day().is_none_or(|next| next.day() == 1);
                date.day() == day || (is_last && date.day() < day)
            }
        }
    }

    fn time_on(&self, date: Date) -> Timestamp {
        let days = i64::from(date.to_julian_day() - EPOCH_JULIAN_DAY);
        Timestamp::from_secs(days * DAY_SECS + i64::from(self.second))
    }
}

/// Formats `at` in its shortest form.
impl fmt::Display for RefillSchedule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.days {
            Days::Every => {}
            Days::OfWeek(day) => {
                let day = WEEKDAYS.get(usize::from(day)).copied().unwrap_or_default();
                write!(out, "{day} ")?;
            }
            Days::OfMonth(day) => write!(out, "{day} ")?,
        }
        let (minutes, second) = (self.second / 60, self.second % 60);
        write!(out, "{:02}:{:02}", minutes / 60, minutes % 60)?;
        match second {
            0 => Ok(()),
            second => write!(out, ":{second:02}"),
        }
    }
}

/// Returns the date of a time; `None` beyond the calendar.
fn date_of(time: Timestamp) -> Option<Date> {
    OffsetDateTime::from_unix_timestamp(time.as_secs()).ok().map(OffsetDateTime::date)
}

/// Parses `mon` or `monday`, in any case, to the number of days since Monday.
fn weekday(text: &str) -> Option<u8> {
    const NAMES: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    let is_it =
        |names: (&&str, &&str)| names.0.eq_ignore_ascii_case(text) || names.1.eq_ignore_ascii_case(text);
    let day = WEEKDAYS.iter().zip(&NAMES).position(is_it)?;
    u8::try_from(day).ok()
}

/// Parses `HH:MM` or `HH:MM:SS`, with `Z` behind it or not.
fn second_of_day(text: &str) -> Option<u32> {
    let text = text.strip_suffix(['Z', 'z']).unwrap_or(text);
    let part = |text: &str, end: u32| {
        let is_number = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u32>().ok().filter(|number| is_number && *number < end)
    };
    let parts: Vec<&str> = text.split(':').collect();
    match parts[..] {
        [hours, minutes] => Some(part(hours, 24)? * 3_600 + part(minutes, 60)? * 60),
        [hours, minutes, seconds] => {
            Some(part(hours, 24)? * 3_600 + part(minutes, 60)? * 60 + part(seconds, 60)?)
        }
        _ => None,
    }
}

/// A refill: fills credits up to an amount, each time that one is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refill {
    /// Credits that there are at least after it.
    pub amount: u64,
    /// Times at which it is due.
    pub schedule: RefillSchedule,
}

/// A refill as stored in a row, in JSON.
#[derive(Serialize, Deserialize)]
struct StoredRefill {
    amount: u64,
    every: String,
    at: String,
}

impl Refill {
    /// Checks an amount.
    ///
    /// # Errors
    /// Fails if it is none, or too large.
    pub fn check_amount(amount: i64) -> Result<u64, FieldError> {
        let amount = u64::try_from(amount).ok().filter(|amount| (1..=MAX_CREDITS).contains(amount));
        amount.ok_or(FieldError::new("must be 1 to 1000000000000000"))
    }

    /// Returns the text for a row.
    pub fn to_stored(&self) -> String {
        let (every, at) = (self.schedule.every().name().to_owned(), self.schedule.to_string());
        serde_json::to_string(&StoredRefill { amount: self.amount, every, at }).unwrap_or_default()
    }

    /// Reads the text of a row.
    pub fn from_stored(text: &str) -> Option<Self> {
        let StoredRefill { amount, every, at } = serde_json::from_str(text).ok()?;
        let schedule = RefillSchedule::parse(RefillInterval::from_name(&every)?, &at).ok()?;
        Some(Self { amount, schedule })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};

    fn time(text: &str) -> Timestamp {
        Timestamp::from_rfc3339(text).unwrap()
    }

    fn schedule(every: RefillInterval, at: &str) -> RefillSchedule {
        RefillSchedule::parse(every, at).unwrap()
    }

    #[test]
    fn a_time_has_several_forms_and_one_is_shown() {
        use RefillInterval::{Day, Month, Week};
        for (every, at, shown) in [
            (Day, "", "00:00"),
            (Day, "03:30", "03:30"),
            (Day, "03:30:15Z", "03:30:15"),
            (Day, "2026-12-01T01:30:00+02:00", "23:30"),
            (Week, "", "mon 00:00"),
            (Week, "Friday", "fri 00:00"),
            (Week, "SUN 23:59", "sun 23:59"),
            (Week, "12:00", "mon 12:00"),
            (Week, "2026-12-01T00:00:00Z", "tue 00:00"),
            (Month, "", "1 00:00"),
            (Month, "31 06:00", "31 06:00"),
            (Month, "06:00", "1 06:00"),
            (Month, "2026-12-15T00:00:00Z", "15 00:00"),
        ] {
            assert_eq!(schedule(every, at).to_string(), shown, "{every:?} {at}");
        }
        for (every, at) in [
            (Day, "mon 00:00"),
            (Day, "1"),
            (Day, "24:00"),
            (Day, "3:00"),
            (Day, "03:60"),
            (Day, "03:00:60"),
            (Day, "03"),
            (Week, "1 00:00"),
            (Week, "mon 00:00 UTC"),
            (Month, "0 00:00"),
            (Month, "32 00:00"),
            (Month, "mon 00:00"),
            (Month, "-1"),
        ] {
            assert!(RefillSchedule::parse(every, at).is_err(), "{every:?} {at}");
        }
    }

    #[test]
    fn short_months_end_earlier() {
        let monthly = schedule(RefillInterval::Month, "31 12:00");
        let mut at = time("2027-12-31T12:00:00Z");
        for due in ["2028-01-31", "2028-02-29", "2028-03-31", "2028-04-30", "2028-05-31"] {
            at = monthly.next_after(at);
            assert_eq!(at.to_rfc3339(), format!("{due}T12:00:00Z"));
        }
        assert_eq!(monthly.next_after(NEVER), NEVER);
    }

    fn schedules() -> impl Strategy<Value = RefillSchedule> {
        let days = (0..3_u8, 0..7_u8, 1..=31_u8).prop_map(|(kind, weekday, day)| match kind {
            0 => Days::Every,
            1 => Days::OfWeek(weekday),
            _ => Days::OfMonth(day),
        });
        (days, 0..86_400_u32).prop_map(|(days, second)| RefillSchedule { days, second })
    }

    /// Says whether a refill is due in a second, by the calendar's text alone. 1970 began on a
    /// Thursday.
    fn is_due(schedule: &RefillSchedule, secs: i64) -> bool {
        let text = Timestamp::from_secs(secs).to_rfc3339();
        let tomorrow = Timestamp::from_secs(secs + DAY_SECS).to_rfc3339();
        let day = |text: &str| text[8..10].parse::<u8>().unwrap();
        let on_day = match schedule.days {
            Days::Every => true,
            Days::OfWeek(weekday) => (secs.div_euclid(DAY_SECS) + 3).rem_euclid(7) == i64::from(weekday),
            Days::OfMonth(wanted) => day(&text) == wanted || (day(&text) < wanted && day(&tomorrow) == 1),
        };
        on_day && secs.rem_euclid(DAY_SECS) == i64::from(schedule.second)
    }

    proptest! {
        #[test]
        fn the_next_time_is_the_first_that_the_calendar_has(
            schedule in schedules(),
            now in 0..4_000_000_000_000_000_i64,
        ) {
            let now = Timestamp::from_micros(now);
            let next = schedule.next_after(now);
            prop_assert!(next > now && is_due(&schedule, next.as_secs()), "{next:?}");
            // The only second of each day that could be due, before that.
            let day = now.as_secs().div_euclid(DAY_SECS);
            for day in day..=next.as_secs().div_euclid(DAY_SECS) {
                let at = day * DAY_SECS + i64::from(schedule.second);
                let is_between = Timestamp::from_secs(at) > now && at < next.as_secs();
                prop_assert!(!is_between || !is_due(&schedule, at));
            }
        }

        #[test]
        fn a_refill_survives_its_row(schedule in schedules(), amount in any::<u32>()) {
            let refill = Refill { amount: u64::from(amount), schedule };
            prop_assert_eq!(Refill::from_stored(&refill.to_stored()), Some(refill));
        }
    }
}
