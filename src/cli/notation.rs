//! How times, days and spans are written on the command line.

use crate::auth::UnixTime;
use crate::limits::usage::Day;
use anyhow::{Context as _, bail};
use std::time::Duration;
use time::format_description::well_known::Rfc3339;
use time::{Date, Month, OffsetDateTime};

/// `2027-01-31T00:00:00Z`.
pub(super) fn show_time(time: UnixTime) -> String {
    i64::try_from(time.as_secs())
        .ok()
        .and_then(|secs| OffsetDateTime::from_unix_timestamp(secs).ok())
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{} s after 1970", time.as_secs()))
}

/// Reads `2027-01-31T00:00:00Z`.
pub(super) fn parse_time(text: &str) -> anyhow::Result<UnixTime> {
    let time = OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|_| anyhow::anyhow!("expected a time like `2027-01-31T00:00:00Z`"))?;
    let secs = u64::try_from(time.unix_timestamp()).context("times begin in 1970")?;
    Ok(UnixTime::from_secs(secs))
}

/// Reads `90d`, `24h`, `10min` or `30s`.
pub(super) fn parse_span(text: &str) -> anyhow::Result<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit: u64 = match unit {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 604_800,
        _ => bail!("expected a span like `90d`, `24h`, `10min` or `30s`"),
    };
    let number: u64 =
        number.parse().map_err(|_| anyhow::anyhow!("expected a span like `90d` or `24h`"))?;
    let secs = number.checked_mul(unit).context("this span is too long")?;
    Ok(Duration::from_secs(secs))
}

/// 1970-01-01, as a Julian day.
const EPOCH: i32 = 2_440_588;

/// `2027-01-31`.
pub(super) fn show_day(day: Day) -> String {
    let date = i32::try_from(day.0)
        .ok()
        .and_then(|days| Date::from_julian_day(EPOCH.checked_add(days)?).ok());
    match date {
        Some(date) => {
            format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day())
        }
        None => format!("{} d after 1970", day.0),
    }
}

/// Reads `2027-01-31`.
pub(super) fn parse_day(text: &str) -> anyhow::Result<Day> {
    read_day(text).context("expected a day like `2027-01-31`, from 1970 on")
}

fn read_day(text: &str) -> Option<Day> {
    let shape: Vec<usize> = text.split('-').map(str::len).collect();
    if shape != [4, 2, 2] || !text.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit()) {
        return None;
    }
    let mut parts = text.split('-').map(|part| part.parse::<u16>().ok());
    let year = i32::from(parts.next()??);
    let month = Month::try_from(u8::try_from(parts.next()??).ok()?).ok()?;
    let day = u8::try_from(parts.next()??).ok()?;
    let date = Date::from_calendar_date(year, month, day).ok()?;
    u32::try_from(date.to_julian_day() - EPOCH).ok().map(Day)
}

/// The day of a time.
pub(super) fn day_of(time: UnixTime) -> Day {
    Day(u32::try_from(time.as_secs() / 86_400).unwrap_or(u32::MAX))
}

/// The first day of a day's month.
pub(super) fn first_of_month(day: Day) -> Day {
    let date = i32::try_from(day.0)
        .ok()
        .and_then(|days| Date::from_julian_day(EPOCH.checked_add(days)?).ok());
    date.map_or(day, |date| Day(day.0.saturating_sub(u32::from(date.day()) - 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_times_are_read_strictly() {
        for (text, secs) in [
            ("30s", 30),
            ("10min", 600),
            ("5m", 300),
            ("24h", 86_400),
            ("0s", 0),
            ("2w", 1_209_600),
        ] {
            assert_eq!(parse_span(text).unwrap(), Duration::from_secs(secs), "{text}");
        }
        for text in ["", "90", "d", "1.5h", "-1h", "90 d", "1y", "99999999999999999999d"] {
            assert!(parse_span(text).is_err(), "{text}");
        }
        let time = parse_time("2027-01-31T02:00:00+02:00").unwrap();
        assert_eq!(show_time(time), "2027-01-31T00:00:00Z");
        for text in ["2027-01-31", "tomorrow", "1969-12-31T23:59:59Z"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn days_are_read_strictly() {
        for (text, day) in [
            ("1970-01-01", 0),
            ("1970-02-01", 31),
            ("2024-02-29", 19_782),
            ("2027-01-15", 20_833),
            ("9999-12-31", 2_932_896),
        ] {
            assert_eq!(parse_day(text).unwrap(), Day(day), "{text}");
            assert_eq!(show_day(Day(day)), text);
        }
        for text in [
            "",
            "2027",
            "2027-1-15",
            "2027-02-29",
            "2027-13-01",
            "2027-00-01",
            "1969-12-31",
            "+027-01-15",
            "2027-01-15T00:00:00Z",
            "today",
            "20270115",
            "2027/01/15",
            "2027-01-1\u{e4}",
        ] {
            assert!(parse_day(text).is_err(), "{text}");
        }
        assert_eq!(show_day(Day(u32::MAX)), "4294967295 d after 1970");
    }

    #[test]
    fn a_month_begins_with_its_first_day() {
        for (day, first) in [
            ("2027-01-15", "2027-01-01"),
            ("2024-02-29", "2024-02-01"),
            ("1970-01-01", "1970-01-01"),
        ] {
            let first = parse_day(first).unwrap();
            assert_eq!(first_of_month(parse_day(day).unwrap()), first);
        }
        assert_eq!(day_of(UnixTime::from_secs(1_800_000_000)), Day(20_833));
    }
}
